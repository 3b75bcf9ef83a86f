"""A step for each player, in which only its own weights learn; Pix2pix in numbers; resuming exactly."""

import copy
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from ignite.engine import Events
from monai.engines import AdversarialTrainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD

sys.path.insert(0, str(Path(__file__).parent))
from gans import BATCH, Batches, Pairs, discriminator, generator, train, trainer

from common.engines import adversarial as module
from common.engines.adversarial import AdversarialIteration, Losses, frozen
from common.engines.optimization import linear_decay_schedule
from common.engines.pix2pix import Pix2PixIteration
from common.handlers.checkpoint import find_checkpoints
from common.inferers.precision import supports_bfloat16
from common.losses.adversarial import CrossEntropyGAN, LeastSquaresGAN

KINDS = ["pix2pix", "lsgan", "wgan-gp"]


def first_batch() -> tuple[Tensor, Tensor]:
    batch = Pairs().__getitems__(range(BATCH))
    return batch["source"], batch["target"]


def by_hand(make: nn.Module, judge: nn.Module, weight: float = 100.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Both objectives of Isola et al., eqs. 1, 3 and 4, with log-sigmoids written as softplus, and their parts."""
    source, target = first_batch()
    fake = make(source)
    real_logits = judge(torch.cat([source, target], dim=1))
    fake_logits = judge(torch.cat([source, fake.detach()], dim=1))
    of_discriminator = 0.5 * (F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean())
    adversarial = F.softplus(-judge(torch.cat([source, fake], dim=1))).mean()
    distance = (fake - target).abs().mean()
    return of_discriminator, adversarial + weight * distance, adversarial, distance


def test_losses_of_pix2pix_are_those_of_its_equations() -> None:
    networks = generator(), discriminator(2)
    engine = trainer(Pix2PixIteration(reconstruction_weight=7.0), networks, CrossEntropyGAN(), epoch_length=1)
    engine.run()
    of_discriminator, of_generator, adversarial, distance = by_hand(*networks, weight=7.0)
    expected = {
        "loss": of_discriminator + of_generator,
        "discriminator_loss": of_discriminator,
        "generator_loss": adversarial,
        "reconstruction_loss": distance,
    }
    assert engine.state.output.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(engine.state.output[name], value.detach())
        assert not engine.state.output[name].requires_grad


def test_each_step_changes_the_weights_of_its_own_network_by_its_own_gradient() -> None:
    """The discriminator first; then the generator, against what the discriminator has become."""
    networks = generator(), discriminator(2)
    make, judge = (copy.deepcopy(network) for network in networks)
    optimizers = SGD(networks[0].parameters(), lr=0.02), SGD(networks[1].parameters(), lr=0.5)
    trainer(Pix2PixIteration(), networks, CrossEntropyGAN(), optimizers, epoch_length=1).run()
    for network, trained, rate, part in ((judge, networks[1], 0.5, 0), (make, networks[0], 0.02, 1)):
        gradients = torch.autograd.grad(by_hand(make, judge)[part], list(network.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                parameter -= rate * gradient
        for parameter, other, gradient in zip(network.parameters(), trained.parameters(), gradients, strict=True):
            torch.testing.assert_close(other, parameter)
            torch.testing.assert_close(other.grad, gradient)  # nothing from the other network's step
            assert other.requires_grad


def test_networks_train_in_training_mode() -> None:
    networks = generator().eval(), discriminator(2).eval()
    trainer(Pix2PixIteration(), networks, CrossEntropyGAN(), epoch_length=1).run()
    assert all(part.training for network in networks for part in network.modules())


class Counting(AdversarialIteration):
    """Notes which steps are made."""

    def __init__(self, critic_steps: int) -> None:
        super().__init__(critic_steps)
        self.generated: list[bool] = []

    def generate(self, network: nn.Module, batch: Mapping[str, Tensor], *, train: bool) -> Mapping[str, Tensor]:
        self.generated.append(train)
        assert torch.is_grad_enabled() == train
        return {"fake": network(batch["source"])}

    def discriminator_loss(self, engine: AdversarialTrainer, images: Mapping[str, Tensor]) -> tuple[Tensor, Losses]:
        loss = engine.state.d_network(images["fake"].detach()).square().mean()
        return loss, {"discriminator_loss": loss}

    def generator_loss(
        self, engine: AdversarialTrainer, judge: nn.Module, images: Mapping[str, Tensor]
    ) -> tuple[Tensor, Losses]:
        loss = judge(images["fake"]).square().mean()
        return loss, {"generator_loss": loss}


@pytest.mark.parametrize("critic_steps", [1, 2, 5])
def test_the_generator_has_a_step_after_so_many_of_the_critic(critic_steps: int) -> None:
    networks = generator(), discriminator()
    optimizers = SGD(networks[0].parameters(), lr=0.1), SGD(networks[1].parameters(), lr=0.1)
    iteration = Counting(critic_steps)
    engine = trainer(
        iteration,
        networks,
        LeastSquaresGAN(),
        optimizers,
        train_data_loader=[batch for epoch in range(4) for batch in Batches(Pairs(), epoch)],
        epoch_length=12,
    )
    previous = [[parameter.detach().clone() for parameter in network.parameters()] for network in networks]
    changed: list[list[bool]] = []

    def note(engine: AdversarialTrainer) -> None:
        nonlocal previous
        now = [[parameter.detach().clone() for parameter in network.parameters()] for network in networks]
        changed.append(
            [
                any(not torch.equal(a, b) for a, b in zip(one, other, strict=True))
                for one, other in zip(previous, now, strict=True)
            ]
        )
        previous = now
        assert ("generator_loss" in engine.state.output) == changed[-1][0]
        parts = [value for name, value in engine.state.output.items() if name != "loss"]
        torch.testing.assert_close(engine.state.output["loss"], sum(parts))

    engine.add_event_handler(Events.ITERATION_COMPLETED, note)
    engine.run()
    assert [generator_changed for generator_changed, _ in changed] == [
        number % critic_steps == 0 for number in range(1, 13)
    ]
    assert all(discriminator_changed for _, discriminator_changed in changed)
    assert iteration.generated == [generator_changed for generator_changed, _ in changed]


class Late(Counting):
    """The discriminator has its first step in the third iteration."""

    def trains_discriminator(self, iteration: int) -> bool:
        return iteration > 2


@pytest.mark.parametrize("critic_steps", [1, 2])
def test_a_discriminator_may_wait_for_its_first_step(critic_steps: int) -> None:
    """Until then it has neither loss nor gradient, but the generator learns against it."""
    networks = generator(), discriminator()
    optimizers = SGD(networks[0].parameters(), lr=0.1), SGD(networks[1].parameters(), lr=0.1)
    engine = trainer(
        Late(critic_steps), networks, LeastSquaresGAN(), optimizers, train_data_loader=list(Batches(Pairs(), 0)) * 2
    )
    untouched, present = copy.deepcopy(networks[1].state_dict()), []

    def note(engine: AdversarialTrainer) -> None:
        output = engine.state.output
        present.append(("discriminator_loss" in output, "generator_loss" in output))
        torch.testing.assert_close(output["loss"], torch.as_tensor(sum(output.values()) - output["loss"]))
        waits = all(parameter.grad is None for parameter in networks[1].parameters())
        same = all(torch.equal(value, untouched[name]) for name, value in networks[1].state_dict().items())
        assert waits == same == (engine.state.iteration <= 2)

    engine.add_event_handler(Events.ITERATION_COMPLETED, note)
    engine.run()
    assert present == [(number > 2, number % critic_steps == 0) for number in range(1, 7)]


@pytest.mark.parametrize("extra", [None, {}, {"guide": torch.arange(3), "t": torch.ones(())}])
def test_what_else_a_batch_has_reaches_both_steps(extra: dict[str, Tensor] | None) -> None:
    source, target = first_batch()
    prepared = (source, target) if extra is None else (source, target, (), extra)
    seen: list[Mapping[str, Tensor]] = []

    class Looking(Counting):
        def generate(self, network: nn.Module, batch: Mapping[str, Tensor], *, train: bool) -> Mapping[str, Tensor]:
            seen.append(batch)
            return super().generate(network, batch, train=train)

        def discriminator_loss(self, engine: AdversarialTrainer, images: Mapping[str, Tensor]) -> tuple[Tensor, Losses]:
            seen.append(images)
            return super().discriminator_loss(engine, images)

        def generator_loss(
            self, engine: AdversarialTrainer, judge: nn.Module, images: Mapping[str, Tensor]
        ) -> tuple[Tensor, Losses]:
            seen.append(images)
            return super().generator_loss(engine, judge, images)

    networks = generator(), discriminator()
    trainer(
        Looking(1), networks, LeastSquaresGAN(), prepare_batch=lambda *args, **kwargs: prepared, epoch_length=1
    ).run()
    batch = {"source": source, "target": target, **(extra or {})}
    assert [part.keys() for part in seen] == [batch.keys(), *[{"fake", *batch}] * 2]
    assert all(part[name] is value for part in seen for name, value in batch.items())


def test_frozen_weights_are_free_again_whatever_happens() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False))
    before = [parameter.requires_grad for parameter in network.parameters()]

    def fail() -> None:
        with frozen(network) as judge:
            assert judge is network
            assert not any(parameter.requires_grad for parameter in network.parameters())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [parameter.requires_grad for parameter in network.parameters()] == before == [True, True, False, False]


def test_several_processes_without_shared_gradients_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "process_count", lambda: 2)
    engine = trainer(Pix2PixIteration(), (generator(), discriminator(2)), CrossEntropyGAN())
    with pytest.raises(
        RuntimeError, match="2 processes train, but generator and discriminator are not both in Distrib"
    ):
        engine.run()


@pytest.mark.parametrize("amp", [True, False])
def test_mixed_precision_reaches_both_networks_and_no_loss(amp: bool) -> None:
    if amp and not supports_bfloat16("cpu"):
        pytest.skip("this CPU has no fast bf16")
    networks = generator(), discriminator(2)
    seen: set[torch.dtype] = set()
    for network in networks:
        network[0].register_forward_hook(lambda _, args, output: seen.add(output.dtype))
    engine = trainer(Pix2PixIteration(amp=amp), networks, CrossEntropyGAN(), epoch_length=1)
    engine.run()
    assert seen == {torch.bfloat16 if amp else torch.float32}
    assert {value.dtype for value in engine.state.output.values()} == {torch.float32}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stop_after", [4, 8])
def test_a_resumed_run_equals_the_unbroken_one(kind: str, stop_after: int, tmp_path: Path) -> None:
    """To the bit, in networks, optimizers, schedules, dropout, drawn targets and pools; interrupted in an epoch."""
    unbroken = train(kind, tmp_path / "unbroken", 4, dropout=0.5)
    assert train(kind, tmp_path / "broken", 4, stop_after=stop_after, dropout=0.5) == {}
    resumed = train(kind, tmp_path / "broken", 4, resume=True, dropout=0.5)
    assert resumed.keys() == unbroken.keys()
    assert all(torch.equal(resumed[name], unbroken[name]) for name in unbroken)
    states = [
        torch.load(find_checkpoints(tmp_path / name / "checkpoints")[-1], weights_only=True)
        for name in ("unbroken", "broken")
    ]
    for name in states[0].keys() & {"source_pool", "target_pool"}:
        assert len(states[0][name]["images"]) == 6
        assert torch.equal(states[0][name]["images"], states[1][name]["images"])
    assert ("source_pool" in states[0]) == (kind != "pix2pix")


@pytest.fixture(scope="module")
def in_one_and_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders ``one`` and ``two`` of the same trainings in so many processes, resumed once."""
    folder = tmp_path_factory.mktemp("processes")
    script, root = Path(__file__).with_name("gans.py"), Path(__file__).parents[2]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    for name, launcher in {"one": [], "two": torchrun}.items():
        result = subprocess.run(
            [sys.executable, *launcher, str(script), str(folder / name), *KINDS],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert result.returncode == 0, result.stderr[-3000:]
    return folder


@pytest.mark.distributed
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_train_as_one_with_the_double_batch(kind: str, in_one_and_two: Path) -> None:
    """No parameter is left without its part of the gradient, and a resumed process has the pools of both."""
    one, *two = (
        torch.load(in_one_and_two / name / kind / file, weights_only=True)
        for name, file in (("one", "rank0.pt"), ("two", "rank0.pt"), ("two", "rank1.pt"))
    )
    assert one.keys() == two[0].keys()
    for name, value in one.items():
        torch.testing.assert_close(two[0][name], value, atol=1e-5, rtol=0, msg=f"{name}: {{}}".format)
        assert torch.equal(two[0][name], two[1][name]), name


def test_learning_rate_is_constant_and_then_falls_to_nothing() -> None:
    """Of 6 iterations with 2 at the full rate: 1, 1, 1, 3/4, 2/4, 1/4, and 0 after the last; or always 1."""

    def rates(constant_steps: int, total_steps: int | None) -> list[float]:
        optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
        schedule = linear_decay_schedule(optimizer, constant_steps, total_steps)
        values = []
        for _ in range(8):
            values.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return values

    assert rates(2, 6) == pytest.approx([2, 2, 2, 1.5, 1, 0.5, 0, 0])
    assert rates(2, None) == [2] * 8
    with pytest.raises(ValueError, match="0 <= constant_steps < total_steps is needed, not 6 and 6"):
        rates(6, 6)
