"""GNR training: one step, and the loop around it that can be stopped and resumed at any moment."""

from __future__ import annotations

import copy
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.devices import native_bf16
from engines.errors import GnrVideoError, InputError, WeightsError
from engines.installation import install_line
from engines.weights import STYLE_ENCODER, save_weights
from gnr_video.tracking.alignment import head_side
from train.ada import AdaptiveAugment
from train.augment import augment, resample, to_float
from train.data import Domains, ImagePool
from train.distributed import any_of, average_gradients, gather, join, mean, mine, rank, world
from train.flow import motion_difference, random_motion
from train.grow import grow, set_fade
from train.losses import (
    discriminator_adversarial,
    generator_adversarial,
    latent_divergence,
    masked_mse,
    path_lengths,
    r1_penalty,
    shuffle_within,
    style_consistency,
    style_moments,
)
from train.lpips import Lpips, try_lpips
from train.networks import Discriminator, Generator, LatentDiscriminator
from train.recipes import Recipe
from train.sheets import sample_sheet, save_png

log = logging.getLogger(__name__)

CODES_PER_AXIS = 16
"""How many of the last style codes a covariance is taken over, for each of its axes (`LossWeights.latent`)."""

LICENCE = (
    "research and personal use: trained on selfie2anime, which holds photographs of real people and frames "
    "of copyrighted works published for research"
)
SHEET_STYLES = 6
STATE = "state.pt"
"""The checkpoint's name in the output folder."""


class TrainingDiverged(GnrVideoError):
    """A loss is no longer a finite number; the last good checkpoint is kept."""

    exit_code = 8


@dataclass
class Networks:
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
class Clock:
    """Where the time of a run goes; used for the progress line."""

    started: float = field(default_factory=time.monotonic)
    steps: int = 0

    def seconds_per_step(self) -> float:
        return (time.monotonic() - self.started) / max(self.steps, 1)


