"""CycleGAN in numbers: its losses by hand, with labels and as a Wasserstein GAN; perfect inverses cost nothing."""

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

sys.path.insert(0, str(Path(__file__).parent))
from gans import BATCH, SIZE, Pairs, discriminator, generator, trainer

from common.engines.cycle import CycleIteration
from common.engines.image_pool import ImagePool
from common.engines.randomness import StepRandomness
from common.losses.adversarial import LeastSquaresGAN, WassersteinGAN
from common.networks.nets.cycle_pair import DiscriminatorPair, GeneratorPair

Networks = tuple[GeneratorPair, DiscriminatorPair]


class Scaled(nn.Module):
    """x -> factor x, with a weight to train."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, image: Tensor) -> Tensor:
        return self.factor * image


class Linear(nn.Module):
    """D(x) = <a, x>, a (1, SIZE, SIZE)."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(1, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)))

    def forward(self, image: Tensor) -> Tensor:
        return (self.a * image).sum(dim=(1, 2, 3))[:, None]


def networks() -> Networks:
    return GeneratorPair(generator(), generator(seed=2)), DiscriminatorPair(discriminator(), discriminator(seed=3))


def iteration(pool_size: int = 0, **options: Any) -> CycleIteration:
    randomness = StepRandomness(0)
    randomness.start(1)
    return CycleIteration(randomness, ImagePool(pool_size), ImagePool(pool_size), **options)


def run(step: CycleIteration, pair: Networks, gan: nn.Module, *rates: float) -> dict[str, Tensor]:
    """One iteration on the first batch; learning rates of generators and discriminators, 0 if absent."""
    optimizers = [SGD(network.parameters(), lr=rate) for network, rate in zip(pair, rates or (0.0, 0.0), strict=True)]
    engine = trainer(step, pair, gan, (optimizers[0], optimizers[1]), epoch_length=1)
    engine.run()
    return engine.state.output


def first_batch() -> tuple[Tensor, Tensor]:
    batch = Pairs().__getitems__(range(BATCH))
    return batch["source"], batch["target"]


def least_squares_by_hand(pair: Networks) -> dict[str, Tensor]:
    """Zhu et al., eqs. 1-3 with least squares (section 4), and the identity loss of section 5.2."""
    (to_target, to_source), (of_source, of_target) = pair[0].children(), pair[1].children()
    a, b = first_batch()
    fake_a, fake_b = to_source(b), to_target(a)
    in_a = (of_source(a) - 1).square().mean() + of_source(fake_a.detach()).square().mean()
    in_b = (of_target(b) - 1).square().mean() + of_target(fake_b.detach()).square().mean()
    return {
        "discriminator_loss": 0.5 * in_a + 0.5 * in_b,
        "generator_loss": (of_target(fake_b) - 1).square().mean() + (of_source(fake_a) - 1).square().mean(),
        "cycle_loss": (to_source(fake_b) - a).abs().mean() + (to_target(fake_a) - b).abs().mean(),
        "identity_loss": (to_source(a) - a).abs().mean() + (to_target(b) - b).abs().mean(),
    }


def test_losses_with_labels_are_those_of_the_equations() -> None:
    pair = networks()
    output = run(iteration(cycle_weight=3.0, identity_weight=0.7), pair, LeastSquaresGAN())
    expected = least_squares_by_hand(pair)
    assert output.keys() == expected.keys() | {"loss"}
    for name, value in expected.items():
        torch.testing.assert_close(output[name], value.detach())
    weights = {"cycle_loss": 3.0, "identity_loss": 0.7}
    total = sum(weights.get(name, 1.0) * value for name, value in expected.items())
    torch.testing.assert_close(output["loss"], total.detach())


def test_default_weights_are_those_of_the_paper() -> None:
    """10 for cycles, half of that for identity."""
    pair = networks()
    output = run(iteration(), pair, LeastSquaresGAN())
    adversarial = output["discriminator_loss"] + output["generator_loss"]
    torch.testing.assert_close(output["loss"], adversarial + 10 * output["cycle_loss"] + 5 * output["identity_loss"])


