"""FitInPlane: one size for the network, and every voxel back at its place."""

import pytest
import torch
from monai.data import MetaTensor

from common.transforms.in_plane import FitInPlane, FitInPlaned

OBLIQUE = torch.tensor(
    [[0.0, -1.25, 0.3, 12.5], [1.1, 0.0, 0.0, -7.0], [0.0, 0.2, 8.0, 3.0], [0.0, 0.0, 0.0, 1.0]], dtype=torch.float64
)
# A sampled triangle weighs its neighbors a little to one side; an affine wrong by half a pixel would be off by 0.5.
SAMPLED_TRIANGLE = 0.2


def position(shape: tuple[int, int, int], affine: torch.Tensor) -> torch.Tensor:
    """(1, X, Y, Z): ``x - 2 y + z / 2`` of every voxel's place in mm."""
    grid = torch.stack(torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in shape), indexing="ij"))
    places = torch.einsum("ij,jxyz->ixyz", affine[:3, :3], grid) + affine[:3, 3].reshape(3, 1, 1, 1)
    return (places * torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64).reshape(3, 1, 1, 1)).sum(0)[None].float()


def in_space(shape: tuple[int, int, int] = (60, 44, 3)) -> MetaTensor:
    return MetaTensor(position(shape, OBLIQUE), affine=OBLIQUE, meta={"filename_or_obj": "patient005.nii.gz"})


def blob(shape: tuple[int, int, int] = (60, 44, 3)) -> MetaTensor:
    """Smooth image in [-1, 1], -1 at the border."""
    x, y = (torch.linspace(-1, 1, n) for n in shape[:2])
    levels = 2 * torch.exp(-8 * (x[:, None] ** 2 + y[None] ** 2)) - 1
    return MetaTensor(levels[None, :, :, None].repeat(1, 1, 1, shape[2]), affine=OBLIQUE)


FITS = [
    pytest.param(FitInPlane((40, 40)), id="crop"),
    pytest.param(FitInPlane((64, 50)), id="pad"),
    pytest.param(FitInPlane((50, 51)), id="crop and pad"),
    pytest.param(FitInPlane((32, 32), "resize"), id="smaller"),
    pytest.param(FitInPlane((75, 75), "resize"), id="larger"),
    pytest.param(FitInPlane((32, 40), "resize", limit=48), id="limited"),
]


