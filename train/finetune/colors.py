"""Looks: seeds get the colours that drawings have, and the style of a drawing gives its colours.

    python -m train.finetune.colors WEIGHTS PREPARED -o OUT [--faces FOLDER] [--trunk FILE]

Skin, hair and irises of a translation are nearly a function of its style code alone, and so smooth a one that a small
network learns it from some thousand translations (`engines.style_colors`). Through it, two things can be fitted in
minutes without one picture being decoded: where in the space of styles seeds have to lie so that their colours are
spread as drawings' are (`Warp`), and what the style head has to read off a drawing so that the drawing's own colours
come out. The warp is then learned by the mapping network. Before all that seeds are laid where drawings' styles lie
(`meet_codes`): training draws those towards seeds but leaves them nearer together, and what lies beyond them no drawing
says anything about. Nothing that draws is touched: a look that could be had
before is drawn as before, only seeds and pictures lead to others. The network of colours goes into the weights file, so
that a style can be asked for by them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.devices import native_bf16
from engines.errors import exit_with
from engines.style_colors import StyleColors
from engines.weights import COLORS, PLACES, STYLE_ENCODER, Weights, save_weights
from train.augment import to_float
from train.data import Domains, ImagePool
from train.facial_parts import centres_of_drawings
from train.finetune.inputs import arguments_for, read_inputs, timed_log
from train.finetune.style_space import move_styles
from train.networks import Encoder, Generator, load_networks

SKIN = ((88, 118, 108, 150), (148, 118, 168, 150))
"""Cheeks: left, top, right, bottom in pixels of 256."""
HAIR = ((84, 8, 172, 30),)
SIDES = ((16, 100, 56, 180), (200, 100, 240, 180))
FACE_EYES = ((90.0, 93.0), (166.0, 93.0))
"""x and y where an aligned face has its irises, and so where translations have theirs."""
IRIS = 8
"""Half the side of the square that is looked at around an eye, pixels of 256."""
DARK = -0.75
"""Darker pixels are a pupil or a lash; of -1..1."""
PALE = 0.05
"""How much a pixel without any colour counts for an iris; one of full colour counts 2."""

STAY = 0.08
"""What it costs a seed to be moved by 1: colours are not all there is to a look."""
REACH = 1.5
"""Deviation of the styles that the model of colours is learned from: seeds may be sent further out than seeds."""
ALIKE = 0.05
"""What it costs that the style of a drawing is another by 1 than training read off it: the same."""
SEEDS_REACH = 1.2
"""The same for half of them, which lie where seeds are sent."""
OUTERMOST = 1.4
"""How much longer than the usual seed (the root of the count of numbers) a style may be: hardly a drawing's is."""
CODE_LENGTH = 0.7
"""The same for what the style head says, which may be mixed and edited further."""
LEAST_SPREAD = 0.01
"""Variance that drawings' styles have along any direction, at least, when seeds are laid there."""
DECAY = 0.3
"""Of the weights of the model of colours."""
FACES = 500
"""Faces that are looked at for some to translate in one style after the other."""
PROBE = {"skin": (0.95, 0.85, 0.75), "hair": (-0.8, -0.8, -0.8)}
"""Colours that tell faces with hair above the forehead and beside it from others."""
BATCH = 8
HELD_OUT = 10
"""One in so many translations, or drawings, says how well what was learned does on others."""


@dataclass(frozen=True)
class Effort:
    """How long to learn.

    Attributes:
        samples: translations that the model of colours is learned from.
        probe: translations in random styles, of which the one that tells hair from skin best says whose hair is
            where it is looked for.
        checks: translations that are looked at before and after.
        model, warp, mapping, head: steps of each part.
    """

    samples: int = 2600
    probe: int = 200
    checks: int = 600
    model: int = 1500
    warp: int = 1200
    mapping: int = 8000
    head: int = 900


