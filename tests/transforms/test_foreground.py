"""Foreground masks of made-up heads whose outline is known, and the background set to air."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.transforms.foreground import ClearBackgroundd, Foreground, ForegroundMaskd

SHAPE = (48, 56, 12)
GRID = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")).astype(float)
SPACING = (3.0, 3.0, 5.0)


def ellipse(x: float, y: float) -> np.ndarray:
    """Solid (X, Y, Z) about the middle with half-axes in voxels."""
    return ((GRID[0] - 23.5) / x) ** 2 + ((GRID[1] - 27.5) / y) ** 2 <= 1


HEAD, SKULL_OUTER, BRAIN = ellipse(20, 24), ellipse(18, 22), ellipse(15, 19)


def volume(voxels: np.ndarray, name: str = "head.nii.gz") -> MetaTensor:
    return MetaTensor(
        torch.from_numpy(voxels[None].astype(np.float32)),
        affine=torch.diag(torch.tensor([*SPACING, 1.0])),
        meta={"filename_or_obj": name},
    )


def mr(seed: int = 0) -> np.ndarray:
    """Noisy air, scalp, dark skull, brain, black ventricles, one spike."""
    generator = np.random.default_rng(seed)
    voxels = np.where(HEAD, 600.0, 0.0)
    voxels[SKULL_OUTER & ~BRAIN] = 20.0
    voxels[BRAIN] = 400.0
    voxels[ellipse(3, 5)] = 5.0
    voxels += np.abs(generator.normal(0, 15, SHAPE)) + 0.1
    voxels[24, 28, 6] = 50_000.0
    return voxels


def ct() -> np.ndarray:
    """Air, skin, bone, brain; -3024 outside of the round field of view."""
    voxels = np.where(HEAD, 40.0, -1000.0)
    voxels[SKULL_OUTER & ~BRAIN] = 1200.0
    voxels[~ellipse(23, 27)] = -3024.0
    return voxels + np.random.default_rng(0).normal(0, 10, SHAPE)


def dice(one: np.ndarray, two: np.ndarray) -> float:
    return 2 * float((one & two).sum()) / float(one.sum() + two.sum())


@pytest.mark.parametrize("voxels", [mr(), ct()], ids=["mr", "ct"])
def test_a_head_is_found_whole_with_dark_skull_and_ventricles(voxels: np.ndarray) -> None:
    mask = Foreground()(volume(voxels))
    assert mask.shape == (1, *SHAPE)
    assert mask.dtype == torch.uint8
    assert dice(mask[0].numpy() > 0, HEAD) > 0.99
    assert mask[0].numpy()[BRAIN].all()
    torch.testing.assert_close(mask.affine, volume(voxels).affine)


def test_a_scalp_that_is_open_by_a_few_mm_still_encloses_the_skull() -> None:
    voxels = mr()
    voxels[22:26, 40:] = 1.0  # 12 mm without scalp, down to the brain
    found = Foreground("head")(volume(voxels))[0].numpy() > 0
    assert found[SKULL_OUTER & (GRID[1] < 36)].all()


def test_what_lies_beside_the_head_is_left_out() -> None:
    voxels = mr()
    voxels[0, 27:29] = 3000.0  # a fiducial, brighter than the head and 9 mm from it
    assert not Foreground()(volume(voxels))[0, :3, 27:29].any()
    voxels = np.where(ellipse(12, 14), 600.0, 0.0) + np.random.default_rng(0).uniform(0, 20, SHAPE)
    voxels[:6, :6] = 600.0  # a bottle of 7 % of the head
    found = Foreground()(volume(voxels))[0].numpy() > 0
    assert not found[:6, :6].any()
    assert dice(found, ellipse(12, 14)) > 0.99


def test_a_stripped_brain_is_what_is_above_zero_islands_included() -> None:
    voxels = np.where(BRAIN, 400.0, 0.0)
    voxels[0, 0, 0] = 1.0
    mask = Foreground()(volume(voxels))[0].numpy() > 0
    np.testing.assert_array_equal(mask, voxels > 0)


def test_auto_takes_a_volume_for_stripped_by_its_zeros_only() -> None:
    """At 30 % zeros and just below, and with as many zeros but a negative voxel."""
    voxels = np.random.default_rng(0).uniform(45, 55, 1000)
    voxels[300:700] -= 44  # above zero, but air for the threshold
    voxels[:300] = 0.0

    def found(values: np.ndarray) -> int:
        return int(Foreground()(volume(values.reshape(10, 10, 10))).sum())

    assert found(voxels) == 700
    voxels[299] = 1.0
    assert found(voxels) < 700
    voxels[299] = 0.0
    voxels[300] = -2.0
    assert found(voxels) < 500


@pytest.mark.parametrize(
    ("voxels", "rule", "message"),
    [
        (np.zeros(SHAPE), "auto", "is all zero, it has no foreground"),
        (np.full(SHAPE, 7.0), "head", r"is constant \(7\), it has no foreground"),
        (
            -np.abs(mr()),
            "positive",
            "is not skull-stripped MR, by the rule positive: 100.0% of its voxels are negative",
        ),
    ],
    ids=["zero", "constant", "negative"],
)
def test_a_volume_without_foreground_is_named(voxels: np.ndarray, rule: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"case7/t1\.nii\.gz {message}"):
        Foreground(rule)(volume(voxels, "case7/t1.nii.gz"))


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="Known are auto, positive, head"):
        Foreground("brain")
    with pytest.raises(ValueError, match="has 2 channels"):
        Foreground()(MetaTensor(torch.rand(2, 4, 4, 4)))
    with pytest.raises(ValueError, match="one key is needed"):
        ForegroundMaskd(["source", "target"])
    with pytest.raises(ValueError, match="one name per key"):
        ClearBackgroundd(["source", "target"], "mask", ["mr"])


def test_a_mask_is_made_where_none_is_given_and_kept_where_one_is() -> None:
    item = {"source": volume(mr())}
    assert torch.equal(ForegroundMaskd("source")(item)["mask"], Foreground()(item["source"]))
    given = volume(np.where(BRAIN, 3.0, 0.0), "mask.nii.gz")
    mask = ForegroundMaskd("source")({**item, "mask": given})["mask"]
    assert mask.dtype == torch.uint8
    np.testing.assert_array_equal(mask[0].numpy(), BRAIN)
    with pytest.raises(ValueError, match=r"mask\.nii\.gz: the mask is empty"):
        ForegroundMaskd("source")({**item, "mask": volume(np.zeros(SHAPE), "mask.nii.gz")})


@pytest.mark.parametrize("order", [(1, 2, 0), (2, 0, 1), (0, 2, 1)], ids=str)
def test_the_head_is_the_same_however_the_file_stores_its_axes(order: tuple[int, int, int]) -> None:
    upright = volume(mr())
    stored = MetaTensor(
        upright.as_tensor().permute(0, *(axis + 1 for axis in order)).contiguous(),
        affine=upright.affine[:, [*order, 3]],
        meta={"filename_or_obj": "stored.nii.gz"},
    )
    expected = Foreground("head")(upright)[0].permute(*order)
    torch.testing.assert_close(Foreground("head")(stored)[0].as_tensor(), expected.as_tensor())


def test_a_tiny_mask_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    tiny = np.zeros(SHAPE)
    tiny[20:24, 20:24, 4:6] = 1
    ForegroundMaskd("source")({"source": volume(mr()), "mask": volume(tiny, "mask.nii.gz")})
    assert "mask.nii.gz: only 0.10 % of the volume is foreground" in caplog.text
    caplog.clear()
    ForegroundMaskd("source")({"source": volume(mr())})
    assert not caplog.text


def test_outside_of_the_mask_mr_is_0_and_ct_is_air() -> None:
    item = {"source": volume(mr()), "target": volume(ct()), "mask": volume(HEAD)}
    cleared = ClearBackgroundd(["source", "target"], "mask", ["mr", "CT"])(item)
    for key, air in (("source", 0), ("target", -1024)):
        assert (cleared[key][0].numpy()[~HEAD] == air).all()
        np.testing.assert_array_equal(cleared[key][0].numpy()[HEAD], item[key][0].numpy()[HEAD])
        assert cleared[key].dtype == torch.float32
    assert not (item["source"][0].numpy()[~HEAD] == 0).any()  # the input was not changed


def test_clearing_refuses_the_wrong_modality_before_its_air_is_gone() -> None:
    item = {"source": volume(mr(), "mr.nii.gz"), "mask": volume(HEAD)}
    with pytest.raises(ValueError, match=r"mr\.nii\.gz \(source\) does not look like CT"):
        ClearBackgroundd("source", "mask", ["ct"])(item)
    with pytest.raises(ValueError, match=r"mr\.nii\.gz has shape \(48, 56, 12\), its mask \(48, 56, 11\)"):
        ClearBackgroundd("source", "mask", ["mr"])({**item, "mask": volume(HEAD[..., 1:])})
