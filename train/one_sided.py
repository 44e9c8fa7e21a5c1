"""Training of one direction only, faces to anime, for budgets that GNR's two directions do not fit into.

One generator keeps both domains: it translates faces, and it reproduces anime pictures from their own content
and style, which is what teaches it to draw and its style head to read. The cycle, which needs the second
direction, gives way to a domain-invariant perceptual distance between a face and its translation; the
discriminator stands on pretrained features (`train.projected`). Pictures are looked at through a trunk that
costs less than the generator (`train.trunk`), several styles share a face's content code, and terms that
need not be asked at every step are asked at some.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.weights import STYLE_ENCODER, Weights
from gnr_video.tracking.alignment import HEAD_EXTENT, head_margins, head_side
from train.augment import blur, overshadow, recolor, relight, resample, to_float
from train.data import ImagePool
from train.distributed import gather, mine, world
from train.facial_parts import (
    FacialPlaces,
    PartsHead,
    mouth_openings,
    part_distance,
    read_parts,
    weights_to_mean,
)
from train.flow import motion_difference
from train.grow import set_fade
from train.losses import masked_mse
from train.networks import FadeIn, Generator, GrownStem
from train.projected import (
    ProjectedDiscriminator,
    content_distance,
    discriminator_hinge,
    energy_distance,
    generator_hinge,
    palette_cells,
    texture_cells,
    upper_part,
)
from train.trainer import Trainer
from train.trunk import TAP_RMS, Trunk

log = logging.getLogger(__name__)

Resize: TypeAlias = Callable[[Tensor], Tensor]

FIT_STEPS = 300
PALETTE_DRAWINGS = 64
"""How many drawings' colours, and earlier translations', a step's translations are compared with."""
TEXTURE_PICTURES = 96
"""The same, of pictures' features (`texture_cells`)."""
COLOR_WEIGHT = 6.0
"""Of the colours of cells (`palette_cells`) that a reproduction is asked for besides its pixels."""
FACES_EVENNESS = 1 / 3
"""Of faces' recoloured hues (`recolor`): half of them are within 23 degrees, so that skin can be known by its colour,
in a shadow too; the others are lit by lamps of any colour."""
FACES_READ = 500
OPEN_MOST = 8.0
"""How many faces' mouths drawings' are weighed by, and how much oftener than others those with open mouths are drawn at
most: few drawings have one, and a discriminator that sees few of them has translations keep theirs shut."""
CONTENT_TAP = 3
"""The trunk's tap at stride 16: what is where in the face, and little of how it is painted."""


@dataclass
class OneSidedNetworks:
    """A: faces, B: anime. Both averages are the same network, so that weights are written as GNR's are."""

    g_ab: Generator
    d_b: ProjectedDiscriminator
    ema_ab: Generator

    @property
    def ema_ba(self) -> Generator:
        return self.ema_ab

    def generators(self) -> list[nn.Module]:
        return [self.g_ab]

    def discriminators(self) -> list[nn.Module]:
        return [self.d_b]

    def averaged(self) -> list[tuple[nn.Module, nn.Module]]:
        return [(self.ema_ab, self.g_ab)]

    def all(self) -> dict[str, nn.Module]:
        return dict(self.__dict__)


@dataclass
class _Given:
    """What a step is about.

    Attributes:
        a: faces (N, 3, S, S).
        bare, seen: what their contents are read off, as it is and covered; whole heads in some steps.
        raw_b, b: drawings as they are, and augmented.
        seeds: style codes.
        hair: what drawings have around their faces, in some steps.
        around, within: faces to what the generator sees, and back.
    """

    a: Tensor
    bare: Tensor
    seen: Tensor
    raw_b: Tensor
    b: Tensor
    seeds: Tensor
    hair: Tensor | None
    around: Resize
    within: Resize


@dataclass
class _Shown:
    """What the discriminator is shown.

    Attributes:
        real_style, real_taps: of the drawings.
        styles, fake, taps: codes, translations and the trunk's taps of these.
        places: where eyes and mouths are in them, and how far these ought to be open.
        hair, hair_taps: what they have around faces.
        real_hair_taps: of what drawings have around theirs.
    """

    real_style: Tensor
    real_taps: list[Tensor]
    styles: Tensor
    fake: Tensor
    taps: list[Tensor]
    places: FacialPlaces | None = None
    hair: Tensor | None = None
    hair_taps: list[Tensor] = field(default_factory=list)
    real_hair_taps: list[Tensor] = field(default_factory=list)


