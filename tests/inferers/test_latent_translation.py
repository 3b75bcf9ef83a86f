"""Translation in a latent space: encode, diffuse, decode, each as often as needed and by the formulas."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.inferers.latent_translation import LatentDiffusionInferer, LatentTranslationInferer
from common.inferers.precision import supports_bfloat16
from common.inferers.reconstruction import ReconstructionInferer
from common.networks.nets.dit import DiT
from common.networks.nets.latent_translator import LatentTranslator
from common.networks.nets.scratch_autoencoder import ScratchAutoencoder
from common.networks.nets.vision_embedder import VisionEmbedder

sys.path.insert(0, str(Path(__file__).parent))
from slice_translators import LatentRecording, Unshuffle, noisy_latent, volume

ALPHA_BAR = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))  # of the training's 1000 steps


def kept(num_steps: int) -> list[int]:
    """The steps of the training that ``num_steps`` of sampling visit."""
    return [round(k * 999 / (num_steps - 1)) for k in range(num_steps)]


def slices(number: int = 5, seed: int = 0) -> Tensor:
    return volume(number, seed)[0].permute(3, 0, 1, 2).contiguous()  # (B, 1, X, Y)


def perfect(source: Tensor) -> Tensor:
    """Some target that is known from the source alone."""
    return -0.8 * source.flip(2)


def oracle(scale: float = 0.5, v: float | None = None) -> LatentRecording:
    """The true noise in x_t, for a target of which the latent is known."""

    def noise(x_t: Tensor, t: Tensor, latent: Tensor, image: Tensor) -> Tensor:
        a = torch.from_numpy(ALPHA_BAR)[t].reshape(-1, 1, 1, 1)
        x0 = scale * 3 * F.pixel_unshuffle(perfect(image), 2).double()
        return ((x_t - a.sqrt() * x0) / (1 - a).sqrt()).float()

    return LatentRecording(noise, scale, v)


SAMPLERS: list[dict[str, Any]] = [
    {"sampler": "ddim"},
    {"sampler": "ddim", "eta": 0.6},
    {"sampler": "ddim", "eta": 1.0},
    {"sampler": "ddpm"},
]
every_sampler = pytest.mark.parametrize("options", SAMPLERS, ids=str)


# What comes out


@every_sampler
@pytest.mark.parametrize("num_steps", [2, 7, 40])
@pytest.mark.parametrize("v", [None, 0.3], ids=["noise only", "with variance"])
def test_the_true_noise_leads_to_the_known_target(options: dict[str, Any], num_steps: int, v: float | None) -> None:
    """Whatever the number of steps, and the noise on the way."""
    inferer = LatentTranslationInferer(Unshuffle(), num_steps=num_steps, num_samples=2, batch_size=3, **options)
    result = inferer(volume(), oracle(v=v))
    expected = -0.8 * volume().flip(2).expand(-1, 2, -1, -1, -1)
    torch.testing.assert_close(result, expected, atol=2e-5, rtol=0)


@every_sampler
@pytest.mark.parametrize("scale", [0.18215, 1.0, 7.0])
def test_the_scale_cancels_between_encoding_and_decoding(options: dict[str, Any], scale: float) -> None:
    """The network works on scaled means, the autoencoder's decoder gets them without."""
    network = oracle(scale)
    result = LatentTranslationInferer(Unshuffle(), num_steps=5, **options)(slices(), network)
    torch.testing.assert_close(result, perfect(slices()), atol=2e-5, rtol=0)
    (latent,) = network.latents
    torch.testing.assert_close(latent, scale * 3 * F.pixel_unshuffle(slices(), 2))


# How often


