"""Whole networks, one architecture a file."""
