"""The step of a quantized autoencoder: every term by hand, who sees which edges, and when the discriminator sets in."""

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.engines import AdversarialTrainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD

sys.path.insert(0, str(Path(__file__).parent))
from gans import trainer

from common.engines.quantization import QuantizationIteration, QuantizationPrepareBatch
from common.losses.adaptive_weight import AdaptiveWeight
from common.losses.adversarial import HingeGAN

BATCH, SIZE = 4, 8


class Autoencoder(nn.Module):
    """Images beyond [0, 1] now and then; the loss of its codebook depends on all of its weights, the last ones, too."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = (nn.Conv2d(*widths, 3, padding=1) for widths in ((1, 3), (3, 1)))
        nn.init.constant_(self.last.bias, 0.5)

    @property
    def last_layer(self) -> nn.Parameter:
        return self.last.weight

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        assert self.training
        answer = self.last(4 * self.first(image).tanh())
        return {"image": answer, "codebook_loss": 0.1 * answer.square().mean(), "indices": answer.long()}


class Judge(nn.Module):
    """A discriminator that keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.Sequential(nn.Conv2d(2, 4, 4, stride=2), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 2))
        self.shown: list[tuple[Tensor, Tensor]] = []

    def forward(self, image: Tensor, edges: Tensor) -> Tensor:
        self.shown.append((image.detach().clone(), edges.detach().clone()))
        return self.layers(torch.cat([image, edges], dim=1))


def batch_of(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(256, (BATCH, 1, SIZE, SIZE), generator=generator)
    edges = torch.randint(2, (BATCH, 1, SIZE, SIZE), generator=generator)
    return {"image": image.to(torch.float16), "edges": edges.float(), "index": torch.arange(BATCH)}


def bright(images: Tensor) -> Tensor:
    """In the place of an edge detector, which has no gradient and takes images in [0, 1] only."""
    assert not images.requires_grad
    assert 0 <= images.min() < images.max() <= 1
    return (images > 0.5).to(torch.uint8)


def crooked(pred: Tensor, target: Tensor) -> Tensor:
    """In the place of LPIPS: changes with every shift and scale of its images, and with their order."""
    assert pred.dtype == target.dtype == torch.float32
    return (pred.pow(2) * (target + 3) - target).abs().mean()


def iteration(**options: Any) -> QuantizationIteration:
    settings: dict[str, Any] = {"weight": AdaptiveWeight("fixed", fixed=0.3), "disc_start": 0, "edges": bright}
    return QuantizationIteration(**{**settings, **options})


def run(
    step: QuantizationIteration,
    networks: tuple[nn.Module, nn.Module],
    rates: tuple[float, float] = (0.0, 0.0),
    iterations: int = 1,
) -> AdversarialTrainer:
    """The trainer of so many iterations, before they begin; learning rates of autoencoder and discriminator."""
    optimizers = [SGD(network.parameters(), lr=rate) for network, rate in zip(networks, rates, strict=True)]
    return trainer(
        step,
        networks,
        HingeGAN(),
        (optimizers[0], optimizers[1]),
        train_data_loader=[batch_of(seed) for seed in range(iterations)],
        prepare_batch=QuantizationPrepareBatch(),
    )


def by_hand(make: Autoencoder, judge: Judge, edge_input: str = "real") -> dict[str, Tensor]:
    """All terms of FQCDM, eqs. 7 and 15, on the first batch."""
    batch = batch_of()
    image, edges = batch["image"].float() / 255, batch["edges"]
    answer = make(image)
    fake = answer["image"]
    beside_real = {"real": edges, "self": edges, "zeros": 0 * edges}[edge_input]
    beside_fake = {"real": edges, "self": (fake.detach() > 0.5).float(), "zeros": 0 * edges}[edge_input]
    real_logits = judge.layers(torch.cat([image, beside_real], dim=1))
    fake_logits = judge.layers(torch.cat([fake.detach(), beside_fake], dim=1))
    return {
        "reconstruction_loss": (fake - image).abs().mean(),
        "perceptual_loss": ((2 * fake - 1).pow(2) * (2 * image + 2) - (2 * image - 1)).abs().mean(),
        "codebook_loss": 0.1 * fake.square().mean(),
        "adversarial_loss": -judge.layers(torch.cat([fake, beside_fake], dim=1)).mean(),
        "discriminator_loss": 0.5 * (F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()),
        "logits_real": real_logits.mean(),
        "logits_fake": fake_logits.mean(),
    }


def gradient(loss: Tensor, network: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(network.parameters()), retain_graph=True))


