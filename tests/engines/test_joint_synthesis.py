"""Autoencoder, discriminator and denoiser in one step: the sum of their losses, each with its own gradient."""

import copy
import sys
from pathlib import Path

import pytest
import torch
from monai.engines import AdversarialTrainer, PrepareBatch
from torch import Tensor, nn
from torch.optim import SGD

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "networks"))
from gans import trainer
from tiny_synthesizers import autoencoder, images, labels, synthesizer

from common.engines.guided_batch import GuidedDraws
from common.engines.joint_synthesis import JointIteration, JointPrepareBatch
from common.engines.quantization import QuantizationIteration, QuantizationPrepareBatch
from common.engines.randomness import StepRandomness
from common.losses.adaptive_weight import AdaptiveWeight
from common.losses.adversarial import HingeGAN
from common.losses.guided_noise import GuidedNoiseLoss, NoiseWeight
from common.networks.nets.dual_branch_discriminator import DualBranchDiscriminator
from common.networks.nets.joint_synthesizer import JointSynthesizer

BATCH = 4


def joint(detach: bool = True) -> JointSynthesizer:
    return JointSynthesizer(synthesizer(autoencoder(), statistics=None), detach=detach)


def iteration(network: JointSynthesizer, weight: NoiseWeight = "plain") -> JointIteration:
    return JointIteration(GuidedNoiseLoss(network.synthesizer.schedule, weight), AdaptiveWeight(), disc_start=0)


def judge() -> DualBranchDiscriminator:
    torch.manual_seed(3)
    return DualBranchDiscriminator(channels=4, num_layers=1, edge_channels=(4,), fusion_channels=2)


def batch_of() -> dict[str, Tensor]:
    image = images(BATCH)
    return {"image": (255 * image).half(), "label": labels(BATCH).half(), "edges": (image > 0.5).to(torch.uint8)}


def draws(network: JointSynthesizer) -> GuidedDraws:
    randomness = StepRandomness(seed=0)
    randomness.start(1)
    return GuidedDraws(randomness, network.synthesizer, label_dropout=0.5)


def run(
    step: QuantizationIteration, networks: tuple[nn.Module, nn.Module], prepare_batch: PrepareBatch
) -> AdversarialTrainer:
    """One iteration, in which gradients arise and the discriminator has a step."""
    optimizers = SGD(networks[0].parameters(), lr=0.0), SGD(networks[1].parameters(), lr=0.1)
    engine = trainer(
        step, networks, HingeGAN(), optimizers, train_data_loader=[batch_of()], prepare_batch=prepare_batch
    )
    engine.run()
    return engine


def gradients(network: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None}


def test_a_batch_has_the_images_their_edges_and_the_draws_for_their_labels() -> None:
    network = joint()
    image, edges, args, kwargs = JointPrepareBatch(draws(network))(batch_of(), "cpu")
    torch.testing.assert_close(image, batch_of()["image"].float() / 255)
    assert torch.equal(edges, (images(BATCH) > 0.5).float())
    assert args == ()
    expected = draws(network)(labels(BATCH))
    assert kwargs.keys() == expected.keys() == {"t", "noise", "guide"}
    assert all(torch.equal(kwargs[name], expected[name]) for name in expected)
    dropped = kwargs["guide"].flatten(1).eq(0).all(1)
    assert 0 < dropped.sum() < BATCH
    assert torch.equal(kwargs["guide"][~dropped], network.synthesizer.guide(labels(BATCH))[~dropped])


@pytest.mark.parametrize(("detach", "weight"), [(True, "plain"), (True, "unit_variance"), (False, "plain")])
def test_the_denoiser_s_squared_error_is_added_to_the_step_of_the_autoencoder(
    detach: bool, weight: NoiseWeight
) -> None:
    """All other terms are what they are without the denoiser; the autoencoder feels it only where it is let."""
    network = joint(detach)
    alone, by_hand = copy.deepcopy(network.autoencoder), copy.deepcopy(network)
    together = run(iteration(network, weight), (network, judge()), JointPrepareBatch(draws(network)))
    apart = run(QuantizationIteration(AdaptiveWeight(), 0), (alone, judge()), QuantizationPrepareBatch())

    image, _, _, drawn = JointPrepareBatch(draws(by_hand))(batch_of())
    prediction = by_hand(image, drawn["guide"], drawn["noise"], drawn["t"])["noise_prediction"]
    of_each = (prediction - drawn["noise"]).square().mean((1, 2, 3))
    left = by_hand.synthesizer.schedule.alpha_bar.float()[drawn["t"]]
    noise_loss = (of_each if weight == "plain" else of_each / left).mean()
    noise_loss.backward()

    expected = {**apart.state.output, "noise_loss": noise_loss.detach()}
    expected["loss"] = apart.state.output["loss"] + noise_loss.detach()
    assert together.state.output.keys() == expected.keys()
    assert noise_loss > 0.1
    for name, value in expected.items():
        torch.testing.assert_close(together.state.output[name], value, msg=f"{name}: {{}}".format)

    found, of_noise = gradients(network), gradients(by_hand)
    prefix = "synthesizer.autoencoder."
    of_autoencoder = {prefix + name: value for name, value in gradients(alone).items()}
    assert found.keys() == of_noise.keys() | of_autoencoder.keys()
    for name, value in found.items():
        parts = [part[name] for part in (of_autoencoder, of_noise) if name in part]
        torch.testing.assert_close(value, sum(parts), msg=f"{name}: {{}}".format)
    both = {name for name in of_autoencoder if name in of_noise and of_noise[name].abs().sum() > 0}
    assert any(name.startswith(f"{prefix}encoder.") for name in both) is not detach
    assert all(name.startswith(f"{prefix}encoder.") for name in both)


def test_the_statistics_of_the_latents_move_once_a_step() -> None:
    network = joint()
    run(iteration(network), (network, judge()), JointPrepareBatch(draws(network)))
    assert network.num_updates == 1
    latent = network.autoencoder.encode(batch_of()["image"].float() / 255)
    torch.testing.assert_close(network.synthesizer.latent_mean, latent.mean((0, 2, 3)))
