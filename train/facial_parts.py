"""Where a face's parts are, read off photographs and drawings alike.

MediaPipe's landmarker finds the face in every photograph and in nearly half of the drawings, which is enough to
teach a small head on EfficientNet-Lite1's taps what an eye and a mouth are in either. Whether a drawn mouth is open it
does not see; colours say that (`mouths_open`), once the head knows where mouths are. Training then asks that a
translation has its parts where the face has them (`part_distance`), which neither a discriminator nor
`content_distance` sees to when a head is turned or a mouth opens.

    python -m train.facial_parts prepared     # learn the head anew, for other drawings
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from engines.devices import native_bf16
from engines.errors import InputError, WeightsError, exit_with
from gnr_video.media.image_files import read_image
from train.augment import apply_affine, random_affine, recolor, to_float
from train.data import fit, list_images
from train.networks import SLOPE
from train.trunk import CHANNELS, TAP_RMS, Trunk

FACIAL_PARTS = ("eyes", "mouth", "opening", "nose", "chin")
"""The channels of the maps. Opening: a spot on the mouth, the brighter the further the lips are apart."""

STRIDE = 8
"""Pixels of the picture to a cell of the maps."""

HEAD_FILE = Path(__file__).parent / "parts.safetensors"

_EYES, _LIPS, _NOSE, _CHIN = ((33, 133), (362, 263)), (61, 291, 0, 17, 39, 269, 181, 405), 4, 152
_INNER_LIPS = (13, 14)
LANDMARKS = (*(i for eye in _EYES for i in eye), *_LIPS, *_INNER_LIPS, _NOSE, _CHIN)
"""Of MediaPipe's face mesh, those that the maps are drawn from."""

SPOT, LIP = 9.0, 5.0
CLOSED, OPEN = 2.0, 14.0
"""Deviations of the spots, and the inner lips' distance that counts as shut or as wide open; pixels of 256."""

SKIN_AROUND, MOUTH_WITHIN = (36, 26), (5, 18)
"""Half sides, across and down, of a mouth with its surroundings, and of the strip that says whether it is open."""
UNLIKE_SKIN, LINE, WIDE = 54, 0.15, 0.6
"""How far a colour is from skin, summed over its channels of 0..255; shares of the strip that a closed mouth's line and
a wide open mouth have."""

OPENING_WEIGHT = 8.0
"""Of openings among the parts: a shut mouth is off in a few cells only, and looks like most drawings."""