# The batch


def test_grey_levels_become_shares_and_edges_stay() -> None:
    batch = {
        "image": torch.tensor([0, 51, 255], dtype=torch.uint8),
        "edges": torch.tensor([0, 1, 1], dtype=torch.uint8),
    }
    image, edges = QuantizationPrepareBatch()(batch, "cpu")
    torch.testing.assert_close(image, torch.tensor([0.0, 0.2, 1.0]))
    assert torch.equal(edges, torch.tensor([0.0, 1.0, 1.0]))


# The terms


@pytest.mark.parametrize("perceptual", [None, 0.0, 0.7])
@pytest.mark.parametrize("edge_input", ["real", "self", "zeros"])
def test_every_term_has_its_hand_value(edge_input: Any, perceptual: float | None) -> None:
    networks = Autoencoder(), Judge()
    options = {} if perceptual is None else {"perceptual": crooked, "perceptual_weight": perceptual}
    engine = run(iteration(edge_input=edge_input, **options), networks)
    engine.run()
    expected = by_hand(*networks, edge_input=edge_input)
    if perceptual is None:
        del expected["perceptual_loss"]
    total = expected["discriminator_loss"] + expected["reconstruction_loss"] + expected["codebook_loss"]
    total = total + (perceptual or 0) * expected.get("perceptual_loss", 0) + 0.3 * expected["adversarial_loss"]
    expected |= {"loss": total, "adversarial_weight": torch.tensor(0.3)}
    assert engine.state.output.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(engine.state.output[name], value.detach(), msg=f"{name}: {{}}".format)
        assert not engine.state.output[name].requires_grad


@pytest.mark.parametrize("edge_input", ["real", "self", "zeros"])
def test_the_discriminator_sees_the_edges_it_should(edge_input: Any) -> None:
    """The real image, the reconstruction in its own step, and the same in the step of the autoencoder."""
    networks = Autoencoder(), Judge()
    run(iteration(edge_input=edge_input), networks).run()
    image, edges = QuantizationPrepareBatch()(batch_of())
    fake = networks[0](image)["image"].detach()
    assert fake.max() > 1
    own = {"real": edges, "self": (fake > 0.5).float(), "zeros": torch.zeros_like(edges)}[edge_input]
    expected = [(image, torch.zeros_like(edges) if edge_input == "zeros" else edges), (fake, own), (fake, own)]
    for shown, wanted in zip(networks[1].shown, expected, strict=True):
        torch.testing.assert_close(shown, wanted)


def test_lambda_is_what_the_adaptive_weight_makes_of_distance_and_perception() -> None:
    """Neither the loss of the codebook has a share in it, nor has lambda a gradient."""
    networks = Autoencoder(), Judge()
    make, judge = (copy.deepcopy(network) for network in networks)
    adaptive = AdaptiveWeight(weight=0.8, cap=1e6)
    engine = run(iteration(weight=adaptive, perceptual=crooked, perceptual_weight=0.5), networks)
    engine.run()
    terms = by_hand(make, judge)
    reconstruction = terms["reconstruction_loss"] + 0.5 * terms["perceptual_loss"]
    ours, theirs = (
        torch.autograd.grad(loss, make.last.weight, retain_graph=True)[0].norm()
        for loss in (reconstruction, terms["adversarial_loss"])
    )
    expected = 0.8 * ours / (theirs + 1e-4)
    torch.testing.assert_close(engine.state.output["adversarial_weight"], expected)
    total = reconstruction + terms["codebook_loss"] + float(expected) * terms["adversarial_loss"]
    for parameter, wanted in zip(networks[0].parameters(), gradient(total, make), strict=True):
        torch.testing.assert_close(parameter.grad, wanted)


# Whose gradient goes where


