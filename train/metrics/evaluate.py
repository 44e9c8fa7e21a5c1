"""One evaluation: a generator or a folder of finished outputs against real anime pictures, as JSON and a table.

`gnr-video evaluate` and `benchmarks/quality.py` are front ends of `Evaluator`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from engines.errors import WeightsError
from train.data import fit
from train.metrics.distances import fid_estimate, kid_estimate
from train.metrics.diversity import dfid_estimate, pairwise_lpips, pairwise_ms_ssim
from train.metrics.estimate import Estimate, mean_estimate
from train.metrics.features import FeatureSpace, InceptionSpace, TrunkSpace
from train.metrics.motion import (
    equivariance_error,
    psnr,
    random_moves,
    style_drift,
    style_spread,
    warp_errors,
)
from train.metrics.palette import PaletteSpace, palette_estimate
from train.metrics.pictures import Folder, Picture, to_tensor
from train.metrics.style_space import (
    FloatGenerator,
    linear_separability,
    perceptual_path_length,
    picture_attributes,
)
from train.metrics.swd import TextureSpace, swd_estimate

if TYPE_CHECKING:
    from engines.base import Engine
    from engines.weights import Weights
    from train.lpips import Lpips

COMPARED_SIDE = 256
"""Side that pictures are brought to for LPIPS, MS-SSIM and equivariance, whatever the generator's size."""

Advance = Callable[[str], None]
"""Told the stage's name after each unit of work."""

Styles = NDArray[np.float32]


@dataclass(frozen=True)
class Metric:
    """A row of the table: its title, which way is better ("lower", "higher"), decimals, factor for display."""

    title: str
    better: str
    digits: int = 2
    factor: float = 1.0


METRICS: Mapping[str, Metric] = {
    "fid": Metric("FID (Inception)", "lower"),
    "kid": Metric("KID x 1000 (Inception)", "lower", factor=1000),
    "dfid": Metric("DFID (Inception)", "lower"),
    "fid_vgg16": Metric("FID (VGG16 features)", "lower", 3),
    "kid_vgg16": Metric("KID x 1000 (VGG16 features)", "lower", 3, factor=1000),
    "dfid_vgg16": Metric("DFID (VGG16 features)", "lower", 3),
    "fid_alexnet": Metric("FID (AlexNet features)", "lower", 3),
    "kid_alexnet": Metric("KID x 1000 (AlexNet features)", "lower", 3, factor=1000),
    "dfid_alexnet": Metric("DFID (AlexNet features)", "lower", 3),
    "swd": Metric("SWD x 1000 (texture)", "lower", 1, factor=1000),
    "palette": Metric("palette distance x 1000", "lower", 1, factor=1000),
    "lpips_diversity": Metric("LPIPS diversity", "higher", 3),
    "ms_ssim_diversity": Metric("MS-SSIM between styles", "lower", 3),
    "path_length": Metric("perceptual path length", "lower", 1),
    "separability": Metric("linear separability", "lower"),
    "equivariance_db": Metric("equivariance, dB", "higher", 1),
    "warp_error": Metric("warp error x 1000", "lower", factor=1000),
    "warp_error_source": Metric("warp error x 1000 of the clips themselves", "lower", factor=1000),
    "style_drift": Metric("style drift", "lower", 3),
}
"""Every metric by its name in the JSON, in the order of the table."""


@dataclass(frozen=True)
class Settings:
    """How much is measured. `FULL` takes minutes on two CPU cores, `QUICK` about one.

    Attributes:
        limit: most pictures of a folder that are used; None: all.
        styles: styles that each face is translated in for FID and KID.
        diversity_faces, diversity_styles: for LPIPS and MS-SSIM between the styles of a face.
        dfid_faces, dfid_styles: for DFID and linear separability; 0 faces leave them out.
        moved_faces: faces for the equivariance error, each under a move of its own.
        patches: of each picture and scale for the sliced Wasserstein distance; 0 leaves it out.
        paths: for the perceptual path length; 0 leaves it out.
        clip_frames: of each clip.
        seed: of the styles and moves; the same for every system.
    """

    limit: int | None = 1000
    styles: int = 3
    diversity_faces: int = 30
    diversity_styles: int = 10
    dfid_faces: int = 4
    dfid_styles: int = 100
    moved_faces: int = 50
    patches: int = 64
    paths: int = 64
    clip_frames: int = 60
    seed: int = 0


