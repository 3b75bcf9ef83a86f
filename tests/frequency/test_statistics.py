"""Coefficient statistics against NumPy on the same coefficients, and weights against the published ones."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch import Tensor

from common.frequency.codec import encode_image
from common.frequency.statistics import CoefficientStatistics, frequency_weights

ACDC_ENTROPY = [5.883, 3.501, 3.575, 2.418, 2.75, 2.341, 1.479, 2.017, 2.044, 1.453, 1.316, 1.586, 1.365, 1.174, 1.108]
ACDC_ENTROPY += [1.0]
ACDC_WEIGHTS = [2.689, 1.6, 1.634, 1.105, 1.257, 1.07, 0.676, 0.922, 0.934, 0.664, 0.601, 0.725, 0.624, 0.537, 0.506]
ACDC_WEIGHTS += [0.457]
ACDC_STD = [182.433, 32.822, 34.997, 14.001, 17.621, 13.189, 5.791, 9.609, 9.805, 5.653, 4.634, 6.503, 4.964, 3.796]
ACDC_STD += [3.44, 2.178]


def _images() -> Tensor:
    """Smooth bright patches on a darker ground with noise: DC broad, high frequencies narrow; (60, 32, 32)."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(60, 1, 6, 6, generator=generator).square() * 255
    smooth = torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bilinear")[:, 0]
    return (smooth + 3 * torch.randn(60, 32, 32, generator=generator)).clamp(0, 255)


def _coefficients(images: Tensor, dropped: int = 0) -> np.ndarray:
    """All grey-level coefficients, (N, K), float64."""
    tokens = encode_image(images, block=4, dropped=dropped, eta=1.0)
    return tokens.unflatten(-1, (4, -1)).flatten(0, 2).double().numpy()


def _with_entropy(entropy: list[float]) -> CoefficientStatistics:
    ones = torch.ones(len(entropy))
    return CoefficientStatistics(
        block=4, dropped=16 - len(entropy), shift=128.0, eta=502.5, eta_rule="percentile", tau=98.25, mean=ones,
        std=ones, minimum=ones, maximum=ones, windowed_std=ones, entropy=torch.tensor(entropy), num_slices=1,
    )  # fmt: skip


@pytest.mark.parametrize("dropped", [0, 4])
def test_moments_and_range_are_those_of_all_coefficients(dropped: int) -> None:
    images = _images()
    statistics = CoefficientStatistics.from_images(images.split(25), block=4, dropped=dropped)
    values = _coefficients(images, dropped)
    assert statistics.num_slices == 60
    for actual, expected in [
        (statistics.mean, values.mean(0)),
        (statistics.std, values.std(0)),
        (statistics.minimum, values.min(0)),
        (statistics.maximum, values.max(0)),
    ]:
        np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("eta_rule", ["percentile", "max"])
def test_scale_window_and_entropy_equal_numpys_on_float16_coefficients(eta_rule: str) -> None:
    images = _images()
    statistics = CoefficientStatistics.from_images(images.split(25), block=4, eta_rule=eta_rule)
    exact = _coefficients(images)
    values = exact.astype(np.float16).astype(np.float64)
    low, high = np.percentile(values, [1.75, 98.25], axis=0)
    eta = max(abs(low[0]), abs(high[0])) if eta_rule == "percentile" else np.abs(exact[:, 0]).max()
    assert statistics.eta == pytest.approx(eta, abs=1e-3)
    for k in range(16):
        inside = values[(values[:, k] > low[k]) & (values[:, k] < high[k]), k]
        assert statistics.windowed_std[k].item() == pytest.approx(inside.std(), rel=1e-5)
        histogram = np.histogram(inside / statistics.eta, bins=100, range=(-1, 1))[0] / len(inside)
        assert statistics.entropy[k].item() == pytest.approx(-(histogram * np.log2(histogram + 1e-9)).sum(), abs=1e-5)


def test_result_does_not_depend_on_the_batches() -> None:
    images = _images()
    together = CoefficientStatistics.from_images([images], block=4)
    apart = CoefficientStatistics.from_images(images.split(7), block=4)
    assert together.eta == apart.eta
    torch.testing.assert_close(together.entropy, apart.entropy)
    torch.testing.assert_close(together.std, apart.std)


def test_uniform_first_coefficient_has_the_entropy_of_its_window() -> None:
    """DC uniform on (-512, 512): eta = 0.965 * 512 and all 100 bins equally full, log2(100) = 6.64 bits."""
    levels = torch.linspace(0, 256, 40_001)[:-1]
    images = levels.view(-1, 1, 1).expand(-1, 8, 8)
    statistics = CoefficientStatistics.from_images(images.split(10_000), block=4)
    assert statistics.eta == pytest.approx(0.965 * 512, abs=0.5)
    assert statistics.entropy[0].item() == pytest.approx(np.log2(100), abs=2e-3)