class PartsHead(nn.Module):
    """Logits of the part maps from the trunk's taps at strides 4, 8 and 16."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.mix = nn.ModuleList(nn.Conv2d(count, width, 1) for count in CHANNELS[1:4])
        self.look = nn.Sequential(
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(width, width, 3, padding=1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(width, width, 3, padding=2, dilation=2),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(width, len(FACIAL_PARTS), 1),
        )

    def forward(self, taps: Sequence[Tensor]) -> Tensor:
        """Taps of pictures of side S, fine to coarse -> (N, 5, S / 8, S / 8), float32."""
        fine, middle, coarse = (
            mix(tap / rms) for mix, tap, rms in zip(self.mix, taps[1:4], TAP_RMS[1:4], strict=True)
        )
        x = F.avg_pool2d(fine, 2) + middle + F.interpolate(coarse, scale_factor=2, mode="nearest")
        logits: Tensor = self.look(x)
        return logits.float()

    @classmethod
    def load(cls, path: Path = HEAD_FILE) -> PartsHead:
        """The head that was learned, frozen.

        Raises:
            WeightsError: the file cannot be read or holds something else.
        """
        from safetensors.torch import load_file

        try:
            tensors = load_file(str(path))
            head = cls(tensors["look.1.weight"].shape[0])
            head.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
        except Exception as error:
            raise WeightsError(
                f"cannot read {path}: {error}", "learn it anew with: python -m train.facial_parts PREPARED"
            ) from error
        return head.requires_grad_(False)


def lips_apart(points: Tensor) -> Tensor:
    """How far mouths are open, (N,) in [0, 1], of `LANDMARKS` (N, 16, 2) in pixels of 256."""
    gap = (points[:, 12] - points[:, 13]).norm(dim=1)
    return ((gap - CLOSED) / (OPEN - CLOSED)).clamp(0, 1)


def mouths_open(drawings: Tensor, mouths: Tensor) -> Tensor:
    """How far drawn mouths are open, (N,) in [0, 1]: how much of a strip through them is not skin.

    Args:
        drawings: uint8 (N, 3, 256, 256).
        mouths: their middles (N, 2), x and y in pixels.
    """
    shares = []
    within = mouths.clamp(0, drawings.shape[-1] - 1).round().int().tolist()
    for drawing, (x, y) in zip(drawings.int(), within, strict=True):

        def part(across: int, down: int, drawing: Tensor = drawing, x: int = x, y: int = y) -> Tensor:
            return drawing[:, max(y - down, 0) : y + down + 1, max(x - across, 0) : x + across + 1].flatten(1)

        skin = part(*SKIN_AROUND).median(1, keepdim=True).values
        shares.append(((part(*MOUTH_WITHIN) - skin).abs().sum(0) > UNLIKE_SKIN).float().mean())
    return ((torch.stack(shares) - LINE) / (WIDE - LINE)).clamp(0, 1)


def part_maps(points: Tensor, side: int, openings: Tensor | None = None) -> Tensor:
    """Where the parts are, as spots.

    Args:
        points: (N, 16, 2), x and y of `LANDMARKS` in pixels of a picture 256 pixels wide.
        side: of the maps, cells.
        openings: how far mouths are open, (N,); default: `lips_apart`.

    Returns:
        (N, 5, side, side) in [0, 1].
    """
    centres = _cells(points.new_empty(side))

    def spots(at: Tensor, deviation: float) -> Tensor:
        """(N, P, 2) -> (N, side, side), the brightest of the points' spots."""
        across = torch.exp(-0.5 * ((centres - at[..., :1]) / deviation).square())
        down = torch.exp(-0.5 * ((centres - at[..., 1:]) / deviation).square())
        return (down[..., :, None] * across[..., None, :]).amax(1)

    eyes = points[:, :4].unflatten(1, (2, 2)).mean(2)
    lips, inner = points[:, 4:12], points[:, 12:14]
    opening = (lips_apart(points) if openings is None else openings)[:, None, None]
    return torch.stack(
        [
            spots(eyes, SPOT),
            spots(lips, LIP),
            spots(inner.mean(1, keepdim=True), SPOT) * opening,
            spots(points[:, 14:15], SPOT),
            spots(points[:, 15:16], SPOT),
        ],
        1,
    )


def part_distance(logits: Tensor, wanted: Tensor) -> Tensor:
    """Mean Kullback-Leibler divergence, in nats per cell, of a translation's maps from the face's; the opening's counts
    `OPENING_WEIGHT` times.

    Args:
        logits, wanted: of `PartsHead`, (N, 5, H, W), for the translation and for the face.
    """
    target = torch.sigmoid(wanted)
    excess = F.binary_cross_entropy_with_logits(
        logits, target, reduction="none"
    ) - F.binary_cross_entropy_with_logits(wanted, target, reduction="none")
    weights = excess.new_ones(len(FACIAL_PARTS))
    weights[FACIAL_PARTS.index("opening")] = OPENING_WEIGHT
    return (excess.mean((0, 2, 3)) * weights).mean()


def part_centres(logits: Tensor) -> Tensor:
    """Where the two eyes and the mouth are, from `PartsHead`'s logits (N, 5, H, W).

    Returns:
        (N, 3, 2), x and y in [-1, 1], the eye on the left of the picture first; without a gradient.
    """
    maps = torch.sigmoid(logits.detach())
    eyes, mouth = maps[:, FACIAL_PARTS.index("eyes")], maps[:, FACIAL_PARTS.index("mouth")]
    is_left = _cells(eyes) < centre_of_mass(eyes)[:, :1]
    halves = [eyes * side[:, None] for side in (is_left, ~is_left)]
    return torch.stack([centre_of_mass(spot) for spot in (*halves, mouth)], 1) / 128 - 1


@dataclass(frozen=True)
class FacialPlaces:
    """Where the eyes and mouths of pictures are, or ought to be.

    Attributes:
        centres: as `part_centres` gives them, (N, 3, 2).
        opened: how far mouths are open, (N,) in [0, 1].
    """

    centres: Tensor
    opened: Tensor

    @classmethod
    def read_from(cls, logits: Tensor) -> FacialPlaces:
        """From `PartsHead`'s logits (N, 5, H, W)."""
        return cls(part_centres(logits), mouth_openings(logits))


