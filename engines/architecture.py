"""What a GNR generator looks like: sizes, channel widths, and every tensor it holds.

Used by the trainer (to build networks), by the importer (to recognise official checkpoints by their
tensors' shapes) and by the engines (to fold weights into a plain graph). Names and shapes are those of the
official GANs N' Roses code, so that its checkpoints load.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import log2

from engines.errors import WeightsError

Shape = tuple[int, ...]

PLACE = "place.map"
"""Name of the tensor of `Architecture.place`, (C, place, place)."""
PLACE_GAIN = 10.0
"""What it is multiplied by: Adam's steps are of one size for all weights, and its values stand beside features."""

OFFICIAL_CHANNELS = {4: 512, 8: 512, 16: 512, 32: 512, 64: 256, 128: 128, 256: 64, 512: 32, 1024: 16}


@dataclass(frozen=True)
class Architecture:
    """Configuration of a generator.

    Attributes:
        size: side of the square picture, a power of two.
        num_down: halvings in the content encoder; the content code is (C, s, s), s = size / 2**num_down.
        n_res: residual blocks at content resolution, in the encoder and (styled) in the decoder.
        latent_dim: length of the style code z.
        style_dim: length of w, the mapping network's output.
        n_mlp: layers of the mapping network.
        content_kernel: kernel of the two content convolutions (1 in the released weights, 3 on the train
            branch of the official code).
        channels: feature channels at each resolution, from 4 to `size`.
        coarse: halvings of the content code in the decoder's coarse branch, where hair and faces are redrawn as
            wholes (the official code has none).
        place: side of what the coarse branch knows of places, in cells of its coarsest features: a map of the whole
            head, which is added to them. 0: there is none, and where in the head it is it knows by the picture's
            border alone. Of a smaller picture it is the part that `place_start` says.
    """

    size: int = 256
    num_down: int = 4
    n_res: int = 1
    latent_dim: int = 8
    style_dim: int = 512
    n_mlp: int = 5
    content_kernel: int = 1
    channels: Mapping[int, int] = field(
        default_factory=lambda: {r: c for r, c in OFFICIAL_CHANNELS.items() if r <= 256}
    )
    coarse: int = 0
    place: int = 0

    def __post_init__(self) -> None:
        if self.size < 16 or 2 ** int(log2(self.size)) != self.size:
            raise ValueError(f"size must be a power of two of at least 16, got {self.size}")
        if not 1 <= self.num_down <= int(log2(self.size)) - 2:
            raise ValueError(f"num_down must leave at least 4x4 of {self.size}, got {self.num_down}")
        if not 0 <= self.coarse <= int(log2(self.content_size)) - 2:
            raise ValueError(f"coarse must leave at least 4x4 of {self.content_size}, got {self.coarse}")
        if self.place and not self.coarse:
            raise ValueError("a map of places is the coarse branch's, and there is none")
        if not 0 <= self.place <= 1024:
            raise ValueError(f"place must be 0 to 1024 cells, got {self.place}")
        missing = [r for r in self.resolutions if r not in self.channels]
        if missing:
            raise ValueError(f"channels lack the resolutions {missing}")

    @property
    def resolutions(self) -> list[int]:
        """4, 8, ..., size."""
        return [2**i for i in range(2, int(log2(self.size)) + 1)]

    @property
    def content_size(self) -> int:
        return self.size >> self.num_down

    @property
    def content_channels(self) -> int:
        return self.channels[self.content_size]

    @property
    def least_cells(self) -> int:
        """Side of a content code that is just large enough for every layer; graphs, which know no size, are traced
        with it."""
        return 2 << self.coarse

    def fits(self, side: int) -> bool:
        """Whether pictures of that side can be translated.

        The network is convolutional: a larger picture at the same scale shows it more around the face. Its side
        must be whole cells of the coarsest features.
        """
        return side > 0 and side % (1 << (self.num_down + self.coarse)) == 0

    def place_start(self, cells: int) -> tuple[int, int]:
        """(row, column) in the map of places of the first of `cells` x `cells` features: those of a face lie in those
        of its head with the same margin left and right, and above it seven times as much as below. Negative where a
        picture shows more than the map, whose outermost cells go on."""
        return ((self.place - cells) * 7 + 4) // 8, (self.place - cells) // 2

    def to_json(self) -> str:
        values = asdict(self)
        for name in ("coarse", "place"):
            if not values[name]:
                del values[name]  # files that are older than these keep their hashes
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str) -> Architecture:
        values = json.loads(text)
        values["channels"] = {int(r): int(c) for r, c in values["channels"].items()}
        return cls(**values)

    def describe(self) -> str:
        widths = ", ".join(f"{r}: {self.channels[r]}" for r in reversed(self.resolutions))
        s = self.content_size
        coarse = f" (and {self.coarse} coarser)" if self.coarse else ""
        return (
            f"{self.size}x{self.size}, content {self.content_channels}x{s}x{s}{coarse}, style {self.latent_dim}, "
            f"w {self.style_dim}, channels {{{widths}}}"
        )