def test_each_step_changes_the_weights_of_its_own_networks_by_their_own_gradient() -> None:
    """Discriminators first, then the generators against what these have become."""
    pair = networks()
    mine: Networks = copy.deepcopy(pair)
    run(iteration(), pair, LeastSquaresGAN(), 0.01, 0.3)
    weights = {"generator_loss": 1.0, "cycle_loss": 10.0, "identity_loss": 5.0}
    for number, rate in ((1, 0.3), (0, 0.01)):
        parts = least_squares_by_hand(mine)
        total = (
            sum(weight * parts[name] for name, weight in weights.items())
            if number == 0
            else parts["discriminator_loss"]
        )
        gradients = torch.autograd.grad(total, list(mine[number].parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(mine[number].parameters(), gradients, strict=True):
                parameter -= rate * gradient
        for parameter, trained, gradient in zip(
            mine[number].parameters(), pair[number].parameters(), gradients, strict=True
        ):
            torch.testing.assert_close(trained.grad, gradient)
            torch.testing.assert_close(trained, parameter)


def test_translators_that_change_nothing_have_no_cycle_and_no_identity_loss() -> None:
    same = GeneratorPair(Scaled(1.0), Scaled(1.0))
    output = run(iteration(), (same, networks()[1]), LeastSquaresGAN())
    assert output["cycle_loss"] == 0
    assert output["identity_loss"] == 0


def test_translators_that_invert_each_other_have_no_cycle_loss() -> None:
    inverse = GeneratorPair(Scaled(2.0), Scaled(0.5))
    output = run(iteration(), (inverse, networks()[1]), LeastSquaresGAN())
    assert output["cycle_loss"] == 0
    source, target = first_batch()
    torch.testing.assert_close(output["identity_loss"], (target.abs().mean() + 0.5 * source.abs().mean()))


def test_discriminators_are_shown_what_their_own_pools_give() -> None:
    """Pools of one image, which shows that of a fake before it in place of about half of them."""
    pair = networks()
    source, target = first_batch()
    step = iteration(pool_size=1)
    seen: dict[str, list[Tensor]] = {"of_source": [], "of_target": []}
    for name, calls in seen.items():
        getattr(pair[1], name).register_forward_pre_hook(lambda _, args, calls=calls: calls.append(args[0]))
    run(step, pair, LeastSquaresGAN())
    with torch.no_grad():
        fakes = pair[0].translate(source, target)
    randomness = StepRandomness(0)
    randomness.start(1)
    drawn, replaced = randomness.shared("cpu", 1), 0
    for name, fake, real in (("of_source", "fake_source", source), ("of_target", "fake_target", target)):
        expected = ImagePool(1).query(fakes[fake], drawn)
        replaced += not torch.equal(expected, fakes[fake])
        first, second, third = seen[name]
        assert torch.equal(first, real)
        torch.testing.assert_close(second, expected)
        torch.testing.assert_close(third, fakes[fake])  # the generators are judged by what they have just made
    assert replaced


def test_losses_of_the_wasserstein_gan_with_linear_critics() -> None:
    """<a, x> has slope |a| everywhere, so the penalty is (|a| - 1)^2 wherever it is taken (Gulrajani et al., eq. 3)."""
    pair = (networks()[0], DiscriminatorPair(Linear(7), Linear(8)))
    options = {"discriminator_weight": 1.0, "penalty_weight": 10.0}
    output = run(iteration(**options), pair, WassersteinGAN())
    a, b = first_batch()
    with torch.no_grad():
        fakes = pair[0].translate(a, b)
        scores = {
            name: critic(image).mean()
            for critic, images in (
                (pair[1].of_source, (("a", a), ("fake_a", fakes["fake_source"]))),
                (pair[1].of_target, (("b", b), ("fake_b", fakes["fake_target"]))),
            )
            for name, image in images
        }
        penalty = sum((critic.a.norm() - 1).square() for critic in pair[1].children())
    torch.testing.assert_close(
        output["discriminator_loss"], scores["fake_a"] - scores["a"] + scores["fake_b"] - scores["b"]
    )
    torch.testing.assert_close(output["gradient_penalty"], penalty)
    torch.testing.assert_close(output["generator_loss"], -scores["fake_a"] - scores["fake_b"])
    total = output["discriminator_loss"] + 10 * penalty + output["generator_loss"]
    torch.testing.assert_close(output["loss"], total + 10 * output["cycle_loss"] + 5 * output["identity_loss"])


def test_the_penalty_reaches_the_weights_of_both_critics() -> None:
    """With hardly any other loss, steps along the gradient bring both slopes to 1."""
    pair = (GeneratorPair(Scaled(1.0), Scaled(1.0)), DiscriminatorPair(Linear(7), Linear(8)))
    step = iteration(discriminator_weight=0.0, penalty_weight=1.0)
    for _ in range(30):
        run(step, pair, WassersteinGAN(), 0.0, 0.2)
    for critic in pair[1].children():
        assert critic.a.norm().item() == pytest.approx(1, abs=1e-3)


def test_critics_with_batch_norm_are_refused() -> None:
    """A sample's slope would depend on the other samples."""
    normalized = nn.Sequential(discriminator(), nn.BatchNorm2d(1))
    pair = (networks()[0], DiscriminatorPair(normalized, discriminator()))
    with pytest.raises(ValueError, match="a discriminator has batch norm"):
        run(iteration(penalty_weight=10.0), pair, WassersteinGAN())
    run(iteration(), pair, LeastSquaresGAN())


def test_steps_of_the_critics_alone_translate_and_no_more() -> None:
    """Neither cycles nor identities are computed, and the generators stay as they are."""
    pair = networks()
    before = copy.deepcopy(pair[0].state_dict())
    calls: list[bool] = []
    pair[0].to_target.register_forward_hook(lambda _, args, output: calls.append(output.requires_grad))
    output = run(iteration(critic_steps=2), pair, WassersteinGAN(), 0.1, 0.1)
    assert calls == [False]
    assert output.keys() == {"loss", "discriminator_loss"}
    assert all(torch.equal(value, before[name]) for name, value in pair[0].state_dict().items())


def test_a_pair_names_where_its_images_have_been() -> None:
    """Translators add 1 on the way to the target and double on the way back."""

    class There(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image + 1

    source, target = torch.full((1, 1, 2, 2), 3.0), torch.full((1, 1, 2, 2), 5.0)
    images = GeneratorPair(There(), Scaled(2.0))(source, target)
    assert {name: image[0, 0, 0, 0].item() for name, image in images.items()} == {
        "fake_target": 4.0,
        "fake_source": 10.0,
        "cycle_source": 8.0,
        "cycle_target": 11.0,
        "identity_source": 6.0,
        "identity_target": 6.0,
    }
