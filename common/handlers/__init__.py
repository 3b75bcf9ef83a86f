"""Handlers attached to stock MONAI engines."""
