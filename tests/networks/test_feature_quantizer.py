"""The quantizer: nearest codes, gradients that go the right way, and a codebook that lives, or rests when it must."""

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.layers.vector_quantizer import EMAQuantizer
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from common.metrics.codebook_usage import code_usage
from common.networks.blocks.feature_quantizer import CodebookMode, FeatureQuantizer

sys.path.insert(0, str(Path(__file__).parent))
from quantized_training import CODES, Training

MODES: list[CodebookMode] = ["gradient", "ema"]
each_mode = pytest.mark.parametrize("mode", MODES)


def with_codes(codes: list[list[float]] | Tensor, **settings: Any) -> FeatureQuantizer:
    """A quantizer that has begun, with these codes."""
    table = torch.as_tensor(codes)
    quantizer = FeatureQuantizer(num_embeddings=len(table), embedding_dim=table.shape[1], **settings)
    with torch.no_grad():
        quantizer.codebook.copy_(table)
        quantizer.unused.zero_()
        if quantizer.mode == "ema":
            quantizer.sums.copy_(table)
    return quantizer


def latents(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def vectors(latent: Tensor) -> Tensor:
    """(B, C, h, w) -> (M, C)."""
    return latent.permute(0, 2, 3, 1).flatten(0, 2)


def snapshot(quantizer: FeatureQuantizer) -> dict[str, Tensor]:
    return copy.deepcopy(quantizer.state_dict())


def unchanged(quantizer: FeatureQuantizer, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, before[name]) for name, value in quantizer.state_dict().items())


CORNERS = [[0.0, 0.0], [1.0, 1.0], [4.0, 0.0]]
NEAR_THE_SECOND = torch.tensor([0.9, 0.8]).reshape(1, 2, 1, 1)


@pytest.mark.parametrize(("mode", "loss"), [("gradient", 0.025 + 0.25 * 0.025), ("ema", 0.25 * 0.025)])
def test_the_nearest_code_and_the_loss_have_their_hand_values(mode: CodebookMode, loss: float) -> None:
    """Squared distances 1.45, 0.05 and 10.25; 0.05 over two channels is 0.025."""
    quantizer = with_codes(CORNERS, mode=mode).eval()
    value, quantized, indices = quantizer(NEAR_THE_SECOND)
    assert indices.tolist() == [[[1]]]
    assert quantized.flatten().tolist() == [1.0, 1.0]
    assert value.item() == pytest.approx(loss, rel=1e-6)
    assert value.dtype == torch.float32


@pytest.mark.parametrize("offset", [0.0, 3000.0], ids=["about 0", "far from 0"])
def test_codes_are_the_nearest_of_all(offset: float) -> None:
    """Oracle: all distances in float64. Far from 0 the squares of float32 would cancel to steps of 0.5."""
    quantizer = with_codes(latents(50, 3) + offset).eval()
    latent = latents(2, 3, 16, 8, seed=1) + offset
    expected = torch.cdist(vectors(latent).double(), quantizer.codebook.double()).argmin(1).reshape(2, 16, 8)
    assert torch.equal(quantizer.quantize(latent), expected)
    assert torch.equal(quantizer(latent)[2], expected)
    assert len(expected.unique()) > 25


def test_embedded_codes_stand_where_their_indices_do() -> None:
    quantizer = with_codes(latents(7, 3))
    indices = torch.arange(12).reshape(2, 3, 2) % 7
    codes = quantizer.embed(indices)
    assert codes.shape == (2, 3, 3, 2)
    assert torch.equal(codes[1, :, 2, 0], quantizer.codebook[indices[1, 2, 0]])
    assert codes.is_contiguous()


@each_mode
def test_gradients_go_straight_through(mode: CodebookMode) -> None:
    """Bit by bit: the latent gets the gradient of the quantized one, and codes get nothing from it."""
    quantizer = with_codes(latents(9, 3), mode=mode)
    latent, weight = latents(2, 3, 4, 4).requires_grad_(), latents(2, 3, 4, 4, seed=2)
    _, quantized, indices = quantizer.eval()(latent)
    (quantized * weight).sum().backward()
    assert latent.grad is not None
    assert torch.equal(latent.grad, weight)
    assert quantizer.codebook.grad is None
    assert torch.equal(quantized, quantizer.embed(indices))  # codes as they are, not up to rounding