class Window:
    """The terms' sums since the last progress line; nothing here waits for the device."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self._bad_since: dict[str, Tensor] = {}

    def add(self, step: int, terms: dict[str, Tensor]) -> None:
        for name, value in terms.items():
            before = self._bad_since.get(name, torch.full((), math.inf, device=value.device))
            self._bad_since[name] = before.where(torch.isfinite(value), before.clamp(max=step))
            self.sums[name] = self.sums.get(name, 0) + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        """Over the steps and the processes."""
        if not self.sums:
            return {}
        return dict(zip(self.sums, mean(total / self.counts[name] for name, total in self.sums.items())))

    def first_bad(self) -> tuple[int, list[str]] | None:
        """The first step at which terms of this process were not finite, and which."""
        since = {name: float(step) for name, step in self._bad_since.items()}
        first = min(since.values(), default=math.inf)
        if first == math.inf:
            return None
        return int(first), [name for name, step in since.items() if step == first]


class Trainer:
    """Trains both directions of GNR on a pair of image pools.

    Args:
        data: images of both domains, stored at the recipe's largest size or larger.
        recipe: what to do.
        out: folder for the checkpoint, the weights, sample sheets and logs; created.
        device: "cpu" or "cuda". Under torchrun, processes share the work: the recipe's batch is that of each.
        seed: of everything random.
        lpips_trunk: weights of the LPIPS trunk, see `train.lpips.Lpips`. Where LPIPS cannot be had, training
            goes on without that term, with a warning.
        bf16: autocast to bfloat16 (default: on a GPU, and on CPUs that multiply it in hardware).

    Raises:
        InputError: a domain has a single image, or images smaller than the recipe's.
    """

    compile_backend: str | Callable[..., Any] = "inductor"
    """Of `torch.compile`, for recipes with `compile`."""

    def __init__(
        self,
        data: Domains,
        recipe: Recipe,
        out: Path,
        *,
        device: str = "cpu",
        seed: int = 0,
        lpips_trunk: Path | None = None,
        bf16: bool | None = None,
    ) -> None:
        _check_data(data, recipe)
        self.data, self.recipe, self.out = data, recipe, Path(out)
        self.out.mkdir(parents=True, exist_ok=True)
        self.device = join(device)
        self.bf16 = has_fast_bf16(self.device) if bf16 is None else bf16
        self.memory_format = torch.channels_last
        # Told when a part of a step is done ("data", "generators forward", ...); for benchmarks.
        self.on_part: Callable[[str], None] = lambda part: None
        self.step = 0
        self.seed = seed
        self.generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)
        self.stage = 0
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # few shapes, each met thousands of times
        self.networks = self._build(recipe.stages[0].size)
        self._compile()
        self._make_optimisers()
        self.painted: list[Tensor] = []
        """Colours of the last translations, by kind of style (`LossWeights.palette`)."""
        self.codes = torch.zeros(0, recipe.architecture.latent_dim, device=self.device)
        """Style codes of the last steps (`LossWeights.latent`)."""
        self.path_means = {name: torch.zeros((), device=self.device) for name in ("g_ab", "g_ba")}
        self.ada = {
            name: AdaptiveAugment(recipe.ada, recipe.ada_images) for name in ("d_a", "d_b") if recipe.ada
        }
        self.lpips: Lpips | None = None
        if recipe.loss.cycle_lpips > 0:
            net: Literal["vgg", "alex"] = "alex" if recipe.lpips_net == "alex" else "vgg"
            dtype = torch.bfloat16 if self.bf16 else torch.float32
            lpips = try_lpips(net, lpips_trunk, resize_to=recipe.lpips_size, dtype=dtype)
            self.lpips = None if lpips is None else lpips.to(self.device)
        self._scaled: dict[tuple[int, int], ImagePool] = {}

    # -- building, growing, optimisers

    @property
    def size(self) -> int:
        """Side of the pictures that are being trained on now."""
        return self.networks.g_ab.architecture.size

    def _build(self, size: int) -> Networks:
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

        nets = Networks(
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

    def _compile(self) -> None:
        """Of the networks, what a step spends its time in. Names of parameters stay as they are."""
        if not self.recipe.compile:
            return
        # Both directions and a step's few batch sizes, at each resolution, share the code.
        torch._dynamo.config.cache_size_limit = max(torch._dynamo.config.cache_size_limit, 64)
        torch._dynamo.config.suppress_errors = True  # what cannot be compiled runs as it is, after a warning
        for net in self.networks.generators():
            assert isinstance(net, Generator)
            net.encoder.compile(backend=self.compile_backend)
            for method in ("content", "style", "synthesise"):
                setattr(net, method, torch.compile(getattr(net, method), backend=self.compile_backend))
        for net in self.networks.discriminators():
            net.compile(backend=self.compile_backend)

    def _make_optimisers(self) -> None:

        def adam(nets: Iterable[nn.Module], ratio: float = 1.0) -> torch.optim.Adam:
            named = [p for net in nets for p in net.parameters()]
            return torch.optim.Adam(
                named, lr=self.recipe.lr * ratio, betas=(0.0, 0.99**ratio), eps=1e-8, fused=True
            )

        # Lazy regularisation (StyleGAN2, appendix B): the extra steps are counted in.
        lazy = self.recipe.r1_every / (self.recipe.r1_every + 1) if self.recipe.loss.r1 else 1.0
        self.g_optimiser = adam(self.networks.generators())
        self.d_optimiser = adam(self.networks.discriminators(), lazy)
        for group in self.d_optimiser.param_groups:
            group["lr"] *= self.recipe.d_lr
        self._base_lr = [
            group["lr"] for o in (self.g_optimiser, self.d_optimiser) for group in o.param_groups
        ]

    def _grow_to(self, size: int) -> None:
        """Double the resolution until `size`, carrying parameters and optimiser state over."""
        while self.size < size:
            old, old_state = self.networks, (self.g_optimiser.state, self.d_optimiser.state)
            new = self._build(self.size * 2)
            pairs: dict[nn.Parameter, nn.Parameter] = {}
            before = old.all()
            for name, net in new.all().items():
                if not isinstance(net, (Generator, Discriminator)):  # these do not depend on the size
                    net.load_state_dict(before[name].state_dict())
                    carried = {n: n for n, _ in net.named_parameters()}
                else:
                    carried = grow(before[name], net)  # type: ignore[type-var]
                was, now = dict(before[name].named_parameters()), dict(net.named_parameters())
                pairs |= {now[n]: was[o] for n, o in carried.items() if n in now and o in was}
                net.to(self.device)
            new.ema_ab.requires_grad_(False)
            new.ema_ba.requires_grad_(False)
            self.networks = new
            self._compile()
            self._make_optimisers()
            for optimiser, state in zip((self.g_optimiser, self.d_optimiser), old_state):
                for group in optimiser.param_groups:
                    for parameter in group["params"]:
                        previous = pairs.get(parameter)
                        if previous is not None and previous in state:
                            optimiser.state[parameter] = state[previous]

    def _grown(self) -> None:
        """Called after each doubling of the resolution."""

    # -- schedules

    def _enter_step(self) -> int:
        """Grow when a stage begins; set the learning rate and the fade. Returns the batch size."""
        number, within = self.recipe.stage_at(self.step)
        stage = self.recipe.stages[number]
        while self.size < stage.size:
            self._grow_to(self.size * 2)
            self._grown()
        self.stage = number
        if stage.fade_steps:
            alpha = within / stage.fade_steps
            for net in self.networks.all().values():
                set_fade(net, alpha)
        progress = min(self.step / self.recipe.steps, 1.0)
        if self.recipe.lr_schedule == "cosine":
            factor = 0.1 + 0.45 * (1 + math.cos(math.pi * progress))
        else:
            factor = 0.5 ** (self.step // self.recipe.lr_halve_every)
        groups = [g for o in (self.g_optimiser, self.d_optimiser) for g in o.param_groups]
        for group, base in zip(groups, self._base_lr):
            group["lr"] = base * factor
        return stage.batch

    def identity_weight(self) -> float:
        """The identity term's weight now: full, then a linear fade to nothing."""
        end = self.recipe.identity_until * self.recipe.steps
        return self.recipe.loss.identity * min(1.0, max(0.0, 2 * (1 - self.step / max(end, 1))))

    # -- one step

    def _pool(self, pool: ImagePool, side: int | None = None) -> ImagePool:
        """The pool at the current resolution, or with pictures of that side, on the device."""
        side = self.size if side is None else side
        key = (id(pool), self.size)
        if key not in self._scaled:
            images = pool.images
            if images.shape[-1] != side:
                images = torch.cat(
                    [
                        F.interpolate(part.float(), size=(side, side), mode="area").round_().to(torch.uint8)
                        for part in images.split(64)
                    ]
                )
            self._scaled = {k: v for k, v in self._scaled.items() if k[1] == self.size}
            self._scaled[key] = ImagePool(images.to(self.device))
        return self._scaled[key]

    def _normal(self, count: int) -> Tensor:
        """Style codes to decode with, or to compare encoded ones to: (count, latent_dim)."""
        codes = torch.randn(count, self.recipe.architecture.latent_dim, generator=self.generator)
        return codes.to(self.device)

    def _descend(self, optimiser: torch.optim.Optimizer) -> None:
        average_gradients(p for group in optimiser.param_groups for p in group["params"])
        optimiser.step()

    def _update_generators(self, loss: Tensor) -> None:
        """One step down the generators' loss; the averages follow."""
        self.on_part("generators forward")
        self.g_optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.on_part("generators backward")
        self._descend(self.g_optimiser)
        self._update_ema()
        self.on_part("generators update")

    def _augment(self, images: Tensor) -> Tensor:
        r = self.recipe
        out = augment(images, self.generator, degrees=r.degrees, scale=r.scale, translate=r.translate)
        return out.contiguous(memory_format=self.memory_format)

    def _reals(self, images: Tensor) -> Tensor:
        if self.recipe.augment_reals:
            return self._augment(images)
        out = augment(images, self.generator, degrees=0.0, scale=(1.0, 1.0), translate=0.0)
        return out.contiguous(memory_format=self.memory_format)

    def _mapped(self, net: Generator, styles: Tensor) -> tuple[Tensor, Tensor]:
        """w of style codes (N, latent_dim), some mixed with a second one; and (N, 1), 0 for those."""
        if not self.recipe.style_mixing:
            return net.mapping(styles), styles.new_ones(len(styles), 1)
        every = len(styles) * world()
        crossover = torch.randint(1, net.stages, (every,), generator=self.generator)
        is_mixed = torch.rand(every, generator=self.generator) < self.recipe.style_mixing
        crossover = mine(torch.where(is_mixed, crossover, net.stages)).to(self.device)
        w = net.mixed(styles, mine(self._normal(every)), crossover)
        return w, (crossover == net.stages).to(styles.dtype)[:, None]

    def _motion(self, count: int) -> Tensor:
        return random_motion(
            count, self.size, self.generator, flow=self.recipe.motion_flow, device=self.device
        )

    def _shown(self, name: str, pictures: Tensor) -> Tensor:
        """What that discriminator is shown of pictures."""
        if name not in self.ada:
            return pictures
        shown = self.ada[name](pictures, self.generator)
        return shown.contiguous(memory_format=self.memory_format)

    def _observe(self, terms: dict[str, Tensor], **real_logits: Sequence[Tensor]) -> None:
        """Tell the adaptive augmentations what their discriminators say of real pictures; log their p."""
        for name, ada in self.ada.items():
            if name in real_logits:
                ada.observe(real_logits[name])
                terms[f"augmentation_{name}"] = torch.tensor(ada.p, device=self.device)

    def _add_path_length(self, terms: dict[str, Tensor], **decoded: tuple[Tensor, Tensor]) -> None:
        """StyleGAN2's path length penalty, where it is due, of generators by their (content, style) codes.

        Every second picture is enough (there, half the batch), and the content codes stay fixed: what is
        evened out is how the picture answers to w.
        """
        r = self.recipe
        if not r.loss.path_length or self.step % r.path_every:
            return
        total = torch.zeros((), device=self.device)
        for name, (content, style) in decoded.items():
            net: Generator = getattr(self.networks, name)
            content, style = content[::2].detach(), style[::2].detach()
            w = net.mapping(style)[:, None].repeat(1, net.stages, 1)
            # The class's own method: what is compiled cannot be differentiated twice.
            picture = Generator.synthesise(net, content, w)
            every = (len(picture) * world(), *picture.shape[1:])
            noise = mine(torch.randn(every, generator=self.generator)).to(self.device)
            lengths = path_lengths(picture, w, noise)
            self.path_means[name].lerp_(gather(lengths.detach()).mean(), 0.01)
            total = total + (lengths - self.path_means[name]).square().mean()
        terms["path_length"] = total

    def _latent(self, codes: Tensor) -> Tensor:
        """How far this step's style codes (N, latent_dim) are from where seeds are drawn."""
        if self.recipe.loss.latent_form == "axes":
            return style_moments(codes)
        count = CODES_PER_AXIS * codes.shape[1]
        self.codes = torch.cat([self.codes, gather(codes.detach()).float()])[-count:]
        return latent_divergence(codes, self.codes)

    def _weight(self, name: str) -> float:
        """What a term counts now; a lazy one stands for the steps without it."""
        weight: float = getattr(self.recipe.loss, name)
        return weight * self.recipe.path_every if name == "path_length" else weight

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)

    def train_step(self) -> dict[str, Tensor]:
        """One update of the generators, then of the discriminators on the same translations.

        Returns:
            The terms' values (scalars, before weighting), for the log.
        """
        batch = self._enter_step()
        if self.step < self.recipe.warmup_steps:
            terms = self._warmup_step(batch)
        else:
            if self.step == self.recipe.warmup_steps > 0:
                self._end_warmup()
            terms = self._update(batch)
        self.step += 1
        return {name: value.detach() for name, value in terms.items()}

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

    def _end_warmup(self) -> None:
        """Both directions start from the autoencoder."""
        trained = self.networks.ema_ab.state_dict()
        for pair in self.networks.averaged():
            for net in pair:
                net.load_state_dict(trained)
        self._make_optimisers()
        self._enter_step()

    @torch.no_grad()
    def _update_ema(self) -> None:
        # A short memory at first, or the average would start from the random initialisation.
        decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        for average, live in self.networks.averaged():
            torch._foreach_lerp_(list(average.parameters()), list(live.parameters()), 1 - decay)

    # -- the loop

    def run(
        self,
        *,
        minutes: float | None = None,
        steps: int | None = None,
        log_every: int = 50,
        sample_every: int = 500,
        save_every_seconds: float = 300.0,
        progress: Callable[[str], None] = log.info,
        scalars: Callable[[int, dict[str, float]], None] | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Train until the recipe's end, `steps` in all, `minutes` of this run, or `stop()` answers true.

        Writes the checkpoint and the weights every `save_every_seconds` and at the end, whatever ends it.

        Raises:
            TrainingDiverged: a loss is not finite. The checkpoint on disk is the last good one.
        """
        end = self.recipe.steps if steps is None else steps
        deadline = math.inf if minutes is None else time.monotonic() + 60 * minutes
        clock, saved = Clock(), time.monotonic()
        window = Window()
        try:
            while self.step < end and not any_of(time.monotonic() >= deadline or stop(), self.device):
                window.add(self.step + 1, self.train_step())
                clock.steps += 1
                if self.step % log_every == 0 or self.step == end:
                    means = self._check(window)
                    if rank() == 0:
                        self._log(means, clock, end, deadline, progress)
                        if scalars is not None:
                            scalars(self.step, means)
                    window = Window()
                if self.step % sample_every == 0 and rank() == 0:
                    self.write_sheet()
                if time.monotonic() - saved > save_every_seconds and rank() == 0:
                    self._check_own(window)
                    self.save()
                    saved = time.monotonic()
        except TrainingDiverged:
            raise
        except BaseException:
            self._check_own(window)
            if rank() == 0:
                self.save()
            raise
        self._check(window)
        if rank() == 0:
            self.save()
            self.write_sheet()

    def _check(self, window: Window) -> dict[str, float]:
        """The means, which must be finite in every process."""
        means = window.means()
        bad = [name for name, value in means.items() if not math.isfinite(value)]
        if bad:
            raise self._diverged(*(window.first_bad() or (self.step, bad)))
        return means

    def _check_own(self, window: Window) -> None:
        """The same without asking the other processes."""
        if (bad := window.first_bad()) is not None:
            raise self._diverged(*bad)

    def _diverged(self, step: int, names: list[str]) -> TrainingDiverged:
        losses = f"the {names[0]} loss is" if len(names) == 1 else f"the losses {', '.join(names)} are"
        kept = self.out / STATE
        return TrainingDiverged(
            f"{losses} not finite at step {step}",
            f"the last good checkpoint is in {self.out}: resume from it with a lower --lr or a higher --r1"
            if kept.is_file()
            else "no checkpoint had been written yet: start with a lower --lr or a higher --r1",
        )

    def _log(
        self,
        means: dict[str, float],
        clock: Clock,
        end: int,
        deadline: float,
        progress: Callable[[str], None],
    ) -> None:
        pace = clock.seconds_per_step()
        left = min((end - self.step) * pace, deadline - time.monotonic())
        values = "  ".join(f"{name} {value:.3f}" for name, value in means.items())
        progress(
            f"step {self.step}/{end}  {self.size}px  {pace:.2f} s/step  "
            f"{max(left, 0) / 60:.0f} min left  {values}"
        )
        record = {"step": self.step, "size": self.size, "seconds_per_step": round(pace, 4), **means}
        with open(self.out / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    # -- what is written

    @torch.no_grad()
    def write_sheet(self) -> Path:
        """Sample sheet: fixed test faces by fixed styles, from the averaged generator."""
        pools = [p for p in (self.data.test_extra, self.data.test_a) if p is not None]
        faces = torch.cat([self._pool(p).first(4) for p in pools])
        seeds = torch.randn(SHEET_STYLES, self.recipe.architecture.latent_dim, generator=_seeded(1))
        rows = []
        with self._autocast():
            for face in to_float(faces).to(self.device):
                content = self.networks.ema_ab.content(face[None])
                out = self.networks.ema_ab.decode(
                    content.expand(SHEET_STYLES, -1, -1, -1).contiguous(memory_format=self.memory_format),
                    seeds.to(self.device),
                )
                rows.append(torch.cat([face[None].cpu(), out.float().cpu().clamp(-1, 1)]))
        path = self.out / "samples" / f"{self.step:07d}.png"
        path.parent.mkdir(exist_ok=True)
        save_png(sample_sheet(rows), path)
        return path

    def save(self) -> None:
        """Checkpoint (everything needed to go on) and weights file, each written beside and renamed.

        Raises:
            TrainingDiverged: a network holds numbers that are not finite. What was saved before stays.
        """
        # A gradient can be NaN where the loss is finite, and the next loss is not known yet.
        for name, net in self.networks.all().items():
            if not all(bool(torch.isfinite(p).all()) for p in net.parameters()):
                raise TrainingDiverged(
                    f"the update of {name} at step {self.step} was not finite",
                    f"the checkpoint in {self.out} is from before: resume with a lower --lr or a higher --r1",
                )
        state = {
            "networks": {name: net.state_dict() for name, net in self.networks.all().items()},
            "optimisers": [self.g_optimiser.state_dict(), self.d_optimiser.state_dict()],
            "step": self.step,
            "size": self.size,
            "recipe": self.recipe.name,
            "architecture": self.recipe.architecture.to_json(),
            "path_means": self.path_means,
            "painted": self.painted,
            "codes": self.codes,
            "ada": {name: ada.state_dict() for name, ada in self.ada.items()},
            "rng": self.generator.get_state(),
            "torch_rng": torch.get_rng_state(),
            "seed": self.seed,
        }
        target = self.out / STATE
        partial = target.with_name(".state.pt.part")
        torch.save(state, partial)
        os.replace(partial, target)
        self.export(self.out / "weights.safetensors")

    def export(self, path: Path, **metadata: str) -> None:
        """Weights file of the averaged generators, as the run-time reads it."""
        tensors: dict[str, Any] = dict(self.networks.ema_ab.state_dict())
        for name, tensor in self.networks.ema_ba.encoder.state_dict().items():
            tensors[STYLE_ENCODER + name] = tensor
        tensors = {
            name: tensor
            for name, tensor in tensors.items()
            if ".fade." not in name and not name.startswith("encoder.style.")
        }
        meta = {
            "name": f"{self.recipe.name} {self.size}px, step {self.step}",
            "provenance": f"gnr-video train, recipe {self.recipe.name}, {self.step} steps",
            "licence": LICENCE,
            "step": str(self.step),
            "recipe": self.recipe.name,
        }
        save_weights(path, self.networks.g_ab.architecture, tensors, {**meta, **metadata})

    def resume(self) -> bool:
        """Go on from the checkpoint in the output folder; false when there is none.

        Raises:
            WeightsError: the checkpoint is damaged, or of another recipe or architecture.
        """
        path = self.out / STATE
        if not path.is_file():
            return False
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            made_with = state["recipe"]
        except Exception as error:
            raise WeightsError(
                f"cannot read the checkpoint {path}: it is damaged, or another program's",
                "choose another --out, or --fresh to start over",
            ) from error
        mend = f"resume with --recipe {made_with}, choose another --out, or --fresh to start over"
        if made_with != self.recipe.name:
            raise WeightsError(f"{path} is of the recipe {made_with!r}, not {self.recipe.name!r}", mend)
        if state["architecture"] != self.recipe.architecture.to_json():
            raise WeightsError(f"{path} is of another architecture than the recipe's", mend)
        try:
            self._grow_to(state["size"])
            for name, net in self.networks.all().items():
                net.load_state_dict(state["networks"][name])
            self.g_optimiser.load_state_dict(state["optimisers"][0])
            self.d_optimiser.load_state_dict(state["optimisers"][1])
        except (KeyError, RuntimeError, ValueError) as error:
            # The generators fit: it is the discriminators' sizes, or a stage's.
            raise WeightsError(
                f"{path} was made with other settings of {made_with!r} ({str(error).splitlines()[0]})", mend
            ) from error
        # Options may be switched on and off on the way.
        for name, average in state.get("path_means", {}).items():
            self.path_means[name].copy_(average)
        self.painted = [colours.to(self.device) for colours in state.get("painted", [])]
        self.codes = state.get("codes", self.codes).to(self.device)
        for name in self.ada.keys() & state.get("ada", {}).keys():
            self.ada[name].load_state_dict(state["ada"][name])
        self.step = state["step"]
        self.generator.set_state(state["rng"])
        torch.set_rng_state(state["torch_rng"])
        return True


def _check_data(data: Domains, recipe: Recipe) -> None:
    size = recipe.architecture.size
    pools = [("trainA", data.train_a, size), ("trainB", data.train_b, size)]
    for what, heads in (("the heads", data.heads), ("the drawn heads", data.drawn_heads)):
        if heads is not None:
            pools.append((what, heads, head_side(size)))
    for name, pool, side in pools:
        if len(pool) < 2:
            raise InputError(f"{name} has a single image", "training needs two at least, and wants hundreds")
        if pool.size < side:
            raise InputError(
                f"the images of {name} are {pool.size} pixels wide, recipe {recipe.name!r} trains at {side}",
                f"load them at {side} pixels or more",
            )


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tensorboard_scalars(out: Path) -> Callable[[int, dict[str, float]], None] | None:
    """A `scalars` callback for `Trainer.run` that writes TensorBoard events, or None without TensorBoard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        log.info("no TensorBoard scalars: %s (%s)", error, install_line("train"))
        return None
    writer = SummaryWriter(str(out / "tensorboard"))

    def write(step: int, means: dict[str, float]) -> None:
        for name, value in means.items():
            writer.add_scalar(f"loss/{name}", value, step)
        writer.flush()

    return write


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is multiplied in hardware (elsewhere it is emulated, and slow)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return native_bf16()
