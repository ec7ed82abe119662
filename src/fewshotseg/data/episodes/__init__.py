"""Episodes drawn from a source, or read from a list."""