def test_codes_are_pulled_by_the_codebook_term_and_the_encoder_by_the_commitment_term() -> None:
    """d/de mean|F - e|^2 = 2 sum (e - F) / MC over the vectors of e; d/dF of the other: 2 beta (F - e) / MC."""
    quantizer = with_codes(latents(6, 3), commitment=0.4).eval()
    latent = latents(2, 3, 4, 4).requires_grad_()
    loss, _, indices = quantizer(latent)
    loss.backward()
    F, k = vectors(latent.detach()), indices.flatten()
    e = quantizer.codebook.detach()
    expected = torch.zeros_like(e)
    for vector, code in zip(F, k, strict=True):
        expected[code] += 2 * (e[code] - vector) / F.numel()
    assert quantizer.codebook.grad is not None
    assert latent.grad is not None
    torch.testing.assert_close(quantizer.codebook.grad, expected)
    torch.testing.assert_close(vectors(latent.grad), 2 * 0.4 * (F - e[k]) / F.numel())


def test_running_means_have_their_hand_values() -> None:
    """size 0.9 * 1 + 0.1 * 2 = 1.1, sum 0.9 * (1, 1) + 0.1 * (2.2, 1.6); codes without vectors stay where they are."""
    quantizer = with_codes(CORNERS, mode="ema", decay=0.9)
    assert not quantizer.codebook.requires_grad
    quantizer(torch.tensor([[0.9, 0.8], [1.3, 0.8]]).T.reshape(1, 2, 1, 2))
    expected = torch.tensor([[0.0, 0.0], [(0.9 + 0.22) / 1.1, (0.9 + 0.16) / 1.1], [4.0, 0.0]])
    torch.testing.assert_close(quantizer.codebook.detach(), expected)
    assert torch.equal(quantizer.codebook[[0, 2]], torch.tensor([CORNERS[0], CORNERS[2]]))


def test_running_means_outlive_long_neglect() -> None:
    """0.9^n vanishes in float32 after 1000 steps; 0 / 0 would make a code of NaN."""
    quantizer = with_codes(CORNERS, mode="ema", decay=0.9, restart_after=10_000)
    for _ in range(1200):
        quantizer(NEAR_THE_SECOND)
    assert torch.equal(quantizer.codebook[[0, 2]], torch.tensor([CORNERS[0], CORNERS[2]]))
    torch.testing.assert_close(quantizer.codebook[1].detach(), torch.tensor([0.9, 0.8]))


@each_mode
def test_the_first_training_forward_starts_from_data(mode: CodebookMode) -> None:
    """Every code is a vector of the batch, no two the same; in mode ema before its first step."""
    torch.manual_seed(0)
    quantizer = FeatureQuantizer(num_embeddings=20, embedding_dim=3, mode=mode, decay=0.0)
    latent = latents(2, 3, 4, 4)
    loss, _, indices = quantizer(latent)
    if mode == "gradient":
        apart = torch.cdist(quantizer.codebook.detach(), vectors(latent), compute_mode="donot_use_mm_for_euclid_dist")
        assert (apart == 0).sum(1).tolist() == [1] * 20
        assert len(quantizer.codebook.unique(dim=0)) == 20
    assert len(indices.unique()) == 20  # each is the nearest of the vector that it is
    assert loss < 0.5
    assert quantizer.unused.tolist() == [0] * 20


def test_codes_that_start_at_the_same_vector_are_told_apart() -> None:
    torch.manual_seed(0)
    quantizer = FeatureQuantizer(num_embeddings=64, embedding_dim=3)
    latent = latents(1, 3, 3, 3)
    quantizer(latent)
    nearest = torch.cdist(quantizer.codebook.detach(), vectors(latent)).min(1).values
    assert 0 < nearest.max() < 0.01
    assert set(quantizer.unused.tolist()) == {0, 1}  # those that no vector was nearest to wait as others do
    assert len(quantizer.codebook.unique(dim=0)) == 64


