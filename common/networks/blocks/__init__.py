"""Network blocks, one concept a file."""