def test_narrow_symmetric_coefficient_has_one_bit() -> None:
    """0 is an edge between bins, so a narrow distribution around it falls half in each of two bins."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(200, 1, 1, generator=generator) * 255 + 0.5 * torch.randn(200, 16, 16, generator=generator)
    entropy = CoefficientStatistics.from_images([images], block=4).entropy
    torch.testing.assert_close(entropy[1:], torch.ones(15), rtol=0, atol=5e-3)


def test_json_text_restores_every_field() -> None:
    statistics = CoefficientStatistics.from_images([_images()], block=4, dropped=3)
    restored = CoefficientStatistics.from_json(statistics.to_json())
    for field in dataclasses.fields(CoefficientStatistics):
        value, expected = getattr(restored, field.name), getattr(statistics, field.name)
        assert torch.equal(value, expected) if isinstance(expected, Tensor) else value == expected, field.name


def test_raster_order_and_unknown_keys_are_refused() -> None:
    content = json.loads(_with_entropy(ACDC_ENTROPY).to_json())
    with pytest.raises(ValueError, match="order 'raster', not 'zigzag'"):
        CoefficientStatistics.from_json(json.dumps({**content, "order": "raster"}))
    with pytest.raises(ValueError, match=r"unknown keys \['gamma'\]"):
        CoefficientStatistics.from_json(json.dumps({**content, "gamma": 1}))
    content.pop("eta")
    with pytest.raises(ValueError, match=r"missing keys \['eta'\]"):
        CoefficientStatistics.from_json(json.dumps(content))


def test_number_of_coefficients_must_fit_block_and_truncation() -> None:
    statistics = _with_entropy(ACDC_ENTROPY)
    with pytest.raises(ValueError, match="`mean` must hold 12 finite numbers"):
        dataclasses.replace(statistics, dropped=4)
    with pytest.raises(ValueError, match="eta=0"):
        dataclasses.replace(statistics, eta=0.0)
    with pytest.raises(ValueError, match="`std` must hold 16 finite numbers"):
        dataclasses.replace(statistics, std=torch.full((16,), torch.nan))


def test_images_that_cannot_be_counted_are_refused() -> None:
    with pytest.raises(ValueError, match="no images were given"):
        CoefficientStatistics.from_images([], block=4)
    with pytest.raises(ValueError, match="batch 1 holds values that are not finite"):
        CoefficientStatistics.from_images([torch.zeros(1, 8, 8), torch.full((1, 8, 8), torch.nan)], block=4)
    with pytest.raises(ValueError, match=r"batch 0 has shape \(1, 1, 8, 8\); expected images \(N, H, W\)"):
        CoefficientStatistics.from_images([torch.zeros(1, 1, 8, 8)], block=4)
    with pytest.raises(ValueError, match="are all images empty"):
        CoefficientStatistics.from_images([torch.full((1, 8, 8), 128.0)], block=4)
    with pytest.raises(ValueError, match=r"eta_rule='median'; choose one of \('percentile', 'max'\)"):
        CoefficientStatistics.from_images([_images()], block=4, eta_rule="median")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"tau=1\.75 must be a percentile"):
        CoefficientStatistics.from_images([_images()], block=4, tau=1.75)


def test_linear_weights_of_the_published_entropies_are_the_published_weights() -> None:
    weights = frequency_weights(_with_entropy(ACDC_ENTROPY), "entropy_linear")
    torch.testing.assert_close(weights, torch.tensor(ACDC_WEIGHTS), rtol=0, atol=6e-4)


def test_exponential_weights_of_the_truncated_published_entropies_are_those_of_the_logged_run() -> None:
    """The logged run with 4 coefficients dropped used temperature 1: first weight 8.657, last 0.118."""
    weights = frequency_weights(_with_entropy(ACDC_ENTROPY[:12]), "entropy_exp", temperature=1.0)
    assert weights[0].item() == pytest.approx(8.657, abs=1e-3)
    assert weights[-1].item() == pytest.approx(0.118, abs=5e-4)
    assert weights.mean().item() == pytest.approx(1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_ratio_of_exponential_weights_is_the_exponential_of_the_entropy_difference(temperature: float) -> None:
    weights = frequency_weights(_with_entropy(ACDC_ENTROPY), "entropy_exp", temperature)
    assert (weights[0] / weights[5]).log().item() == pytest.approx((5.883 - 2.341) / temperature, rel=1e-5)


def test_no_weighting_is_a_row_of_ones() -> None:
    torch.testing.assert_close(frequency_weights(_with_entropy(ACDC_ENTROPY), "none"), torch.ones(16), rtol=0, atol=0)


def test_weights_that_would_silence_a_coefficient_or_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match=r"coefficients \[1\] is 0"):
        frequency_weights(_with_entropy([2.0, 0.0, 1.0]), "entropy_linear")
    with pytest.raises(ValueError, match="temperature=0"):
        frequency_weights(_with_entropy(ACDC_ENTROPY), "entropy_exp", temperature=0)
    with pytest.raises(ValueError, match="kind='entropy'; choose one of"):
        frequency_weights(_with_entropy(ACDC_ENTROPY), "entropy")  # type: ignore[arg-type]


def test_published_spread_says_what_dropping_four_coefficients_costs() -> None:
    """The first 12 of 16 hold 99.85 % of the total variance and 98.3 % of the variance without DC."""
    energy = torch.tensor(ACDC_STD).square()
    assert (energy[:12].sum() / energy.sum()).item() == pytest.approx(0.9985, abs=5e-5)
    assert (energy[1:12].sum() / energy[1:].sum()).item() == pytest.approx(0.983, abs=5e-4)
