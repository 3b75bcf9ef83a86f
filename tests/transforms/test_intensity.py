"""Grey levels: windows by percentile and by given levels."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd

from common.transforms.intensity import (
    FixedWindow,
    FixedWindowd,
    MaskedPercentileWindow,
    ModalityWindowd,
    PaintedLevelsd,
    PeakWindow,
    PercentileWindow,
    PercentileWindowd,
    check_modality,
)


def volume(seed: int = 0, shape: tuple[int, ...] = (2, 12, 10, 5)) -> MetaTensor:
    values = torch.from_numpy(np.random.default_rng(seed).gamma(2.0, 90.0, shape)).float()
    return MetaTensor(values, affine=torch.diag(torch.tensor([1.5, 2.0, 8.0, 1.0])))


def test_percentiles_of_a_ramp_are_known() -> None:
    """Levels 0..1000: percentiles 0.5 and 99.5 are 5 and 995, so y = 255 (x - 5) / 990 between them."""
    ramp = torch.arange(1001.0).reshape(1, 1001, 1, 1)
    expected = (255 * (ramp - 5) / 990).clamp(0, 255)
    torch.testing.assert_close(PercentileWindow()(ramp).as_tensor(), expected)


def test_gain_and_offset_of_the_scanner_do_not_matter() -> None:
    image = volume()
    torch.testing.assert_close(
        PercentileWindow()(3.7 * image + 40).as_tensor(), PercentileWindow()(image).as_tensor(), atol=1e-2, rtol=0
    )


def test_frames_of_a_cine_share_one_window() -> None:
    """A frame that is twice as bright stays twice as bright."""
    frame = volume(shape=(1, 12, 10, 5))
    cine = PercentileWindow(lower=0, upper=100)(torch.cat([frame, 2 * frame]))
    low = float(frame.min()) * 255 / float((2 * frame).max() - frame.min())
    torch.testing.assert_close(cine[1].as_tensor() + low, 2 * (cine[0].as_tensor() + low), atol=1e-2, rtol=0)


def test_quantize_rounds_to_whole_levels() -> None:
    exact, rounded = PercentileWindow()(volume()), PercentileWindow(quantize=True)(volume())
    torch.testing.assert_close(rounded.as_tensor(), exact.as_tensor().round(), atol=0, rtol=0)
    assert not torch.equal(rounded, exact)


def test_the_default_fixed_window_leaves_8_bit_sources_as_they_are() -> None:
    levels = torch.arange(256.0).reshape(1, 16, 16, 1)
    torch.testing.assert_close(FixedWindow()(levels).as_tensor(), levels, atol=1e-4, rtol=0)


def test_a_fixed_window_clips_and_scales() -> None:
    levels = torch.tensor([-2000.0, -1000.0, 0.0, 1000.0, 3000.0]).reshape(1, 5, 1, 1)
    expected = torch.tensor([0.0, 0.0, 127.5, 255.0, 255.0]).reshape(1, 5, 1, 1)
    torch.testing.assert_close(FixedWindow(-1000, 1000)(levels).as_tensor(), expected)


@pytest.mark.parametrize("window", [PercentileWindow(), FixedWindow(20, 500)], ids=["percentile", "fixed"])
def test_inverse_restores_all_but_the_clipped_values(window: PercentileWindow | FixedWindow) -> None:
    image = volume()
    low, high = window.limits(image)
    restored = window.inverse(window(image))
    torch.testing.assert_close(restored.as_tensor(), image.as_tensor().clamp(low, high), atol=1e-3, rtol=0)
    assert not restored.applied_operations
    torch.testing.assert_close(restored.affine, image.affine)


def test_the_source_is_not_changed() -> None:
    image = volume()
    before = image.clone()
    PercentileWindow()(image)
    assert torch.equal(image, before)
    assert not image.applied_operations


@pytest.mark.parametrize("window", [PercentileWindowd("image"), FixedWindowd("image", 20, 500)])
def test_invertd_takes_a_prediction_back_to_the_source_levels(window: PercentileWindowd | FixedWindowd) -> None:
    """As in inference: the prediction is inverted by the trace of the image it came from."""
    transform = Compose([window])
    item = transform({"image": volume()})
    item["pred"] = MetaTensor(torch.full_like(item["image"].as_tensor(), 127.5))
    invert = Invertd("pred", transform, orig_keys="image", nearest_interp=False, to_tensor=True)
    low, high = window.window.limits(volume())
    torch.testing.assert_close(invert(item)["pred"].mean().item(), (low + high) / 2, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (torch.full((1, 20, 20, 5), 7.0), "is constant"),
        (
            torch.zeros(1, 20, 20, 5)
            .index_fill(3, torch.tensor(0), 0.0)
            .index_put((torch.tensor(0),) * 4, torch.tensor(9.0)),
            "is almost constant",
        ),
    ],
    ids=["constant", "one bright voxel"],
)
def test_an_image_without_contrast_is_named(levels: torch.Tensor, message: str) -> None:
    image = MetaTensor(levels, meta={"filename_or_obj": "patient007.nii.gz"})
    with pytest.raises(ValueError, match=rf"patient007\.nii\.gz {message}.*Remove it, or use a fixed window"):
        PercentileWindow()(image)


def test_windows_without_width_are_refused() -> None:
    with pytest.raises(ValueError, match="lower < upper"):
        PercentileWindow(60, 40)
    with pytest.raises(ValueError, match="below high"):
        FixedWindow(5, 5)


HU = FixedWindow(-1024, 3000, output_range=(-1, 1))


@pytest.mark.parametrize(("hounsfield", "level"), [(-3024, -1), (-1024, -1), (988, 0), (3000, 1), (4000, 1)])
def test_hounsfield_units_map_to_known_levels(hounsfield: float, level: float) -> None:
    torch.testing.assert_close(HU(torch.tensor([[float(hounsfield)]])).item(), float(level), atol=1e-6, rtol=0)


def test_hounsfield_units_survive_the_round_trip() -> None:
    levels = torch.linspace(-1024, 3000, 40_001)[None]
    torch.testing.assert_close(HU.inverse(HU(levels)).as_tensor(), levels, atol=1e-3, rtol=0)


def test_a_percentile_window_fills_its_output_range() -> None:
    ramp = torch.arange(1001.0).reshape(1, 1001, 1, 1)
    window = PercentileWindow(output_range=(-1, 1))
    scaled = window(ramp)
    torch.testing.assert_close(scaled.as_tensor(), (2 * (ramp - 5) / 990 - 1).clamp(-1, 1))
    torch.testing.assert_close(window.inverse(scaled).as_tensor(), ramp.clamp(5, 995), atol=1e-3, rtol=0)


def test_the_peak_is_the_percentile_of_the_voxels_above_zero() -> None:
    """Levels 1..1000 and as many zeros: the 99.5th percentile of 1..1000 is 1 + 0.995 * 999."""
    levels = torch.cat([torch.zeros(1000), torch.arange(1.0, 1001)]).reshape(1, 20, 100, 1)
    peak = 1 + 0.995 * 999
    window = PeakWindow()
    scaled = window(levels)
    torch.testing.assert_close(scaled.as_tensor(), (2 * levels / peak - 1).clamp(max=1))
    torch.testing.assert_close(window.inverse(scaled).as_tensor(), levels.clamp(max=peak), atol=1e-3, rtol=0)


def test_spikes_do_not_move_the_peak_and_background_stays_at_the_bottom() -> None:
    levels = volume(shape=(1, 20, 20, 10))
    levels[:, :5] = 0
    spiked = levels.clone()
    spiked[0, 10, 10, 5] = 1e6
    assert PeakWindow().limits(spiked)[1] == pytest.approx(PeakWindow().limits(levels)[1], rel=0.02)
    assert (PeakWindow()(spiked)[:, :5] == -1).all()


def test_the_peak_is_taken_inside_of_the_mask_only() -> None:
    levels = torch.full((1, 10, 10, 2), 900.0)
    levels[:, 5:] = torch.linspace(50, 100, 100).reshape(1, 5, 10, 2)
    mask = torch.zeros(1, 10, 10, 2, dtype=torch.uint8)
    mask[:, 5:] = 1
    assert PeakWindow().limits(levels, mask)[1] == pytest.approx(50 + 0.995 * 50)
    assert PeakWindow(percentile=100)(levels, mask).as_tensor()[0, -1, -1, -1] == 1


MR_LEVELS = volume(shape=(1, 12, 10, 5))
CT_LEVELS = MR_LEVELS * 3 - 1000


@pytest.mark.parametrize(
    ("levels", "mask", "message"),
    [
        (torch.full((1, 4, 4, 2), 7.0), None, r"is constant \(7 everywhere\)"),
        (torch.zeros(1, 4, 4, 2), None, r"is constant \(0 everywhere\)"),
        (-MR_LEVELS.as_tensor(), None, r"has no voxel above 0\."),
        (MR_LEVELS.as_tensor(), torch.zeros(1, 12, 10, 5), r"has no voxel above 0 inside of its mask\."),
        (
            MR_LEVELS.as_tensor() / 100 - 2,
            None,
            r"holds \d+% negative values down to -1\.\d+, as standardized images",
        ),
        (MR_LEVELS.as_tensor(), torch.ones(1, 12, 10, 4), r"has shape \(12, 10, 5\), its mask \(12, 10, 4\)"),
    ],
    ids=["constant", "zero", "negative", "empty mask", "z-scores", "mask of another shape"],
)
def test_an_image_without_a_peak_is_named(levels: torch.Tensor, mask: torch.Tensor | None, message: str) -> None:
    image = MetaTensor(levels, meta={"filename_or_obj": "patient007.nii.gz"})
    with pytest.raises(ValueError, match=rf"patient007\.nii\.gz {message}"):
        PeakWindow()(image, mask)


def test_ringing_of_interpolated_mr_is_no_standardized_image() -> None:
    levels = MR_LEVELS.as_tensor().clone()
    levels[:, :4] = torch.randn(1, 4, 10, 5, generator=torch.Generator().manual_seed(0))  # air: around 0, half below
    assert PeakWindow()(levels)[:, :4].max() < -0.97


def test_every_volume_is_scaled_by_its_modality_and_back() -> None:
    item = {"source": MR_LEVELS.clone(), "target": CT_LEVELS.clone()}
    window = ModalityWindowd(["source", "target"], ["T1", "CT"])
    scaled = window(item)
    assert torch.equal(scaled["source"].as_tensor(), PeakWindow()(MR_LEVELS).as_tensor())
    assert torch.equal(scaled["target"].as_tensor(), HU(CT_LEVELS).as_tensor())
    assert scaled["source"].meta["intensity_high"] == PeakWindow().limits(MR_LEVELS)[1]
    assert scaled["target"].meta["intensity_high"] == 3000
    restored = window.inverse(scaled)
    high = scaled["source"].meta["intensity_high"]
    torch.testing.assert_close(restored["source"].as_tensor(), MR_LEVELS.as_tensor().clamp(0, high), atol=1e-3, rtol=0)
    torch.testing.assert_close(restored["target"].as_tensor(), CT_LEVELS.as_tensor().clamp(max=3000), atol=1e-3, rtol=0)


def test_the_mask_bounds_the_peak_of_mr() -> None:
    mask = torch.zeros(1, 12, 10, 5, dtype=torch.uint8)
    mask[:, :3] = 1
    scaled = ModalityWindowd("source", ["t1"], mask_key="mask")({"source": MR_LEVELS.clone(), "mask": mask})
    assert scaled["source"].meta["intensity_high"] == PeakWindow().limits(MR_LEVELS[:, :3])[1]


def ramp_in_a_mask() -> tuple[MetaTensor, torch.Tensor]:
    """Levels 500..1500 inside of the mask, far darker and brighter ones outside."""
    levels = torch.cat([torch.full((1000,), -90.0), torch.arange(500.0, 1501), torch.full((999,), 9000.0)])
    mask = torch.cat([torch.zeros(1000), torch.ones(1001), torch.zeros(999)]).to(torch.uint8)
    return MetaTensor(levels.reshape(1, 30, 20, 5)), mask.reshape(1, 30, 20, 5)


def test_percentiles_inside_of_the_mask_become_the_ends_and_the_outside_the_bottom() -> None:
    """Percentiles 0.5 and 99.5 of 500..1500 are 505 and 1495, so y = 2 (x - 505) / 990 - 1 inside of the mask."""
    image, mask = ramp_in_a_mask()
    window = MaskedPercentileWindow()
    scaled = window(image, mask)
    inside = mask > 0
    expected = (2 * (image.as_tensor() - 505) / 990 - 1).clamp(-1, 1)
    torch.testing.assert_close(scaled.as_tensor()[inside], expected[inside])
    assert (scaled.as_tensor()[~inside] == -1).all()
    restored = window.inverse(scaled).as_tensor()
    torch.testing.assert_close(restored[inside], image.as_tensor()[inside].clamp(505, 1495), atol=1e-3, rtol=0)
    torch.testing.assert_close(restored[~inside], torch.full_like(restored[~inside], 505), atol=1e-3, rtol=0)
    assert image[0, 0, 0, 0] == -90


def test_gain_and_offset_of_mr_do_not_matter_inside_of_a_mask() -> None:
    image, mask = ramp_in_a_mask()
    window = MaskedPercentileWindow()
    torch.testing.assert_close(window(0.01 * image - 3, mask), window(image, mask), atol=1e-4, rtol=0)


def test_mr_goes_by_the_lower_percentile_on_request_and_by_its_peak_otherwise() -> None:
    image, mask = ramp_in_a_mask()
    item = {"source": image.clamp(min=0), "mask": mask}
    window = ModalityWindowd("source", ["mr"], mask_key="mask", mr_lower=0.5)
    scaled = window(item)
    assert torch.equal(scaled["source"].as_tensor(), MaskedPercentileWindow()(item["source"], mask).as_tensor())
    assert scaled["source"].meta["intensity_high"] == pytest.approx(1495)
    assert window.inverse(scaled)["source"][0, -1, -1, -1] == pytest.approx(505)
    peak = ModalityWindowd("source", ["mr"], mask_key="mask")(item)["source"]
    assert torch.equal(peak.as_tensor(), PeakWindow()(item["source"], mask).as_tensor())


def test_a_window_in_a_mask_needs_a_mask_with_contrast() -> None:
    image, mask = ramp_in_a_mask()
    image.meta["filename_or_obj"] = "patient007.nii.gz"
    with pytest.raises(ValueError, match=r"patient007\.nii\.gz: the mask is empty"):
        MaskedPercentileWindow()(image, torch.zeros_like(mask))
    with pytest.raises(ValueError, match=r"patient007\.nii\.gz is constant"):
        MaskedPercentileWindow()(image, 1 - mask.reshape(-1).cummax(0).values.reshape(mask.shape))
    with pytest.raises(ValueError, match=r"shape \(30, 20, 5\), its mask \(30, 20, 4\)"):
        MaskedPercentileWindow()(image, mask[..., :4])
    with pytest.raises(ValueError, match=r"mr_lower is a percentile inside of the mask; name it with mask_key"):
        ModalityWindowd("source", ["mr"], mr_lower=0.5)


MED_DIT_HU = ModalityWindowd("target", ["ct"], ct_window=(-1024, 2000), ct_limits=(-1500, 4000))


def test_ct_of_radiotherapy_maps_to_known_levels_and_back() -> None:
    """-1024, 488 and 2000 HU are -1, 0 and 1; metal of 3000 HU is cut to 2000."""
    levels = torch.tensor([-1024.0, 488.0, 2000.0, 3000.0]).reshape(1, 4, 1, 1)
    scaled = MED_DIT_HU({"target": levels})
    torch.testing.assert_close(scaled["target"].as_tensor().flatten(), torch.tensor([-1.0, 0.0, 1.0, 1.0]))
    assert MED_DIT_HU.inverse(scaled)["target"][0, 3] == pytest.approx(2000, abs=1e-3)
    inside = torch.linspace(-1024, 2000, 30_241).reshape(1, -1, 1, 1)
    restored = MED_DIT_HU.inverse(MED_DIT_HU({"target": inside}))["target"].as_tensor()
    torch.testing.assert_close(restored, inside, atol=1e-3, rtol=0)


@pytest.mark.parametrize(("lowest", "highest"), [(-1500, 4000), (-1024, 3071)])
def test_ct_within_its_limits_passes(lowest: float, highest: float) -> None:
    MED_DIT_HU({"target": torch.tensor([lowest, highest]).float().reshape(1, 2, 1, 1)})


@pytest.mark.parametrize(("lowest", "highest"), [(-3024, 1500), (-1000, 30000)], ids=["below", "above"])
def test_ct_out_of_its_limits_is_named_with_what_was_found(lowest: float, highest: float) -> None:
    levels = torch.tensor([lowest, highest]).float().reshape(1, 2, 1, 1)
    ct = MetaTensor(levels, meta={"filename_or_obj": "p1/ct.nii.gz"})
    message = rf"p1/ct\.nii\.gz \(target\) holds values from {lowest} to {highest} HU.* within -1500 \.\. 4000 .*Check"
    with pytest.raises(ValueError, match=message):
        MED_DIT_HU({"target": ct})
    ModalityWindowd("target", ["ct"])({"target": ct})  # no limits unless asked for
    mr = ModalityWindowd("source", ["mr"], ct_limits=(-1500, 4000))
    mr({"source": MetaTensor(torch.tensor([0.0, 1.0, 9000.0]).reshape(1, 3, 1, 1))})  # nor for MR


def test_ct_for_mr_and_mr_for_ct_are_refused_with_file_key_and_remedy() -> None:
    ct = MetaTensor(CT_LEVELS.as_tensor(), meta={"filename_or_obj": "p1/ct.nii.gz"})
    mr = MetaTensor(MR_LEVELS.as_tensor(), meta={"filename_or_obj": "p1/mr.nii.gz"})
    with pytest.raises(ValueError, match=r"p1/ct\.nii\.gz \(source\) looks like CT in Hounsfield units.*Name it 'ct'"):
        ModalityWindowd("source", ["t1"])({"source": ct})
    with pytest.raises(ValueError, match=r"p1/mr\.nii\.gz \(target\) does not look like CT.*Name the MR sequence"):
        ModalityWindowd("target", ["ct"])({"target": mr})


@pytest.mark.parametrize(("lowest", "modality"), [(-100, "flair"), (-30, "t2"), (-201, "ct"), (-3024, "Ct")])
def test_limits_of_what_a_modality_may_hold(lowest: float, modality: str) -> None:
    check_modality(torch.tensor([float(lowest), 500.0]), modality, "source")


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="two rising levels"):
        FixedWindow(0, 1, output_range=(1, -1))
    with pytest.raises(ValueError, match="0 < percentile <= 100"):
        PeakWindow(0)
    with pytest.raises(ValueError, match="one name per key"):
        ModalityWindowd(["source", "target"], "ct")


@pytest.mark.parametrize(
    ("window", "values"), [((0.0, 1.0), (0.0, 0.5, 1.0)), ((-150.0, 650.0), (-150.0, 250.0, 650.0))]
)
def test_painted_levels_become_grey_levels_by_their_own_window(
    window: tuple[float, float], values: tuple[float, ...]
) -> None:
    image = MetaTensor(torch.tensor(values).reshape(1, 3, 1, 1), affine=torch.eye(4))
    result = PaintedLevelsd("image", window)({"image": image})["image"]
    torch.testing.assert_close(result.flatten().as_tensor(), torch.tensor([0.0, 127.5, 255.0]))


def test_images_that_were_not_painted_are_refused_by_name() -> None:
    image = MetaTensor(
        torch.tensor([0.0, 900.0]).reshape(1, 2, 1, 1), affine=torch.eye(4), meta={"filename_or_obj": "mri.nii.gz"}
    )
    with pytest.raises(ValueError, match=r"mri.nii.gz: intensities from 0 to 900, but synthetic images lie in 0..1"):
        PaintedLevelsd("image", (0, 1))({"image": image})
