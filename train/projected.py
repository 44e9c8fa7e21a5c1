"""A discriminator on frozen pretrained features: Projected GAN, for small budgets.

The picture is seen through EfficientNet-Lite1, its taps mixed by fixed random convolutions across channels and scales
(Projected GANs Converge Faster, Sauer et al. 2021, section 3), and small trainable heads judge each scale.
What a face is has been learned already, so hundreds of steps do what thousands do from scratch, and no
gradient penalty is needed. A picture is judged together with its style code (projection discriminator, Miyato and
Koyama 2018): a drawing with the code that was read off it, a translation with the code that it was decoded with, so
that codes have to say what drawings look like (as in BiGAN, Donahue et al. 2017). Beside these heads stand GNR's for
the deviation within a group of pictures, one that sees the palette, which the features hardly know, heads for eyes and
mouths alone, as GFPGAN has them (Wang et al. 2021, section 3.3), and heads for what is above and beside the face.
Mouths are judged together with how far they are open or ought to be: most drawn ones are shut, and a translation's is
to be likely for its face.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from train.facial_parts import FacialPlaces
from train.networks import SLOPE
from train.trunk import CHANNELS, TAP_RMS

WIDTHS = (32, 64, 96, 96, 96)
DOWNS = (2, 1, 1, 0, 0)
"""Of the heads, fine to coarse: channels, and halvings, so that fine taps are judged in patches of a useful size."""

PALETTE_SIZE = 16
"""Side that pictures are shrunk to for the palette's head: where which colour is, and no lines."""
PALETTE_RMS = 0.5

TEXTURE_GRID = 4
"""Cells along a side that features are compared in: small enough to tell hair from skin, and a few of the coarsest
tap's places each."""

GROUPED = (2, 3)
"""Levels in which a group's deviation is judged: what is drawn where, in shapes."""

COMPONENT_LEVELS = (0, 1, 2)
COMPONENT = 0.25
"""Levels that eyes and mouths are judged in, and the side of what is cut out around them, as a share of the whole."""

SURROUNDINGS = (1, 2, 3)
SURROUNDINGS_DOWNS = (1, 1, 0)
"""Levels that hair is judged in, and the halvings of their heads."""
UPPER = (1 / 20, 9 / 20)
"""Rows of a whole head's picture that hold it, as shares of the side. Above them few data sets' drawings go on."""

PLACE_CHANNELS = 4
"""Channels that `with_place` adds."""


