"""What stock MONAI engines need to train diffusion models."""
