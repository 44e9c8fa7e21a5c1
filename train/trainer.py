"""What all training steps share: networks that grow, optimisers, averages, schedules, pictures, terms.

`train.two_sided` and `train.one_sided` are the steps, `train.loop` runs them, `train.checkpoint` writes and resumes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.devices import native_bf16
from engines.errors import InputError
from gnr_video.tracking.alignment import head_side
from train.ada import AdaptiveAugment
from train.augment import augment, to_float
from train.data import Domains, ImagePool
from train.distributed import average_gradients, gather, join, mine, world
from train.flow import random_motion
from train.grow import grow, set_fade
from train.losses import latent_divergence, path_lengths, style_moments
from train.networks import Discriminator, Generator
from train.recipes import Recipe
from train.sheets import sample_sheet, save_png

CODES_PER_AXIS = 16
"""How many of the last style codes a covariance is taken over, for each of its axes (`LossWeights.latent`)."""

SHEET_STYLES = 6


class NetworkSet(Protocol):
    """The networks of a step. A: faces, B: anime."""

    @property
    def g_ab(self) -> Generator: ...

    @property
    def ema_ab(self) -> Generator: ...

    @property
    def ema_ba(self) -> Generator:
        """Its style head reads styles off anime pictures."""

    def generators(self) -> Sequence[nn.Module]: ...

    def discriminators(self) -> Sequence[nn.Module]: ...

    def averaged(self) -> Sequence[tuple[nn.Module, nn.Module]]:
        """(average, live) pairs."""

    def all(self) -> dict[str, nn.Module]:
        """By the names that checkpoints have."""


Nets = TypeVar("Nets", bound=NetworkSet)


class Trainer(ABC, Generic[Nets]):
    """Trains on a pair of image pools. A subclass brings networks and steps.

    Args:
        data: images of both domains, stored at the recipe's largest size or larger.
        recipe: what to do.
        out: folder for the checkpoint, the weights, sample sheets and logs; created.
        device: "cpu" or "cuda". Under torchrun, processes share the work: the recipe's batch is that of each.
        seed: of everything random.
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
        self.networks: Nets = self._build(recipe.stages[0].size)
        self._compile()
        self._make_optimisers()
        self.painted: list[Tensor] = []
        """Colours of the last translations, by kind of style (`LossWeights.palette`)."""
        self.textures: dict[str, list[list[Tensor]]] = {}
        """Features of the last translations' and drawings' faces and hair, by level (`LossWeights.texture`)."""
        self.codes = torch.zeros(0, recipe.architecture.latent_dim, device=self.device)
        """Style codes of the last steps (`LossWeights.latent`)."""
        self.path_means = {name: torch.zeros((), device=self.device) for name in ("g_ab", "g_ba")}
        self.ada = {
            name: AdaptiveAugment(recipe.ada, recipe.ada_images) for name in ("d_a", "d_b") if recipe.ada
        }
        self._scaled: dict[tuple[int, int], ImagePool] = {}

    # -- what a step is

    @abstractmethod
    def _build(self, size: int) -> Nets:
        """New networks for pictures of that side, on the device; averages take no gradients."""

    @abstractmethod
    def _warmup_step(self, batch: int) -> dict[str, Tensor]:
        """One update of a single generator as an autoencoder of both domains; the terms, before weighting."""

    @abstractmethod
    def _update(self, batch: int) -> dict[str, Tensor]:
        """One update of the generators, then of the discriminators on the same translations; likewise."""

    # -- building, growing, optimisers

    @property
    def size(self) -> int:
        """Side of the pictures that are being trained on now."""
        return self.networks.g_ab.architecture.size

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
                    carried = grow(before[name], net)
                was, now = dict(before[name].named_parameters()), dict(net.named_parameters())
                pairs |= {now[n]: was[o] for n, o in carried.items() if n in now and o in was}
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


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is multiplied in hardware (elsewhere it is emulated, and slow)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return native_bf16()