@pytest.mark.parametrize("fit", FITS)
def test_voxels_stay_in_place(fit: FitInPlane) -> None:
    image = fit(in_space())
    assert image.shape == (1, *fit.size, 3)
    expected = position(tuple(image.shape[1:]), image.affine)
    x, y = (image.shape[1] // 2, image.shape[2] // 2)
    middle = (slice(None), slice(x - 8, x + 8), slice(y - 8, y + 8))  # far from the padding
    torch.testing.assert_close(image.as_tensor()[middle], expected[middle], atol=SAMPLED_TRIANGLE, rtol=0)


@pytest.mark.parametrize("fit", FITS)
def test_the_inverse_restores_shape_affine_and_history(fit: FitInPlane) -> None:
    source = in_space()
    restored = fit.inverse(fit(source))
    assert restored.shape == source.shape
    torch.testing.assert_close(restored.affine, OBLIQUE, atol=1e-12, rtol=0)
    assert not restored.applied_operations
    assert not source.applied_operations


@pytest.mark.parametrize("size", [(40, 40), (64, 50), (50, 51)])
def test_a_crop_is_exact_inside_and_background_outside(size: tuple[int, int]) -> None:
    fit, source = FitInPlane(size, fill=-1000.0), in_space()
    restored = fit.inverse(fit(source))
    kept = restored != -1000
    assert kept.sum() == min(size[0], 60) * min(size[1], 44) * 3
    assert torch.equal(restored[kept].as_tensor(), source[kept].as_tensor())


@pytest.mark.parametrize(("size", "floor"), [((48, 48), 45.0), ((75, 75), 50.0)])
def test_a_smooth_image_survives_resizing(size: tuple[int, int], floor: float) -> None:
    fit, source = FitInPlane(size, "resize"), blob()
    restored = fit.inverse(fit(source))
    psnr = 10 * torch.log10(4 / ((restored - source) ** 2).mean())
    assert psnr > floor


@pytest.mark.parametrize("side", [224, 320])
def test_square_pad_and_resize_bring_a_smooth_volume_of_odd_size_back_within_a_hundredth(side: int) -> None:
    fit, source = FitInPlane((side, side), "resize", limit=4096), blob((197, 231, 2))
    squared = fit(source)
    assert squared.shape == (1, side, side, 2)
    assert (squared[:, : int(10 * side / 231)] == -1).all()  # 17 pixels of padding on each side of the shorter axis
    restored = fit.inverse(squared)
    assert restored.shape == source.shape
    torch.testing.assert_close(restored.affine, OBLIQUE, atol=1e-12, rtol=0)
    torch.testing.assert_close(restored.as_tensor(), source.as_tensor(), atol=0.01 * 2, rtol=0)


def test_resizing_takes_the_square_around_the_longer_side_up_to_the_limit() -> None:
    for shape, limit, square in (((60, 44, 1), 256, 60), ((44, 60, 1), 256, 60), ((60, 44, 1), 50, 50)):
        image = FitInPlane((20, 20), "resize", limit)(MetaTensor(torch.zeros(1, *shape), affine=torch.eye(4)))
        torch.testing.assert_close(image.affine.diagonal()[:2], torch.full((2,), square / 20, dtype=torch.float64))


def test_fine_detail_is_averaged_when_shrinking() -> None:
    stripes = torch.full((1, 64, 64, 1), -1.0)
    stripes[:, ::2] = 1.0
    assert FitInPlane((20, 20), "resize")(MetaTensor(stripes, affine=torch.eye(4)))[:, 1:-1].std() < 0.15


def test_label_maps_keep_values_type_and_place() -> None:
    inside = (blob() > 0).to(torch.uint8) * 3
    fit = FitInPlaned(["source", "mask"], (32, 32), "resize", nearest=[False, True])
    item = fit({"source": blob(), "mask": inside})
    assert item["mask"].dtype == torch.uint8
    assert set(item["mask"].unique().tolist()) == {0, 3}
    larger = FitInPlaned(["source", "mask"], (80, 80), nearest=[False, True])({"source": blob(), "mask": inside})
    assert larger["mask"].sum() == inside.sum()  # padded with 0 although the image is padded with -1
    assert larger["source"].min() == -1
    restored = fit.inverse(item)["mask"]
    assert ((restored > 0) != (inside > 0)).float().mean() < 0.02


def test_the_dictionary_form_takes_a_background_for_each_key() -> None:
    item = FitInPlaned(["source", "target"], (80, 80), fill=[-1.0, -5.0])({"source": blob(), "target": blob()})
    assert item["source"][0, 0, 0, 0] == -1
    assert item["target"][0, 0, 0, 0] == -5


def test_lost_foreground_is_logged_once_with_file_and_share(caplog: pytest.LogCaptureFixture) -> None:
    image = MetaTensor(torch.full((1, 40, 40, 1), -1.0), meta={"filename_or_obj": "patient005.nii.gz"})
    image[:, :20, 10:30] = 0.5  # 400 pixels, of which the crop to 30 x 30 takes 15 x 20
    fit = FitInPlane((30, 30))
    for _ in range(2):
        fit(image)
    assert [record.message for record in caplog.records] == [
        "patient005.nii.gz: the crop of 40 x 40 to 30 x 30 pixels loses 25.0 % of the foreground."
    ]
    image[:, :5] = -1.0
    FitInPlane((30, 30))(image)
    assert len(caplog.records) == 1  # a crop of background is nothing to tell


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="two positive numbers"):
        FitInPlane((96, 96, 8))
    with pytest.raises(ValueError, match="Known are crop, resize"):
        FitInPlane((96, 96), "stretch")
    with pytest.raises(ValueError, match="limit=0"):
        FitInPlane((96, 96), "resize", limit=0)
    with pytest.raises(ValueError, match="zip"):
        FitInPlaned(["source", "target"], (96, 96), fill=[-1.0])