def place_colors(pictures: Tensor, eyes: Tensor | None = None) -> Tensor:
    """Colours of `PLACES`.

    Args:
        pictures: (N, 3, S, S) in [-1, 1].
        eyes: (N, 2, 2), x and y of both eyes in [-1, 1]. None: where aligned faces have them.

    Returns:
        (N, 12) in [-1, 1]: medians of skin, hair and sides, means of the irises, in which coloured pixels count most.
    """
    if pictures.shape[-1] != 256:
        pictures = F.interpolate(pictures, size=(256, 256), mode="bilinear", align_corners=False)
    if eyes is None:
        eyes = (pictures.new_tensor(FACE_EYES) / 128 - 1).expand(len(pictures), 2, 2)
    skin, hair, sides = (
        torch.cat(
            [pictures[:, :, top:bottom, left:right].flatten(2) for left, top, right, bottom in boxes], 2
        ).median(2)[0]
        for boxes in (SKIN, HAIR, SIDES)
    )
    around = torch.arange(-IRIS, IRIS + 1, device=pictures.device) / 128
    window = torch.stack(torch.meshgrid(around, around, indexing="xy"), -1)
    seen = torch.cat(
        [
            F.grid_sample(pictures, window + eyes[:, i, None, None], align_corners=False).flatten(2)
            for i in range(2)
        ],
        2,
    )
    weight = seen.amax(1) - seen.amin(1) + PALE
    weight = weight * (seen.mean(1) > DARK) + 1e-6
    irises = (seen * weight[:, None]).sum(2) / weight.sum(1, keepdim=True)
    return torch.cat([skin, hair, irises, sides], 1)


def drawing_colors(drawings: Tensor, eyes: Tensor) -> Tensor:
    """The same of drawings, uint8 (N, 3, S, S), whose hair is of one colour, beside the face too."""
    found = torch.cat(
        [
            place_colors(to_float(some), theirs)
            for some, theirs in zip(drawings.split(64), eyes.split(64), strict=True)
        ]
    )
    skin, hair, irises, _ = found.split(3, dim=1)
    return torch.cat([skin, hair, irises, hair], 1)


class Warp(nn.Module):
    """Seeds (N, D) -> styles of the old space (N, D), at first the same."""

    def __init__(self, latent_dim: int, width: int = 128) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.move = nn.Sequential(
            nn.Linear(latent_dim, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, latent_dim),
        )
        for parameter in self.move[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, seeds: Tensor) -> Tensor:
        return seeds + self.move(seeds)


def descend(
    parameters: Iterable[nn.Parameter],
    loss: Callable[[], Tensor],
    *,
    steps: int,
    lr: float,
    decay: float = 0.0,
) -> None:
    """AdamW; the learning rate rises at first, then falls to 0."""
    parameters = list(parameters)
    optimiser = torch.optim.AdamW(parameters, lr, betas=(0.9, 0.99), weight_decay=decay)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = lr * min(1, (step + 1) / 50) * (1 - step / steps)
        value = loss()
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()


def learn_colors(
    styles: Tensor, colors: Tensor, draw: torch.Generator, *, steps: int, decay: float = DECAY
) -> StyleColors:
    """The model of the colours (N, 12) of translations in styles (N, D): their median over faces. It must not learn
    single faces by heart: what is sought through it is found in its errors first."""
    model = StyleColors(styles.shape[1])

    def loss() -> Tensor:
        chosen = torch.randint(len(styles), (512,), generator=draw)
        return F.l1_loss(model(styles[chosen]), colors[chosen])

    descend(model.parameters(), loss, steps=steps, lr=2e-3, decay=decay)
    return model.requires_grad_(False)


def meet_codes(weights: Weights, codes: Tensor) -> Weights:
    """The weights with seeds where the styles of drawings lie, with the same mean and covariance. A drawing's own style
    is drawn as before.

    Args:
        codes: what the style head says of drawings, (N, D).
    """
    variances, axes = torch.linalg.eigh(torch.cov(codes.double().T))
    # Of all maps between the two normal distributions the one that moves seeds least.
    onto = (axes * variances.clamp(min=LEAST_SPREAD).sqrt()) @ axes.T
    return move_styles(weights, onto, codes.double().mean(0))


