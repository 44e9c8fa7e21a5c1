"""Training recipes: everything that decides what a training run does, under a name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, get_type_hints

from engines.architecture import OFFICIAL_CHANNELS, Architecture
from engines.errors import GnrVideoError
from train.losses import OFFICIAL, PAPER, LossWeights


class RecipeError(GnrVideoError, ValueError):
    """A recipe's settings do not go together, or do not exist."""

    exit_code = 2


@dataclass(frozen=True)
class Stage:
    """A stretch of training at one resolution.

    Attributes:
        size: side of the pictures.
        steps: how many.
        batch: pictures per domain and step.
        fade_steps: over how many steps a newly grown input layer is faded in.
    """

    size: int
    steps: int
    batch: int
    fade_steps: int = 0


@dataclass(frozen=True)
class Recipe:
    """What `Trainer` needs to know.

    Attributes:
        name: how it is asked for.
        architecture: of the finished generators; earlier stages train its inner part.
        stages: in order; sizes must not shrink.
        contents: different images per batch; each is augmented batch / contents times (official: 1).
        warmup_steps: first steps, in which one generator learns to reproduce the images of both domains; both
            directions then start from it. Cheap steps, and the translation starts sharp.
        loss: weights of the losses.
        identity_until: share of all steps after which the identity term has faded to nothing.
        lr: Adam's learning rate, betas (0, 0.99).
        d_lr: the discriminators' rate, as a share of `lr`.
        d_rest: one-way training's discriminator learns nothing in steps in which its loss is below this, so that it
            does not run ahead of a generator that has just begun (hinge; 2: it knows nothing, 0: all).
        lr_schedule: "halve" (every `lr_halve_every` steps, as the official code) or "cosine" (to a tenth).
        ema: decay per step of the averaged generators.
        r1_every: steps between R1 penalties.
        local_size, global_size: side of the discriminator's patch maps (official at 256: 32 and 8).
        shared_branch: one discriminator branch for all heads (official: two).
        cycle_share: share of the augmentations that the cycle and identity terms are computed on.
        lpips_net, lpips_size: trunk of the cycle's LPIPS, and the side it is computed at.
        degrees, scale, translate: of the augmentation.
        augment_reals: the discriminators' real images get the same augmentation (else crop and flip only).
        one_way: train faces to anime only, with a discriminator on pretrained features (`train.one_sided`).
        wide: share of one-way training's steps that show the generator its pictures inside of larger ones, as whole
            heads are translated, so that it does not tell from the border where in the face it is.
        styles_each: one-way training's styles of one face in a step. They share its content code, and the discriminator
            judges how much they differ, as GNR's does (there, the whole batch is of one face).
        reproduce_every, motion_every: steps between one-way training's reproduction and motion terms.
        style_mixing: probability that a translation takes a second style from a random decoder stage on.
        path_every: steps between path length penalties (`LossWeights.path_length`).
        motion_flow: the motion loss's smooth flow, as a fraction of the side (0: affine motion only).
        ada: target of adaptive discriminator augmentation (`train.ada`; 0.6 there); 0 switches it off.
        ada_images: real images in which its probability can go from 0 to 1.
        compile: run generators and discriminators through torch.compile (a GPU; a minute or more at the start).
    """

    name: str
    architecture: Architecture
    stages: tuple[Stage, ...]
    contents: int = 1
    warmup_steps: int = 0
    loss: LossWeights = OFFICIAL
    identity_until: float = 0.5
    lr: float = 2e-3
    d_lr: float = 1.0
    d_rest: float = 0.0
    lr_schedule: str = "halve"
    lr_halve_every: int = 100_000
    ema: float = 0.999
    r1_every: int = 16
    local_size: int = 32
    global_size: int = 8
    shared_branch: bool = False
    cycle_share: float = 1.0
    lpips_net: str = "vgg"
    lpips_size: int | None = None
    degrees: float = 20.0
    scale: tuple[float, float] = (0.8, 1.2)
    translate: float = 0.1
    augment_reals: bool = False
    one_way: bool = False
    wide: float = 0.0
    styles_each: int = 4
    reproduce_every: int = 2
    motion_every: int = 4
    style_mixing: float = 0.0
    path_every: int = 4
    motion_flow: float = 0.0
    ada: float = 0.0
    ada_images: int = 500_000
    compile: bool = False

    def __post_init__(self) -> None:
        for name, low, high in _RANGES:
            if not low <= getattr(self, name) <= high:
                raise RecipeError(f"{name} is {getattr(self, name)}, outside {low:g} to {high:g}")
        a, sizes = self.architecture, [stage.size for stage in self.stages]
        if not sizes or sizes != sorted(sizes) or sizes[-1] != a.size:
            raise RecipeError(f"stages must grow to {a.size} pixels, got {sizes}")
        for name in ("local_size", "global_size"):
            if (side := getattr(self, name)) & (side - 1):
                raise RecipeError(f"{name} is {side}, not a power of two")
        if self.global_size > self.local_size:
            raise RecipeError(f"global_size {self.global_size} is larger than local_size {self.local_size}")
        least = a.content_size * 2 if self.one_way else max(a.content_size, self.local_size) * 2
        for size in sizes:
            if size & (size - 1) or size < least:
                raise RecipeError(
                    f"a stage of {size} pixels does not fit the architecture",
                    f"sizes are powers of two from {least} to {a.size}",
                )
        for stage in self.stages:
            if stage.batch % self.contents or stage.batch // self.contents < 2:
                raise RecipeError(
                    f"batch {stage.batch} does not hold {self.contents} images twice or more",
                    f"take a multiple of {self.contents} from {2 * self.contents} on",
                )
            if self.one_way and stage.batch % self.styles_each:
                raise RecipeError(
                    f"batch {stage.batch} does not hold {self.styles_each} styles of each face",
                    f"take a multiple of {self.styles_each}",
                )
            if stage.steps < 1 or stage.fade_steps < 0:
                raise RecipeError(f"a stage needs a step or more, got {stage}")
        for name, allowed in _CHOICES.items():
            owner = self.loss if hasattr(self.loss, name) else self
            if getattr(owner, name) not in allowed:
                raise RecipeError(f"{name} is {getattr(owner, name)!r}", f"there are {', '.join(allowed)}")
        if self.one_way and self.loss.cyclegan_identity:
            raise RecipeError(
                "one-way training's reproduction is CycleGAN's identity already",
                "set loss.reproduction instead",
            )
        if not 0 < self.scale[0] <= self.scale[1]:
            raise RecipeError(f"scale is {self.scale}; it is a range of enlargements, such as 0.8,1.2")
        if self.lpips_size is not None and self.lpips_size < 32:
            raise RecipeError(f"lpips_size is {self.lpips_size}; LPIPS needs 32 pixels")
        for field in fields(LossWeights):
            weight = getattr(self.loss, field.name)
            if not isinstance(weight, str) and not 0 <= weight < math.inf:
                raise RecipeError(f"loss.{field.name} is {weight}; a loss's weight is 0 or more")

    @property
    def steps(self) -> int:
        return sum(stage.steps for stage in self.stages)

    def stage_at(self, step: int) -> tuple[int, int]:
        """(number of the stage, step within it); the last stage goes on for ever."""
        for number, stage in enumerate(self.stages[:-1]):
            if step < stage.steps:
                return number, step
            step -= stage.steps
        return len(self.stages) - 1, step

    def architecture_at(self, size: int) -> Architecture:
        """The inner part of the architecture that works at `size`; its content code is the same."""
        halvings = (self.architecture.size // size).bit_length() - 1
        return replace(
            self.architecture,
            size=size,
            num_down=self.architecture.num_down - halvings,
            channels={r: c for r, c in self.architecture.channels.items() if r <= size},
        )

    def with_steps(self, steps: int) -> Recipe:
        """The same recipe, shortened or stretched to about `steps` in all."""
        ratio = steps / self.steps
        stages = tuple(
            replace(s, steps=max(round(s.steps * ratio), 1), fade_steps=round(s.fade_steps * ratio))
            for s in self.stages
        )
        return replace(self, stages=stages)


_CHOICES = {
    "lr_schedule": ("halve", "cosine"),
    "lpips_net": ("vgg", "alex"),
    "r1_form": ("sample", "mean"),
    "latent_form": ("gaussian", "axes"),
}
_RANGES = (
    ("lr", 1e-9, 1),
    ("d_lr", 1e-3, 1e3),
    ("d_rest", 0, 2),
    ("ema", 0, 1 - 1e-9),
    ("contents", 1, 1024),
    ("warmup_steps", 0, 1e9),
    ("identity_until", 0, 1),
    ("lr_halve_every", 1, 1e9),
    ("r1_every", 1, 1e6),
    ("global_size", 4, 1024),
    ("local_size", 4, 1024),
    ("cycle_share", 0, 1),
    ("degrees", 0, 180),
    ("translate", 0, 0.5),
    ("wide", 0, 1),
    ("styles_each", 1, 1024),
    ("reproduce_every", 1, 1e6),
    ("motion_every", 1, 1e6),
    ("style_mixing", 0, 1),
    ("path_every", 1, 1e6),
    ("motion_flow", 0, 0.05),
    ("ada", 0, 0.95),
    ("ada_images", 1, 1e9),
)


def _channels(size: int, widths: Mapping[int, int]) -> dict[int, int]:
    return {r: c for r, c in widths.items() if r <= size}


HALF_WIDTH = {4: 256, 8: 256, 16: 256, 32: 256, 64: 128, 128: 64, 256: 32}
SLIM = {4: 192, 8: 192, 16: 192, 32: 96, 64: 64, 128: 32, 256: 16}

_OWN_LOSS = LossWeights(identity=10.0, r1=1.0, r1_form="sample")
_OWN = Recipe(
    name="default",
    architecture=Architecture(256, 4, style_dim=256, channels=HALF_WIDTH),
    stages=(Stage(128, 30_000, 32), Stage(256, 20_000, 16, fade_steps=2_000)),
    contents=4,
    warmup_steps=1_500,
    loss=_OWN_LOSS,
    lr=1.5e-3,
    lr_schedule="cosine",
    local_size=16,
    lpips_size=128,
    degrees=15.0,
    scale=(0.85, 1.15),
    translate=0.06,
    augment_reals=True,
    shared_branch=True,
    cycle_share=0.5,
)

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="official",
            architecture=Architecture(channels=_channels(256, OFFICIAL_CHANNELS)),
            stages=(Stage(256, 300_000, 4),),
        ),
        Recipe(
            name="paper",
            architecture=Architecture(channels=_channels(256, OFFICIAL_CHANNELS)),
            stages=(Stage(256, 300_000, 7),),
            loss=PAPER,
        ),
        _OWN,
        replace(
            _OWN,
            name="cpu",
            architecture=Architecture(
                256, 3, n_res=2, latent_dim=16, style_dim=256, channels=SLIM, coarse=2, place=10
            ),
            stages=(Stage(128, 1_600, 12), Stage(128, 5_900, 8), Stage(256, 6_500, 8)),
            contents=1,
            warmup_steps=1_600,
            one_way=True,
            wide=0.75,
            styles_each=2,
            degrees=7.0,
            scale=(0.92, 1.08),
            translate=0.03,
            loss=LossWeights(
                adversarial=5.0,
                reproduction=4.0,
                content=0.5,
                parts=120.0,
                surroundings=3.0,
                palette=6.0,
                texture=200.0,
                motion=48.0,
                style_reconstruction=0.0,
                style_consistency=0.0,
                latent=1.0,
                cycle_lpips=0.0,
                r1=0.0,
            ),
            lr=2e-3,
            d_lr=1.0,
            d_rest=0.25,
            ema=0.998,
        ),
        replace(
            _OWN,
            name="tiny",
            architecture=Architecture(32, 2, style_dim=32, channels={4: 32, 8: 32, 16: 16, 32: 16}),
            stages=(Stage(16, 10, 4), Stage(32, 10, 4, fade_steps=4)),
            contents=2,
            warmup_steps=0,
            local_size=8,
            global_size=4,
            lpips_size=None,
        ),
    )
}
"""`official` and `paper` follow their sources; `default` is GNR with our schedule for a GPU; `cpu` is for two cores
on a prepared data set (`train.prepare`): days for all of it, drawn faces after three or four hours; `tiny` is for
trying the trainer itself."""


