"""What netd does: changes in store and kernel, and their repair."""