def read_parts(pictures: Tensor, trunk: Trunk, head: PartsHead, side: int = 128) -> Tensor:
    """Logits of the part maps (N, 5, H, W) of pictures, uint8 (N, 3, S, S), looked at at `side` pixels at most."""
    found = []
    kind = pictures.device.type
    quick = trunk.stem.weight.dtype == torch.bfloat16 or (kind == "cpu" and native_bf16())
    with torch.no_grad(), torch.autocast(kind, torch.bfloat16, enabled=quick):
        for some in pictures.split(16):
            small = F.adaptive_avg_pool2d(to_float(some), min(some.shape[-1], side))
            found.append(head(trunk.features(small)).float())
    return torch.cat(found)


def centres_of_drawings(drawings: Tensor, trunk: Trunk) -> Tensor:
    """Eyes and mouths of drawings, uint8 (N, 3, S, S): as `part_centres` has them."""
    return part_centres(read_parts(drawings, trunk, PartsHead.load()))


def mouth_openings(logits: Tensor) -> Tensor:
    """How far mouths are open, (N,) in [0, 1], from `PartsHead`'s logits (N, 5, H, W); without a gradient."""
    return torch.sigmoid(logits.detach()[:, FACIAL_PARTS.index("opening")]).amax((1, 2))


def weights_to_mean(values: Tensor, mean: float, most: float) -> Tensor:
    """Weights (N,), from 1 to `most`, growing with `values` (N,) in [0, 1], under which their mean is `mean`, or as
    near to it as these weights allow."""
    low, high = 0.0, most - 1
    for _ in range(30):
        factor = (low + high) / 2
        weights = 1 + factor * values / values.amax().clamp(min=1e-6)
        is_short = float((weights * values).sum() / weights.sum()) < mean
        low, high = (factor, high) if is_short else (low, factor)
    return weights


def find_parts(folders: Sequence[Path], face_model: str | Path | None = None) -> tuple[Tensor, Tensor]:
    """The pictures of prepared folders that show a face to MediaPipe, and their `LANDMARKS`.

    Returns:
        uint8 (N, 3, 256, 256), and (N, 16, 2) float32 in pixels of them.

    Raises:
        FaceModelError: see `gnr_video.tracking.tracker.FaceTracker`.
        InputError: there are no pictures, or no face in any.
    """
    from gnr_video.tracking.tracker import FaceTracker

    pictures: list[NDArray[np.uint8]] = []
    points: list[NDArray[np.float32]] = []
    with FaceTracker(face_model) as tracker:
        for path in list_images(folders):
            picture = fit(read_image(path), 256)
            tracker.reset()
            faces = tracker.track(picture, 0.0)
            if faces:
                pictures.append(picture.transpose(2, 0, 1))
                points.append(faces[0].landmarks[list(LANDMARKS), :2])
    if not points:
        raise InputError(f"no face is found in {', '.join(map(str, folders))}", "give a prepared data set")
    return torch.from_numpy(np.stack(pictures)), torch.from_numpy(np.stack(points))


def moved_points(points: Tensor, theta: Tensor) -> Tensor:
    """Where points (N, P, 2) in pixels of 256 lie after `train.augment.apply_affine` by `theta` (N, 2, 3)."""
    linear, offset = theta[:, :, :2], theta[:, :, 2]
    unit = points / 128 - 1
    back: Tensor = torch.linalg.solve(linear, (unit - offset[:, None]).transpose(1, 2))
    return (back.transpose(1, 2) + 1) * 128


