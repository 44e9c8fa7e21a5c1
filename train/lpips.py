"""LPIPS v0.1: the perceptual distance of the cycle loss and of the diversity metric (Zhang et al. 2018).

A frozen ImageNet trunk (VGG16 or AlexNet), its channel vectors brought to unit length, squared differences
weighted by learned heads and averaged over space (arXiv 1801.03924, equation 1). The heads are read from the
files of the `lpips` wheel without importing it, for that would import torchvision.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
import urllib.error
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from engines.errors import WeightsError
from engines.installation import install_line, pip_install

log = logging.getLogger(__name__)

Net = Literal["vgg", "alex"]
TRUNK_VARIABLE = "GNR_VIDEO_LPIPS_TRUNK"

_URLS = {
    "vgg": "https://download.pytorch.org/models/vgg16-397923af.pth",
    "alex": "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
}
_PATIENCE_SECONDS = 30.0

# The constants of the LPIPS scaling layer: ImageNet's mean and deviation in units of -1..1.
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)

# torchvision's `features`, by index: (kind, ...). A tap ends a slice whose output is compared.
_VGG_BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
# (index of the convolution, in, out, kernel, stride, padding, 3x3/2 pooling before it)
_ALEX = (
    (0, 3, 64, 11, 4, 2, False),
    (3, 64, 192, 5, 1, 2, True),
    (6, 192, 384, 3, 1, 1, True),
    (8, 384, 256, 3, 1, 1, False),
    (10, 256, 256, 3, 1, 1, False),
)


class Lpips(nn.Module):
    """LPIPS distance of two batches of images.

    Args:
        net: the trunk, "vgg" (training losses) or "alex" (the evaluation metric).
        trunk: the trunk's weights under torchvision's names (``features.0.weight`` ...), a .safetensors or
            .pth file, or a folder with one. Default: ``$GNR_VIDEO_LPIPS_TRUNK`` (file or folder), then
            torchvision's download, kept in the torch hub cache.
        resize_to: reduce larger images to this side (area filter) first; saves time in a training loss.
        dtype: of the trunk. bfloat16 saves the casts that autocast would repeat in every call; heads and
            distances are float32 in any case.

    Frozen and always in evaluation mode; first-order gradients flow to the images that need them. A target
    that several distances share is best given as `features(target)`, computed once under `no_grad`.

    Raises:
        WeightsError: heads or trunk cannot be had or do not fit.
    """

    shift: torch.Tensor
    scale: torch.Tensor

    def __init__(
        self,
        net: Net = "vgg",
        trunk: Path | None = None,
        *,
        resize_to: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        if net not in _URLS:
            raise ValueError(f"net must be 'vgg' or 'alex', got {net!r}")
        self.net = net
        self.resize_to = resize_to
        heads = _read_heads(net)
        self.slices = load_trunk(net, trunk, dtype=dtype)
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1))
        for index, weight in enumerate(heads):
            self.register_buffer(f"head{index}", weight)
        self.requires_grad_(False)
        super().train(False)

    def train(self, mode: bool = True) -> Lpips:
        """Stays in evaluation mode."""
        return self

    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The trunk's five taps, each (N, C, H, W) in the trunk's compute type, not yet normalised.

        Args:
            images: (N, 3, H, W) in -1..1.
        """
        side = self.resize_to
        if side is not None and images.shape[-1] > side:
            images = F.interpolate(images.float(), size=(side, side), mode="area")
        x = (images - self.shift) / self.scale
        x = x.to(next(self.slices.parameters()).dtype).contiguous(memory_format=torch.channels_last)
        taps = []
        for part in self.slices:
            x = part(x)
            taps.append(x)
        return taps

    def distance(self, a: Sequence[torch.Tensor], b: Sequence[torch.Tensor]) -> torch.Tensor:
        """(N,) float32 distances of two lists from `features`."""
        heads = [self.get_buffer(f"head{index}") for index in range(len(self.slices))]
        # Autocast would take the dot products in bfloat16.
        with torch.autocast(a[0].device.type, enabled=False):
            parts = [_TapDistance.apply(one, two, head) for one, two, head in zip(a, b, heads)]
        return torch.stack(parts).sum(0)

    def forward(self, x: torch.Tensor, y: torch.Tensor | Sequence[torch.Tensor]) -> torch.Tensor:
        """(N,) float32 distances of x (N, 3, H, W) in -1..1 to y: images as well, or `features` of them."""
        target = self.features(y) if isinstance(y, torch.Tensor) else y
        return self.distance(self.features(x), target)


