"""GNR's step: both directions, faces to anime and back, with cycle and style consistency."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.augment import resample
from train.data import Domains
from train.distributed import mine, world
from train.flow import motion_difference
from train.losses import (
    discriminator_adversarial,
    generator_adversarial,
    masked_mse,
    r1_penalty,
    shuffle_within,
    style_consistency,
)
from train.lpips import Lpips, try_lpips
from train.networks import Discriminator, Generator, LatentDiscriminator
from train.recipes import Recipe
from train.trainer import Trainer


@dataclass
class TwoSidedNetworks:
    """The networks of both directions. A: faces, B: anime."""

    g_ab: Generator
    g_ba: Generator
    d_a: Discriminator
    d_b: Discriminator
    d_latent: LatentDiscriminator
    ema_ab: Generator
    ema_ba: Generator

    def generators(self) -> list[nn.Module]:
        return [self.g_ab, self.g_ba]

    def discriminators(self) -> list[nn.Module]:
        return [self.d_a, self.d_b, self.d_latent]

    def averaged(self) -> list[tuple[nn.Module, nn.Module]]:
        """(average, live) pairs."""
        return [(self.ema_ab, self.g_ab), (self.ema_ba, self.g_ba)]

    def all(self) -> dict[str, nn.Module]:
        return dict(self.__dict__)


@dataclass
class _Given:
    """What a step is about: pictures for the discriminators, others to be translated, and style codes of seeds."""

    real_a: Tensor
    real_b: Tensor
    a: Tensor
    b: Tensor
    seeds_b: Tensor
    seeds_a: Tensor


@dataclass
class _Way:
    """Pictures on their way into the other domain.

    Attributes:
        content, style: their own codes.
        to, w: the style they are given, and what is made of it.
        kept: which of its numbers can be read off again.
        fake: the translations.
    """

    content: Tensor
    style: Tensor
    to: Tensor
    w: Tensor
    kept: Tensor
    fake: Tensor


@dataclass
class _Made:
    """Both ways."""

    ab: _Way
    ba: _Way


class TwoSidedTrainer(Trainer[TwoSidedNetworks]):
    """Trains both directions of GNR.

    Args:
        data, recipe, out, options: as for `Trainer`.
        lpips_trunk: weights of the LPIPS trunk, see `train.lpips.Lpips`. Where LPIPS cannot be had, training
            goes on without that term, with a warning.
    """

    def __init__(
        self, data: Domains, recipe: Recipe, out: Path, *, lpips_trunk: Path | None = None, **options: Any
    ) -> None:
        super().__init__(data, recipe, out, **options)
        self.lpips: Lpips | None = None
        if recipe.loss.cycle_lpips > 0:
            net: Literal["vgg", "alex"] = "alex" if recipe.lpips_net == "alex" else "vgg"
            dtype = torch.bfloat16 if self.bf16 else torch.float32
            lpips = try_lpips(net, lpips_trunk, resize_to=recipe.lpips_size, dtype=dtype)
            self.lpips = None if lpips is None else lpips.to(self.device)

    def _build(self, size: int) -> TwoSidedNetworks:
        a = self.recipe.architecture_at(size)
        g_ab, g_ba = Generator(a), Generator(a)

        def discriminator() -> Discriminator:
            return Discriminator(
                size,
                dict(a.channels),
                local_downs=int(math.log2(size // self.recipe.local_size)),
                global_downs=int(math.log2(size // self.recipe.global_size)),
                shared=self.recipe.shared_branch,
            )

        nets = TwoSidedNetworks(
            g_ab,
            g_ba,
            discriminator(),
            discriminator(),
            LatentDiscriminator(a.latent_dim),
            copy.deepcopy(g_ab),
            copy.deepcopy(g_ba),
        )
        for net in nets.all().values():
            net.to(self.device)
        nets.ema_ab.requires_grad_(False)
        nets.ema_ba.requires_grad_(False)
        return nets

    def identity_weight(self) -> float:
        """The identity term's weight now: full, then a linear fade to nothing."""
        end = self.recipe.identity_until * self.recipe.steps
        return self.recipe.loss.identity * min(1.0, max(0.0, 2 * (1 - self.step / max(end, 1))))

    def _update(self, batch: int) -> dict[str, Tensor]:
        """GNR's step on `batch` pictures of each domain."""
        r, w, nets = self.recipe, self.recipe.loss, self.networks
        given = self._draw(batch)
        self.on_part("data")

        for net in nets.discriminators():
            net.requires_grad_(False)
        with self._autocast():
            made = self._translate(given)
            terms = self._generator_terms(given, made)
        weights = {name: self._weight(name) for name in terms} | {"identity": self.identity_weight()}
        self._update_generators(torch.stack([value * weights[name] for name, value in terms.items()]).sum())

        for net in nets.discriminators():
            net.requires_grad_(True)
        fakes = self._shown("d_a", made.ba.fake.detach()), self._shown("d_b", made.ab.fake.detach())
        reals = self._shown("d_a", given.real_a), self._shown("d_b", given.real_b)
        codes = torch.cat([made.ab.style, made.ba.style]).detach()
        with self._autocast():
            judged = self._judge(reals, fakes, codes, terms)
        self.d_optimiser.zero_grad(set_to_none=True)
        torch.stack(list(judged.values())).sum().backward()
        terms |= judged
        self.on_part("discriminators")
        if w.r1 and self.step % r.r1_every == 0:
            terms["r1"] = self._penalise(*reals)
            self.on_part("R1")
        self._descend(self.d_optimiser)
        self.on_part("discriminators update")
        return terms

    def _draw(self, batch: int) -> _Given:
        """What a step is about. Drawn for all processes, so that together they do what one would; `mine` is this
        one's share."""
        n = self.recipe.contents
        every, contents = batch * world(), n * world()
        raw_a = self._pool(self.data.train_a).sample(every, self.generator)
        raw_b = self._pool(self.data.train_b).sample(every, self.generator)
        real_a, real_b = mine(self._reals(raw_a)), mine(self._reals(raw_b))
        a = mine(self._augment(raw_a[:contents].repeat_interleave(batch // n, 0)))
        b = mine(self._augment(raw_b[:contents].repeat_interleave(batch // n, 0)))
        return _Given(real_a, real_b, a, b, *(mine(self._normal(every)) for _ in range(2)))

    def _translate(self, given: _Given) -> _Made:
        """Each picture in the other domain, half of them in the style of a seed."""
        nets = self.networks
        use_seed = (torch.arange(len(given.a), device=self.device) % 2 == 0)[:, None]
        content_a, style_a = nets.g_ab.encode(given.a)
        content_b, style_b = nets.g_ba.encode(given.b)
        to_b = torch.where(use_seed, given.seeds_b, style_b)
        to_a = torch.where(use_seed, given.seeds_a, style_a)
        w_b, kept_b = self._mapped(nets.g_ab, to_b)
        w_a, kept_a = self._mapped(nets.g_ba, to_a)
        fake_b = nets.g_ab.synthesise(content_a, w_b).contiguous(memory_format=self.memory_format)
        fake_a = nets.g_ba.synthesise(content_b, w_a).contiguous(memory_format=self.memory_format)
        ab = _Way(content_a, style_a, to_b, w_b, kept_b, fake_b)
        return _Made(ab, _Way(content_b, style_b, to_a, w_a, kept_a, fake_a))

    def _generator_terms(self, given: _Given, made: _Made) -> dict[str, Tensor]:
        w, n, nets, ab, ba = self.recipe.loss, self.recipe.contents, self.networks, made.ab, made.ba
        terms: dict[str, Tensor] = {}
        terms["adversarial"] = generator_adversarial(
            nets.d_b(self._shown("d_b", ab.fake))
        ) + generator_adversarial(nets.d_a(self._shown("d_a", ba.fake)))
        self._add_path_length(terms, g_ab=(ab.content, ab.to), g_ba=(ba.content, ba.to))
        terms["style_consistency"] = style_consistency(ab.style, n) + style_consistency(ba.style, n)
        # From here on only some of each image's augmentations go on.
        some = torch.arange(len(given.a), device=self.device).unflatten(0, (n, -1))
        some = some[:, : max(round(some.shape[1] * self.recipe.cycle_share), 1)].flatten()
        self._add_cycle(terms, given, made, some)
        if w.latent:
            logits = [nets.d_latent(ab.style), nets.d_latent(ba.style)]
            terms["latent"] = generator_adversarial(logits) / 2
        a, b = given.a[some], given.b[some]
        if self.identity_weight() > 0:
            same_b = nets.g_ab.decode(ba.content[some], ba.style[some])
            same_a = nets.g_ba.decode(ab.content[some], ab.style[some])
            terms["identity"] = F.l1_loss(same_a, a) + F.l1_loss(same_b, b)
        if w.cyclegan_identity:
            same_b = nets.g_ab.decode(nets.g_ab.content(b), ba.style[some])
            same_a = nets.g_ba.decode(nets.g_ba.content(a), ab.style[some])
            terms["cyclegan_identity"] = F.l1_loss(same_a, a) + F.l1_loss(same_b, b)
        if w.motion:
            motion = self._motion(len(some))
            moved_b = nets.g_ab.synthesise(nets.g_ab.content(resample(a, motion)), ab.w[some])
            moved_a = nets.g_ba.synthesise(nets.g_ba.content(resample(b, motion)), ba.w[some])
            terms["motion"] = motion_difference(
                moved_b, resample(ab.fake[some], motion), motion
            ) + motion_difference(moved_a, resample(ba.fake[some], motion), motion)
        return terms

    def _add_cycle(self, terms: dict[str, Tensor], given: _Given, made: _Made, some: Tensor) -> None:
        """What comes back of `some` pictures from the other domain, in a style of their group, and which style."""
        w, n, nets, ab, ba = self.recipe.loss, self.recipe.contents, self.networks, made.ab, made.ba
        a, b = given.a[some], given.b[some]
        content_ab, style_ab = nets.g_ba.encode(ab.fake[some])
        content_ba, style_ba = nets.g_ab.encode(ba.fake[some])
        again_a = nets.g_ba.decode(content_ab, shuffle_within(ab.style, n, self.generator)[some])
        again_b = nets.g_ab.decode(content_ba, shuffle_within(ba.style, n, self.generator)[some])
        terms["cycle_l2"] = F.mse_loss(again_a, a) + F.mse_loss(again_b, b)
        if self.lpips is not None:
            distance = self.lpips(torch.cat([again_a, again_b]), torch.cat([a, b]))
            terms["cycle_lpips"] = 2 * distance.mean()
        if w.style_reconstruction:
            terms["style_reconstruction"] = masked_mse(style_ab, ab.to[some], ab.kept[some]) + masked_mse(
                style_ba, ba.to[some], ba.kept[some]
            )

    def _judge(
        self,
        reals: tuple[Tensor, Tensor],
        fakes: tuple[Tensor, Tensor],
        codes: Tensor,
        seen: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        """The discriminators' losses.

        Args:
            reals, fakes: faces and drawings, as the discriminators are shown them.
            codes: the styles of both.
            seen: takes what adaptive augmentation watches.
        """
        nets, (real_a, real_b), (fake_a, fake_b) = self.networks, reals, fakes
        of_real_b, of_real_a = nets.d_b(real_b), nets.d_a(real_a)
        terms = {
            "discriminator": discriminator_adversarial(of_real_b, nets.d_b(fake_b))
            + discriminator_adversarial(of_real_a, nets.d_a(fake_a))
        }
        self._observe(seen, d_a=of_real_a, d_b=of_real_b)
        if self.recipe.loss.latent:
            prior = mine(self._normal(len(codes) * world()))
            terms["latent_discriminator"] = discriminator_adversarial(
                [nets.d_latent(prior)], [nets.d_latent(codes)]
            )
        return terms

    def _penalise(self, real_a: Tensor, real_b: Tensor) -> Tensor:
        """R1, whose gradient is added to the discriminators'."""
        r, w, nets = self.recipe, self.recipe.loss, self.networks
        penalty = torch.zeros((), device=self.device)
        for net, real in ((nets.d_a, real_a), (nets.d_b, real_b)):
            real = real.detach().requires_grad_(True)
            with self._autocast():
                heads = net.forward(real)  # not what is compiled: it is differentiated twice
            penalty = penalty + r1_penalty(heads, real, w.r1_form)
        (penalty * (w.r1 / 2 * r.r1_every)).backward()
        return penalty

    def _warmup_step(self, batch: int) -> dict[str, Tensor]:
        """One update of a single generator as an autoencoder of both domains.

        Half the images are faces, half anime, each under two augmentations; codes of the same image are drawn
        together, codes of all images to where seeds will be drawn from.
        """
        w, generator = self.recipe.loss, self.networks.g_ab
        raw = [
            self._pool(pool).sample(batch * world() // 2, self.generator)
            for pool in (self.data.train_a, self.data.train_b)
        ]
        x = mine(self._augment(torch.cat(raw).repeat_interleave(2, 0)))
        terms: dict[str, Tensor] = {}
        with self._autocast():
            again, _, style = generator(x)
            terms["identity"] = F.l1_loss(again, x)
            terms["style_consistency"] = style_consistency(style, batch)
            terms["latent"] = self._latent(style)
            if self.lpips is not None:
                terms["cycle_lpips"] = self.lpips(
                    again.contiguous(memory_format=self.memory_format), x
                ).mean()
        weights = {"identity": max(w.identity, 10.0), "style_consistency": 1.0, "latent": 1.0}
        total = torch.stack([v * weights.get(k, w.cycle_lpips) for k, v in terms.items()]).sum()
        self._update_generators(total)
        return terms