def fit_head(
    domains: Sequence[tuple[Tensor, Tensor, Tensor]],
    trunk: Trunk,
    *,
    head: PartsHead | None = None,
    steps: int = 900,
    batch: int = 8,
    sizes: Sequence[int] = (256, 128, 128),
    lr: float = 2e-3,
    seed: int = 0,
    log_every: int = 100,
) -> PartsHead:
    """Learn the head on as many pictures of each domain, augmented as training augments them.

    Args:
        domains: for each, uint8 pictures (N, 3, 256, 256), their points (N, 16, 2) and mouths' openings (N,).
        trunk: whose `features` are read.
        head: to go on with.
        batch: pictures of each domain in a step.
        sizes: of the pictures, in turn.
    """
    draw = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    head = head or PartsHead()
    optimiser = torch.optim.Adam(head.parameters(), lr, betas=(0.9, 0.99))
    started = time.monotonic()
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = lr * (1 - step / steps)
        size = sizes[step % len(sizes)]
        pictures, targets = [], []
        for images, points, openings in domains:
            chosen = torch.randint(len(images), (batch,), generator=draw)
            theta = random_affine(batch, draw)
            x = apply_affine(to_float(images[chosen]), theta)
            as_it_is = torch.rand(batch, 1, 1, 1, generator=draw) < 0.5
            x = torch.where(as_it_is, x, recolor(x, draw))
            pictures.append(F.avg_pool2d(x, x.shape[-1] // size))
            targets.append(part_maps(moved_points(points[chosen], theta), size // STRIDE, openings[chosen]))
        with torch.no_grad():
            taps = trunk.features(torch.cat(pictures))
        logits = head([tap.float() for tap in taps])
        loss = F.binary_cross_entropy_with_logits(logits, torch.cat(targets), reduction="none")
        loss = loss.sum((2, 3)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % log_every == log_every - 1:
            print(f"step {step + 1}, {time.monotonic() - started:.0f} s: {float(loss.detach()):.3f}")
    return head


def part_errors(
    head: PartsHead, trunk: Trunk, images: Tensor, points: Tensor, openings: Tensor
) -> dict[str, float]:
    """How well the head finds the parts: pixels of 256 between the spots' centres of mass, for each part.

    For the opening it is the mean absolute difference of the spot's height instead.
    """
    found = torch.sigmoid(read_parts(images, trunk, head, side=256))
    wanted = part_maps(points, found.shape[-1], openings)
    errors = {}
    for i, name in enumerate(FACIAL_PARTS):
        if name == "opening":
            heights = (m[:, i].flatten(1).amax(1) for m in (found, wanted))
            errors[name] = float((next(heights) - next(heights)).abs().mean())
        else:
            errors[name] = float(
                (centre_of_mass(found[:, i]) - centre_of_mass(wanted[:, i])).norm(dim=1).mean()
            )
    return errors


def centre_of_mass(spot: Tensor) -> Tensor:
    """(N, H, W) -> (N, 2), x and y in pixels of a picture 256 pixels wide. Squared, so that the haze that a head
    leaves everywhere does not draw it to the middle."""
    weight = spot.square() / (spot.square().sum((1, 2), keepdim=True) + 1e-9)
    axis = _cells(spot)
    return torch.stack([(weight.sum(1) * axis).sum(1), (weight.sum(2) * axis).sum(1)], 1)


def _cells(like: Tensor) -> Tensor:
    """Middles of the cells along the last axis of a map, in pixels of a picture 256 pixels wide."""
    count = like.shape[-1]
    return (torch.arange(count, dtype=like.dtype, device=like.device) + 0.5) * (256 / count)


def _learned_from(domain: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """All but the first twentieth, which the head is measured on."""
    images, points, openings = (part[len(part) // 20 :] for part in domain)
    return images, points, openings


def main(argv: Sequence[str] | None = None) -> None:
    from safetensors.torch import save

    from engines.files import write_atomically

    parser = argparse.ArgumentParser(description="Learn the head that finds eyes and mouths.")
    parser.add_argument("prepared", type=Path, help="folder from `gnr-video prepare`")
    parser.add_argument(
        "--faces", type=Path, action="append", default=[], help="another prepared folder of faces"
    )
    parser.add_argument("--trunk", type=Path, help="EfficientNet-Lite1's weights; default: fetched once")
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("-o", "--output", type=Path, default=HEAD_FILE)
    arguments = parser.parse_args(argv)
    trunk = Trunk.load(arguments.trunk, torch.bfloat16 if native_bf16() else torch.float32)
    found = []
    for folders in ([arguments.prepared / "trainA", *arguments.faces], [arguments.prepared / "trainB"]):
        images, points = find_parts(folders)
        print(f"{len(images)} pictures with a face in {', '.join(map(str, folders))}")
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        found.append((images[order], points[order], lips_apart(points[order])))
    head = fit_head([_learned_from(domain) for domain in found], trunk, steps=arguments.steps)
    images, points, _ = found[1]
    maps = torch.sigmoid(read_parts(images, trunk, head, side=256))
    mouths = centre_of_mass(maps[:, FACIAL_PARTS.index("mouth")])
    found[1] = (images, points, mouths_open(images, mouths))
    head = fit_head([_learned_from(domain) for domain in found], trunk, steps=arguments.steps, head=head)
    for name, domain in zip(("photographs", "drawings"), found, strict=True):
        images, points, openings = (part[: len(part) // 20] for part in domain)
        errors = part_errors(head, trunk, images, points, openings)
        print(f"{name}: " + ", ".join(f"{part} {error:.2f}" for part, error in errors.items()))
    tensors = {name: tensor.half().contiguous() for name, tensor in head.state_dict().items()}
    write_atomically(arguments.output, save(tensors))


if __name__ == "__main__":
    exit_with(main)