class OneSidedTrainer(Trainer[OneSidedNetworks]):
    """`Trainer` for recipes with `one_way`; the weights, sheets, checkpoints and the loop are the same.

    Args:
        trunk: what pictures are looked at through; default: fetched.

    Raises:
        ModelFileError: the trunk cannot be had.
    """

    def __init__(self, *args: Any, trunk: Trunk | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.trunk = (trunk or Trunk.load()).to(self.device, torch.bfloat16 if self.bf16 else torch.float32)
        self.parts = PartsHead.load().to(self.device) if self.recipe.loss.parts else None
        self._drawing_weights: Tensor | None = None

    def _build(self, size: int) -> OneSidedNetworks:
        r = self.recipe
        generator = Generator(r.architecture_at(size))
        # Under adaptive augmentation the discriminator sees pictures whose parts lie elsewhere.
        judge = ProjectedDiscriminator(
            latent_dim=r.architecture.latent_dim,
            group=r.styles_each,
            components=r.loss.parts > 0 and not r.ada,
            surroundings=r.loss.surroundings > 0 and not r.ada,
        )
        nets = OneSidedNetworks(generator, judge, copy.deepcopy(generator))
        for net in nets.all().values():
            net.to(self.device)
        nets.ema_ab.requires_grad_(False)
        return nets

    def start_from(self, weights: Weights) -> None:
        """Begin with that generator instead of noise; the discriminator begins anew. The recipe is to be what
        `train.recipes.continued` makes of it."""
        tensors = {
            name.replace(STYLE_ENCODER, "encoder."): tensor
            for name, tensor in weights.tensors.items()
            if not name.startswith(STYLE_ENCODER) or name.startswith(f"{STYLE_ENCODER}style.")
        }
        for net in (self.networks.g_ab, self.networks.ema_ab):
            net.load_state_dict(tensors, strict=False)  # fixed kernels are not in the file

    def _grown(self) -> None:
        """Go on from the averaged generator. Its new outer block first learns the old input layer's part, for
        which nothing else has to be run, so that the pictures stay as they are and nothing has to be faded."""
        nets = self.networks
        nets.g_ab.load_state_dict(nets.ema_ab.state_dict())
        self._fit_outer_block(nets.g_ab.encoder.stem)
        set_fade(nets.g_ab, 1.0)
        nets.ema_ab.load_state_dict(nets.g_ab.state_dict())

    def _fit_outer_block(self, stem: GrownStem) -> None:
        fade = stem.get_submodule("fade")
        assert isinstance(fade, FadeIn)
        block = nn.Sequential(stem[0], stem[1])
        optimiser = torch.optim.Adam(block.parameters(), self.recipe.lr, betas=(0.9, 0.99))
        for step in range(FIT_STEPS):
            optimiser.param_groups[0]["lr"] = self.recipe.lr * (1 - step / FIT_STEPS)
            raw = [
                self._pool(pool).sample(4, self.generator) for pool in (self.data.train_a, self.data.train_b)
            ]
            x = self._covered(self._augment(torch.cat(raw)))
            with self._autocast():
                with torch.no_grad():
                    target = fade.input(F.avg_pool2d(x, 2)).float()
                loss = F.mse_loss(block(x).float(), target)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        missed = float(loss.detach() / target.var())
        log.info("new outer block: %.1f %% of the old input layer's variance is missed", 100 * missed)

    def _due(self, every: int) -> bool:
        """Whether a lazy term, asked once in `every` steps, is asked now."""
        return self.step % every == 0

    def _weight(self, name: str) -> float:
        r = self.recipe
        lazy = {"reproduction": r.reproduce_every, "latent": r.reproduce_every, "motion": r.motion_every}
        return super()._weight(name) * lazy.get(name, 1)

    def _covered(self, x: Tensor, evenness: float = 1.0) -> Tensor:
        """What contents are read off: shadowed, recoloured, relit, so that the palette has to come from the style."""
        return relight(
            recolor(overshadow(x, self.generator), self.generator, evenness=evenness), self.generator
        )

    def _reproduction(self, net: Generator, x: Tensor, again: Tensor) -> tuple[Tensor, Tensor]:
        """How unlike pictures (N, 3, S, S) are to what comes back from their content, read off as they are but covered
        and blurred, and their style, read off `again`, the same under another augmentation. And what the encoder's
        stem says about `again`.

        So the style code has to say what another view of the same drawing shares with this one and the content does
        not say: colours, and how what is small is drawn.
        """
        seen = net.encoder.stem(again)
        content = net.content(blur(self._covered(x), self.generator))
        same = net.decode(content, net.style_of(seen)).contiguous(memory_format=self.memory_format)
        with torch.no_grad():
            wanted = self.trunk.features(x)
        return reproduction_error(same, x) + feature_distance(self.trunk.features(same), wanted), seen

    def _warmup_step(self, batch: int) -> dict[str, Tensor]:
        """One update of the generator as an autoencoder of both domains; a third of the pictures are faces."""
        few = max(batch // 3, 1)
        counts = ((self.data.train_a, few), (self.data.train_b, batch - few))
        raw = [self._pool(pool).sample(count * world(), self.generator) for pool, count in counts]
        x, again = (torch.cat([mine(self._augment(part)) for part in raw]) for _ in range(2))
        terms: dict[str, Tensor] = {}
        with self._autocast():
            net = self.networks.g_ab
            terms["reproduction"], seen = self._reproduction(net, x, again)
            # Seeds are to be drawings: only theirs are asked to be where seeds are drawn.
            terms["latent"] = self._latent(net.style_of(seen[few:]))
        loss = self.recipe.loss
        self._update_generators(terms["reproduction"] * loss.reproduction + terms["latent"] * loss.latent)
        return terms

    def _update(self, batch: int) -> dict[str, Tensor]:
        """One update of the generator, then of the discriminator on the same translations.

        Each face is translated in `Recipe.styles_each` styles, half of them seeds, half those of the batch's anime
        pictures.
        """
        r, judge = self.recipe, self.networks.d_b
        given = self._draw(batch)
        self.on_part("data")

        judge.requires_grad_(False)
        terms, shown = self._translate(given)
        total = torch.stack([value * self._weight(name) for name, value in terms.items()]).sum()
        self._update_generators(total)

        judge.requires_grad_(True)
        with self._autocast():
            terms["discriminator"] = self._judge(given, shown, terms)
        # `gather` makes all processes decide alike.
        loss = float(gather(terms["discriminator"].detach()[None]).mean()) if r.d_rest else 0.0
        if loss >= r.d_rest * (1 if given.hair is None else 2):
            self.d_optimiser.zero_grad(set_to_none=True)
            terms["discriminator"].backward()
            self._descend(self.d_optimiser)
        self.on_part("discriminator")
        terms["discriminator"] = terms["discriminator"].detach()
        return terms

    def _draw(self, batch: int) -> _Given:
        """What a step is about. Drawn for all processes, so that together they do what one would."""
        r = self.recipe
        faces, every = batch // r.styles_each, batch * world()
        a = mine(self._augment(self._pool(self.data.train_a).sample(faces * world(), self.generator)))
        raw_b = self._pool(self.data.train_b).sample(every, self.generator, weights=self._weigh_drawings())
        b = mine(self._augment(raw_b))
        seeds = mine(self._normal(every))
        is_wide = bool(torch.rand((), generator=self.generator) < r.wide)
        around, within = (in_head, face_of) if is_wide else (as_it_is, as_it_is)
        bare, hair = around(a), None
        if is_wide and self.data.heads is not None:
            real = bool(torch.rand((), generator=self.generator) < 0.5)
            if real:
                bare = self._heads(self.data.heads, faces)
                a = within(bare).contiguous(memory_format=self.memory_format)
            if real and self.networks.d_b.surroundings and self.data.drawn_heads is not None:
                hair = upper_part(self._heads(self.data.drawn_heads, faces))
        seen = self._covered(bare, FACES_EVENNESS)
        return _Given(a, bare, seen, raw_b, b, seeds, hair, around, within)

    def _weigh_drawings(self) -> Tensor | None:
        """How likely each drawing is: so that their mouths are as open as faces' are."""
        if self.parts is not None and self._drawing_weights is None:
            faces = self.data.train_a.sample(
                min(FACES_READ, len(self.data.train_a)), torch.Generator().manual_seed(0)
            )
            wanted, found = (
                mouth_openings(read_parts(some.to(self.device), self.trunk, self.parts)).cpu()
                for some in (faces, self.data.train_b.images)
            )
            self._drawing_weights = weights_to_mean(found, float(wanted.mean()), OPEN_MOST)
            log.info("mouths of faces are open by %.2f, of drawings by %.2f", wanted.mean(), found.mean())
        return self._drawing_weights

    def _translate(self, given: _Given) -> tuple[dict[str, Tensor], _Shown]:
        """The generator's terms, and what the discriminator is shown."""
        r, net, judge = self.recipe, self.networks.g_ab, self.networks.d_b
        batch, each = len(given.b), r.styles_each
        use_seed = (torch.arange(batch, device=self.device) % 2 == 0)[:, None]
        terms: dict[str, Tensor] = {}
        with torch.no_grad(), self._autocast():
            taps_a, taps_b = self.trunk.features(given.a), self.trunk.features(given.b)
            style_b = net.style(given.b)
        with self._autocast():
            shared = net.content(given.seen).repeat_interleave(each, 0)
            to_b = torch.where(use_seed, given.seeds, style_b.roll(1, 0))
            w_b, kept = self._mapped(net, to_b)
            whole = net.synthesise(shared, w_b)
            fake = given.within(whole).contiguous(memory_format=self.memory_format)
            taps = self.trunk.features(fake)
            seen = self._shown("d_b", fake)
            shown = _Shown(style_b, taps_b, to_b, seen, self.trunk.features(seen) if r.ada else taps)
            if self.parts is not None:
                wanted = self.parts(taps_a).repeat_interleave(each, 0)
                if judge.components:
                    shown.places = FacialPlaces.read_from(wanted)
                terms["parts"] = part_distance(self.parts(taps), wanted)
            terms["adversarial"] = generator_hinge(judge(shown.taps, shown.fake, to_b, shown.places))
            if r.loss.texture:
                terms["texture"] = self._texture("face", taps, taps_b)
            if given.hair is not None:
                with torch.no_grad():
                    shown.real_hair_taps = self.trunk.features(given.hair)
                shown.hair = upper_part(whole[::each]).contiguous(memory_format=self.memory_format)
                shown.hair_taps = self.trunk.features(shown.hair)
                terms["surroundings"] = generator_hinge(judge.judge_surroundings(shown.hair_taps, shown.hair))
                if r.loss.texture:
                    of_hair = self._texture("hair", shown.hair_taps, shown.real_hair_taps)
                    terms["texture"] = terms["texture"] + of_hair
            terms["content"] = content_distance(
                taps[CONTENT_TAP], taps_a[CONTENT_TAP].repeat_interleave(each, 0)
            )
            if r.loss.palette:
                terms["palette"] = self._palette(fake)
            if r.loss.style_reconstruction:
                terms["style_reconstruction"] = masked_mse(net.style(fake), to_b, kept)
            self._add_lazy(terms, given, fake[::each], w_b[::each])
            self._add_path_length(terms, g_ab=(shared, to_b))
        return terms, shown

    def _add_lazy(self, terms: dict[str, Tensor], given: _Given, fake: Tensor, w: Tensor) -> None:
        """The terms that are not asked at every step.

        Args:
            fake, w: a translation of each face, and its style.
        """
        r, net = self.recipe, self.networks.g_ab
        if r.loss.motion and self._due(r.motion_every):
            motion = self._motion(len(fake))
            # Under another light: what flickers with it is told as what jumps is.
            moved_bare = given.around(resample(given.within(given.bare), motion))
            moved_seen = self._covered(moved_bare, FACES_EVENNESS)
            moved = given.within(net.synthesise(net.content(moved_seen), w))
            terms["motion"] = motion_difference(moved, resample(fake, motion), motion)
        if self._due(r.reproduce_every):
            some = slice(0, len(given.b) - len(given.b) // 2)
            again = mine(self._augment(given.raw_b))[some]
            terms["reproduction"], seen = self._reproduction(net, given.b[some], again)
            # A matter of the style head: in the stem its gradient is ten times those of the terms about the picture.
            terms["latent"] = self._latent(net.style_of(seen.detach()))

    def _judge(self, given: _Given, shown: _Shown, terms: dict[str, Tensor]) -> Tensor:
        """The discriminator's loss; what adaptive augmentation watches goes into `terms`."""
        judge, taps_b = self.networks.d_b, shown.real_taps
        real_b = self._shown("d_b", given.b)
        if self.recipe.ada:
            with torch.no_grad():
                taps_b = self.trunk.features(real_b)
        places_b = None
        if self.parts is not None and judge.components:
            places_b = FacialPlaces.read_from(self.parts(taps_b))
        of_real = judge(taps_b, real_b, shown.real_style, places_b)
        self._observe(terms, d_b=of_real)
        of_fake = judge(_detached(shown.taps), shown.fake.detach(), shown.styles, shown.places)
        loss = discriminator_hinge(of_real, of_fake)
        if given.hair is not None and shown.hair is not None:
            of_real = judge.judge_surroundings(shown.real_hair_taps, given.hair)
            of_fake = judge.judge_surroundings(_detached(shown.hair_taps), shown.hair.detach())
            loss = loss + discriminator_hinge(of_real, of_fake)
        return loss

    def _heads(self, pool: ImagePool, count: int) -> Tensor:
        """This process's share of whole heads, augmented."""
        heads = self._pool(pool, head_side(self.size))
        return mine(self._augment(heads.sample(count * world(), self.generator)))

    def _palette(self, fake: Tensor) -> Tensor:
        """`energy_distance` of the colours of translations whose styles are seeds and drawings' by turns. Seeds are
        compared by themselves and drawings' styles by themselves, or one kind makes up for the other."""
        drawings = self._pool(self.data.train_b).sample(PALETTE_DRAWINGS, self.generator)
        real = palette_cells(to_float(drawings))
        kinds = [palette_cells(fake[kind::2]) for kind in (0, 1)]
        new = everyones(kinds)
        before = self.painted or new
        apart = [energy_distance(cells, real, others) for cells, others in zip(kinds, before, strict=True)]
        self.painted = latest(before, new, PALETTE_DRAWINGS)
        return torch.stack(apart).mean()

    def _texture(self, part: str, taps: Sequence[Tensor], taps_b: Sequence[Tensor]) -> Tensor:
        """`energy_distance` of the features of translations from those of drawings, averaged over the levels, and both
        remembered as this `part` of the head."""
        fake, real = texture_cells(taps), texture_cells(taps_b)
        new = [everyones(fake), everyones(real)]
        earlier = self.textures.get(part, new)
        drawings = [torch.cat(pair, 1) for pair in zip(earlier[1], new[1], strict=True)]
        apart = [energy_distance(*cells) for cells in zip(fake, drawings, earlier[0], strict=True)]
        self.textures[part] = [latest(*kind, TEXTURE_PICTURES) for kind in zip(earlier, new, strict=True)]
        return torch.stack(apart).mean()


def everyones(cells: Sequence[Tensor]) -> list[Tensor]:
    """Cells, each (cells, N, D), of all processes' pictures; no gradient reaches them."""
    return [gather(x.detach().transpose(0, 1)).transpose(0, 1) for x in cells]


def latest(earlier: Sequence[Tensor], new: Sequence[Tensor], count: int) -> list[Tensor]:
    """The last `count` pictures' cells of both, each (cells, N, D)."""
    return [torch.cat(pair, 1)[:, -count:] for pair in zip(earlier, new, strict=True)]


def reproduction_error(found: Tensor, wanted: Tensor) -> Tensor:
    """How far colours are off: mean absolute differences of pixels, and, weighing more, of cells.

    The trunk hardly sees a palette, and pixels are mostly lines and light: asked for these alone, the decoder does not
    use what the style says of hues.

    Args:
        found, wanted: pictures (N, 3, S, S).
    """
    cells = F.l1_loss(palette_cells(found), palette_cells(wanted))
    return 2 * F.l1_loss(found, wanted) + COLOR_WEIGHT * cells


def feature_distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Mean absolute difference of the trunk's taps of two batches, each brought to unit size."""
    return torch.stack(
        [F.l1_loss(one.float(), two.float()) / rms for one, two, rms in zip(a, b, TAP_RMS, strict=True)]
    ).mean()


def in_head(x: Tensor) -> Tensor:
    """Pictures (N, C, S, S) in the middle of larger ones, mirrored outwards, as a face's crop lies in its head's."""
    return F.pad(x, head_margins(x.shape[-1]), "reflect")


def face_of(x: Tensor) -> Tensor:
    """What `in_head` made larger, (N, C, S, S)."""
    left, _, top, _ = head_margins(size := round(x.shape[-1] / HEAD_EXTENT))
    return x[..., top : top + size, left : left + size]


def _detached(taps: Sequence[Tensor]) -> list[Tensor]:
    return [tap.detach() for tap in taps]


def as_it_is(x: Tensor) -> Tensor:
    return x