@every_sampler
@pytest.mark.parametrize("num_steps", [2, 6])
@pytest.mark.parametrize("num_samples", [1, 3])
def test_a_slice_is_encoded_once_whatever_the_steps_and_samples(
    options: dict[str, Any], num_steps: int, num_samples: int
) -> None:
    """So are the vectors that condition the network, which gets the steps of its training, the last one first."""
    autoencoder, network, seen = Unshuffle(), noisy_latent(), []

    def image_encoder(image: Tensor) -> Tensor:
        seen.append(image)
        return image.mean(dim=(2, 3)).expand(-1, 512)

    inferer = LatentTranslationInferer(
        autoencoder, image_encoder, num_steps=num_steps, num_samples=num_samples, batch_size=3, **options
    )
    inferer(volume(7), network)
    sources = volume(7)[0].permute(3, 0, 1, 2)
    assert autoencoder.encoded == 7
    assert autoencoder.decoded == 7 * num_samples
    assert torch.equal(torch.cat(seen), sources)
    vectors = [vector for vector in network.vectors if vector is not None]
    torch.testing.assert_close(torch.cat(vectors), sources.mean(dim=(2, 3)).expand(-1, 512))
    steps = kept(num_steps)[::-1]
    assert network.times == [[t] * size for size in (3, 3, 1) for _ in range(num_samples) for t in steps]


def test_the_default_visits_the_published_steps() -> None:
    network = noisy_latent()
    LatentTranslationInferer(Unshuffle())(slices(1), network)
    times = [t for (t,) in network.times]
    assert len(times) == 50
    assert times[:3] == [999, 979, 958]
    assert times[-5:] == [82, 61, 41, 20, 0]


def test_a_network_without_an_image_encoder_gets_no_vector() -> None:
    network = noisy_latent()
    LatentTranslationInferer(Unshuffle(), num_steps=2)(slices(), network)
    assert network.vectors == [None]


# Noise


def sampled(number: int = 1600, v: float | None = None, **options: Any) -> LatentRecording:
    """What a network was called with, for slices with noise of their own."""
    network = noisy_latent(v)
    LatentTranslationInferer(Unshuffle(), num_steps=4, share_noise=False, **options)(slices(number), network)
    return network


def tables(steps: list[int]) -> list[tuple[float, float, float, float]]:
    """(A, A before, beta, variance of the posterior) of a chain, from the last step to the first."""
    a = [ALPHA_BAR[step] for step in steps]
    before = [1.0, *a[:-1]]
    beta = [1 - x / y for x, y in zip(a, before, strict=True)]
    return [(x, y, b, b * (1 - y) / (1 - x)) for x, y, b in zip(a, before, beta, strict=True)][::-1]


def assert_standard_normal_and_independent(drawn: list[Tensor]) -> None:
    noise = torch.stack(drawn).flatten(1)
    torch.testing.assert_close(torch.cov(noise).reshape(len(drawn), -1), torch.eye(len(drawn)), atol=0.03, rtol=0)
    assert noise.mean(dim=1).abs().max() < 0.02


@pytest.mark.parametrize("v", [None, -1.0, 1.0, 0.2])
def test_every_step_of_ddpm_has_noise_of_its_own(v: float | None) -> None:
    """Taken out by the mean of DDPM's eq. 11 and a variance between the posterior's (also without v) and beta."""
    network = sampled(v=v, sampler="ddpm")
    x, latent = network.inputs, network.latents[0]
    drawn = [x[0]]
    for x_t, following, (a, _, beta, variance) in zip(x, x[1:], tables(kept(4)), strict=False):
        mean = (x_t - beta / np.sqrt(1 - a) * (0.5 * x_t + 0.1 * latent)) / np.sqrt(1 - beta)
        share = 0.0 if v is None else (v + 1) / 2
        drawn.append((following - mean) / np.sqrt(beta**share * variance ** (1 - share)))
    assert len(drawn) == 4
    assert_standard_normal_and_independent(drawn)


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_every_step_of_ddim_with_eta_has_noise_of_its_own(eta: float) -> None:
    network = sampled(sampler="ddim", eta=eta)
    x, latent = network.inputs, network.latents[0]
    drawn = [x[0]]
    for x_t, following, (a, before, _, variance) in zip(x, x[1:], tables(kept(4)), strict=False):
        noise = 0.5 * x_t + 0.1 * latent
        clean = (x_t - np.sqrt(1 - a) * noise) / np.sqrt(a)
        mean = np.sqrt(before) * clean + np.sqrt(1 - before - eta**2 * variance) * noise
        drawn.append((following - mean) / (eta * np.sqrt(variance)))
    assert_standard_normal_and_independent(drawn)


