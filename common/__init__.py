"""Shared library of the bundles: frequency-domain and latent diffusion for medical images."""

__version__ = "0.1.0"