class _TapDistance(torch.autograd.Function):
    """One tap's term: the mean over positions of ``sum_c w_c (u_c - v_c)^2``, u and v unit vectors.

    As separate autograd operations this costs more than VGG16's convolutions, all of it memory traffic. Here
    value and gradients come from one pass in float32 over blocks that stay in the cache.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """x, y (N, C, H, W), any floating type; weight (C,) float32. Returns (N,) float32."""
        a, b = _positions_first(x), _positions_first(y)
        count, positions, channels = a.shape
        want_a, want_b = ctx.needs_input_grad[:2]
        grad_a = torch.empty_like(a) if want_a else None
        grad_b = torch.empty_like(b) if want_b else None
        total = torch.zeros(count, device=a.device, dtype=torch.float32)
        if a.device.type == "cpu":
            samples, rows = 1, max(1, _BLOCK_ELEMENTS // channels)
        else:
            samples, rows = max(1, _BLOCK_ELEMENTS_GPU // (positions * channels)), positions
        for n in range(0, count, samples):
            for p in range(0, positions, rows):
                block = (slice(n, n + samples), slice(p, p + rows))
                u, length_u = _unit(a[block])
                v, length_v = _unit(b[block])
                delta = u - v
                slope = delta * weight
                total[n : n + samples] += torch.linalg.vecdot(delta, slope).sum(1)
                # With u = x / |x|: dx = (du - u (u . du)) / |x|. The factor 2 / positions waits for the
                # incoming gradient, or float16 would underflow.
                if grad_a is not None:
                    radial = torch.linalg.vecdot(u, slope)[..., None]
                    grad_a[block] = torch.addcmul(slope, u, radial, value=-1).div_(length_u)
                if grad_b is not None:
                    radial = torch.linalg.vecdot(v, slope)[..., None]
                    grad_b[block] = torch.addcmul(slope, v, radial, value=-1).div_(-length_v)
        ctx.save_for_backward(grad_a, grad_b)
        ctx.side, ctx.factor = x.shape[2:], 2 / positions
        return total / positions

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        def spread(local: torch.Tensor | None) -> torch.Tensor | None:
            if local is None:
                return None
            scaled = local * (grad * ctx.factor).to(local.dtype)[:, None, None]
            return scaled.unflatten(1, ctx.side).permute(0, 3, 1, 2)

        grad_a, grad_b = ctx.saved_tensors
        return spread(grad_a), spread(grad_b), None


_BLOCK_ELEMENTS = 1 << 18
"""Elements of a block on the CPU: float32 copies of it fit the cache, and threads are not woken too often."""
_BLOCK_ELEMENTS_GPU = 1 << 26
"""The same on a GPU, where it bounds the temporary memory (about 1.5 GB)."""


def _positions_first(x: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) as (N, H W, C); a view when x is channels_last."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _unit(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """float32 unit vectors along the last dimension, and the lengths they were divided by."""
    x = x.float()
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True).add_(1e-10)
    return x / length, length


def try_lpips(
    net: Net = "vgg",
    trunk: Path | None = None,
    *,
    resize_to: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> Lpips | None:
    """`Lpips`, or None with one warning that says why, for a training that can go on without it."""
    try:
        return Lpips(net, trunk, resize_to=resize_to, dtype=dtype)
    except WeightsError as error:
        log.warning("training without LPIPS: %s", error)
        return None


def load_trunk(net: Net, trunk: Path | None = None, *, dtype: torch.dtype = torch.float32) -> nn.ModuleList:
    """The trunk alone: five slices, applied in turn to images ``(x - SHIFT) / SCALE``, x in -1..1; frozen.

    Args:
        net, trunk, dtype: as for `Lpips`.

    Raises:
        WeightsError: the weights cannot be had or do not fit.
    """
    slices = _build_trunk(net)
    _fill(slices, _read_trunk(net, trunk), net)
    slices.to(dtype)
    slices.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    slices.requires_grad_(False)
    return slices.eval()


def _build_trunk(net: Net) -> nn.ModuleList:
    """Five slices; each convolution is registered under its index in torchvision's `features`."""
    slices = nn.ModuleList()
    if net == "alex":
        for index, cin, cout, kernel, stride, padding, pooled in _ALEX:
            part = nn.Sequential()
            if pooled:
                part.add_module(f"pool{index}", nn.MaxPool2d(3, 2))
            part.add_module(str(index), nn.Conv2d(cin, cout, kernel, stride, padding))
            part.add_module(f"relu{index}", nn.ReLU(inplace=True))
            slices.append(part)
        return slices
    index, cin = 0, 3
    for number, block in enumerate(_VGG_BLOCKS):
        part = nn.Sequential()
        if number:
            part.add_module(f"pool{index}", nn.MaxPool2d(2))
            index += 1
        for cout in block:
            part.add_module(str(index), nn.Conv2d(cin, cout, 3, padding=1))
            part.add_module(f"relu{index}", nn.ReLU(inplace=True))
            index, cin = index + 2, cout
        slices.append(part)
    return slices