FULL = Settings()
QUICK = Settings(
    limit=100,
    styles=1,
    diversity_faces=8,
    dfid_faces=0,
    moved_faces=16,
    patches=0,
    paths=0,
    clip_frames=20,
)


@dataclass(frozen=True)
class Result:
    """One system's figures.

    Attributes:
        name: of the weights or the folder.
        kind: "weights" or "outputs".
        metrics: by name, see `METRICS`; what could not be measured is absent and explained in `notes`.
        pictures: how many were compared with the real ones.
        notes: what was left out, and why.
    """

    name: str
    kind: str
    metrics: Mapping[str, Estimate]
    pictures: int
    notes: Sequence[str] = ()
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind,
            "pictures": self.pictures,
            "metrics": {key: estimate.to_json() for key, estimate in self.metrics.items()},
            "notes": list(self.notes),
            "seconds": round(self.seconds, 1),
        }


@dataclass
class Networks:
    """The frozen networks that metrics look through, and why some are missing.

    Attributes:
        spaces: of FID and KID.
        lpips: AlexNet's, the variant for evaluation.
        path_lpips: VGG16's in float32, for the perceptual path length, whose steps bfloat16 cannot see.
        notes: what could not be loaded, and what to do about it.
    """

    spaces: list[FeatureSpace]
    lpips: Lpips | None
    path_lpips: Lpips | None = None
    notes: list[str] = field(default_factory=list)

    @staticmethod
    def load(
        *,
        trunk: Path | None = None,
        inception: Path | None = None,
        download: bool = False,
        path_length: bool = True,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> Networks:
        """Load what can be had.

        Args:
            trunk: a folder with the VGG16 and AlexNet trunks, see `train.lpips.Lpips`.
            inception, download: see `train.metrics.inception.load_inception`.
            path_length: whether `path_lpips` is needed.
            dtype: of VGG16 and AlexNet; None: bfloat16 where the CPU multiplies it in hardware (figures move
                by some thousandths of their value), else float32.

        Raises:
            WeightsError: Inception was asked for and cannot be had, or there is no feature space at all.
        """
        from engines.devices import native_bf16
        from train.lpips import Lpips, Net

        if dtype is None:
            dtype = torch.bfloat16 if device == "cpu" and native_bf16() else torch.float32
        spaces: list[FeatureSpace] = []
        notes = []
        lpips: Lpips | None = None
        path_lpips: Lpips | None = None
        try:
            spaces.append(InceptionSpace(inception, download=download, device=device))
        except WeightsError as error:
            if inception is not None or download:
                raise
            notes.append(f"no FID and KID in Inception's space: {error}")
        for net in get_args(Net):
            try:
                spaces.append(TrunkSpace(net, trunk, device=device, dtype=dtype))
            except WeightsError as error:
                notes.append(f"no FID and KID in the space of {net}: {error}")
        try:
            lpips = Lpips("alex", trunk, dtype=dtype).to(device)
            path_lpips = Lpips("vgg", trunk) if path_length else None
        except WeightsError as error:
            notes.append(f"no LPIPS: {error}")
        if not spaces:
            raise WeightsError("there is no network to compare pictures with: " + "; ".join(notes))
        return Networks(spaces, lpips, path_lpips, notes)


class Evaluator:
    """Measures systems against the same real pictures.

    Args:
        real: pictures of the target domain that no system was trained on.
        networks: see `Networks.load`.
        advance: called after each unit of work; `units` says how many there will be.
    """

    def __init__(
        self,
        real: Folder,
        networks: Networks,
        settings: Settings = FULL,
        *,
        advance: Advance = lambda stage: None,
    ) -> None:
        self.real = real
        self.networks = networks
        self.settings = settings
        self.advance = advance
        self._real_features: dict[str, NDArray[np.float32]] = {}
        self._spaces: list[Space] = [*networks.spaces, PaletteSpace()]
        if settings.patches:
            self._spaces.append(TextureSpace(settings.patches, COMPARED_SIDE, settings.seed))

    def units(
        self, faces: int = 0, outputs: Iterable[int] = (), generators: int = 0, clip_frames: int = 0
    ) -> int:
        """Units of work of an evaluation, for a progress bar.

        Args:
            faces, clip_frames: test faces and frames of clips; `generators` systems translate them.
            outputs: number of pictures in each folder of outputs.
        """
        s = self.settings
        per_generator = faces * s.styles + min(faces, s.diversity_faces) + min(faces, s.moved_faces)
        per_generator += min(faces, s.dfid_faces) * s.dfid_styles + s.paths + clip_frames
        return len(self.real) + sum(outputs) + generators * per_generator

    def real_features(self) -> dict[str, NDArray[np.float32]]:
        """Features of the real pictures by space, computed once."""
        if not self._real_features:
            self._real_features = _embed(
                self._spaces, ((0, p) for _, p in self.real), self.advance, "real pictures"
            )[0]
        return self._real_features

    def generator(
        self,
        name: str,
        engine: Engine,
        faces: Folder,
        *,
        weights: Weights | None = None,
        clips: Sequence[Sequence[Picture]] = (),
    ) -> Result:
        """Measure a generator on test faces and clips.

        Args:
            name: in the table.
            engine: runs it; every picture gets a style code drawn from N(0, 1).
            faces: pictures framed as the training faces are.
            weights: what the engine runs, for the perceptual path length; None leaves it out.
            clips: for each clip, its face in neighbouring frames, uint8 SxSx3, framed alike.

        Raises:
            InputError: fewer than two readable faces or real pictures.
        """
        started = time.monotonic()
        s = self.settings
        real = self.real_features()
        crops = [fit(picture, engine.size) for _, picture in faces]
        notes = [*self.networks.notes, *self.real.notes(), *faces.notes()]
        metrics: dict[str, Estimate] = {}

        styles = self._styles(engine, len(crops) * s.styles)
        translated = (
            (i, _translate(engine, crop, styles[i * s.styles + k]))
            for i, crop in enumerate(crops)
            for k in range(s.styles)
        )
        features, groups = _embed(self._spaces, translated, self.advance, "translations")
        metrics |= _distances(features, real, groups)

        some = _evenly(crops, s.diversity_faces)
        metrics |= self._diversity(
            [[_translate(engine, crop, z) for z in self._styles(engine, s.diversity_styles)] for crop in some]
            if len(some) and s.diversity_styles > 1
            else []
        )
        metrics |= self._one_face(engine, _evenly(crops, s.dfid_faces))
        metrics |= self._equivariance(engine, _evenly(crops, s.moved_faces))
        if weights is not None:
            metrics |= self._path_length(weights, crops)
        moving, remarks = self._moving(engine, clips)
        metrics |= moving
        notes += remarks
        count = len(groups)
        return _result(name, "weights", metrics, count, notes, started)

    def outputs(self, name: str, folder: Folder) -> Result:
        """Measure finished outputs of any system. Sub-folders that hold one face each in several styles add
        the diversity between styles.

        Raises:
            InputError: fewer than two readable pictures.
        """
        started = time.monotonic()
        real = self.real_features()
        parents: dict[Path, list[Picture]] = {}
        names: dict[Path, int] = {}

        def pictures() -> Iterator[tuple[int, Picture]]:
            for file, picture in folder:
                group = file.parent if file.parent != folder.path else file
                kept = parents.setdefault(file.parent, [])
                if file.parent != folder.path and len(kept) < self.settings.diversity_styles:
                    kept.append(picture)
                yield names.setdefault(group, len(names)), picture

        features, groups = _embed(self._spaces, pictures(), self.advance, f"outputs {name}")
        metrics = _distances(features, real, groups)
        several = [kept for kept in parents.values() if len(kept) > 1]
        metrics |= self._diversity(_evenly(several, self.settings.diversity_faces))
        notes = [*self.networks.notes, *self.real.notes(), *folder.notes()]
        return _result(name, "outputs", metrics, len(groups), notes, started)

    def _styles(self, engine: Engine, count: int) -> Styles:
        rng = np.random.default_rng(self.settings.seed)
        return rng.standard_normal((count, engine.architecture.latent_dim)).astype(np.float32)

    def _diversity(self, faces: Sequence[Sequence[Picture]]) -> dict[str, Estimate]:
        perceptual, structural = [], []
        for pictures in faces:
            images = to_tensor(pictures, COMPARED_SIDE)
            structural.append(pairwise_ms_ssim(images))
            if self.networks.lpips is not None:
                perceptual.append(pairwise_lpips(self.networks.lpips, images))
            self.advance("diversity")
        found = {"lpips_diversity": perceptual, "ms_ssim_diversity": structural}
        return {key: mean_estimate(values) for key, values in found.items() if values}

    def _one_face(self, engine: Engine, crops: Sequence[Picture]) -> dict[str, Estimate]:
        """One face in many styles: DFID, and how well its looks can be told from the style codes."""
        count = self.settings.dfid_styles
        if not len(crops) or count < 2:
            return {}
        styles = self._styles(engine, count * len(crops)).reshape(len(crops), count, -1)
        faces: dict[str, list[NDArray[np.float32]]] = {space.name: [] for space in self.networks.spaces}
        looks = []
        for crop, codes in zip(crops, styles):
            seen: list[Picture] = []
            features, _ = _embed(
                self.networks.spaces,
                _remember(engine, crop, codes, seen),
                self.advance,
                "one face, many styles",
            )
            for key, values in features.items():
                faces[key].append(values)
            # Each face has its own brightness: what counts is how a style departs from it.
            attributes = picture_attributes(seen)
            looks.append(attributes - np.median(attributes, 0))
        real = self.real_features()
        found = {_named("dfid", key): dfid_estimate(values, real[key]) for key, values in faces.items()}
        if styles[..., 0].size >= 20:
            found["separability"] = linear_separability(
                styles.reshape(-1, styles.shape[-1]), np.concatenate(looks)
            )
        return found

    def _path_length(self, weights: Weights, crops: Sequence[Picture]) -> dict[str, Estimate]:
        net, count = self.networks.path_lpips, self.settings.paths
        if net is None or not count:
            return {}
        generator = FloatGenerator(weights)
        random = torch.Generator().manual_seed(self.settings.seed)
        z = torch.randn(2, count, generator.latent_dim, generator=random)
        with torch.no_grad():
            starts, ends = generator.mapping(z[0]), generator.mapping(z[1])

        def render(i: int, w: torch.Tensor) -> torch.Tensor:
            return generator.decode(generator.content(crops[i % len(crops)][None]), w)

        estimate = perceptual_path_length(
            render, net, starts, ends, seed=self.settings.seed, advance=partial(self.advance, "path length")
        )
        return {"path_length": estimate}

    def _moving(
        self, engine: Engine, clips: Sequence[Sequence[Picture]]
    ) -> tuple[dict[str, Estimate], list[str]]:
        """Warp error and style drift over clips, and what could not be measured."""
        if not clips:
            return {}, []
        style = self._styles(engine, 1)[0]
        errors, own, drifts = [], [], []
        spread, remarks = 0.0, []
        try:
            spread = self._style_spread(engine)
        except WeightsError as error:
            remarks.append(f"no style drift: {error.message}")
        for clip in clips:
            source = [fit(picture, COMPARED_SIDE) for picture in clip]
            results, codes = [], []
            for picture in source:
                made = _translate(engine, fit(picture, engine.size), style)
                results.append(fit(made, COMPARED_SIDE))
                if spread > 0:
                    codes.append(engine.encode_style(made))
                self.advance("clips")
            errors.append(warp_errors(source, results))
            own.append(warp_errors(source, source))
            if spread > 0:
                drifts.append(style_drift(codes, spread))
        found = {}
        for key, values in (("warp_error", errors), ("warp_error_source", own)):
            every = np.concatenate(values)
            if np.isfinite(every).any():
                found[key] = mean_estimate(every[np.isfinite(every)])
        if drifts:
            found["style_drift"] = mean_estimate(drifts)
        return found, remarks

    def _style_spread(self, engine: Engine, count: int = 50) -> float:
        """How far the styles of real anime pictures are apart."""
        few = Folder(self.real.path, _evenly(self.real.files, count))
        codes = [engine.encode_style(fit(picture, engine.size)) for _, picture in few]
        return style_spread(codes) if len(codes) > 1 else 0.0

    def _equivariance(self, engine: Engine, crops: Sequence[Picture]) -> dict[str, Estimate]:
        moves = random_moves(len(crops), self.settings.seed)
        styles = self._styles(engine, len(crops))
        errors = []
        for crop, move, style in zip(crops, moves, styles):
            errors.append(equivariance_error(partial(_translate, engine, style=style), crop, move))
            self.advance("equivariance")
        return {"equivariance_db": psnr(errors)} if errors else {}


class Space(Protocol):
    """What turns pictures into rows: a network's feature space, patches for the texture distance, or colours."""

    name: str

    def __call__(self, pictures: Sequence[Picture], /) -> NDArray[np.float32]: ...


def _remember(
    engine: Engine, crop: Picture, styles: Styles, seen: list[Picture]
) -> Iterator[tuple[int, Picture]]:
    """A face's translations, also put into `seen`."""
    for style in styles:
        seen.append(_translate(engine, crop, style))
        yield 0, seen[-1]


def _translate(engine: Engine, crop: Picture, style: NDArray[np.float32]) -> Picture:
    return engine.translate(crop[None], style[None])[0]


def _embed(
    spaces: Sequence[Space],
    pictures: Iterable[tuple[int, Picture]],
    advance: Advance,
    stage: str,
    block: int = 32,
) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.intp]]:
    """Features by space, and the group numbers, of (group, picture) pairs; a block of pictures in memory."""
    found: dict[str, list[NDArray[np.float32]]] = {space.name: [] for space in spaces}
    groups: list[int] = []
    waiting: list[Picture] = []

    def flush() -> None:
        for space in spaces:
            found[space.name].append(space(waiting))
        waiting.clear()

    for group, picture in pictures:
        groups.append(group)
        waiting.append(picture)
        if len(waiting) == block:
            flush()
        advance(stage)
    if waiting:
        flush()
    return {key: np.concatenate(values) for key, values in found.items()}, np.array(groups, np.intp)


