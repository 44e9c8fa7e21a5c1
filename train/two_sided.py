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
        r, w, n = self.recipe, self.recipe.loss, self.recipe.contents
        nets = self.networks
        # Drawn for all processes, so that together they do what one would; `mine` is this one's share.
        every, contents = batch * world(), n * world()
        raw_a = self._pool(self.data.train_a).sample(every, self.generator)
        raw_b = self._pool(self.data.train_b).sample(every, self.generator)
        real_a, real_b = mine(self._reals(raw_a)), mine(self._reals(raw_b))
        a = mine(self._augment(raw_a[:contents].repeat_interleave(batch // n, 0)))
        b = mine(self._augment(raw_b[:contents].repeat_interleave(batch // n, 0)))
        seeds = [mine(self._normal(every)) for _ in range(2)]
        use_seed = (torch.arange(batch, device=self.device) % 2 == 0)[:, None]
        terms: dict[str, Tensor] = {}
        self.on_part("data")

        # Generators.
        for net in nets.discriminators():
            net.requires_grad_(False)
        with self._autocast():
            content_a, style_a = nets.g_ab.encode(a)
            content_b, style_b = nets.g_ba.encode(b)
            to_b = torch.where(use_seed, seeds[0], style_b)
            to_a = torch.where(use_seed, seeds[1], style_a)
            w_b, kept_b = self._mapped(nets.g_ab, to_b)
            w_a, kept_a = self._mapped(nets.g_ba, to_a)
            fake_b = nets.g_ab.synthesise(content_a, w_b).contiguous(memory_format=self.memory_format)
            fake_a = nets.g_ba.synthesise(content_b, w_a).contiguous(memory_format=self.memory_format)
            terms["adversarial"] = generator_adversarial(
                nets.d_b(self._shown("d_b", fake_b))
            ) + generator_adversarial(nets.d_a(self._shown("d_a", fake_a)))
            self._add_path_length(terms, g_ab=(content_a, to_b), g_ba=(content_b, to_a))
            terms["style_consistency"] = style_consistency(style_a, n) + style_consistency(style_b, n)
            # From here on only some of each image's augmentations go on.
            some = torch.arange(batch, device=self.device).unflatten(0, (n, -1))
            some = some[:, : max(round(some.shape[1] * r.cycle_share), 1)].flatten()
            a, b, to_a, to_b = a[some], b[some], to_a[some], to_b[some]
            kept_a, kept_b = kept_a[some], kept_b[some]
            content_ab, style_ab = nets.g_ba.encode(fake_b[some])
            content_ba, style_ba = nets.g_ab.encode(fake_a[some])
            again_a = nets.g_ba.decode(content_ab, shuffle_within(style_a, n, self.generator)[some])
            again_b = nets.g_ab.decode(content_ba, shuffle_within(style_b, n, self.generator)[some])
            terms["cycle_l2"] = F.mse_loss(again_a, a) + F.mse_loss(again_b, b)
            if self.lpips is not None:
                distance = self.lpips(torch.cat([again_a, again_b]), torch.cat([a, b]))
                terms["cycle_lpips"] = 2 * distance.mean()
            if w.style_reconstruction:
                terms["style_reconstruction"] = masked_mse(style_ab, to_b, kept_b) + masked_mse(
                    style_ba, to_a, kept_a
                )
            if w.latent:
                logits = [nets.d_latent(style_a), nets.d_latent(style_b)]
                terms["latent"] = generator_adversarial(logits) / 2
            identity = self.identity_weight()
            if identity > 0:
                same_b = nets.g_ab.decode(content_b[some], style_b[some])
                same_a = nets.g_ba.decode(content_a[some], style_a[some])
                terms["identity"] = F.l1_loss(same_a, a) + F.l1_loss(same_b, b)
            if w.cyclegan_identity:
                same_b = nets.g_ab.decode(nets.g_ab.content(b), style_b[some])
                same_a = nets.g_ba.decode(nets.g_ba.content(a), style_a[some])
                terms["cyclegan_identity"] = F.l1_loss(same_a, a) + F.l1_loss(same_b, b)
            if w.motion:
                motion = self._motion(len(some))
                moved_b = nets.g_ab.synthesise(nets.g_ab.content(resample(a, motion)), w_b[some])
                moved_a = nets.g_ba.synthesise(nets.g_ba.content(resample(b, motion)), w_a[some])
                terms["motion"] = motion_difference(
                    moved_b, resample(fake_b[some], motion), motion
                ) + motion_difference(moved_a, resample(fake_a[some], motion), motion)
        total = torch.stack(
            [
                value * (identity if name == "identity" else self._weight(name))
                for name, value in terms.items()
            ]
        ).sum()
        self._update_generators(total)

        # Discriminators.
        for net in nets.discriminators():
            net.requires_grad_(True)
        fake_a, fake_b = self._shown("d_a", fake_a.detach()), self._shown("d_b", fake_b.detach())
        real_a, real_b = self._shown("d_a", real_a), self._shown("d_b", real_b)
        with self._autocast():
            of_real_b, of_real_a = nets.d_b(real_b), nets.d_a(real_a)
            terms["discriminator"] = discriminator_adversarial(
                of_real_b, nets.d_b(fake_b)
            ) + discriminator_adversarial(of_real_a, nets.d_a(fake_a))
            self._observe(terms, d_a=of_real_a, d_b=of_real_b)
            d_total = terms["discriminator"]
            if w.latent:
                prior = mine(self._normal(2 * every))
                codes = torch.cat([style_a, style_b]).detach()
                terms["latent_discriminator"] = discriminator_adversarial(
                    [nets.d_latent(prior)], [nets.d_latent(codes)]
                )
                d_total = d_total + terms["latent_discriminator"]
        self.d_optimiser.zero_grad(set_to_none=True)
        d_total.backward()
        self.on_part("discriminators")
        if w.r1 and self.step % r.r1_every == 0:
            penalty = torch.zeros((), device=self.device)
            for net, real in ((nets.d_a, real_a), (nets.d_b, real_b)):
                real = real.detach().requires_grad_(True)
                with self._autocast():
                    heads = net.forward(real)  # not what is compiled: it is differentiated twice
                penalty = penalty + r1_penalty(heads, real, w.r1_form)
            (penalty * (w.r1 / 2 * r.r1_every)).backward()
            terms["r1"] = penalty
            self.on_part("R1")
        self._descend(self.d_optimiser)
        self.on_part("discriminators update")
        return terms

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
