"""Close-ups: trained weights are gone over once more, with eyes and mouths judged by themselves.

    python -m train.closeups WEIGHTS PREPARED -o OUT [--faces FOLDER] [--heads FOLDER] [--lpips-trunk FILE]

A viewer looks at the eyes first, and they are a twentieth of the picture: what a discriminator of whole pictures, a
perceptual distance and steadiness under motion agree on is a dark blot. Here faces are shown aligned, as they are at
run-time; discriminators see them whole and in windows around eyes and mouth beside those of drawings, through
VGG16 at half size and as they are. Colours have to stay what they were, so that a seed stays the look that it was,
two looks of a face have to differ in more than colours, and cheeks get no marks that they did not have.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import cos, inf, pi
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.devices import best_device, native_bf16
from engines.errors import GnrVideoError, exit_with
from engines.weights import Weights, save_weights
from train.afterwards import arguments_for, read_inputs, timed_log
from train.augment import recolour, relight, resample, to_float
from train.data import Domains
from train.flow import motion_difference, random_motion
from train.lpips import Lpips
from train.networks import Generator
from train.one_way import CONTENT_TAP, Resize, as_it_is, face_of, in_head
from train.parts import PartsHead, centres_of_drawings, part_distance
from train.projected import (
    PLACES,
    ProjectedDiscriminator,
    content_distance,
    discriminator_hinge,
    generator_hinge,
    palette_energy,
    patch_head,
    with_place,
)
from train.recipes import RecipeError
from train.trainer import Clock
from train.trainer import Window as Terms

SHIFT = 6.0
"""Most that a window is off its middle, pixels of 256: a discriminator that knew just where an eye has to be would
judge that."""
WARM_UP = 100
"""Steps in which the generator waits for the discriminators to know what they are talking about."""
CELL = 8
"""Of the colours that stay."""
LINE_CELLS = 16
LINE_WIDTHS = (3, 11)
"""Of the means that lines stand out from, pixels."""
OTHERS = 64
"""Pictures whose lines those of a batch are compared with."""
LOOKS = 64
"""Faces that say how far apart two looks are before."""
STAYS = ("mapping.", "encoder.style.")
"""What is not trained, by the start of its name: which style is which look."""
DEEP = ("encoder.", "adain_bottleneck.", "conv1.", "to_rgb1.")
"""What decides where things are, and learns more slowly."""


@dataclass(frozen=True)
class Window:
    """A part of the face that is judged by itself; pixels of 256.

    Attributes:
        width, height: of what is judged.
        row: of its middle in an aligned face; the column is the face's middle.
        weight: of its losses.
    """

    width: int
    height: int
    row: int
    weight: float = 1.0

    def around(self, pictures: Tensor, middles: Tensor) -> Tensor:
        """What is seen of pictures (N, C, S, S) around middles (N, 2), x and y in pixels of 256; moved inwards where
        it would leave the picture.

        Returns:
            (N, C, height, width). Pictures of 256 pixels are not resampled: lines stay as sharp as they are.
        """
        scale = pictures.shape[-1] / 256
        width, height = round(self.width * scale), round(self.height * scale)
        cut = []
        for picture, (x, y) in zip(pictures, (middles * scale).tolist(), strict=True):
            left, top = (
                min(max(round(middle - length / 2), 0), pictures.shape[-1] - length)
                for middle, length in ((x, width), (y, height))
            )
            cut.append(picture[:, top : top + height, left : left + width])
        seen = torch.stack(cut)
        if scale != 1:
            seen = F.interpolate(seen, (self.height, self.width), mode="bilinear", align_corners=False)
        return seen.contiguous(memory_format=torch.channels_last)

    def middles(self, count: int) -> Tensor:
        """Of aligned faces, (count, 2)."""
        return torch.tensor([128.0, self.row]).expand(count, 2)


FACE = Window(256, 256, 128, weight=2.0)
EYES = Window(192, 96, 92)
MOUTH = Window(96, 64, 174, weight=0.5)
WINDOWS = (FACE, EYES, MOUTH)
CHEEKS = Window(104, 36, 140)
"""Between eyes and mouth, where discriminators want some mark or other, and a crease of the photograph becomes it."""


@dataclass(frozen=True)
class Effort:
    """How long and how hard to learn.

    Attributes:
        steps: updates of generator and discriminators.
        batch: translations in a step, of half as many faces, and drawings.
        lr: of the generator (Adam), falling to a twentieth of it on a cosine.
        deep: share of it at which `DEEP` learns; 0: it stays.
        judges: share of it at which discriminators learn.
        rest: hinge loss below which a discriminator learns nothing, so that none runs ahead (2: it knows nothing).
        ema: decay per step of the averaged generator.
        blend: what comes out lies so far on the way from the weights of before to it.
        content, parts, motion, stay: weights beside the adversarial losses' 1: what is where in a mouth and in the face
            (`content_distance`, `part_distance`), the translation of a moved face, and the colours of before.
        lines, marks, spread: and of these: how much is drawn where, as in drawings (`lines`); what cheeks did not have
            before (`new_marks`); and how much nearer two looks of a face are than is asked for.
        apart: LPIPS between two looks that is asked for, as a multiple of what it was before.

    Raises:
        RecipeError: a value that makes no sense.
    """

    steps: int = 150
    batch: int = 8
    lr: float = 7e-4
    deep: float = 0.5
    judges: float = 0.4
    rest: float = 1.3
    ema: float = 0.995
    blend: float = 0.8
    content: float = 0.05
    parts: float = 60.0
    motion: float = 80.0
    stay: float = 10.0
    spread: float = 4.0
    lines: float = 40.0
    marks: float = 30.0
    apart: float = 1.25

    def __post_init__(self) -> None:
        bounds = (("steps", 1, inf), ("batch", 2, inf), ("lr", 0, 1), ("blend", 0, 1), ("motion", 0, inf))
        for name, least, most in bounds:
            if not least <= (value := getattr(self, name)) <= most:
                raise RecipeError(f"{name} is {value}, outside {least} to {most}")
        if self.batch % 2:
            raise RecipeError(f"batch is {self.batch}, not even: every face is shown in two looks")

    def lr_at(self, step: int) -> float:
        return self.lr * (0.525 + 0.475 * cos(pi * step / self.steps))


OPTIONS = {
    "steps": "updates of generator and discriminators",
    "batch": "translations in a step, two of every face",
    "blend": "how much of what is learned to take, 0 to 1",
    "lr": "learning rate",
    "motion": "how much steadiness counts: more is steadier, less is nearer to drawings",
}
"""What of an `Effort` the command can be told."""


class WindowDiscriminator(nn.Module):
    """Judges windows by the taps of VGG16, at half size, and by their pixels."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.projected = ProjectedDiscriminator(width=width)
        self.pixels = nn.ModuleList(
            patch_head(3 + PLACES, count, downs) for count, downs in ((64, 3), (96, 4))
        )

    def forward(self, taps: Sequence[Tensor], window: Tensor) -> list[Tensor]:
        """Taps of `halved` windows and the windows (N, 3, H, W) in [-1, 1] -> logits of every head, float32."""
        seen = with_place(2 * window)
        return [*self.projected(taps, window), *(head(seen).float() for head in self.pixels)]