@each_mode
def test_codes_do_not_explode_in_the_first_step(mode: CodebookMode) -> None:
    torch.manual_seed(0)
    quantizer = FeatureQuantizer(mode=mode)
    latent = latents(2, 8, 32, 32)
    quantizer(latent)
    assert quantizer.codebook.abs().max() <= 10 * latent.abs().max()


def test_codes_of_monai_do_explode_in_the_first_step() -> None:
    """Why its quantizer is not used: sizes start at 0, so it divides all codes that a batch does not use by 1e-5."""
    torch.manual_seed(0)
    theirs = EMAQuantizer(2, 1024, 8, decay=0.99, embedding_init="kaiming_uniform", ddp_sync=False).train()
    latent = 0.05 * latents(2, 8, 32, 32)
    theirs(latent)
    assert theirs.embedding.weight.abs().max() > 1000 * latent.abs().max()


@each_mode
def test_most_codes_stay_in_use(mode: CodebookMode) -> None:
    """2048 vectors and 256 codes, 200 steps; MONAI's quantizer is left with two."""
    torch.manual_seed(0)
    quantizer = FeatureQuantizer(num_embeddings=256, mode=mode)
    latent = latents(2, 8, 32, 32)
    optimizer = torch.optim.AdamW([quantizer.codebook], lr=1e-2, weight_decay=0) if mode == "gradient" else None
    for _ in range(200):
        loss, _, indices = quantizer(latent)
        if optimizer is not None:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert code_usage(indices.flatten().bincount(minlength=256)).share > 0.9


def test_unused_codes_become_vectors_of_the_batch_in_time_and_no_others() -> None:
    """Two vectors near two codes; the third code is replaced by one of them in the fourth step, the others never."""
    torch.manual_seed(0)
    quantizer = with_codes(CORNERS, restart_after=3)
    latent = torch.tensor([[0.1, 0.2], [0.9, 0.8]]).T.reshape(1, 2, 1, 2)
    for step in range(3):
        assert quantizer.unused.tolist() == [0, 0, step]
        quantizer(latent)
        assert torch.equal(quantizer.codebook, torch.tensor(CORNERS))
    quantizer(latent)
    assert torch.equal(quantizer.codebook[:2], torch.tensor(CORNERS[:2]))
    assert torch.cdist(quantizer.codebook[2:], vectors(latent)).min() < 0.01
    assert quantizer.unused[2] == 0


def test_a_replaced_running_mean_forgets_what_it_was() -> None:
    torch.manual_seed(0)
    quantizer = with_codes([[0.0, 0.0], [50.0, 50.0]], mode="ema", decay=0.9, restart_after=30)
    latent = 1 + 0.1 * latents(1, 2, 4, 4)
    for _ in range(31):
        quantizer(latent)
    assert quantizer.codebook[1].abs().max() <= latent.max()  # neither of the sum 50 * 0.9^30 nor of the size 0.9^30


@each_mode
@pytest.mark.parametrize("begun", [True, False], ids=["begun", "new"])
def test_evaluation_leaves_the_codebook_as_it_is(mode: CodebookMode, begun: bool) -> None:
    torch.manual_seed(0)
    quantizer = FeatureQuantizer(num_embeddings=64, embedding_dim=3, mode=mode, restart_after=1)
    if begun:
        quantizer(latents(2, 3, 4, 4))
    before = snapshot(quantizer.eval())
    for seed in range(3):
        quantizer(latents(2, 3, 4, 4, seed=seed))
    assert unchanged(quantizer, before)


@each_mode
def test_a_frozen_codebook_stays_as_it_is_in_training_mode(mode: CodebookMode) -> None:
    torch.manual_seed(0)
    quantizer = FeatureQuantizer(num_embeddings=64, embedding_dim=3, mode=mode, restart_after=1)
    quantizer(latents(2, 3, 4, 4))
    quantizer = quantizer.freeze().train()
    before, latent = snapshot(quantizer), latents(2, 3, 4, 4, seed=1).requires_grad_()
    loss, quantized, _ = quantizer(latent)
    (loss + quantized.sum()).backward()
    assert unchanged(quantizer, before)
    assert quantizer.codebook.grad is None
    assert latent.grad is not None


