"""What label-guided diffusion starts from, and one step of its training as the recipes take it."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.engines import SupervisedTrainer
from scipy import stats
from torch import Tensor

from common.diffusion.gaussian import marginal
from common.engines import guided_batch as module
from common.engines.guided_batch import GuidedDraws, GuidedPrepareBatch, LabelPrepareBatch
from common.engines.optimization import adamw
from common.engines.randomness import StepRandomness
from common.inferers.label_synthesis import GuidedNoiseInferer
from common.losses.learned_variance import LearnedVarianceLoss
from common.networks.nets.label_guided_synthesizer import LabelGuidedSynthesizer

sys.path.insert(0, str(Path(__file__).parents[1] / "networks"))
from tiny_synthesizers import Wrapper, images, labels, synthesizer

ALPHA_BAR = np.cumprod(1 - np.linspace(0.1, 0.6, 4))  # of four steps


def network() -> LabelGuidedSynthesizer:
    return synthesizer(num_train_steps=4, beta_start=0.1, beta_end=0.6)


def at(iteration: int = 1) -> StepRandomness:
    randomness = StepRandomness(seed=0)
    randomness.start(iteration)
    return randomness


def batch_of(number: int = 8, mean: float = 0.0) -> dict[str, Tensor]:
    latent = mean + torch.randn(number, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    return {"latent": latent, "label": labels(number), "index": torch.arange(number)}


def prepare(batch: dict[str, Tensor], iteration: int = 1, **options: Any) -> tuple:
    return GuidedPrepareBatch(at(iteration), network(), **options)(batch, "cpu")


def test_each_latent_is_standardized_and_mixed_with_noise_by_its_own_step() -> None:
    batch = batch_of(64)
    x_t, target, args, kwargs = prepare(batch)
    assert args == ()
    assert target.keys() == {"noise", "x0", "x_t", "t"}
    assert kwargs.keys() == {"t", "guide"}
    assert x_t is target["x_t"]
    assert kwargs["t"] is target["t"]
    torch.testing.assert_close(target["x0"], network().standardize(batch["latent"]))
    assert target["t"].unique().tolist() == [0, 1, 2, 3]
    for noisy, x0, noise, t in zip(x_t, target["x0"], target["noise"], target["t"], strict=True):
        a = ALPHA_BAR[int(t)]
        torch.testing.assert_close(noisy, float(np.sqrt(a)) * x0 + float(np.sqrt(1 - a)) * noise)


@pytest.mark.parametrize("step", [24, 49])
def test_noisy_latents_keep_variance_one_and_lose_their_mean(step: int) -> None:
    """With the default schedule a mean of 0.5 becomes 0.3633 at index 24 and 0.1362 at 49."""
    schedule = synthesizer().schedule
    x0, noise = torch.randn(2, 200_000, generator=torch.Generator().manual_seed(0)).unsqueeze(2)
    x_t = marginal(schedule, x0 + 0.5, noise, torch.tensor([step]))
    assert float(x_t.mean()) == pytest.approx({24: 0.3633, 49: 0.1362}[step], abs=0.008)
    assert float(x_t.var()) == pytest.approx(1, abs=0.015)


def test_steps_are_uniform_and_noise_is_standard_normal() -> None:
    drawn = GuidedDraws(at(), network())(labels(4000))
    assert stats.chisquare(np.bincount(drawn["t"], minlength=4)).pvalue > 0.01
    assert stats.kstest(drawn["noise"].flatten()[::37], "norm").pvalue > 0.01


@pytest.mark.parametrize(("dropout", "share"), [(0.0, 0.0), (0.1, 0.1), (1.0, 1.0)])
def test_some_labels_are_left_out_whole(dropout: float, share: float) -> None:
    label = labels(5000)
    guide = GuidedDraws(at(), network(), dropout)(label)["guide"]
    dropped = guide.flatten(1).eq(0).all(dim=1)
    assert float(dropped.float().mean()) == pytest.approx(share, abs=0.02)
    assert torch.equal(guide[~dropped], network().guide(label)[~dropped])


def test_every_iteration_draws_anew_and_the_same_one_again() -> None:
    first, again, other = (prepare(batch_of(), iteration)[1] for iteration in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["noise"], other["noise"])


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_together_draw_what_one_process_draws(processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch_of()
    whole = prepare(batch, label_dropout=0.5)
    assert 0 < whole[3]["guide"].flatten(1).any(dim=1).sum() < 8
    monkeypatch.setattr(module, "process_count", lambda: processes)
    for rank in range(processes):
        monkeypatch.setattr(module, "process_rank", lambda rank=rank: rank)
        part = prepare({name: rows[rank::processes] for name, rows in batch.items()}, label_dropout=0.5)
        assert torch.equal(part[0], whole[0][rank::processes])
        for position in (1, 3):
            for name, value in whole[position].items():
                assert torch.equal(part[position][name], value[rank::processes]), name


def test_a_training_step_moves_the_denoiser_only() -> None:
    """The loss of a recipe's step is the squared error of the noise; the network is wrapped as several processes do."""
    denoiser, batch = network(), batch_of()
    x_t, target, _, kwargs = prepare(batch)
    expected = (denoiser(x_t, **kwargs) - target["noise"]).square().mean()
    before = {name: value.clone() for name, value in denoiser.state_dict().items()}
    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=[batch],
        network=Wrapper(denoiser),
        optimizer=adamw(denoiser, lr=0.01),
        loss_function=LearnedVarianceLoss(denoiser.schedule, learn_sigma=False),
        inferer=GuidedNoiseInferer(),
        prepare_batch=GuidedPrepareBatch(at(), denoiser),
    )
    trainer.run()
    assert trainer.state.output[0]["loss"] == pytest.approx(expected.item(), rel=1e-5)
    changed = {name for name, value in denoiser.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith("backbone.") for name in changed)


# Evaluation


def test_labels_come_with_their_images_between_0_and_1() -> None:
    batch = {"image": 255 * images(), "label": labels().half(), "index": torch.tensor([4, 7]), "case": ["a", "b"]}
    label, target, args, kwargs = LabelPrepareBatch()(batch, "cpu")
    assert torch.equal(label, labels())
    assert label.dtype == torch.float32
    torch.testing.assert_close(target, images())
    assert args == ()
    assert kwargs["image"] is target
    assert kwargs["index"] is batch["index"]
    assert kwargs["case"] is batch["case"]


def test_labels_may_come_alone() -> None:
    label, target, _, kwargs = LabelPrepareBatch()({"label": labels()}, "cpu")
    assert target is label
    assert kwargs == {}


def test_the_share_of_labels_left_out_is_a_share() -> None:
    with pytest.raises(ValueError, match=r"label_dropout=1\.1 must lie in \[0, 1\]"):
        GuidedDraws(at(), network(), 1.1)