def fit_warp(
    model: StyleColors, colors: Tensor, latent_dim: int, draw: torch.Generator, *, steps: int
) -> Warp:
    """The warp after which the colours of seeds are spread as those of drawings (N, 12) are, by the energy distance
    (Székely and Rizzo 2013) of each of `views`."""
    warp = Warp(latent_dim)

    def loss() -> Tensor:
        seeds = torch.randn(384, latent_dim, generator=draw)
        styles = warp(seeds)
        real = colors[torch.randint(len(colors), (512,), generator=draw)]
        apart = torch.stack([energy(a, b) for a, b in zip(views(model(styles)), views(real), strict=True)])
        moved = (styles - seeds).square().sum(1).mean()
        return apart.sum() + STAY * moved + too_long(styles, OUTERMOST)

    descend(warp.parameters(), loss, steps=steps, lr=3e-3)
    return warp.requires_grad_(False)


def views(colors: Tensor) -> list[Tensor]:
    """What `fit_warp` compares of colours (N, 12): all, each place, and how skin and hair differ. Not the sides: asked
    to be like the hair above, pale looks went white altogether."""
    skin, hair, irises, _ = colors.split(3, dim=1)
    return [colors[:, :9], skin, hair, irises, skin - hair]


def energy(a: Tensor, b: Tensor) -> Tensor:
    """Energy distance of two sets of points, (N, K) and (M, K)."""

    def within(x: Tensor) -> Tensor:
        return torch.cdist(x, x).sum() / (len(x) * (len(x) - 1))

    return 2 * torch.cdist(a, b).mean() - within(a) - within(b)


def too_long(styles: Tensor, length: float) -> Tensor:
    """By how much styles (N, D) are longer than seeds usually are, and `length`."""
    return 0.05 * F.relu(styles.norm(dim=1) - styles.shape[1] ** 0.5 - length).square().mean()


def teach_mapping(mapping: nn.Module, warp: Warp, draw: torch.Generator, *, steps: int) -> Tensor:
    """Lets the mapping network do the warp too. Returns the share of its variance that it gets wrong."""
    before = copy.deepcopy(mapping).requires_grad_(False)

    def missed(count: int, deviation: float) -> Tensor:
        seeds = deviation * torch.randn(count, warp.latent_dim, generator=draw)
        wanted = before(warp(seeds))
        error: Tensor = F.mse_loss(mapping(seeds), wanted) / wanted.var(0).mean()
        return error

    # Its layers have a learning rate of a hundredth (their lr_mul).
    descend(mapping.parameters(), lambda: missed(256, 1.3), steps=steps, lr=0.4)
    with torch.no_grad():
        return missed(2000, 1.0)


def teach_head(
    head: nn.Module,
    stems: Tensor,
    colors: Tensor,
    model: StyleColors,
    warp: Warp,
    draw: torch.Generator,
    *,
    steps: int,
) -> None:
    """Lets the style head say the style that gives a drawing's colours, and else the look that it gave.

    Args:
        stems: what it reads, (N, views, C, H, W) of drawings that were seen in several ways.
        colors: theirs (N, 12).
        model: of the colours of styles before the warp.
        warp: what the mapping network does to styles by now.
    """
    spread, before = colors.std(0), copy.deepcopy(head)

    def loss() -> Tensor:
        chosen = torch.randint(len(stems), (64,), generator=draw)
        view = torch.randint(stems.shape[1], (64,), generator=draw)
        seen = stems[chosen, view].float()
        codes = head(seen)
        styles = warp(codes)
        with torch.no_grad():
            said = before(seen)
        apart = ((model(styles) - colors[chosen]).square() / spread)[:, :9]
        return apart.mean() + ALIKE * (styles - said).square().mean() + too_long(codes, CODE_LENGTH)

    descend(head.parameters(), loss, steps=steps, lr=2e-3)


