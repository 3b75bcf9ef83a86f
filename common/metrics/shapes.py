"""A check shared by the metrics that compare images pixel by pixel."""

from collections.abc import Mapping

from torch import Tensor


def check_one_shape(where: str, images: Mapping[str, Tensor | None]) -> None:
    """Raise ``ValueError`` unless all images, by name, have one shape: broadcasting would compare the wrong pixels."""
    shapes = {name: tuple(image.shape) for name, image in images.items() if image is not None}
    if len(set(shapes.values())) > 1:
        found = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"{where}: {found} differ in shape; bring them to one grid first, their pixels correspond.")