class ProjectedDiscriminator(nn.Module):
    """Judges a picture by its taps of a frozen trunk, and by its palette.

    Args:
        latent_dim: length of the style codes that pictures are judged with; 0: without.
        group: pictures whose deviation is judged, standing together in a batch; 1: none.
        components: judge eyes and mouths once more, each by heads of its own.
        surroundings: have heads for `judge_surroundings`.
        channels: of the taps, fine to coarse.
        widths: channels of the projections and of the heads.
        downs: halvings inside each head.
        seed: of the fixed projections.
    """

    def __init__(
        self,
        latent_dim: int = 0,
        group: int = 1,
        components: bool = False,
        surroundings: bool = False,
        channels: Sequence[int] = CHANNELS,
        widths: Sequence[int] = WIDTHS,
        downs: Sequence[int] = DOWNS,
        seed: int = 0,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def fixed(c_in: int, c_out: int, kernel: int) -> Tensor:
            return torch.randn(c_out, c_in, kernel, kernel, generator=generator) / sqrt(c_in * kernel**2)

        for level, (count, width) in enumerate(zip(channels, widths, strict=True)):
            self.register_buffer(f"across_channels{level}", fixed(count, width, 1))
            self.register_buffer(f"across_scales{level}", fixed(width, width, 3))
            if level:
                self.register_buffer(f"upwards{level}", fixed(width, widths[level - 1], 1))
        self.levels, self.group = len(channels), group
        self.heads = nn.ModuleList(
            PatchHead(width + PLACE_CHANNELS, width, down, latent_dim) for width, down in zip(widths, downs)
        )
        self.palette = PatchHead(3 + PLACE_CHANNELS, 64, 2, latent_dim)
        deviations = [widths[level] + PLACE_CHANNELS for level in GROUPED] if group > 1 else []
        self.deviations = nn.ModuleList(PatchHead(count, 64, 1) for count in deviations)
        self.components = nn.ModuleList(
            PatchHead(widths[level], widths[level], 1, told)
            for level in COMPONENT_LEVELS
            if components
            for told in (0, 1)  # of eyes nothing, of a mouth how far it is open
        )
        around = [*zip((widths[level] for level in SURROUNDINGS), SURROUNDINGS_DOWNS), (3, 2)]
        self.surroundings = nn.ModuleList(
            PatchHead(count + PLACE_CHANNELS, max(count, 64), down) for count, down in around if surroundings
        )

    def project(self, taps: Sequence[Tensor]) -> list[Tensor]:
        """Taps, each (N, C, H, W), as the heads see them: (N, width, H, W), fine to coarse."""
        mixed: list[Tensor] = []
        below: Tensor | None = None
        for level in reversed(range(self.levels)):
            x = taps[level] / TAP_RMS[level]
            x = F.conv2d(x, self.get_buffer(f"across_channels{level}").to(x.dtype))
            if below is not None:
                below = F.conv2d(below, self.get_buffer(f"upwards{level + 1}").to(x.dtype))
                x = (x + F.interpolate(below, size=x.shape[-2:], mode="bilinear")) * sqrt(0.5)
            x = F.conv2d(x, self.get_buffer(f"across_scales{level}").to(x.dtype), padding=1)
            mixed.append(x)
            below = x
        return mixed[::-1]

    def forward(
        self,
        taps: Sequence[Tensor],
        picture: Tensor,
        styles: Tensor | None = None,
        places: FacialPlaces | None = None,
    ) -> list[Tensor]:
        """Logits of every level and of the palette (N, 1, h, w), of the groups' deviations (N / group, 1, h, w), and
        of the components (N, 1, h, w); float32.

        Args:
            taps: fine to coarse, each (N, C, H, W).
            picture: what they were taken from, (N, 3, S, S) in [-1, 1].
            styles: its codes, (N, latent_dim).
            places: where its eyes and mouth are or ought to be, for components.
        """
        projected = self.project(taps)
        logits = [head(with_place(x), styles) for head, x in zip(self.heads, projected, strict=True)]
        logits.append(self.palette(with_place(palette_of(picture)), styles))
        for head, level in zip(self.deviations, GROUPED):
            grouped = projected[level].float().unflatten(0, (-1, self.group))
            # Not var(): of bfloat16 brought to float32 in channels_last it takes twenty times as long.
            variance = (grouped - grouped.mean(1, keepdim=True)).square().mean(1)
            deviation = torch.sqrt(variance + 1e-6)
            logits.append(head(with_place(deviation)))
        if self.components and places is not None:
            eyes, mouths = places.centres[:, :2].flatten(0, 1), places.centres[:, 2]
            opened = 2 * places.opened[:, None] - 1
            for level, eye, mouth in zip(COMPONENT_LEVELS, self.components[::2], self.components[1::2]):
                both = projected[level].repeat_interleave(2, 0)
                logits += [eye(cut_out(both, eyes)), mouth(cut_out(projected[level], mouths), opened)]
        return logits

    def judge_surroundings(self, taps: Sequence[Tensor], picture: Tensor) -> list[Tensor]:
        """Logits (N, 1, h, w), float32, of `upper_part` of whole heads (N, 3, H, W): of its taps and its palette."""
        projected = self.project(taps)
        palette = palette_of(picture, PALETTE_SIZE // 2)
        seen = [*(projected[level] for level in SURROUNDINGS), palette]
        return [head(with_place(x)) for head, x in zip(self.surroundings, seen, strict=True)]


class PatchHead(nn.Module):
    """Features (N, channels, H, W), and style codes (N, latent_dim) if it has them, -> logits of patches
    (N, 1, H / 2**downs, W / 2**downs), float32."""

    def __init__(self, channels: int, width: int, downs: int, latent_dim: int = 0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(downs):
            layers += [spectral_norm(nn.Conv2d(channels, width, 4, 2, 1)), nn.LeakyReLU(SLOPE)]
            channels = width
        layers += [spectral_norm(nn.Conv2d(channels, width, 3, 1, 1)), nn.LeakyReLU(SLOPE)]
        self.look = nn.Sequential(*layers)
        self.logit = spectral_norm(nn.Conv2d(width, 1, 1))
        self.embed = spectral_norm(nn.Linear(latent_dim, width, bias=False)) if latent_dim else None

    def forward(self, x: Tensor, styles: Tensor | None = None) -> Tensor:
        h = self.look(x)
        logits: Tensor = self.logit(h).float()
        if self.embed is not None and styles is not None:
            asked = self.embed(styles).float()[:, :, None, None]
            logits = logits + (asked * h.float()).sum(1, keepdim=True)
        return logits


def palette_of(picture: Tensor, rows: int = PALETTE_SIZE) -> Tensor:
    """Pictures (N, 3, H, W), shrunk to `rows` x `PALETTE_SIZE` and brought to unit size."""
    return F.adaptive_avg_pool2d(picture.float(), (rows, PALETTE_SIZE)) / PALETTE_RMS


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


def texture_cells(taps: Sequence[Tensor]) -> list[Tensor]:
    """How features are spread over each of `TEXTURE_GRID` squared cells of a picture: means and deviations, float32
    (cells, N, 2 C) for each tap (N, C, H, W), of such a size that all levels count alike."""
    cells = []
    for tap, rms in zip(taps, TAP_RMS, strict=True):
        x = tap.float() / (rms * sqrt(2 * tap.shape[1]))
        mean = F.adaptive_avg_pool2d(x, TEXTURE_GRID)
        variance = F.adaptive_avg_pool2d(x.square(), TEXTURE_GRID) - mean.square()
        deviation = torch.sqrt(variance.clamp(min=0) + 1e-6)
        cells.append(torch.cat([mean, deviation], 1).flatten(2).permute(2, 0, 1))
    return cells


def energy_distance(fake: Tensor, real: Tensor, others: Tensor) -> Tensor:
    """How unlike translations (cells, N, D) and drawings (cells, M, D) are spread: the energy distance (Székely and
    Rizzo 2013) between the two sets of colours or features of a cell, averaged over the cells, as in the Cramér GAN
    (Bellemare et al. 2017). Each translation is drawn to the drawings, and pushed from other translations
    (cells, K, D), earlier ones, which no gradient reaches: a batch's own are too few to say where to. About 0 where
    both are alike."""
    toward, apart = _distances(fake, real).mean(), _distances(fake, others.detach()).mean()
    with torch.no_grad():
        within = sum(
            _distances(x, x).sum() / (len(x) * max(x.shape[1] * (x.shape[1] - 1), 1)) for x in (real, others)
        )
        constant = 2 * apart - within
    return 2 * (toward - apart) + constant


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """(cells, N, M) of (cells, N, D) and (cells, M, D)."""
    # The product is thirty times as fast with hundreds of numbers, and not exact enough for a few of nearly equal ones.
    mode = "donot_use_mm_for_euclid_dist" if x.shape[-1] < 16 else "use_mm_for_euclid_dist"
    return torch.cdist(x, y, compute_mode=mode)
