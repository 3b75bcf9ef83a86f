"""What the training steps in a latent space start from, and one such step as the recipes take it."""

from typing import Any

import numpy as np
import pytest
import torch
from monai.engines import SupervisedTrainer
from scipy import stats
from torch import Tensor

from common.diffusion.gaussian import linear_schedule
from common.engines import latent_batch as module
from common.engines.latent_batch import AutoencoderPrepareBatch, LatentPrepareBatch
from common.engines.optimization import adamw
from common.engines.randomness import StepRandomness
from common.inferers.latent_translation import LatentDiffusionInferer
from common.losses.learned_variance import LearnedVarianceLoss
from common.networks.nets.dit import DiT
from common.networks.nets.latent_translator import LatentTranslator
from common.networks.nets.scratch_autoencoder import ScratchAutoencoder
from common.networks.nets.vision_embedder import VisionEmbedder

SCALE, BETAS = 0.5, (0.1, 0.6)
ALPHA_BAR = np.cumprod(1 - np.linspace(*BETAS, 4))  # of four steps


def prepare(batch: dict[str, Tensor], iteration: int = 1, num_steps: int = 4, **options: Any) -> tuple:
    randomness = StepRandomness(seed=0)
    randomness.start(iteration)
    return LatentPrepareBatch(randomness, linear_schedule(num_steps, *BETAS), SCALE, **options)(batch, "cpu")


def moments(number: int = 8, shape: tuple[int, ...] = (2, 3, 4), **more: Tensor) -> dict[str, Tensor]:
    """Posteriors of made-up slices."""
    names = ("source_mean", "source_logvar", "target_mean", "target_logvar")
    values = torch.randn(4, number, *shape, generator=torch.Generator().manual_seed(0))
    return dict(zip(names, values, strict=True)) | more


def constant(number: int) -> dict[str, Tensor]:
    """The same posteriors for all slices: of the source N(1, 0.5^2), of the target N(-2, 2^2)."""
    values = {"source_mean": 1.0, "source_logvar": np.log(0.25), "target_mean": -2.0, "target_logvar": np.log(4.0)}
    return {name: torch.full((number, 1, 10, 10), value) for name, value in values.items()}


def test_everything_goes_where_the_recipes_need_it() -> None:
    image, vector = torch.rand(8, 1, 6, 8), torch.rand(8, 5)
    source, target, args, kwargs = prepare(moments(image=image, vector=vector, index=torch.arange(8)))
    assert torch.equal(source, SCALE * moments()["source_mean"])
    assert torch.equal(target["x0"], SCALE * moments()["target_mean"])
    assert target.keys() == {"noise", "x0", "x_t", "t"}
    assert args == ()
    assert kwargs.keys() == {"x_t", "t", "image", "vector"}
    assert kwargs["x_t"] is target["x_t"]
    assert kwargs["t"] is target["t"]
    assert torch.equal(kwargs["image"], image)
    assert torch.equal(kwargs["vector"], vector)
    assert target["t"].dtype == torch.int64
    assert prepare(moments())[3].keys() == {"x_t", "t"}


def test_latents_may_be_kept_in_half_precision() -> None:
    batch = {name: value.half() for name, value in moments(image=torch.rand(8, 1, 6, 8)).items()}
    source, target, _, kwargs = prepare(batch, latent_sample=True)
    assert {value.dtype for value in (source, *target.values(), *kwargs.values())} == {torch.float32, torch.int64}


@pytest.mark.parametrize("latent_sample", [False, True])
def test_each_slice_is_mixed_with_noise_by_its_own_step(latent_sample: bool) -> None:
    _, target, _, _ = prepare(moments(64), latent_sample=latent_sample)
    assert target["t"].unique().tolist() == [0, 1, 2, 3]
    for x_t, x0, noise, t in zip(*(target[name] for name in ("x_t", "x0", "noise", "t")), strict=True):
        a = ALPHA_BAR[int(t)]
        torch.testing.assert_close(x_t, np.sqrt(a) * x0 + np.sqrt(1 - a) * noise)


@pytest.mark.parametrize(("latent_sample", "variance"), [(False, 0.0), (True, 4.0)])
def test_mean_and_variance_of_the_noisy_latent(latent_sample: bool, variance: float) -> None:
    """Mean sqrt(A) s m, variance A s^2 sigma^2 + 1 - A, with the posterior's m and sigma."""
    _, target, _, _ = prepare(constant(2000), latent_sample=latent_sample)
    for t, a in enumerate(ALPHA_BAR):
        x_t = target["x_t"][target["t"] == t]
        assert x_t.mean().item() == pytest.approx(np.sqrt(a) * SCALE * -2.0, abs=0.03)
        assert x_t.var().item() == pytest.approx(a * SCALE**2 * variance + 1 - a, rel=0.03)


