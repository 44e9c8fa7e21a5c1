"""Training of one direction only, faces to anime, for budgets that GNR's two directions do not fit into.

One generator keeps both domains: it translates faces, and it reproduces anime pictures from their own content
and style, which is what teaches it to draw and its style head to read. The cycle, which needs the second
direction, gives way to a domain-invariant perceptual distance between a face and its translation; the
discriminator stands on pretrained features (`train.projected`). A step costs about a third of GNR's.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.errors import WeightsError
from engines.weights import STYLE_ENCODER, Weights
from gnr_video.tracking.alignment import HEAD_EXTENT, head_margins, head_side
from train.augment import recolour, relight, resample, to_float
from train.distributed import gather, mine, world
from train.flow import motion_difference
from train.grow import set_fade
from train.losses import masked_mse, style_consistency
from train.networks import FadeIn, Generator, GrownStem
from train.parts import PartsHead, part_centres, part_distance
from train.projected import (
    ProjectedDiscriminator,
    content_distance,
    discriminator_hinge,
    generator_hinge,
    palette_cells,
    palette_energy,
    palette_spread,
    upper_part,
)
from train.recipes import Recipe
from train.trainer import Trainer

log = logging.getLogger(__name__)

Resize: TypeAlias = Callable[[Tensor], Tensor]

FIT_STEPS = 300
PALETTE_DRAWINGS = 64
"""How many drawings' colours, and earlier translations', a step's translations are compared with."""
CONTENT_TAP = 3
"""relu4_3: what is where in the face, and little of how it is painted."""


@dataclass
class OneWayNetworks:
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


