"""What netd tells of what guests are refused: denials and explanations."""