def halved(windows: Tensor) -> Tensor:
    return F.avg_pool2d(windows, 2)


def colours(pictures: Tensor) -> Tensor:
    """Pictures without their lines: means over cells of `CELL` pixels of 256."""
    return F.avg_pool2d(pictures, max(CELL * pictures.shape[-1] // 256, 1))


def lines(pictures: Tensor) -> Tensor:
    """How much is drawn where: (cells, N, 2), float32, the contrast of fine and of broad lines of pictures
    (N, 3, S, S) in `LINE_CELLS` squared cells."""
    seen = pictures.float()
    found = []
    for width in LINE_WIDTHS:
        smooth = smoothed(seen, width)
        found.append(F.adaptive_avg_pool2d((seen - smooth).abs().mean(1), LINE_CELLS))
        seen = smooth
    return torch.stack(found, -1).flatten(1, 2).transpose(0, 1)


def new_marks(made: Tensor, before: Tensor) -> Tensor:
    """How much contrast windows (N, 3, H, W) have where those of before have less."""

    def contrast(x: Tensor) -> Tensor:
        outstanding = (x - smoothed(x, LINE_WIDTHS[1])).abs().mean(1, keepdim=True)
        return smoothed(outstanding, LINE_WIDTHS[0])

    return F.relu(contrast(made.float()) - contrast(before.float())).mean()


def smoothed(pictures: Tensor, width: int) -> Tensor:
    return F.avg_pool2d(pictures, width, 1, width // 2, count_include_pad=False)


class CloseUps:
    """Training of a generator on `WINDOWS`.

    Args:
        weights: to begin with.
        data: faces and drawings, of the weights' size; its whole heads, if it has some, are half of the faces.
        centres: eyes and mouth of `data.train_b`, see `train.parts.centres_of_drawings`.
        trunk: VGG16.
        effort: see there.
        seed: of everything random.
        device: to train on.
    """

    def __init__(
        self,
        weights: Weights,
        data: Domains,
        centres: Tensor,
        trunk: Lpips,
        *,
        effort: Effort = Effort(),
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        torch.manual_seed(seed)
        self.weights, self.data, self.effort, self.device = weights, data, effort, device
        self.trunk, self.parts = trunk.to(device), PartsHead.load().to(device)
        self.draw = torch.Generator().manual_seed(seed)
        centres = (centres.cpu() + 1) * 128
        self.middles = (FACE.middles(len(centres)), centres[:, :2].mean(1), centres[:, 2])
        before = Generator(weights.architecture)
        before.load_state_dict(weights.tensors, strict=False)  # a style encoder's tensors are of no use here
        self.before = before.requires_grad_(False).to(device)
        self.generator, self.averaged = copy.deepcopy(self.before), copy.deepcopy(self.before)
        stays = STAYS if effort.deep else STAYS + DEEP
        self.learned = {
            name: parameter.requires_grad_(True)
            for name, parameter in self.generator.named_parameters()
            if not name.startswith(stays)
        }
        groups = [
            {"params": [p], "share": effort.deep if name.startswith(DEEP) else 1.0}
            for name, p in self.learned.items()
        ]
        self.judges = nn.ModuleList(WindowDiscriminator() for _ in WINDOWS).to(device)
        adam = partial(torch.optim.Adam, lr=effort.lr, betas=(0.0, 0.99), fused=True)
        self.optimiser, self.judges_optimiser = adam(groups), adam(self.judges.parameters())
        drawn = [lines(to_float(some)) for some in data.train_b.images.split(100)]
        self.drawn_lines, self.made_lines = torch.cat(drawn, 1), torch.zeros(0)
        self.steps = 0
        self.apart = effort.apart * self._looks_apart()

    def step(self) -> dict[str, Tensor]:
        """One update of the generator, then of the discriminators on the same pictures. Returns the losses."""
        effort = self.effort
        half, few = effort.batch // 2, max(effort.batch // 4, 1)
        for group in self.optimiser.param_groups:
            group["lr"] = group["share"] * effort.lr_at(self.steps) * min(1.0, (self.steps + 1) / WARM_UP)
        self.judges_optimiser.param_groups[0]["lr"] = effort.judges * effort.lr_at(self.steps)
        pictures, faces, around, within = self._faces()
        # Contents are read off recoloured and relit pictures, too, as they were learned.
        seen = torch.cat([relight(recolour(pictures[:few], self.draw), self.draw), pictures[few:]])
        seeds = torch.randn(effort.batch, self.weights.architecture.latent_dim, generator=self.draw)
        seeds = seeds.to(self.device)
        motion = random_motion(few, faces.shape[-1], self.draw, device=self.device)
        moved_seen = around(resample(within(seen[:few]), motion))
        at = [window.middles(half) + self._shift(half) for window in WINDOWS]
        real = self._drawn_windows()
        terms: dict[str, Tensor] = {}
        self.judges.requires_grad_(False)
        with self._autocast():
            with torch.no_grad():
                before = self.before.decode(self.before.content(seen), seeds[:half])
            content = self.generator.content(torch.cat([seen, moved_seen]))
            content = torch.cat([content[:half], content])  # every face in two looks
            whole = self.generator.decode(content, torch.cat([seeds, seeds[half : half + few]]))
            terms["stay"] = F.l1_loss(colours(whole[:half].float()), colours(before.float()))
            made, moved = within(whole[: effort.batch]), within(whole[effort.batch :])
            terms["motion"] = motion_difference(moved, resample(made[half : half + few], motion), motion)
            views = [
                window.around(made, middles.repeat(2, 1)) for window, middles in zip(WINDOWS, at, strict=True)
            ]
            taps = [self.trunk.features(halved(view)) for view in views]
            with torch.no_grad():
                face, mouth = (
                    self.trunk.features(halved(window.around(faces, middles)))
                    for window, middles in ((FACE, at[0]), (MOUTH, at[2]))
                )
                parts, within_mouth = (
                    wanted.repeat(2, 1, 1, 1) for wanted in (self.parts(face), mouth[CONTENT_TAP])
                )
            terms["content"] = content_distance(taps[2][CONTENT_TAP], within_mouth)
            terms["parts"] = part_distance(self.parts(taps[0]), parts)
            cheeks = (CHEEKS.around(x, CHEEKS.middles(half)) for x in (made[:half], within(before)))
            terms["marks"] = new_marks(*cheeks)
            terms["lines"] = self._lines(views[0])
            looks = self.trunk.distance(*zip(*(tap.split(half) for tap in taps[0])))
            terms["spread"] = F.relu(1 - looks.mean() / self.apart)
            terms["adversarial"] = torch.stack(
                [
                    window.weight * generator_hinge(judge(seen_as, view))
                    for window, judge, seen_as, view in zip(WINDOWS, self.judges, taps, views, strict=True)
                ]
            ).sum()
        total = sum(getattr(effort, name, 1.0) * term for name, term in terms.items())
        assert isinstance(total, Tensor)
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.learned.values(), 10.0)
        self.optimiser.step()
        self._average()

        self.judges.requires_grad_(True)
        told_apart = []
        with self._autocast():
            for judge, drawn, view, seen_as in zip(self.judges, real, views, taps, strict=True):
                with torch.no_grad():
                    drawn_as = self.trunk.features(halved(drawn))
                made_as = [tap.detach() for tap in seen_as]
                told_apart.append(discriminator_hinge(judge(drawn_as, drawn), judge(made_as, view.detach())))
        losses = torch.stack(told_apart)
        terms["discriminator"] = losses.mean()
        self.judges_optimiser.zero_grad(set_to_none=True)
        # Without a first moment, Adam leaves alone what gets no gradient.
        (losses * (losses.detach() >= effort.rest)).sum().backward()
        self.judges_optimiser.step()
        self.steps += 1
        return {name: value.detach() for name, value in terms.items()}

    def result(self) -> Weights:
        """What has been learned, blended with the weights of before (Wortsman et al. 2022): in between is most of
        what eyes and mouth gained, and little of the steadiness and diversity that it cost."""
        state = self.averaged.state_dict()
        tensors = {
            name: tensor.float().lerp(state[name].cpu(), self.effort.blend)
            if name in self.learned
            else tensor
            for name, tensor in self.weights.tensors.items()
        }
        said = f"{self.steps} steps, blended by {self.effort.blend:g}"
        if earlier := self.weights.metadata.get("close-ups"):
            said = f"{earlier}; {said}"
        metadata = {**self.weights.metadata, "close-ups": said}
        return replace(self.weights, tensors=tensors, metadata=metadata, sha256="")

    def _faces(self) -> tuple[Tensor, Tensor, Resize, Resize]:
        """What the generator is shown (half a batch), the faces in it, how to put faces into such pictures, and to cut
        them out: by turns aligned faces, and whole heads, real ones or, without any, faces mirrored outwards."""
        wide = self.steps % 2 == 1
        heads = self.data.heads if wide else None
        pictures, _ = mirrored_some(
            to_float((heads or self.data.train_a).sample(self.effort.batch // 2, self.draw)), self.draw
        )
        pictures = pictures.to(self.device, memory_format=torch.channels_last)
        if not wide:
            return pictures, pictures, as_it_is, as_it_is
        if heads is None:
            pictures = in_head(pictures)
        return pictures, face_of(pictures), in_head, face_of

    def _drawn_windows(self) -> list[Tensor]:
        """Of drawings, some of them mirrored."""
        chosen = torch.randint(len(self.data.train_b), (self.effort.batch,), generator=self.draw)
        drawings, flip = mirrored_some(to_float(self.data.train_b.images[chosen]), self.draw)
        drawings = drawings.to(self.device)
        windows = []
        for window, middles in zip(WINDOWS, self.middles, strict=True):
            there = middles[chosen]
            there = torch.stack([torch.where(flip, 256 - there[:, 0], there[:, 0]), there[:, 1]], 1)
            windows.append(window.around(drawings, there + self._shift(self.effort.batch)))
        return windows

    def _lines(self, made: Tensor) -> Tensor:
        """How unlike the lines of pictures and of drawings are spread, see `palette_energy`."""
        chosen = torch.randint(self.drawn_lines.shape[1], (OTHERS,), generator=self.draw)
        real, new = self.drawn_lines[:, chosen].to(self.device), lines(made)
        before = self.made_lines if len(self.made_lines) else new.detach()
        self.made_lines = torch.cat([before, new.detach()], 1)[:, -OTHERS:]
        return palette_energy(new, real, before)

    def _shift(self, count: int) -> Tensor:
        return SHIFT * (2 * torch.rand(count, 2, generator=self.draw) - 1)

    @torch.no_grad()
    def _looks_apart(self) -> float:
        """Mean LPIPS between two looks of `LOOKS` faces, before."""
        total = 0.0
        for faces in to_float(self.data.train_a.sample(LOOKS, self.draw)).split(4):
            content = self.before.content(faces.to(self.device))
            seeds = torch.randn(2, len(faces), self.weights.architecture.latent_dim, generator=self.draw)
            with self._autocast():
                one, other = (
                    self.trunk.features(halved(self.before.decode(content, seed.to(self.device))))
                    for seed in seeds
                )
            total += float(self.trunk.distance(one, other).sum())
        return total / LOOKS

    def _average(self) -> None:
        decay = min(self.effort.ema, (1 + self.steps) / (10 + self.steps))
        averaged = dict(self.averaged.named_parameters())
        with torch.no_grad():
            for name, now in self.learned.items():
                averaged[name].lerp_(now, 1 - decay)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self.device, torch.bfloat16, enabled=self.device != "cpu" or native_bf16(), cache_enabled=False
        )


def mirrored_some(pictures: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pictures (N, C, S, S), half of them mirrored, and which, bool (N,)."""
    flip = torch.rand(len(pictures), generator=draw) < 0.5
    return torch.where(flip[:, None, None, None], pictures.flip(-1), pictures), flip


def train(
    work: CloseUps, *, keep: Callable[[Weights], None], log: Callable[[str], None] = print, every: int = 50
) -> None:
    """All the steps; `keep` gets the weights, and `log` a line, every so many and at the end.

    Raises:
        GnrVideoError: a loss is no longer finite; what `keep` got before is good.
    """
    clock, terms = Clock(), Terms()
    for step in range(1, work.effort.steps + 1):
        losses = work.step()
        terms.add(step, losses)
        clock.steps = step
        if bad := terms.first_bad():
            at, (name, *_) = bad
            raise GnrVideoError(f"step {at}: the loss {name!r} is {float(losses[name])}", "take a lower --lr")
        if step % every == 0 or step == work.effort.steps:
            left = clock.seconds_per_step() * (work.effort.steps - step)
            said = ", ".join(f"{name} {value:.3f}" for name, value in terms.means().items())
            log(f"step {step} of {work.effort.steps}, {left / 60:.0f} min left: {said}")
            terms = Terms()
            keep(work.result())


def main(argv: Sequence[str] | None = None) -> int:
    parser = arguments_for(__doc__)
    parser.add_argument("--heads", type=Path, action="append", default=[], help="prepared whole heads")
    for name, what in OPTIONS.items():
        default = getattr(Effort, name)
        parser.add_argument(
            f"--{name}", type=type(default), default=default, help=f"{what} (default: %(default)g)"
        )
    arguments = parser.parse_args(argv)
    effort = Effort(**{name: getattr(arguments, name) for name in OPTIONS})
    weights, data, trunk = read_inputs(arguments, arguments.heads)
    log = timed_log()
    centres = centres_of_drawings(data.train_b.images, trunk)
    log(f"eyes and mouths of {len(centres)} drawings found")

    def keep(made: Weights) -> None:
        save_weights(arguments.output, made.architecture, made.tensors, made.metadata)

    work = CloseUps(weights, data, centres, trunk, effort=effort, seed=arguments.seed, device=best_device())
    train(work, keep=keep, log=log)
    return 0


if __name__ == "__main__":
    exit_with(main)