@pytest.mark.parametrize("edge_input", ["real", "self"])
def test_each_player_learns_by_its_own_loss_alone(edge_input: Any) -> None:
    """The discriminator first; then the autoencoder, against what the discriminator has become."""
    networks = Autoencoder(), Judge()
    make, judge = (copy.deepcopy(network) for network in networks)
    run(iteration(edge_input=edge_input, perceptual=crooked), networks, rates=(0.02, 0.5)).run()

    def follow(network: nn.Module, trained: nn.Module, loss: Tensor, rate: float) -> None:
        gradients = gradient(loss, network)
        assert any(wanted.abs().sum() > 0 for wanted in gradients)
        for parameter, other, wanted in zip(network.parameters(), trained.parameters(), gradients, strict=True):
            torch.testing.assert_close(other.grad, wanted)
            torch.testing.assert_close(other.data, parameter.data - rate * wanted)
            assert other.requires_grad
            parameter.data -= rate * wanted

    follow(judge, networks[1], by_hand(make, judge, edge_input)["discriminator_loss"], 0.5)
    terms = by_hand(make, judge, edge_input)
    names = ("reconstruction_loss", "perceptual_loss", "codebook_loss")
    follow(make, networks[0], sum(terms[name] for name in names) + 0.3 * terms["adversarial_loss"], 0.02)


# Schedule


@pytest.mark.parametrize(
    ("disc_start", "disc_warmup", "trained_from", "heard_from"),
    [(4, 2, 3, 5), (4, 0, 5, 5), (2, 9, 1, 3), (0, 0, 1, 1), (None, 0, None, None), (None, 500, None, None)],
)
def test_the_discriminator_learns_before_it_is_heard(
    disc_start: int | None, disc_warmup: int, trained_from: int | None, heard_from: int | None
) -> None:
    """Its first step and the first iteration with an adversarial term, from 1; before, it is not even called."""
    networks = Autoencoder(), Judge()
    engine = run(iteration(disc_start=disc_start, disc_warmup=disc_warmup), networks, rates=(0.05, 0.05), iterations=6)
    before = [copy.deepcopy(network.state_dict()) for network in networks]
    base = {"loss", "reconstruction_loss", "codebook_loss"}

    def check(engine: AdversarialTrainer) -> None:
        trains = trained_from is not None and engine.state.iteration >= trained_from
        heard = heard_from is not None and engine.state.iteration >= heard_from
        changed = [
            any(not torch.equal(value, old[name]) for name, value in network.state_dict().items())
            for network, old in zip(networks, before, strict=True)
        ]
        before[:] = [copy.deepcopy(network.state_dict()) for network in networks]
        assert changed == [True, trains]
        assert len(networks[1].shown) == 2 * trains + heard
        networks[1].shown.clear()
        output = engine.state.output
        of_discriminator = {"discriminator_loss", "logits_real", "logits_fake"} if trains else set()
        assert output.keys() == base | of_discriminator | (
            {"adversarial_loss", "adversarial_weight"} if heard else set()
        )
        total = sum(output.get(name, 0) for name in ("discriminator_loss", "reconstruction_loss", "codebook_loss"))
        torch.testing.assert_close(output["loss"], total + 0.3 * output.get("adversarial_loss", 0))

    engine.add_event_handler(Events.ITERATION_COMPLETED, check)
    engine.run()
    assert engine.state.iteration == 6


def test_a_discriminator_that_waits_has_no_gradient() -> None:
    networks = Autoencoder(), Judge()
    run(iteration(disc_start=5), networks, iterations=2).run()
    assert all(parameter.grad is None for parameter in networks[1].parameters())
    assert all(parameter.requires_grad for parameter in networks[1].parameters())


# Bad settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"disc_start": -1}, r"disc_start=-1 and disc_warmup=0 are numbers of iterations, not negative"),
        ({"disc_start": 5, "disc_warmup": -2}, r"disc_start=5 and disc_warmup=-2"),
        ({"edge_input": "fake"}, "edge_input='fake'; choose one of real, self, zeros"),
        ({"edge_input": "self", "edges": None}, "give `edges` for 'self'"),
    ],
)
def test_impossible_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        iteration(**options)
