"""Metrics that MONAI and ignite lack."""