def get_recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        GnrVideoError: there is none.
    """
    try:
        return RECIPES[name]
    except KeyError:
        raise GnrVideoError(f"no recipe {name!r}", f"there are {', '.join(RECIPES)}") from None


def with_settings(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """The recipe with some of its fields set.

    Args:
        settings: each ``name=value``: a field of `Recipe`, or ``loss.`` and a field of `LossWeights`. Pairs are
            ``0.8,1.2``, switches true or false, stages ``SIZE:STEPS:BATCH[:FADE_STEPS],...``.

    Raises:
        RecipeError: there is no such setting, its value is of another kind, or the recipe makes no sense.
    """
    kinds = setting_kinds()
    changes: dict[str, Any] = {}
    weights: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if name not in kinds:
            raise RecipeError(f"no setting {name!r} in a recipe", f"there are {', '.join(kinds)}")
        try:
            if not equals:
                raise ValueError
            value = _parse(kinds[name], text.strip())
        except ValueError:
            example = f"{name}={_EXAMPLES[kinds[name]]}"
            raise RecipeError(f"cannot set {setting!r}", f"write it as in {example}") from None
        if name.startswith("loss."):
            weights[name.removeprefix("loss.")] = value
        else:
            changes[name] = value
    return replace(recipe, loss=replace(recipe.loss, **weights), **changes)


def continued(recipe: Recipe, architecture: Architecture) -> Recipe:
    """What is left of the recipe for a generator that has been trained already: no warm-up, no smaller stages. One of
    another architecture than the recipe's keeps its own, and gets the last stage.

    Raises:
        RecipeError: the recipe trains both directions.
    """
    if not recipe.one_way:
        raise RecipeError(
            f"recipe {recipe.name!r} trains both directions, a weights file holds one",
            "take a one-way recipe (--recipe cpu), or resume with the same --out",
        )
    stages = tuple(stage for stage in recipe.stages if stage.size >= architecture.size)
    if stages and recipe.architecture_at(architecture.size) == architecture:
        return replace(recipe, stages=stages, warmup_steps=0)
    last = replace(recipe.stages[-1], size=architecture.size)
    return replace(recipe, architecture=architecture, stages=(last,), warmup_steps=0)


def setting_kinds() -> dict[str, Any]:
    """What `with_settings` can set: name -> type."""
    own = {
        name: kind for name, kind in get_type_hints(Recipe).items() if kind in _EXAMPLES and name != "name"
    }
    return own | {f"loss.{name}": kind for name, kind in get_type_hints(LossWeights).items()}


_EXAMPLES: dict[Any, str] = {
    bool: "true",
    int: "16",
    float: "0.5",
    str: "NAME",
    int | None: "128 or none",
    tuple[float, float]: "0.8,1.2",
    tuple[Stage, ...]: "64:2000:8,128:4000:8:500",
}


def _parse(kind: Any, text: str) -> Any:
    """Raises ValueError: the text is not of that kind."""
    if kind is bool:
        if text not in ("true", "false"):
            raise ValueError
        return text == "true"
    if kind == int | None:
        return None if text == "none" else int(text)
    if kind == tuple[float, float]:
        low, high = map(_parse_float, text.split(","))
        return low, high
    if kind == tuple[Stage, ...]:
        rows = [[int(number) for number in row.split(":")] for row in text.split(",")]
        if any(len(row) not in (3, 4) for row in rows):
            raise ValueError
        return tuple(Stage(*row) for row in rows)
    return _parse_float(text) if kind is float else kind(text)


def _parse_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError
    return value