def correlations(found: Tensor, wanted: Tensor) -> Tensor:
    """Of numbers (N, 12), averaged over the three of each of `PLACES`."""
    a, b = (F.normalize(x - x.mean(0), dim=0) for x in (found, wanted))
    return (a * b).sum(0).unflatten(0, (len(PLACES), 3)).mean(1)


class Painter:
    """Styles -> the colours of translations in them, each of some face with hair above the forehead and beside it.

    Args:
        network: whose mapping network may change between calls.
        faces: of them, `FACES` are looked at.
        draw: chooses them.
        probe: translations, to find a style that tells hair from skin.
    """

    def __init__(self, network: Generator, faces: ImagePool, draw: torch.Generator, probe: int) -> None:
        self.network, self.draw = network, draw
        with torch.inference_mode():
            some = faces.sample(FACES, draw).split(BATCH)
            self.contents = torch.cat([network.content(to_float(pictures)) for pictures in some])
        styles = REACH * torch.randn(probe, network.architecture.latent_dim, generator=draw)
        colors = self(styles)
        aim = colors.new_tensor([*PROBE["skin"], *PROBE["hair"]])
        telling = styles[(colors[:, :6] - aim).square().sum(1).argmin()]
        colors = self._paint(self.contents, telling.expand(len(self.contents), -1))
        skin, hair = colors[:, :6].median(0)[0].split(3)
        usual = [
            (there - hair).norm(dim=1) < (there - skin).norm(dim=1)
            for there in (colors[:, 3:6], colors[:, 9:])
        ]
        self.contents = self.contents[usual[0] & usual[1]]

    def __call__(self, styles: Tensor) -> Tensor:
        """(N, D) -> (N, 12)."""
        return self._paint(
            self.contents[torch.randint(len(self.contents), (len(styles),), generator=self.draw)], styles
        )

    def _paint(self, contents: Tensor, styles: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat(
                [
                    place_colors(self.network.decode(content, style).clamp(-1, 1))
                    for content, style in zip(contents.split(BATCH), styles.split(BATCH), strict=True)
                ]
            )


def fit_looks(
    weights: Weights,
    data: Domains,
    eyes: Tensor,
    *,
    effort: Effort = Effort(),
    seed: int = 0,
    log: Callable[[str], None] = print,
) -> Weights:
    """The weights with seeds and a style head as the module says.

    Args:
        weights: with a style head.
        data: faces and drawings, of the weights' size.
        eyes: of `data.train_b`, see `train.facial_parts.centres_of_drawings`.
        effort: see there.
        log: gets a line after each part.

    Raises:
        WeightsError: the weights cannot read styles off drawings.
    """
    draw = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    drawings, latent_dim = data.train_b.images, weights.architecture.latent_dim
    wanted = drawing_colors(drawings, eyes)
    _, reader = load_networks(weights)
    stems = read_stems(reader, drawings)
    network, reader = load_networks(meet_codes(weights, read_codes(reader, stems[:, 0])))
    for frozen in (network, reader):
        frozen.requires_grad_(False).eval()
    paint = Painter(network, data.train_a, draw, effort.probe)
    log(f"{len(paint.contents)} of {FACES} faces have hair above the forehead and beside it")
    seeds = torch.randn(effort.checks, latent_dim, generator=draw)
    tests, rest = torch.randperm(len(drawings), generator=draw).tensor_split([len(drawings) // HELD_OUT])

    def report() -> None:
        """On pictures, not through the model; on drawings that the head does not learn from."""
        made = paint(seeds)
        apart = [energy(a, b) for a, b in zip(views(made), views(wanted), strict=True)]
        log(f"  energy distance of seeds' colours from drawings': {per_place(apart[1:4])}")
        found = correlations(paint(read_codes(reader, stems[tests, 0])), wanted[tests])
        log(f"  correlation of drawings' colours with those in their styles: {per_place(found)}")

    log("before:")
    report()
    half = effort.samples // 2
    styles = REACH * torch.randn(half, latent_dim, generator=draw)
    colors = paint(styles)
    model = learn_colors(styles, colors, draw, steps=effort.model)
    # Half of what it learns from lies where seeds will: pale skin beside hair of any colour is rare before.
    warp = fit_warp(model, wanted, latent_dim, draw, steps=effort.warp // 2)
    with torch.no_grad():
        usual = warp(SEEDS_REACH * torch.randn(half, latent_dim, generator=draw))
    styles, colors = torch.cat([styles, usual]), torch.cat([colors, paint(usual)])
    tried, learned = torch.randperm(len(styles), generator=draw).tensor_split([len(styles) // HELD_OUT])
    model = learn_colors(styles[learned], colors[learned], draw, steps=effort.model)
    missed = F.mse_loss(model(styles[tried]), colors[tried]) / colors[tried].var(0).mean()
    log(f"model of colours: of their variance, {float(missed):.0%} is not the style's, but the face's")
    warp = fit_warp(model, wanted, latent_dim, draw, steps=effort.warp)
    network.mapping.requires_grad_(True)
    missed = teach_mapping(network.mapping, warp, draw, steps=effort.mapping)
    log(f"mapping network: {float(missed):.1%} of the variance is missed")
    reader.style.requires_grad_(True)

    teach_head(reader.style, stems[rest], wanted[rest], model, warp, draw, steps=effort.head)
    log("after:")
    report()
    spread_out = REACH * torch.randn(4 * effort.samples, latent_dim, generator=draw)
    known = learn_colors(spread_out, model(warp(spread_out)), draw, steps=effort.model, decay=0)
    asked = wanted[tests[: effort.checks // 6]]
    painted = paint(ask(known, seeds, asked))
    log(f"  correlation of colours asked for with those painted: {per_place(correlations(painted, asked))}")
    tensors = dict(weights.tensors)
    modules = {"mapping.": network.mapping, f"{STYLE_ENCODER}style.": reader.style, COLORS: known}
    for prefix, module in modules.items():
        for name, tensor in module.state_dict().items():
            if not name.endswith(".kernel"):
                tensors[prefix + name] = tensor.detach()
    metadata = {**weights.metadata, "seeds": "spread as the colours of drawings"}
    return replace(weights, tensors=tensors, metadata=metadata, sha256="")


def ask(known: StyleColors, seeds: Tensor, colors: Tensor) -> Tensor:
    """Styles (N, D) that are to give colours (N, 12), found from seeds (N or more, D)."""
    styles = [
        known.find(seed.numpy(), dict(zip(PLACES, asked.unflatten(0, (-1, 3)).tolist(), strict=True)))
        for seed, asked in zip(seeds, colors, strict=False)
    ]
    return torch.from_numpy(np.stack(styles))


def per_place(numbers: Iterable[Tensor]) -> str:
    return ", ".join(f"{place} {float(number):.3f}" for place, number in zip(PLACES, numbers, strict=False))


def read_stems(reader: Encoder, drawings: Tensor) -> Tensor:
    """What the style head reads of drawings, as they are and mirrored: float16 (N, 2, C, H, W)."""
    views = []
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=native_bf16()):
        for some in drawings.split(BATCH):
            both = torch.stack([some, some.flip(-1)], 1).flatten(0, 1)
            views.append(reader.stem(to_float(both)).half().unflatten(0, (-1, 2)))
    return torch.cat(views).clone()


def read_codes(reader: Encoder, stems: Tensor) -> Tensor:
    """Style codes (N, D) of what the style head reads, (N, C, H, W)."""
    with torch.no_grad():
        return torch.cat([reader.style(some.float()) for some in stems.split(64)])


def main(argv: Sequence[str] | None = None) -> int:
    arguments = arguments_for(__doc__).parse_args(argv)
    weights, data, trunk = read_inputs(arguments)
    log = timed_log()
    eyes = centres_of_drawings(data.train_b.images, trunk)[:, :2]
    log(f"eyes of {len(eyes)} drawings found")
    done = fit_looks(weights, data, eyes, seed=arguments.seed, log=log)
    save_weights(arguments.output, done.architecture, done.tensors, done.metadata)
    return 0


if __name__ == "__main__":
    exit_with(main)