def test_samples_of_both_posteriors_and_the_noise_are_independent() -> None:
    source, target, _, _ = prepare(constant(500), latent_sample=True)
    rows = torch.stack([(source / SCALE - 1) / 0.5, (target["x0"] / SCALE + 2) / 2, target["noise"]]).flatten(1)
    torch.testing.assert_close(torch.cov(rows), torch.eye(3), atol=0.02, rtol=0)
    assert rows.mean(dim=1).abs().max() < 0.02
    assert len(target["noise"].flatten(1).unique(dim=0)) == 500


@pytest.mark.parametrize("num_steps", [2, 10])
def test_steps_are_uniform_and_of_each_sample(num_steps: int) -> None:
    batch = {name: torch.zeros(1000 * num_steps, 1, 1, 1) for name in moments()}
    t = prepare(batch, num_steps=num_steps)[1]["t"]
    counts = torch.bincount(t, minlength=num_steps)
    assert len(counts) == num_steps
    assert ((counts - 1000.0) ** 2 / 1000).sum().item() < stats.chi2.ppf(0.999, num_steps - 1)


def test_draws_are_a_function_of_the_iteration() -> None:
    first, again, later = (prepare(moments(), iteration, latent_sample=True) for iteration in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert all(torch.equal(value, again[1][name]) for name, value in first[1].items())
    assert not torch.equal(first[0], later[0])
    assert not torch.equal(first[1]["noise"], later[1]["noise"])
    assert not torch.equal(first[1]["t"], later[1]["t"])


@pytest.mark.parametrize("latent_sample", [False, True])
@pytest.mark.parametrize("processes", [2, 4])
def test_processes_together_draw_what_one_process_draws(
    processes: int, latent_sample: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = moments(image=torch.rand(8, 1, 6, 8), vector=torch.rand(8, 5))
    whole = prepare(batch, latent_sample=latent_sample)
    monkeypatch.setattr(module, "process_count", lambda: processes)
    for rank in range(processes):
        monkeypatch.setattr(module, "process_rank", lambda rank=rank: rank)
        mine = {name: rows[rank::processes] for name, rows in batch.items()}
        part = prepare(mine, latent_sample=latent_sample)
        assert torch.equal(part[0], whole[0][rank::processes])
        for position in (1, 3):
            for name, value in whole[position].items():
                assert torch.equal(part[position][name], value[rank::processes]), name


def test_the_autoencoder_learns_sources_and_targets_alike() -> None:
    source, target = torch.rand(2, 3, 1, 4, 6, dtype=torch.float64)
    images, label = AutoencoderPrepareBatch()({"source": source, "target": target}, "cpu")
    assert torch.equal(images, torch.cat([source, target]).float())
    assert label is images


@pytest.mark.parametrize("conditioning", ["spatial", "global"])
def test_a_training_step_moves_the_backbone_and_not_the_embedder(conditioning: str) -> None:
    """By MONAI's trainer, which puts the network into training mode."""
    torch.manual_seed(0)
    autoencoder = ScratchAutoencoder(ct_window=(-1024, 2000), channels=(4, 8), norm_groups=2)
    autoencoder.set_scale(1 / SCALE)
    size = {"input_size": (4, 8)}
    network = LatentTranslator(
        DiT(**size, source_channels=4 * (conditioning == "spatial"), hidden_size=16, depth=1, num_heads=2),
        VisionEmbedder(**size, embed_dim=16, reduction=2, autoencoder=autoencoder.identity),
        autoencoder,
        (8, 16),
        "mr",
        "ct",
        conditioning=conditioning,  # type: ignore[arg-type]
    )
    before = {name: value.clone() for name, value in network.state_dict().items()}
    batch = moments(6, (4, 4, 8), image=2 * torch.rand(6, 1, 8, 16) - 1)
    randomness = StepRandomness(seed=0)
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=3,
        train_data_loader=[batch],  # type: ignore[arg-type]
        network=network,
        optimizer=adamw(network, lr=1e-2, weight_decay=0.1),
        loss_function=LearnedVarianceLoss(network.schedule),
        inferer=LatentDiffusionInferer(),
        prepare_batch=LatentPrepareBatch(randomness, network.schedule, autoencoder.scale),
        decollate=False,
    )
    randomness.attach(trainer)
    trainer.run()
    assert network.training
    assert not network.embedder.training
    for name, parameter in network.named_parameters():
        if name.startswith("embedder."):
            assert parameter.grad is None, name
            assert torch.equal(parameter, before[name]), name
        else:
            assert not torch.equal(parameter, before[name]), name
