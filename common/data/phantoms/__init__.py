"""Embedded phantoms, written as ordinary files in the public layouts."""
