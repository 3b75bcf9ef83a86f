"""A segmentation architecture whose head can be exchanged while everything else stays."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast, get_args

from monai.networks.nets import BasicUNet
from torch import Tensor, nn

from ..blocks.compatibility import refuse, settings_differences, weight_differences
from ..blocks.recorded_settings import RecordedSettings, Setting, decode_setting
from .swin_transformer_unet import SwinTransformerUNet

Architecture = Literal["unet", "swin_unet"]

_BODY = {  # what the weights of the body depend on
    "unet": ("architecture", "features"),
    "swin_unet": ("architecture", "embed_dim", "depths", "num_heads", "window_size"),
}
_HEADS = {"unet": "final_conv", "swin_unet": "head"}
_UNET_MULTIPLE = 16


class PixelNetwork(nn.Module):
    """One value or several for each pixel of a grey image, by a U-Net (MONAI's) or a Swin-Unet.

    image ``(B, 1, X, Y)`` in [0, 1] -> ``(B, out_channels, X, Y)`` in float32. The state dict records the settings, so
    that :meth:`from_state_dict` of a subclass can rebuild the network from it alone.

    Args:
        out_channels: channels of the head.
        own_settings: what a subclass records besides the architecture.
        architecture: ``"unet"`` or ``"swin_unet"``.
        image_size: (X, Y), multiples of 16 (at least 32) for the U-Net, of 32 for four stages of the Swin-Unet.
        features: widths of the U-Net: five levels and the last decoder block. (64, 128, 256, 512, 1024, 64) is the
            classic one.
        embed_dim, depths, num_heads, window_size, drop_path: of the Swin-Unet, see :class:`SwinTransformerUNet`.
    """

    def __init__(
        self,
        out_channels: int,
        own_settings: Mapping[str, Setting],
        *,
        architecture: Architecture,
        image_size: Sequence[int],
        features: Sequence[int],
        embed_dim: int,
        depths: Sequence[int],
        num_heads: Sequence[int],
        window_size: int,
        drop_path: float,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if architecture not in get_args(Architecture):
            choices = ", ".join(get_args(Architecture))
            raise ValueError(f"{name}: architecture={architecture!r} is unknown; choose one of {choices}.")
        width, height = (int(side) for side in image_size)
        self.architecture = architecture
        self.image_size = (width, height)
        body: dict[str, Setting] = {"architecture": architecture}
        if architecture == "unet":
            if len(features) != 6:
                raise ValueError(f"{name}: features={list(features)} must be six: of five levels and the last block.")
            if min(width, height) < 2 * _UNET_MULTIPLE or width % _UNET_MULTIPLE or height % _UNET_MULTIPLE:
                raise ValueError(
                    f"{name}: image_size={width}x{height} must be multiples of {_UNET_MULTIPLE}, at least "
                    f"{2 * _UNET_MULTIPLE}, for the four halvings of the U-Net."
                )
            network: nn.Module = BasicUNet(
                spatial_dims=2, in_channels=1, out_channels=out_channels, features=cast(Any, tuple(features))
            )
            body |= {"features": _words(features)}
        else:
            network = SwinTransformerUNet(
                in_channels=1,
                out_channels=out_channels,
                image_size=(width, height),
                embed_dim=embed_dim,
                depths=depths,
                num_heads=num_heads,
                window_size=window_size,
                drop_path=drop_path,
            )
            body |= {
                "embed_dim": embed_dim,
                "depths": _words(depths),
                "num_heads": _words(num_heads),
                "window_size": window_size,
            }
        self.network = network
        self.settings = RecordedSettings({**body, "image_size": _words(self.image_size), **own_settings})

    @classmethod
    def recorded_arguments(cls, state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
        """Keyword arguments of the architecture that a state dict records.

        Raises:
            ValueError: they are not recorded.
        """
        architecture = recorded(cls.__name__, state_dict, "architecture")
        if architecture not in _BODY:
            refuse(cls.__name__, [f"architecture: checkpoint {architecture}, known are {', '.join(_BODY)}"])
        arguments = {name: recorded(cls.__name__, state_dict, name) for name in (*_BODY[architecture], "image_size")}
        numbers = {"image_size", "features", "depths", "num_heads"}
        return {
            name: [int(word) for word in value.split(",")] if name in numbers else value
            for name, value in arguments.items()
        }

    def forward(self, image: Tensor) -> Tensor:
        if tuple(image.shape[1:]) != (1, *self.image_size):
            raise ValueError(
                f"{type(self).__name__}: got images of shape {tuple(image.shape)}; this network takes slices of "
                f"{self.image_size[0]} x {self.image_size[1]} pixels in one channel."
            )
        return self.network(image).float()

    def load_body(self, state_dict: Mapping[str, Tensor]) -> None:
        """Take over all weights but the head from the state dict of another :class:`PixelNetwork`.

        Raises:
            ValueError: it was made for another architecture; names every difference.
        """
        head = f"network.{_HEADS[self.architecture]}."
        body = {f"settings.{name}" for name in _BODY[self.architecture]}
        own = {  # stays as it is
            name: value
            for name, value in self.state_dict().items()
            if name.startswith(head) or (name.startswith("settings.") and name not in body)
        }
        theirs = {name: value for name, value in state_dict.items() if not name.startswith(head)}
        state = {**theirs, **own}
        if not any(name.startswith("settings.") for name in theirs):
            state = theirs  # for the one message that says so
        self.check_compatible(state)
        self.load_state_dict({name: state[name] for name in self.state_dict()})

    def check_compatible(self, state_dict: Mapping[str, Tensor], prefix: str = "") -> None:
        """Raise one ``ValueError`` naming all in which ``state_dict`` does not fit this network."""
        owner = type(self).__name__
        lines = settings_differences(owner, self.settings, state_dict, prefix)
        refuse(owner, lines or weight_differences(self.network, state_dict, prefix, "network"))

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        self.check_compatible(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)


def recorded(owner: str, state_dict: Mapping[str, Tensor], name: str) -> Any:
    """A setting that a state dict records; ValueError if it does not."""
    if f"settings.{name}" not in state_dict:
        refuse(owner, [f"{name}: not recorded"])
    return decode_setting(state_dict[f"settings.{name}"])


def _words(numbers: Sequence[int]) -> str:
    return ",".join(str(int(number)) for number in numbers)
