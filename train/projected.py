"""A discriminator on frozen pretrained features: Projected GAN, for small budgets.

The picture is seen through VGG16, its taps mixed by fixed random convolutions across channels and scales
(Projected GANs Converge Faster, Sauer et al. 2021, section 3), and small trainable heads judge each scale.
What a face is has been learned already, so hundreds of steps do what thousands do from scratch, and no
gradient penalty is needed. GNR's batch-standard-deviation head stands beside them, one that sees the palette,
which the features hardly know, heads for eyes and mouths alone, as GFPGAN has them (Wang et al. 2021, section 3.3),
and heads for what is above and beside the face.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from train.distributed import gather
from train.networks import SLOPE

VGG_CHANNELS = (64, 128, 256, 512, 512)
"""Of the taps relu1_2, relu2_2, relu3_3, relu4_3, relu5_3. The first one knows the palette; it is halved."""
TAP_RMS = (1.6, 3.0, 5.0, 3.0, 1.0)
"""Their usual size on face crops of 64 to 128 pixels; brings all levels to one scale."""

PALETTE_SIZE = 16
"""Side that pictures are shrunk to for the palette's head: where which colour is, and no lines."""
PALETTE_RMS = 0.5

SPREAD = 0.55
"""Mean difference of the colours of two styles that `palette_spread` asks for: that of two drawings is 0.47."""

COMPONENT_LEVELS = (0, 1, 2)
COMPONENT = 0.25
"""Taps that eyes and mouths are judged in, and the side of what is cut out around them, as a share of the picture's."""

SURROUNDINGS = (1, 2, 3)
SURROUNDINGS_DOWNS = (2, 1, 0)
"""Taps that hair is judged in, and the halvings of their heads."""
UPPER = (1 / 20, 9 / 20)
"""Rows of a whole head's picture that hold it, as shares of the side. Above them few data sets' drawings go on."""

PLACES = 4
"""Channels that `with_place` adds."""