def test_ddim_without_eta_draws_the_start_only() -> None:
    network = sampled(sampler="ddim")
    x, latent = network.inputs, network.latents[0]
    assert_standard_normal_and_independent([x[0]])
    for x_t, following, (a, before, *_) in zip(x, x[1:], tables(kept(4)), strict=False):
        noise = 0.5 * x_t + 0.1 * latent
        clean = (x_t - np.sqrt(1 - a) * noise) / np.sqrt(a)
        expected = np.sqrt(before) * clean + np.sqrt(1 - before) * noise
        torch.testing.assert_close(following, expected, atol=1e-4, rtol=1e-5)


# The whole


def tiny() -> tuple[LatentTranslator, ScratchAutoencoder]:
    torch.manual_seed(0)
    autoencoder = ScratchAutoencoder(ct_window=(-1024, 2000), channels=(4, 8), norm_groups=2).eval()
    autoencoder.set_scale(2.0)
    size = {"input_size": (4, 8)}
    network = LatentTranslator(
        DiT(**size, source_channels=4, hidden_size=16, depth=1, num_heads=2),
        VisionEmbedder(**size, embed_dim=16, reduction=2, autoencoder=autoencoder.identity),
        autoencoder,
        (8, 16),
        "mr",
        "ct",
    )
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return network.eval(), autoencoder


@every_sampler
def test_a_real_network_translates_a_volume_as_it_does_its_slices(options: dict[str, Any]) -> None:
    network, autoencoder = tiny()
    sources = 2 * torch.rand(1, 1, 8, 16, 5, generator=torch.Generator().manual_seed(0)) - 1
    inferer = LatentTranslationInferer(autoencoder, num_steps=3, num_samples=2, batch_size=2, **options)
    result = inferer(sources, network)
    assert result.shape == (1, 2, 8, 16, 5)
    assert result.std() > 0.01
    assert not result.requires_grad
    alone = inferer(sources[0].permute(3, 0, 1, 2)[3:4], network)  # shared noise: no matter which slice
    torch.testing.assert_close(result[0, ..., 3], alone[0], atol=1e-4, rtol=0)


