"""Half of what a full pool shows are earlier images, by the given random numbers, the same on every process."""

import pytest
import torch
from torch import Tensor

from common.engines import image_pool as module
from common.engines.image_pool import ImagePool


def numbered(first: int, count: int) -> Tensor:
    """(count, 1, 2, 2), each image filled with a number of its own."""
    return torch.arange(first, first + count).float().reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2)


def numbers(images: Tensor) -> list[int]:
    assert torch.equal(images, images[:, :1, :1, :1].expand_as(images))
    return images[:, 0, 0, 0].int().tolist()


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_pool_that_is_being_filled_shows_every_image() -> None:
    pool = ImagePool(6)
    generator = random()
    assert [numbers(pool.query(numbered(first, 2), generator)) for first in (0, 2, 4)] == [[0, 1], [2, 3], [4, 5]]
    assert numbers(pool.state_dict()["images"]) == [0, 1, 2, 3, 4, 5]


def test_a_full_pool_shows_an_earlier_image_half_of_the_time_and_keeps_the_new_one_in_its_place() -> None:
    pool, generator = ImagePool(10), random()
    pool.query(numbered(0, 10), generator)
    kept = set(range(10))
    earlier = 0
    for number in range(10, 2010):
        (shown,) = numbers(pool.query(numbered(number, 1), generator))
        if shown != number:
            assert shown in kept
            kept = kept - {shown} | {number}
            earlier += 1
        assert set(numbers(pool.state_dict()["images"])) == kept
    assert earlier == pytest.approx(1000, abs=80)  # 3.6 standard deviations


def test_every_place_of_the_pool_is_taken_equally_often() -> None:
    pool, generator = ImagePool(4), random()
    pool.query(numbered(0, 4), generator)
    counts = [0] * 4
    for number in range(4, 2004):
        before = numbers(pool.state_dict()["images"])
        pool.query(numbered(number, 1), generator)
        after = numbers(pool.state_dict()["images"])
        for place in range(4):
            counts[place] += before[place] != after[place]
    assert counts == pytest.approx([250] * 4, abs=55)


def test_what_is_shown_is_a_function_of_images_and_random_numbers() -> None:
    def shown(seed: int) -> list[int]:
        pool, generator = ImagePool(5), random(seed)
        return [number for first in range(0, 60, 3) for number in numbers(pool.query(numbered(first, 3), generator))]

    assert shown(0) == shown(0)
    assert shown(0) != shown(1)


def test_a_restored_pool_goes_on_as_the_saved_one() -> None:
    pool, generator = ImagePool(5), random()
    pool.query(numbered(0, 9), generator)
    restored = ImagePool(5)
    restored.load_state_dict({name: value.clone() for name, value in pool.state_dict().items()})
    for first in range(9, 60, 3):
        assert torch.equal(
            pool.query(numbered(first, 3), random(first)), restored.query(numbered(first, 3), random(first))
        )
    empty = ImagePool(5)
    empty.load_state_dict(ImagePool(5).state_dict())
    assert numbers(empty.query(numbered(7, 2), random())) == [7, 8]
    with pytest.raises(ValueError, match="5 images were saved, the pool holds 4"):
        ImagePool(4).load_state_dict(pool.state_dict())


def test_no_pool_shows_what_comes() -> None:
    pool = ImagePool(0)
    assert torch.equal(pool.query(numbered(3, 40), random()), numbered(3, 40))
    with pytest.raises(ValueError, match="size=-1 must not be negative"):
        ImagePool(-1)


def test_no_gradient_leads_back_to_the_generator() -> None:
    images = numbered(0, 4).clone().requires_grad_()
    for size in (0, 2, 50):
        assert not ImagePool(size).query(2 * images, random()).requires_grad


def test_processes_together_have_the_pool_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each shows its rows of what one process shows, and all keep the same images."""
    alone, pools = ImagePool(5), [ImagePool(5), ImagePool(5)]
    for first in range(0, 60, 4):
        whole = numbered(first, 4)
        monkeypatch.undo()
        expected = alone.query(whole, random(first))
        monkeypatch.setattr(module, "process_count", lambda: 2)
        monkeypatch.setattr(module, "gather", lambda images, whole=whole: torch.cat([whole[::2], whole[1::2]]))
        for rank, pool in enumerate(pools):
            monkeypatch.setattr(module, "process_rank", lambda rank=rank: rank)
            assert torch.equal(pool.query(whole[rank::2], random(first)), expected[rank::2])
            assert torch.equal(pool.state_dict()["images"], alone.state_dict()["images"])