class ProjectedDiscriminator(nn.Module):
    """Judges a picture by its taps of a frozen trunk, and by its palette.

    Args:
        channels: of the taps, fine to coarse.
        width: channels of the projections and of the heads.
        downs: halvings inside each head, so that the logits of fine taps are patches of a useful size.
        components: judge eyes and mouths once more, each by heads of its own.
        surroundings: have heads for `judge_surroundings`.
        seed: of the fixed projections.
    """

    def __init__(
        self,
        channels: Sequence[int] = VGG_CHANNELS,
        width: int = 96,
        downs: Sequence[int] = (2, 2, 1, 0, 0),
        components: bool = False,
        surroundings: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def fixed(c_in: int, c_out: int, kernel: int) -> Tensor:
            return torch.randn(c_out, c_in, kernel, kernel, generator=generator) / sqrt(c_in * kernel**2)

        for level, count in enumerate(channels):
            self.register_buffer(f"across_channels{level}", fixed(count, width, 1))
            self.register_buffer(f"across_scales{level}", fixed(width, width, 3))
        self.levels = len(channels)
        self.heads = nn.ModuleList(patch_head(width + PLACES, width, down) for down in downs)
        self.palette = patch_head(3 + PLACES, width, 2)
        self.spread = spectral_norm(nn.Linear(width, 128))
        self.spread_logit = spectral_norm(nn.Linear(128, 1))
        kinds = 2 * len(COMPONENT_LEVELS) if components else 0
        self.components = nn.ModuleList(patch_head(width, width, 1) for _ in range(kinds))
        around = [*((width, down) for down in SURROUNDINGS_DOWNS), (3, 2)] if surroundings else []
        self.surroundings = nn.ModuleList(patch_head(count + PLACES, width, down) for count, down in around)

    def project(self, taps: Sequence[Tensor]) -> list[Tensor]:
        """Taps, each (N, C, H, W), as the heads see them: (N, width, H, W), fine to coarse."""
        mixed: list[Tensor] = []
        below: Tensor | None = None
        for level in reversed(range(self.levels)):
            x = taps[level] if level else F.avg_pool2d(taps[level], 2)
            x = x / TAP_RMS[level]
            x = F.conv2d(x, self.get_buffer(f"across_channels{level}").to(x.dtype))
            if below is not None:
                x = (x + F.interpolate(below, size=x.shape[-2:], mode="bilinear")) * sqrt(0.5)
            x = F.conv2d(x, self.get_buffer(f"across_scales{level}").to(x.dtype), padding=1)
            mixed.append(x)
            below = x
        return mixed[::-1]

    def forward(self, taps: Sequence[Tensor], picture: Tensor, centres: Tensor | None = None) -> list[Tensor]:
        """Logits of every level, of the palette and of the components (N, 1, h, w), and of the batch's spread
        (N, 1); float32.

        Args:
            taps: fine to coarse, each (N, C, H, W).
            picture: what they were taken from, (N, 3, S, S) in [-1, 1].
            centres: where its eyes and mouth are or ought to be (`train.parts.part_centres`), for the components.
        """
        projected = self.project(taps)
        logits = [head(with_place(x)).float() for head, x in zip(self.heads, projected, strict=True)]
        palette = F.adaptive_avg_pool2d(picture.float(), PALETTE_SIZE) / PALETTE_RMS
        logits.append(self.palette(with_place(palette)).float())
        if self.components and centres is not None:
            eyes, mouths = centres[:, :2].flatten(0, 1), centres[:, 2]
            for level, eye, mouth in zip(COMPONENT_LEVELS, self.components[::2], self.components[1::2]):
                both = projected[level].repeat_interleave(2, 0)
                logits += [eye(cut_out(both, eyes)).float(), mouth(cut_out(projected[level], mouths)).float()]
        code = F.leaky_relu(self.spread(projected[-1].mean((2, 3))), SLOPE).float()
        spread = torch.sqrt(gather(code).var(0, keepdim=True, unbiased=False) + 1e-8)
        return [*logits, self.spread_logit(spread).float().expand(len(code), 1)]

    def judge_surroundings(self, taps: Sequence[Tensor], picture: Tensor) -> list[Tensor]:
        """Logits (N, 1, h, w), float32, of `upper_part` of whole heads (N, 3, H, W): of its taps and its palette."""
        projected = self.project(taps)
        palette = F.adaptive_avg_pool2d(picture.float(), (PALETTE_SIZE // 2, PALETTE_SIZE)) / PALETTE_RMS
        seen = [*(projected[level] for level in SURROUNDINGS), palette]
        return [head(with_place(x)).float() for head, x in zip(self.surroundings, seen, strict=True)]


def with_place(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C + 4, H, W): x, y and their squares beside the features, each of about unit size.

    Faces are aligned, so a line on a cheek is wrong where the same line is right as a mouth; a head that knows
    where it looks can say so from few pictures.
    """
    count, _, height, width = x.shape
    y_axis = torch.linspace(-1, 1, height, device=x.device, dtype=x.dtype) * sqrt(3)
    x_axis = torch.linspace(-1, 1, width, device=x.device, dtype=x.dtype) * sqrt(3)
    down, across = torch.meshgrid(y_axis, x_axis, indexing="ij")
    place = torch.stack([across, down, across.square() - 1, down.square() - 1])
    return torch.cat([x, place.expand(count, -1, -1, -1)], 1)


def upper_part(x: Tensor) -> Tensor:
    """The rows `UPPER` of whole heads (N, C, S, S)."""
    top, bottom = (round(share * x.shape[-1]) for share in UPPER)
    return x[:, :, top:bottom]


def cut_out(x: Tensor, centres: Tensor) -> Tensor:
    """The squares of `COMPONENT` of the side of x (N, C, H, W) around centres (N, 2) in [-1, 1]."""
    side = max(round(COMPONENT * x.shape[-1]), 4)
    steps = (torch.arange(side, device=x.device, dtype=torch.float32) - (side - 1) / 2) * (2 / x.shape[-1])
    down, across = torch.meshgrid(steps, steps, indexing="ij")
    grid = centres[:, None, None].float() + torch.stack([across, down], -1)
    with torch.autocast(x.device.type, enabled=False):
        out = F.grid_sample(x.float(), grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return out.to(x.dtype)


def patch_head(channels: int, width: int, downs: int) -> nn.Sequential:
    """Features (N, channels, H, W) -> logits of patches (N, 1, H / 2**downs, W / 2**downs)."""
    layers: list[nn.Module] = []
    for _ in range(downs):
        layers += [spectral_norm(nn.Conv2d(channels, width, 4, 2, 1)), nn.LeakyReLU(SLOPE)]
        channels = width
    layers += [
        spectral_norm(nn.Conv2d(channels, width, 3, 1, 1)),
        nn.LeakyReLU(SLOPE),
        spectral_norm(nn.Conv2d(width, 1, 1)),
    ]
    return nn.Sequential(*layers)


def generator_hinge(logits: Sequence[Tensor]) -> Tensor:
    """Hinge loss of the generator, averaged over the heads: mean -D(fake)."""
    return torch.stack([-head.mean() for head in logits]).mean()


def discriminator_hinge(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Hinge loss, averaged over the heads: mean max(0, 1 - D(real)) + mean max(0, 1 + D(fake))."""
    return torch.stack(
        [F.relu(1 - r).mean() + F.relu(1 + f).mean() for r, f in zip(real, fake, strict=True)]
    ).mean()


def content_distance(a: Tensor, b: Tensor) -> Tensor:
    """Domain-invariant perceptual distance (MUNIT, Huang et al. 2018, section 5.1): mean squared difference of
    two taps (N, C, H, W) whose channels were each brought to mean 0 and deviation 1, which takes the look out."""
    return F.mse_loss(F.instance_norm(a.float()), F.instance_norm(b.float()))


def palette_cells(x: Tensor) -> Tensor:
    """Colours (cells, N, 3), float32, of pictures (N, 3, S, S), in `PALETTE_SIZE` squared cells."""
    return F.adaptive_avg_pool2d(x.float(), PALETTE_SIZE).flatten(2).permute(2, 0, 1)


def palette_energy(fake: Tensor, real: Tensor, others: Tensor) -> Tensor:
    """How unlike the colours of translations (cells, N, 3) and of drawings (cells, M, 3) are spread: the energy
    distance (Székely and Rizzo 2013) between the two sets of colours of a cell, averaged over the cells, as in the
    Cramér GAN (Bellemare et al. 2017). Each translation's colours are drawn to those of the drawings, and pushed from
    those of other translations (cells, K, 3), earlier ones, which no gradient reaches: a batch's own are too few to
    say where to. About 0 where both are alike."""
    toward, apart = _distances(fake, real).mean(), _distances(fake, others.detach()).mean()
    with torch.no_grad():
        within = sum(
            _distances(x, x).sum() / (len(x) * max(x.shape[1] * (x.shape[1] - 1), 1)) for x in (real, others)
        )
        constant = 2 * apart - within
    return 2 * (toward - apart) + constant


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """(cells, N, M) of colours (cells, N, 3) and (cells, M, 3)."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def palette_spread(a: Tensor, b: Tensor) -> Tensor:
    """How much less than `SPREAD` the colours of pictures (N, 3, S, S) of the same faces in two styles differ,
    as a share of it; nothing is asked beyond."""
    difference = a.float() - b.float()
    apart = F.adaptive_avg_pool2d(difference, 2 * PALETTE_SIZE).abs().mean((1, 2, 3))
    return F.relu(1 - apart / SPREAD).mean()