class Wrapper(nn.Module):
    """As ``DistributedDataParallel`` does: no attributes of the network but ``module``."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.calls = module, 0

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return self.module(*args, **kwargs)


def test_a_wrapped_network_is_called_through_its_wrapper() -> None:
    wrapped = Wrapper(noisy_latent())
    inferer = LatentTranslationInferer(Unshuffle(), num_steps=3)
    assert torch.equal(inferer(slices(), wrapped), inferer(slices(), noisy_latent()))
    assert wrapped.calls == 3


@pytest.mark.parametrize("amp", [True, False])
def test_mixed_precision_reaches_the_network_only(amp: bool) -> None:
    """Not the autoencoder, the image encoder or the result."""
    if amp and not supports_bfloat16("cpu"):
        pytest.skip("this CPU has no fast bf16")
    seen: dict[str, set[torch.dtype]] = {"network": set(), "others": set()}

    def product(x: Tensor, who: str) -> Tensor:
        result = x.flatten(2) @ x.flatten(2).mT
        seen[who].add(result.dtype)
        return result

    class Watched(Unshuffle):
        def encode_moments(self, image: Tensor) -> tuple[Tensor, Tensor]:
            product(image, "others")
            return super().encode_moments(image)

        def decode(self, latent: Tensor) -> Tensor:
            product(latent, "others")
            return super().decode(latent)

    def predict(x_t: Tensor, *_: Any) -> Tensor:
        return x_t.to(product(x_t, "network").dtype)

    inferer = LatentTranslationInferer(Watched(), lambda image: product(image, "others"), num_steps=2, amp=amp)
    assert inferer(slices(), LatentRecording(predict)).dtype == torch.float32
    assert seen == {"network": {torch.bfloat16 if amp else torch.float32}, "others": {torch.float32}}


def test_autoencoder_and_image_encoder_follow_the_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[tuple[str, torch.device]] = []

    class Encoder(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image.mean(dim=(2, 3))

    def to(module: nn.Module, device: torch.device) -> nn.Module:
        moved.append((type(module).__name__, device))
        return module

    monkeypatch.setattr(nn.Module, "to", to)
    LatentTranslationInferer(Unshuffle(), Encoder(), num_steps=2)(slices(), noisy_latent())
    assert moved == [("Unshuffle", torch.device("cpu")), ("Encoder", torch.device("cpu"))]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": "euler"}, "sampler='euler' is unknown; choose one of ddim, ddpm"),
        ({"eta": 1.5}, r"eta=1.5 must lie in \[0, 1\]"),
        ({"eta": -0.1}, r"eta=-0.1 must lie in \[0, 1\]"),
        ({"num_samples": 0}, "LatentTranslationInferer: batch_size=16 and num_samples=0 must be at least 1"),
    ],
    ids=str,
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LatentTranslationInferer(Unshuffle(), **options)


@pytest.mark.parametrize("num_steps", [1, 1001])
def test_more_steps_than_the_training_had_are_refused(num_steps: int) -> None:
    network = noisy_latent()
    with pytest.raises(ValueError, match=rf"num_steps={num_steps} must lie in 2\.\.1000"):
        LatentTranslationInferer(Unshuffle(), num_steps=num_steps)(slices(), network)
    assert network.times == []


# Training


def test_training_hands_on_what_was_drawn_and_returns_the_prediction() -> None:
    seen: dict[str, Any] = {}

    def network(x_t: Tensor, t: Tensor, source: Tensor, **more: Any) -> Tensor:
        seen.update(x_t=x_t, t=t, source=source, **more)
        return (x_t + source).double()

    x_t, source, image, vector = torch.randn(4, 3, 4, 2, 2)
    t = torch.tensor([0, 5, 999])
    pred = LatentDiffusionInferer()(source, network, x_t=x_t, t=t, image=image)
    expected = {"x_t": x_t, "t": t, "source": source, "image": image, "vector": None}
    assert all(seen[name] is value for name, value in expected.items())
    assert pred.dtype == torch.float32
    torch.testing.assert_close(pred, x_t + source)
    LatentDiffusionInferer()(source, network, x_t=x_t, t=t, vector=vector)
    assert seen["vector"] is vector


@pytest.mark.parametrize("amp", [True, False])
def test_mixed_precision_of_training_does_not_reach_the_prediction(amp: bool) -> None:
    if amp and not supports_bfloat16("cpu"):
        pytest.skip("this CPU has no fast bf16")
    seen = []

    def network(x_t: Tensor, t: Tensor, source: Tensor, **_: Any) -> Tensor:
        product = x_t @ source.mT
        seen.append(product.dtype)
        return product

    x_t, source = torch.randn(2, 3, 4, 2, 2)
    pred = LatentDiffusionInferer(amp)(source, network, x_t=x_t, t=torch.arange(3))
    assert seen == [torch.bfloat16 if amp else torch.float32]
    assert pred.dtype == torch.float32


# The autoencoder alone


def test_a_reconstruction_decodes_the_mean() -> None:
    _, autoencoder = tiny()
    image = 2 * torch.rand(3, 1, 8, 16, generator=torch.Generator().manual_seed(0)) - 1
    result = ReconstructionInferer()(image, autoencoder)
    with torch.no_grad():
        expected = autoencoder.network.reconstruct(image)  # MONAI's own
    torch.testing.assert_close(result, expected)
    assert not result.requires_grad
    assert torch.equal(ReconstructionInferer()(image, autoencoder), result)