def _distances(
    features: Mapping[str, NDArray[np.float32]],
    real: Mapping[str, NDArray[np.float32]],
    groups: NDArray[np.intp],
) -> dict[str, Estimate]:
    found = {}
    for key, values in features.items():
        if key == TextureSpace.name:
            found["swd"] = swd_estimate(values, real[key], groups)
        elif key == PaletteSpace.name:
            found["palette"] = palette_estimate(values, real[key], groups)
        else:
            found[_named("fid", key)] = fid_estimate(values, real[key], groups)
            found[_named("kid", key)] = kid_estimate(values, real[key], groups)
    return found


def _named(metric: str, space: str) -> str:
    """Inception's figures carry the plain names; those of another space carry its name."""
    return metric if space == "inception" else f"{metric}_{space}"


def _evenly(items: Sequence[Any], count: int) -> list[Any]:
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def _result(
    name: str, kind: str, metrics: Mapping[str, Estimate], count: int, notes: Sequence[str], started: float
) -> Result:
    ordered = {key: metrics[key] for key in METRICS if key in metrics}
    return Result(name, kind, ordered, count, list(dict.fromkeys(notes)), time.monotonic() - started)


def format_table(results: Sequence[Result], *, markdown: bool = False) -> str:
    """The results as text: a row for each metric, a column for each system, value and interval."""
    keys = [key for key in METRICS if any(key in result.metrics for result in results)]
    rows = [["", *(result.name for result in results)]]
    rows.append(["pictures compared", *(str(result.pictures) for result in results)])
    for key in keys:
        metric = METRICS[key]
        lower, higher = ("↓", "↑") if markdown else ("v", "^")  # consoles differ in what they can show
        arrow = lower if metric.better == "lower" else higher
        rows.append(
            [f"{metric.title} {arrow}", *(_cell(result.metrics.get(key), metric) for result in results)]
        )
    if markdown:
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        lines.insert(1, "|" + "---|" * len(rows[0]))
        return "\n".join(lines)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:]))]
        ).rstrip()
        for row in rows
    )


def _cell(estimate: Estimate | None, metric: Metric) -> str:
    if estimate is None:
        return "-"
    value, low, high = (
        f"{x * metric.factor:.{metric.digits}f}" for x in (estimate.value, estimate.low, estimate.high)
    )
    return value if math.isnan(estimate.low) else f"{value} [{low}, {high}]"


def report_json(results: Sequence[Result], evaluator: Evaluator, **more: Any) -> dict[str, Any]:
    """Everything as plain values for a JSON file; `more` is put beside it (hardware, versions)."""
    return {
        "real": {
            "folder": str(evaluator.real.path),
            "pictures": len(evaluator.real) - len(evaluator.real.skipped),
        },
        "settings": asdict(evaluator.settings),
        "results": [result.to_json() for result in results],
        **more,
    }
