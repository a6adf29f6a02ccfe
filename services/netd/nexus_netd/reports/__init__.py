"""What netd tells: changes, denials, explanations and figures."""