def _conv_layer(
    name: str, c_in: int, c_out: int, k: int, *, down: bool = False, act: bool = True
) -> dict[str, Shape]:
    t: dict[str, Shape] = {f"{name}.0.kernel": (4, 4)} if down else {}
    at = len(t)
    t[f"{name}.{at}.weight"] = (c_out, c_in, k, k)
    if act:
        t[f"{name}.{at + 1}.bias"] = (c_out,)
    return t


def encoder_tensors(
    a: Architecture, *, style_head: bool = True, prefix: str = "encoder."
) -> dict[str, Shape]:
    """Names and shapes of the encoder's tensors (content encoder and, by default, style head)."""
    t: dict[str, Shape] = {}
    c, r = a.channels[a.size], a.size
    t |= _conv_layer(f"{prefix}stem.0", 3, c, 1)
    for i in range(1, a.num_down + 1):
        out = a.channels[r // 2]
        t |= _conv_layer(f"{prefix}stem.{i}.conv1", c, c, 3)
        t |= _conv_layer(f"{prefix}stem.{i}.conv2", c, out, 3, down=True)
        t |= _conv_layer(f"{prefix}stem.{i}.skip", c, out, 1, down=True, act=False)
        c, r = out, r // 2
    for i in range(a.num_down + 1, a.num_down + 1 + a.n_res):
        t |= _conv_layer(f"{prefix}stem.{i}.conv1", c, c, 3)
        t |= _conv_layer(f"{prefix}stem.{i}.conv2", c, c, 3)
    for i in range(2):
        t |= _conv_layer(f"{prefix}content.{i}", c, c, a.content_kernel)
    if style_head:
        i = 0
        while r > 4:
            out = a.channels[r // 2]
            t |= _conv_layer(f"{prefix}style.{i}", c, out, 3, down=True)
            c, r, i = out, r // 2, i + 1
        c4 = a.channels[4]
        t[f"{prefix}style.{i + 1}.weight"] = (c4, c * 16)  # style.{i} is the flatten
        t[f"{prefix}style.{i + 1}.bias"] = (c4,)
        t[f"{prefix}style.{i + 2}.weight"] = (a.latent_dim, c4)
        t[f"{prefix}style.{i + 2}.bias"] = (a.latent_dim,)
    return t


def decoder_tensors(a: Architecture) -> dict[str, Shape]:
    """Names and shapes of the mapping network's and the decoder's tensors."""
    t: dict[str, Shape] = {}
    for i in range(a.n_mlp):
        t[f"mapping.{i}.weight"] = (a.style_dim, a.latent_dim if i == 0 else a.style_dim)
        t[f"mapping.{i}.bias"] = (a.style_dim,)

    def modulated(name: str, c_in: int, c_out: int, k: int, *, up: bool = False) -> None:
        t[f"{name}.weight"] = (1, c_out, c_in, k, k)
        if up:
            t[f"{name}.blur.kernel"] = (4, 4)
        t[f"{name}.modulation.weight"] = (c_in, a.style_dim)
        t[f"{name}.modulation.bias"] = (c_in,)

    def styled(name: str, c_in: int, c_out: int, *, up: bool = False) -> None:
        modulated(f"{name}.conv", c_in, c_out, 3, up=up)
        t[f"{name}.activate.bias"] = (c_out,)

    def to_rgb(name: str, c_in: int, *, up: bool) -> None:
        t[f"{name}.bias"] = (1, 3, 1, 1)
        if up:
            t[f"{name}.upsample.kernel"] = (4, 4)
        modulated(f"{name}.conv", c_in, 3, 1)

    c, r = a.content_channels, a.content_size
    for i in range(a.coarse):
        before, here = a.channels[r >> i], a.channels[r >> (i + 1)]
        t |= _conv_layer(f"coarse.{i}.down", before, here, 3, down=True)
        styled(f"coarse.{i}.block.conv1", here, here)
        styled(f"coarse.{i}.block.conv2", here, here)
        t[f"coarse.{i}.back.weight"] = (before, here, 1, 1)
        t[f"coarse.{i}.upsample.kernel"] = (4, 4)
    if a.place:
        t[PLACE] = (a.channels[r >> a.coarse], a.place, a.place)
    for i in range(a.n_res):
        styled(f"adain_bottleneck.{i}.conv1", c, c)
        styled(f"adain_bottleneck.{i}.conv2", c, c)
    styled("conv1", c, c)
    to_rgb("to_rgb1", c, up=False)
    for i in range(a.num_down):
        r *= 2
        out = a.channels[r]
        styled(f"convs.{2 * i}", c, out, up=True)
        styled(f"convs.{2 * i + 1}", out, out)
        to_rgb(f"to_rgbs.{i}", out, up=True)
        c = out
    return t


def generator_tensors(a: Architecture) -> dict[str, Shape]:
    """Names and shapes of all the tensors of a generator."""
    return decoder_tensors(a) | encoder_tensors(a)


def detect(shapes: Mapping[str, Shape]) -> Architecture:
    """Architecture of a generator, read off its tensors' shapes.

    Args:
        shapes: name -> shape under the official names.

    Raises:
        WeightsError: the tensors are not those of a GNR generator; the message names the first ones that
            are missing or of another shape, with what was expected and found.
    """

    def need(name: str) -> Shape:
        if name not in shapes:
            raise WeightsError(
                f"not a GNR generator: it has no tensor {name!r} ({len(shapes)} tensors, "
                f"for example {', '.join(sorted(shapes)[:3]) or 'none'})",
                "expected a checkpoint of the official GANs N' Roses code, or a file of this project",
            )
        return tuple(shapes[name])

    num_down = 0
    while f"encoder.stem.{num_down + 1}.skip.1.weight" in shapes:
        num_down += 1
    n_res = 0
    while f"adain_bottleneck.{n_res}.conv1.conv.weight" in shapes:
        n_res += 1
    n_mlp = 0
    while f"mapping.{n_mlp}.weight" in shapes:
        n_mlp += 1
    coarse = 0
    while f"coarse.{coarse}.back.weight" in shapes:
        coarse += 1
    place = shapes[PLACE][-1] if PLACE in shapes else 0
    style_dim, latent_dim = need("mapping.0.weight")
    content_kernel = need("encoder.content.0.0.weight")[2]

    # The style head halves from the content's size down to 4, which gives the picture's size.
    style_downs = 0
    while f"encoder.style.{style_downs}.0.kernel" in shapes:
        style_downs += 1
    if not any(name.startswith("encoder.style.") for name in shapes):
        style_downs = 2  # no style head stored: the official sizes
    size = 4 << (style_downs + num_down)
    channels = {}
    r = size
    channels[r] = need("encoder.stem.0.0.weight")[0]
    for i in range(1, num_down + 1):
        r //= 2
        channels[r] = need(f"encoder.stem.{i}.skip.1.weight")[0]
    for i in range(style_downs):
        r //= 2
        name = f"encoder.style.{i}.1.weight"
        channels[r] = shapes[name][0] if name in shapes else channels[r * 2]
    try:
        found = Architecture(
            size, num_down, n_res, latent_dim, style_dim, n_mlp, content_kernel, channels, coarse, place
        )
    except ValueError as error:
        raise WeightsError(f"not a GNR generator this project can run: {error}") from error
    check_tensors(generator_tensors(found), shapes, allow_missing_prefix="encoder.style.")
    return found


def check_tensors(
    expected: Mapping[str, Shape], found: Mapping[str, Shape], *, allow_missing_prefix: str | None = None
) -> None:
    """Compare names and shapes; raise `WeightsError` that names the differences.

    Tensors in `found` that are not expected are ignored.
    """
    wrong = []
    for name, shape in expected.items():
        if name not in found:
            if allow_missing_prefix is None or not name.startswith(allow_missing_prefix):
                wrong.append(f"{name}: expected {list(shape)}, missing")
        elif tuple(found[name]) != tuple(shape):
            wrong.append(f"{name}: expected {list(shape)}, found {list(found[name])}")
    if wrong:
        more = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise WeightsError("tensors do not fit the architecture: " + "; ".join(wrong[:4]) + more)
