"""Translation between contrasts is not pointwise: what surrounds a voxel decides."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, gaussian_gradient_magnitude

from common.data.phantoms.brain_image import BrainCase
from common.data.phantoms.brain_lesions import Shown
from common.data.phantoms.brain_space import Grid

BINS = 24


def features_of(case: BrainCase) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Features (voxels, 6): T1w, three blurs, edge strength, depth below the skin; and CT, inside the head."""
    image = case.magnetic_resonance("t1n").astype(float)
    inside = case.cranium.outline < 0
    image /= np.percentile(image[inside], 99.5)
    blurs = [gaussian_filter(image, (width, width, 0)) for width in (1, 2, 4)]
    edges = gaussian_gradient_magnitude(image, (1, 1, 0.1))
    maps = [image, *blurs, edges, case.cranium.outline]
    return np.stack([values[inside] for values in maps], axis=-1), case.computed_tomography()[inside].astype(float)


def explained(train: list[NDArray[np.floating]], test: list[NDArray[np.floating]], count: int) -> float:
    """R^2 on test heads of the best additive map of the first ``count`` features, each in bins of equal mass."""
    edges = [np.quantile(train[0][:, k], np.linspace(0, 1, BINS + 1)[1:-1]) for k in range(count)]

    def one_hot(features: NDArray[np.floating]) -> NDArray[np.floating]:
        return np.concatenate([np.eye(BINS)[np.searchsorted(edges[k], features[:, k])] for k in range(count)], axis=1)

    design = one_hot(train[0])
    gram = design.T @ design + 1e-3 * np.eye(design.shape[1])
    weights = np.linalg.solve(gram, design.T @ train[1])
    residual = test[1] - one_hot(test[0]) @ weights
    return float(1 - residual.var() / test[1].var())


@pytest.mark.slow
def test_context_explains_more_of_computed_tomography_than_the_voxel_itself() -> None:
    """Four training heads and two test heads: air and bone are both dark in T1w, and their place tells them apart."""
    pairs = [features_of(BrainCase(0, k, Grid(64, 224.0, 32), Shown())) for k in range(6)]
    train, test = (
        [np.concatenate([pair[part] for pair in chosen]) for part in (0, 1)] for chosen in (pairs[:4], pairs[4:])
    )
    pointwise, context = explained(train, test, 1), explained(train, test, 6)
    assert 0.2 < pointwise < 0.7
    assert context > pointwise + 0.05