@each_mode
def test_asking_for_indices_never_moves_a_code(mode: CodebookMode) -> None:
    quantizer = FeatureQuantizer(num_embeddings=64, embedding_dim=3, mode=mode).train()
    before = snapshot(quantizer)
    assert not quantizer.quantize(latents(2, 3, 4, 4).requires_grad_()).requires_grad
    assert unchanged(quantizer, before)


@each_mode
def test_autocast_changes_nothing(mode: CodebookMode) -> None:
    quantizer = with_codes(latents(200, 8), mode=mode)
    latent, other = latents(2, 8, 16, 16), copy.deepcopy(quantizer)
    expected = quantizer(latent)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = other(latent)
        indices = other.eval().quantize(latent)
    for value, exact in zip(values, expected, strict=True):
        assert value.dtype == exact.dtype
        assert torch.equal(value, exact)
    assert torch.equal(other.codebook, quantizer.codebook)
    assert torch.equal(indices, quantizer.eval().quantize(latent))
    assert all(value.dtype == torch.float32 for value in quantizer(latent.bfloat16())[:2])


class LargestTensor(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor that was made."""

    elements = 0

    def __torch_dispatch__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else [result]:
            if isinstance(value, Tensor):
                self.elements = max(self.elements, value.untyped_storage().nbytes() // value.element_size())
        return result


def test_memory_does_not_grow_with_all_distances() -> None:
    """16384 vectors and 1024 codes of 8 channels: 2^27 differences, 2^24 distances, of which 2^22 at a time."""
    quantizer, latent = with_codes(latents(1024, 8)), latents(16, 8, 32, 32)
    with LargestTensor() as largest:
        quantizer(latent)
    assert largest.elements <= 2**22


@each_mode
def test_a_resumed_training_goes_on_bit_by_bit(mode: CodebookMode) -> None:
    """Counters, sizes and sums come from the state dict, draws from the number of the step."""
    unbroken = Training(mode).steps(1, 5)
    resumed = Training(mode)
    resumed.network.load_state_dict(copy.deepcopy(unbroken.network.state_dict()))
    before = unbroken.restarted
    after = unbroken.steps(6, 9).state()
    assert unbroken.restarted > before > CODES  # codes were replaced after the first step, and after the break
    for name, value in resumed.steps(6, 9).network.state_dict().items():
        assert torch.equal(value, after[name]), name


@pytest.fixture(scope="module")
def in_one_and_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same training in one process and in two with half the batch each."""
    folder = tmp_path_factory.mktemp("quantized")
    script, root = Path(__file__).with_name("quantized_training.py"), Path(__file__).parents[2]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    for name, launcher in {"one": [], "two": torchrun}.items():
        result = subprocess.run(
            [sys.executable, *launcher, str(script), str(folder / name), *MODES],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert result.returncode == 0, result.stderr[-3000:]
    return folder


@pytest.mark.distributed
@each_mode
def test_two_processes_train_as_one_with_the_double_batch(mode: CodebookMode, in_one_and_two: Path) -> None:
    """Codes, counters, weights and the adaptive weight of the adversarial loss."""
    one, *two = (
        torch.load(in_one_and_two / name / mode / file, weights_only=True)
        for name, file in (("one", "rank0.pt"), ("two", "rank0.pt"), ("two", "rank1.pt"))
    )
    for name, value in one.items():
        torch.testing.assert_close(two[0][name], value, atol=1e-5, rtol=1e-4, msg=f"{name}: {{}}".format)
        assert torch.equal(two[0][name], two[1][name]), name
    assert one["restarted"] > CODES


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "gumbel"}, "mode='gumbel' is unknown; choose one of gradient, ema"),
        ({"num_embeddings": 0}, "num_embeddings=0"),
        ({"restart_after": 0}, "restart_after=0 must be at least 1"),
        ({"commitment": -1.0}, r"commitment=-1\.0 not negative"),
        ({"decay": 1.0}, r"decay=1\.0 in \[0, 1\)"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeatureQuantizer(**settings)


def test_latents_of_another_encoder_are_refused() -> None:
    quantizer = FeatureQuantizer(embedding_dim=4)
    for ask in (quantizer, quantizer.quantize):
        with pytest.raises(ValueError, match=r"latent of shape \(1, 3, 2, 2\); needed is \(B, 4, h, w\)"):
            ask(torch.zeros(1, 3, 2, 2))
