"""What messages call an image: the file it was read from."""

from monai.data import MetaTensor
from torch import Tensor


def source_name(image: Tensor) -> str:
    """Path of the file behind ``image``, or "the image" where none is known."""
    return str(image.meta.get("filename_or_obj", "the image")) if isinstance(image, MetaTensor) else "the image"