class OneWayTrainer(Trainer):
    """`Trainer` for recipes with `one_way`; the weights, sheets, checkpoints and the loop are the same.

    Raises:
        WeightsError: the VGG16 trunk cannot be had; unlike GNR's training, this one stands on it.
    """

    networks: OneWayNetworks  # type: ignore[assignment]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.lpips is None:
            raise WeightsError(
                f"recipe {self.recipe.name!r} needs the VGG16 trunk of LPIPS",
                "give --lpips-trunk FILE, or choose another --recipe",
            )
        self.parts = PartsHead.load().to(self.device) if self.recipe.loss.parts else None

    def _build(self, size: int) -> OneWayNetworks:  # type: ignore[override]
        generator = Generator(self.recipe.architecture_at(size))
        # Under adaptive augmentation the discriminator sees pictures whose parts lie elsewhere.
        components = self.recipe.loss.parts > 0 and not self.recipe.ada
        surroundings = self.recipe.loss.surroundings > 0 and not self.recipe.ada
        judge = ProjectedDiscriminator(components=components, surroundings=surroundings)
        nets = OneWayNetworks(generator, judge, copy.deepcopy(generator))
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
            x = relight(recolour(self._augment(torch.cat(raw)), self.generator), self.generator)
            with self._autocast():
                with torch.no_grad():
                    target = fade.input(F.avg_pool2d(x, 2)).float()
                loss = F.mse_loss(block(x).float(), target)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        missed = float(loss.detach() / target.var())
        log.info("new outer block: %.1f %% of the old input layer's variance is missed", 100 * missed)

    def _update(self, batch: int) -> dict[str, Tensor]:
        """One update of the generator, then of the discriminator on the same translations.

        The styles are half seeds, half those of the batch's anime pictures, each given to another's face.
        """
        assert self.lpips is not None
        r, nets = self.recipe, self.networks
        twice = max(batch // 4, 1)
        every = batch * world()
        a = mine(self._augment(self._pool(self.data.train_a).sample(every, self.generator)))
        raw_b = self._pool(self.data.train_b).sample(every, self.generator)
        b = mine(self._augment(raw_b))
        # Some anime pictures come a second time, under another augmentation, for style consistency.
        again = raw_b.unflatten(0, (world(), batch))[:, :twice].flatten(0, 1)
        b = torch.cat([b, mine(self._augment(again))])
        seeds = mine(self._normal(every))
        use_seed = (torch.arange(batch, device=self.device) % 2 == 0)[:, None]
        some = slice(0, batch - batch // 2)
        motion = self._motion(some.stop)
        is_wide = bool(torch.rand((), generator=self.generator) < r.wide)
        around, within = (in_head, face_of) if is_wide else (as_it_is, as_it_is)
        seen, drawn = around(a), None
        if is_wide and self.data.heads is not None:
            heads = self._pool(self.data.heads, head_side(self.size)).sample(every, self.generator)
            seen = torch.cat([mine(self._augment(heads))[some], seen[some.stop :]])
            a = within(seen).contiguous(memory_format=self.memory_format)
            if nets.d_b.surroundings and self.data.drawn_heads is not None:
                drawn = self._pool(self.data.drawn_heads, head_side(self.size)).sample(every, self.generator)
                drawn = upper_part(mine(self._augment(drawn))[some])
        # Contents are read off recoloured pictures, so that the palette has to come from the style.
        seen = relight(recolour(seen, self.generator), self.generator)
        moved_seen = around(resample(within(seen[some]), motion))
        seen_b = around(relight(recolour(b[some], self.generator), self.generator))
        terms: dict[str, Tensor] = {}

        nets.d_b.requires_grad_(False)
        with torch.no_grad():
            taps_a, taps_b = self.lpips.features(a), self.lpips.features(b[:batch])
        with self._autocast():
            content = nets.g_ab.content(torch.cat([seen, seen_b]))
            content_a, content_b = content[:batch], content[batch:]
            style_b = nets.g_ab.style(b)
            to_b = torch.where(use_seed, seeds, style_b[:batch].roll(1, 0))
            w_b, kept = self._mapped(nets.g_ab, to_b)
            whole = nets.g_ab.synthesise(content_a, w_b)
            fake = within(whole)
            fake = fake.contiguous(memory_format=self.memory_format)
            taps = self.lpips.features(fake)
            shown = self._shown("d_b", fake)
            shown_taps = self.lpips.features(shown) if r.ada else taps
            centres = None
            if self.parts is not None:
                wanted = self.parts(taps_a)
                centres = part_centres(wanted) if nets.d_b.components else None
                terms["parts"] = part_distance(self.parts(taps), wanted)
            terms["adversarial"] = generator_hinge(nets.d_b(shown_taps, shown, centres))
            if drawn is not None:
                hair = upper_part(whole[some]).contiguous(memory_format=self.memory_format)
                hair_taps = self.lpips.features(hair)
                terms["surroundings"] = generator_hinge(nets.d_b.judge_surroundings(hair_taps, hair))
            terms["content"] = content_distance(taps[CONTENT_TAP], taps_a[CONTENT_TAP])
            if r.loss.palette:
                terms["palette"] = self._palette(fake)
            if r.loss.spread:
                other = within(nets.g_ab.synthesise(content_a[some], w_b.roll(1, 0)[some]))
                terms["spread"] = palette_spread(fake[some], other)
            style_again = nets.g_ab.style(fake)
            terms["style_reconstruction"] = masked_mse(style_again, to_b.detach(), kept)
            moved = within(nets.g_ab.synthesise(nets.g_ab.content(moved_seen), w_b[some]))
            terms["motion"] = motion_difference(moved, resample(fake[some], motion), motion)
            same = within(nets.g_ab.decode(content_b, style_b[some]))
            same = same.contiguous(memory_format=self.memory_format)
            terms["identity"] = F.l1_loss(same, b[some])
            terms["cycle_lpips"] = self.lpips(same, [tap[some] for tap in taps_b]).mean()
            pairs = torch.stack([style_b[:twice], style_b[batch:]], 1).flatten(0, 1)
            terms["style_consistency"] = style_consistency(pairs, twice)
            terms["latent"] = self._latent(style_b[:batch])
            self._add_path_length(terms, g_ab=(content_a, to_b))
        total = torch.stack([value * self._weight(name) for name, value in terms.items()]).sum()
        self._update_generators(total)

        nets.d_b.requires_grad_(True)
        with self._autocast():
            real_b = self._shown("d_b", b[:batch])
            if r.ada:
                with torch.no_grad():
                    taps_b = self.lpips.features(real_b)
            centres_b = None
            if self.parts is not None and nets.d_b.components:
                centres_b = part_centres(self.parts(taps_b))
            real = nets.d_b(taps_b, real_b, centres_b)
            self._observe(terms, d_b=real)
            false = nets.d_b([tap.detach() for tap in shown_taps], shown.detach(), centres)
            terms["discriminator"] = discriminator_hinge(real, false)
            if drawn is not None:
                with torch.no_grad():
                    drawn_taps = self.lpips.features(drawn)
                real = nets.d_b.judge_surroundings(drawn_taps, drawn)
                false = nets.d_b.judge_surroundings([tap.detach() for tap in hair_taps], hair.detach())
                terms["discriminator"] = terms["discriminator"] + discriminator_hinge(real, false)
        # `gather` makes all processes decide alike.
        loss = float(gather(terms["discriminator"].detach()[None]).mean()) if r.d_rest else 0.0
        if loss >= r.d_rest * (1 if drawn is None else 2):
            self.d_optimiser.zero_grad(set_to_none=True)
            terms["discriminator"].backward()
            self._descend(self.d_optimiser)
        terms["discriminator"] = terms["discriminator"].detach()
        return terms

    def _palette(self, fake: Tensor) -> Tensor:
        """`palette_energy` of translations whose styles are seeds and drawings' by turns. Seeds are compared by
        themselves and drawings' styles by themselves, or one kind makes up for the other."""
        drawings = self._pool(self.data.train_b).sample(PALETTE_DRAWINGS, self.generator)
        real = palette_cells(to_float(drawings))
        kinds = [palette_cells(fake[kind::2]) for kind in (0, 1)]
        new = [gather(cells.detach().transpose(0, 1)).transpose(0, 1) for cells in kinds]
        before = self.painted or new
        apart = [palette_energy(cells, real, others) for cells, others in zip(kinds, before, strict=True)]
        self.painted = [torch.cat(pair, 1)[:, -PALETTE_DRAWINGS:] for pair in zip(before, new, strict=True)]
        return torch.stack(apart).mean()


def in_head(x: Tensor) -> Tensor:
    """Pictures (N, C, S, S) in the middle of larger ones, mirrored outwards, as a face's crop lies in its head's."""
    return F.pad(x, head_margins(x.shape[-1]), "reflect")


def face_of(x: Tensor) -> Tensor:
    """What `in_head` made larger, (N, C, S, S)."""
    left, _, top, _ = head_margins(size := round(x.shape[-1] / HEAD_EXTENT))
    return x[..., top : top + size, left : left + size]


def as_it_is(x: Tensor) -> Tensor:
    return x


def trainer_class(recipe: Recipe) -> type[Trainer]:
    """What trains that recipe."""
    return OneWayTrainer if recipe.one_way else Trainer
