"""Repainting: trained weights take on the colours of drawings, and keep what they draw.

    python -m train.repaint WEIGHTS PREPARED -o REPAINTED [--faces FOLDER] [--heads FOLDER]

Colours are what a discriminator teaches last. But they can be asked for without one: their distribution over drawings
is known, place by place (`train.projected.palette_energy`). All convolutions stay; what is trained is how a style
scales their channels, their biases, and the layers that make RGB. The pictures that the weights made before, in the
same style, are the model of every line. So neither a discriminator nor a perceptual trunk has to be run, and a step
costs little more than the decoder. The style head learns with them what of a drawing a style has to say.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import cos, isfinite, pi
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from engines.errors import GnrVideoError, InputError, WeightsError
from engines.weights import STYLE_ENCODER, Weights, load_weights, save_weights
from gnr_video.weights import resolve_weights
from train.augment import recolour, relight, to_float
from train.data import Domains, Framing, ImagePool, load_dataset
from train.losses import latent_divergence
from train.networks import Encoder, Generator, StyledConv
from train.one_way import face_of
from train.projected import palette_energy
from train.trainer import CODES_PER_AXIS, Clock, TrainingDiverged, Window, has_fast_bf16

CELLS = 32
"""Of the side, for `palette`; an iris is about two of them wide."""
LOOKED_AT = 25
"""Rows of cells, from the top: below, faces have their chins where drawings have their necks."""
COARSE = 8
"""Cells of the side for `harmony`."""
DRAWINGS = 128
"""How many drawings' colours a step's translations are compared with."""
PAINTED = 32
"""How many earlier translations' colours, of each kind of style, they are pushed from. Few, for what lies many steps
back pushes them past the mark: with 128 all skins turned cyan, then red, and so on."""
WIDE = 3
"""Every third step translates whole heads."""
WARMUP = 20
"""Steps until the learning rate is reached."""
WINDOW = 9
"""Side of the windows of `line_loss` in pixels: wider than a drawn line, or a lash."""
EDGE = 0.03
"""Difference of neighbouring pixels from which on there is an edge; of 2."""
SAVE_EVERY = 100
"""Steps between two writings of the weights."""
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Settings:
    """How to repaint.

    Attributes:
        steps: in all; the learning rate ends at 0.
        batch: faces in a step, half of them in seeds' styles, half in drawings'.
        drawings: drawings whose style codes are read in a step.
        lr: Adam's.
        palette: colours are drawings' cell by cell.
        harmony: colours go together as drawings' do, all cells of a coarse picture at once.
        reproduction: a drawing's own content and style give its colours again, in squares of four pixels.
        lines: every window of pixels is what it was but for its lightness and contrast.
        detail: what a picture has within five pixels is what it was, times `contrast`.
        contrast: more than 1, for one-way training leaves half the contrast that drawings have there.
        flat: where there was no edge there is none.
        latent: style codes lie where seeds are drawn (`train.losses.latent_divergence`).
        excess: colours stay within black and white.
        share: how far to go with the weights that come out. Drawings' skins are alike: all the way, styles are.
    """

    steps: int = 320
    batch: int = 8
    drawings: int = 8
    lr: float = 1.5e-3
    palette: float = 10.0
    harmony: float = 10.0
    reproduction: float = 1.0
    lines: float = 4.0
    detail: float = 10.0
    contrast: float = 1.4
    flat: float = 10.0
    latent: float = 1.0
    excess: float = 10.0
    share: float = 0.6

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise InputError(f"a share of {self.share:g} cannot be", "over 0 and up to 1")
        if self.steps < 1 or self.batch < 2 or self.drawings < self.batch:
            raise InputError(
                f"{self.steps} steps of {self.batch} faces and {self.drawings} drawings cannot be",
                "at least 1 step, 2 faces, and as many drawings as faces",
            )


class Repainting:
    """Weights on their way to drawings' colours.

    Args:
        weights: with a style head.
        data: faces and drawings, of the weights' size.
        settings: see there.
        device: "cpu" or "cuda".
        seed: of everything random.

    Raises:
        WeightsError: the weights cannot read styles off drawings.
        InputError: the pictures are of another size than the weights'.
    """

    def __init__(
        self,
        weights: Weights,
        data: Domains,
        settings: Settings = Settings(),
        *,
        device: str = "cpu",
        seed: int = 0,
    ) -> None:
        if not weights.has_style_encoder:
            raise WeightsError(
                "these weights hold no style encoder, so drawings have no styles to learn from"
            )
        size = weights.architecture.size
        if not data.train_a.size == data.train_b.size == size:
            raise InputError(f"the weights draw {size} pixels, the pictures have {data.train_a.size}")
        self.weights, self.data, self.settings = weights, data, settings
        self.device = torch.device(device)
        self.generator = torch.Generator().manual_seed(seed)
        own = {name: t for name, t in weights.tensors.items() if not name.startswith(STYLE_ENCODER)}
        head = {
            name.removeprefix(STYLE_ENCODER): t
            for name, t in weights.tensors.items()
            if name.startswith(STYLE_ENCODER)
        }
        self.network = Generator(weights.architecture).to(self.device)
        self.network.load_state_dict(own, strict=False)  # fixed kernels are not in the file
        self.style = Encoder(weights.architecture).to(self.device)
        self.style.load_state_dict(head, strict=False)
        self.before = copy.deepcopy(self.network).requires_grad_(False)
        self.head_before = copy.deepcopy(self.style.style).requires_grad_(False)
        for frozen in (self.network.encoder, self.style.stem, self.style.content):
            frozen.requires_grad_(False)
        for module in self.network.modules():
            if isinstance(module, StyledConv):
                module.conv.weight.requires_grad_(False)
        self.parameters = [
            p for net in (self.network, self.style) for p in net.parameters() if p.requires_grad
        ]
        self.optimiser = torch.optim.Adam(self.parameters, settings.lr, betas=(0.5, 0.99))
        drawings = data.train_b.images
        self.colours = torch.cat([palette(to_float(some)) for some in drawings.split(64)])
        self.painted: list[Tensor] = []
        self.codes = torch.zeros(0, weights.architecture.latent_dim, device=self.device)
        self.step = 0

    def train_step(self) -> dict[str, Tensor]:
        """One update; the losses, unweighted."""
        s = self.settings
        heads = self.data.heads if self.step % WIDE == WIDE - 1 else None
        self.optimiser.param_groups[0]["lr"] = (
            s.lr * min(1, (self.step + 1) / WARMUP) * (1 + cos(pi * self.step / s.steps)) / 2
        )
        faces = self._sample(heads or self.data.train_a, s.batch)
        drawings = self._sample(self.data.train_b, s.drawings)
        half = s.batch // 2
        some = drawings[:half]
        with self._autocast(), torch.no_grad():
            content = self.network.content(faces)
            drawn = self.network.content(relight(recolour(some, self.generator), self.generator))
            stem = self.style.stem(drawings).contiguous()
            seeds = torch.randn(half, self.codes.shape[1], generator=self.generator).to(self.device)
            lent = slice(half, s.batch)
            looks = torch.cat([seeds, self.head_before(stem[lent]).float()])
            before = self.before.decode(content, looks).float().clamp(-1, 1)
        with self._autocast():
            codes = self.style.style(stem).float()
            styles = torch.cat([seeds, codes[lent]])
            picture = self.network.decode(content, styles).float()
            again = self.network.decode(drawn, codes[:half]).float()
        terms = self._palettes(palette(face_of(picture) if heads else picture), half)
        terms["reproduction"] = F.l1_loss(F.avg_pool2d(again, 4), F.avg_pool2d(some, 4))
        grey, grey_before = luma(picture), luma(before)
        terms["lines"] = line_loss(grey, grey_before)
        terms["detail"] = (detail(grey) - s.contrast * detail(grey_before)).abs().mean()
        terms["flat"] = unevenness(picture, before)
        enough = CODES_PER_AXIS * codes.shape[1]
        self.codes = torch.cat([self.codes, codes.detach()])[-enough:]
        if len(self.codes) == enough:
            terms["latent"] = latent_divergence(codes, self.codes)
        terms["excess"] = F.relu(picture.abs() - 1).mean()
        total = torch.stack([getattr(s, name) * value for name, value in terms.items()]).sum()
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 5.0)
        self.optimiser.step()
        self.step += 1
        return {name: value.detach() for name, value in terms.items()}

    def result(self) -> Weights:
        """The weights, `Settings.share` of the way from what they were to what they are now."""
        own, head = self.network.state_dict(), self.style.state_dict()
        tensors = {}
        for name, before in self.weights.tensors.items():
            is_head = name.startswith(STYLE_ENCODER)
            now = head[name.removeprefix(STYLE_ENCODER)] if is_head else own[name]
            tensors[name] = torch.lerp(before, now.detach().cpu(), self.settings.share)
        metadata = {**self.weights.metadata, "colours": f"repainted in {self.step} steps"}
        return replace(self.weights, tensors=tensors, metadata=metadata, sha256="")

    def _sample(self, pool: ImagePool, count: int) -> Tensor:
        """As many pictures (N, 3, S, S), mirrored or not."""
        pictures = to_float(pool.sample(count, self.generator, device=self.device))
        mirrored = torch.rand(count, 1, 1, 1, generator=self.generator).to(self.device) < 0.5
        pictures = torch.where(mirrored, pictures.flip(-1), pictures)
        return pictures.contiguous(memory_format=torch.channels_last)

    def _palettes(self, cells: Tensor, half: int) -> dict[str, Tensor]:
        """`palette` and `harmony` of translations (N, 3, CELLS, CELLS), the first `half` in seeds' styles. Both
        kinds are compared by themselves, or one would make up for the other."""
        chosen = torch.randint(len(self.colours), (DRAWINGS,), generator=self.generator)
        real = self.colours[chosen].to(self.device)
        kinds = [cells[:half], cells[half:]]
        new = [kind.detach() for kind in kinds]
        earlier = self.painted or new
        apart = [palette_energy(_places(k), _places(real), _places(e)) for k, e in zip(kinds, earlier)]
        whole = [palette_energy(_coarse(k), _coarse(real), _coarse(e)) for k, e in zip(kinds, earlier)]
        self.painted = [torch.cat(pair)[-PAINTED:] for pair in zip(earlier, new, strict=True)]
        return {"palette": torch.stack(apart).mean(), "harmony": torch.stack(whole).mean()}

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=has_fast_bf16(self.device))


def palette(x: Tensor) -> Tensor:
    """Mean colours (N, 3, CELLS, CELLS) of pictures (N, 3, S, S)."""
    return F.adaptive_avg_pool2d(x, CELLS)


def _places(cells: Tensor) -> Tensor:
    """(N, 3, CELLS, CELLS) -> (cells, N, 3), those of `LOOKED_AT` rows."""
    return cells[:, :, :LOOKED_AT].flatten(2).permute(2, 0, 1)


def _coarse(cells: Tensor) -> Tensor:
    """(N, 3, CELLS, CELLS) -> (1, N, 3 COARSE²): pictures as single points, as far apart as their cells on average."""
    return (F.adaptive_avg_pool2d(cells, COARSE).flatten(1) / COARSE)[None]


def luma(x: Tensor) -> Tensor:
    """(N, 3, H, W) -> (N, 1, H, W)."""
    return (x * x.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)


def detail(grey: Tensor) -> Tensor:
    """What a picture (N, 1, H, W) has within five pixels: lines, not areas."""
    return grey - F.avg_pool2d(grey, 5, 1, 2, count_include_pad=False)


def line_loss(grey: Tensor, before: Tensor) -> Tensor:
    """How unlike windows of two pictures (N, 1, H, W) are but for lightness and contrast: 1 - correlation, and the
    share of contrast that was lost. Windows count by the contrast that they had."""
    size, step = WINDOW, WINDOW // 3

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, size, step)

    m, n = mean(grey), mean(before)
    variance, had = mean(grey * grey) - m * m, mean(before * before) - n * n
    variance, had = variance.clamp(min=0), had.clamp(min=0)
    together = mean(grey * before) - m * n
    alike = (together + 1e-3) / ((variance * had + 1e-8).sqrt() + 1e-3)
    lost = F.relu(1 - ((variance + 1e-5) / (had + 1e-5)).sqrt())
    weight = had.sqrt()
    weight = weight / (weight.mean() + 1e-6)
    return (weight * (1 - alike + lost)).mean()


def unevenness(picture: Tensor, before: Tensor) -> Tensor:
    """Mean difference of neighbouring pixels of a picture (N, 3, H, W) where the one before had no edge."""
    total = picture.new_zeros(())
    for axis in (2, 3):
        there = before.diff(dim=axis).abs().amax(1, keepdim=True)
        total = total + (picture.diff(dim=axis).abs() * torch.exp(-there / EDGE)).mean()
    return total


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", help="NAME or FILE")
    parser.add_argument("prepared", type=Path, help="folder from `gnr-video prepare`")
    parser.add_argument("-o", "--output", type=Path, required=True, help="weights file to write")
    parser.add_argument("--faces", type=Path, action="append", default=[], help="more prepared faces")
    parser.add_argument("--heads", type=Path, action="append", default=[], help="whole heads")
    parser.add_argument("--hold-out", type=int, default=0, help="of --faces, kept from training")
    parser.add_argument("--cache", type=Path, help="folder for the decoded pictures")
    parser.add_argument(
        "--steps", type=int, default=Settings.steps, help="(default: %(default)d, ten minutes of two cores)"
    )
    parser.add_argument("--batch", type=int, default=Settings.batch, help="(default: %(default)d)")
    parser.add_argument("--lr", type=float, default=Settings.lr, help="(default: %(default)g)")
    parser.add_argument(
        "--share", type=float, default=Settings.share, help="see Settings (default: %(default)g)"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--log-every", type=int, default=25, help="(default: %(default)d)")
    arguments = parser.parse_args(argv)
    settings = Settings(
        arguments.steps,
        arguments.batch,
        max(Settings.drawings, arguments.batch),
        arguments.lr,
        share=arguments.share,
    )
    weights = load_weights(resolve_weights(arguments.weights))
    data = load_dataset(
        arguments.prepared,
        weights.architecture.size,
        extra_a=[(folder, Framing()) for folder in arguments.faces],
        heads=arguments.heads,
        hold_out=arguments.hold_out,
        cache=arguments.cache,
    )
    repainting = Repainting(weights, data, settings, device=arguments.device)
    clock, window = Clock(), Window()
    while repainting.step < settings.steps:
        terms = repainting.train_step()
        window.add(repainting.step, terms)
        clock.steps += 1
        if repainting.step % arguments.log_every == 0 or repainting.step == settings.steps:
            means = dict(sorted(window.means().items()))
            bad = [name for name, value in means.items() if not isfinite(value)]
            if bad:
                raise TrainingDiverged(
                    f"not finite at step {repainting.step}: {', '.join(bad)}", "begin with a lower --lr"
                )
            pace = clock.seconds_per_step()
            left = pace * (settings.steps - repainting.step) / 60
            values = "  ".join(f"{name} {value:.4f}" for name, value in means.items())
            print(
                f"step {repainting.step}/{settings.steps}  {pace:.2f} s/step  {left:.0f} min left  {values}"
            )
            window = Window()
        if repainting.step % SAVE_EVERY == 0 or repainting.step == settings.steps:
            done = repainting.result()
            save_weights(arguments.output, done.architecture, done.tensors, done.metadata)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except GnrVideoError as error:
        sys.exit(f"error: {error}")