def _fill(slices: nn.ModuleList, state: Mapping[str, torch.Tensor], net: Net) -> None:
    with torch.no_grad():
        for name, parameter in slices.named_parameters():
            key = "features." + name.split(".", 1)[1]  # "<slice>.<index>.weight"
            if key not in state:
                raise WeightsError(
                    f"the LPIPS trunk weights lack {key}", f"they must be torchvision's for {_title(net)}"
                )
            if state[key].shape != parameter.shape:
                raise WeightsError(
                    f"{key} of the LPIPS trunk is {tuple(state[key].shape)}, not {tuple(parameter.shape)}",
                    f"the weights must be torchvision's for {_title(net)}",
                )
            parameter.copy_(state[key])


def _title(net: str) -> str:
    return {"vgg": "VGG16", "alex": "AlexNet"}[net]


def _read_heads(net: Net) -> list[torch.Tensor]:
    """The five heads as (C,) vectors, from the installed `lpips` wheel."""
    # find_spec on a top-level name only locates it.
    spec = importlib.util.find_spec("lpips")
    if spec is None or not spec.submodule_search_locations:
        raise WeightsError("LPIPS needs the heads in the lpips package", install_line("train"))
    path = Path(next(iter(spec.submodule_search_locations))) / "weights" / "v0.1" / f"{net}.pth"
    state = read_state(path, pip_install("--force-reinstall", "--no-deps", "lpips"))
    try:
        return [state[f"lin{index}.model.1.weight"].float().flatten() for index in range(5)]
    except KeyError as error:
        raise WeightsError(f"{path} lacks {error}", pip_install("--no-deps", "lpips>=0.1.4")) from error


def _read_trunk(net: Net, trunk: Path | None) -> Mapping[str, torch.Tensor]:
    named = trunk or os.environ.get(TRUNK_VARIABLE)
    if not named:
        return download_state(_URLS[net], f"the {_title(net)} trunk of LPIPS", TRUNK_VARIABLE)
    path = Path(named)
    if path.is_dir():
        found = [file for ending in ("safetensors", "pth") for file in sorted(path.glob(f"{net}*.{ending}"))]
        if not found:
            raise WeightsError(
                f"no {net}*.safetensors or {net}*.pth in {path}", f"put {_title(net)} weights there"
            )
        path = found[0]
    return read_state(path, f"torchvision's {_title(net)} weights, .safetensors or .pth")


def read_state(path: Path, hint: str) -> Mapping[str, torch.Tensor]:
    """Tensors by name from a .safetensors or torch file.

    Raises:
        WeightsError: it cannot be read; `hint` says what the file should be.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(str(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    # torch.load and safetensors raise many kinds on damaged files (pickle, zip, their own).
    except Exception as error:
        raise WeightsError(f"cannot read {path}: {str(error).splitlines()[0]}", hint) from error
    if not isinstance(state, Mapping):
        raise WeightsError(f"{path} holds a {type(state).__name__}, not a state dict", hint)
    return state


def download_state(url: str, title: str, variable: str) -> Mapping[str, torch.Tensor]:
    """Published weights through the torch hub cache; a dead network fails within half a minute.

    Args:
        url: its file name ends in the hash that is checked.
        title: what it is, for messages.
        variable: environment variable that names a local file instead.

    Raises:
        WeightsError: it cannot be fetched.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_PATIENCE_SECONDS)
    try:
        state: Mapping[str, torch.Tensor] = torch.hub.load_state_dict_from_url(
            url, map_location="cpu", check_hash=True, weights_only=True
        )
        return state
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise WeightsError(
            f"cannot download {title}: {error}",
            f"set {variable} to a file or folder with it, or save {url} there",
        ) from error
    finally:
        socket.setdefaulttimeout(before)
