"""Earlier fakes for a discriminator to look at."""

from typing import Any

import torch
from torch import Tensor

from ..parallel import gather, process_count, process_rank


class ImagePool:
    """Shows a discriminator earlier fakes in place of half of the new ones (Shrivastava et al. 2017, section 2.3).

    While the pool is being filled, every image is kept and shown. Then each image is shown with probability 1/2; else a
    random image of the pool is, and the new one takes its place. All processes keep the same pool, of the images of all
    of them in the order in which one process would have made them; so the checkpoint of one process is that of all.

    Args:
        size: images to keep; 0 shows every image as it comes.
    """

    def __init__(self, size: int = 50) -> None:
        if size < 0:
            raise ValueError(f"ImagePool: size={size} must not be negative; 0 is no pool.")
        self.size = size
        self.images: list[Tensor] = []

    def query(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """New fakes (B, C, X, Y) of this process -> what to show, the same shape; without gradient.

        Args:
            images: the same number on every process.
            generator: on the CPU, in the same state on every process.
        """
        images = images.detach()
        if self.size == 0:
            return images
        everyone = _of_all_processes(images)  # (count B, C, X, Y)
        keep_new = (torch.rand(len(everyone), generator=generator) < 0.5).tolist()
        places = torch.randint(self.size, (len(everyone),), generator=generator).tolist()
        shown = []
        for image, new, place in zip(everyone, keep_new, places, strict=True):
            if len(self.images) < self.size:
                self.images.append(image.clone())  # a view would keep its whole batch
                shown.append(image)
            elif new:
                shown.append(image)
            else:
                shown.append(self.images[place].to(image.device))
                self.images[place] = image.clone()
        return torch.stack(shown[process_rank() :: process_count()])

    def state_dict(self) -> dict[str, Tensor]:
        """The images, for the training checkpoint."""
        return {"images": torch.stack([image.cpu() for image in self.images]) if self.images else torch.empty(0)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the images from a training checkpoint."""
        if len(state["images"]) > self.size:
            raise ValueError(f"ImagePool: {len(state['images'])} images were saved, the pool holds {self.size}.")
        self.images = list(state["images"])


def _of_all_processes(images: Tensor) -> Tensor:
    """Process r of n holds every n-th image from r on: (B, ...) each -> (n B, ...)."""
    return gather(images).unflatten(0, (process_count(), len(images))).transpose(0, 1).flatten(0, 1)
