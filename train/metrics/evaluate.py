"""One evaluation: a generator or a folder of finished outputs against real anime pictures, as JSON and a table.

`gnr-video evaluate` and `benchmarks/quality.py` are front ends of `Evaluator`.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from engines.errors import WeightsError
from train.data import fit
from train.metrics.distances import fid_estimate, kid_estimate
from train.metrics.diversity import dfid_estimate, pairwise_lpips, pairwise_ms_ssim
from train.metrics.estimate import Estimate, mean_estimate
from train.metrics.features import FeatureSpace, InceptionSpace, VggSpace
from train.metrics.motion import equivariance_error, psnr, random_moves
from train.metrics.pictures import Folder, Picture, to_tensor

if TYPE_CHECKING:
    from engines.base import Engine
    from train.lpips import Lpips

log = logging.getLogger(__name__)

SIDE = 256
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
    "lpips_diversity": Metric("LPIPS diversity", "higher", 3),
    "ms_ssim_diversity": Metric("MS-SSIM between styles", "lower", 3),
    "equivariance_db": Metric("equivariance, dB", "higher", 1),
}
"""Every metric by its name in the JSON, in the order of the table."""


@dataclass(frozen=True)
class Settings:
    """How much is measured. `FULL` takes minutes on two CPU cores, `QUICK` about one.

    Attributes:
        limit: most pictures of a folder that are used; None: all.
        styles: styles that each face is translated in for FID and KID.
        diversity_faces, diversity_styles: for LPIPS and MS-SSIM between the styles of a face.
        dfid_faces, dfid_styles: for DFID; 0 faces leave it out.
        moved_faces: faces for the equivariance error, each under a move of its own.
        seed: of the styles and moves; the same for every system.
    """

    limit: int | None = None
    styles: int = 3
    diversity_faces: int = 30
    diversity_styles: int = 10
    dfid_faces: int = 4
    dfid_styles: int = 100
    moved_faces: int = 50
    seed: int = 0


FULL = Settings()
QUICK = Settings(limit=100, styles=1, diversity_faces=8, dfid_faces=0, moved_faces=16)


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
        notes: what could not be loaded, and what to do about it.
    """

    spaces: list[FeatureSpace]
    lpips: Lpips | None
    notes: list[str] = field(default_factory=list)

    @staticmethod
    def load(
        *,
        trunk: Path | None = None,
        inception: Path | None = None,
        download: bool = False,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> Networks:
        """Load what can be had.

        Args:
            trunk: a folder with the VGG16 and AlexNet trunks, see `train.lpips.Lpips`.
            inception, download: see `train.metrics.inception.load_inception`.
            dtype: of VGG16 and AlexNet; None: bfloat16 where the CPU multiplies it in hardware (figures move
                by some thousandths of their value), else float32.

        Raises:
            WeightsError: Inception was asked for and cannot be had, or there is no feature space at all.
        """
        import engines
        from train.lpips import Lpips

        if dtype is None:
            dtype = torch.bfloat16 if device == "cpu" and engines.native_bf16() else torch.float32
        spaces: list[FeatureSpace] = []
        notes = []
        lpips: Lpips | None = None
        try:
            spaces.append(InceptionSpace(inception, download=download, device=device))
        except WeightsError as error:
            if inception is not None or download:
                raise
            notes.append(f"no FID and KID in Inception's space: {error}")
        try:
            spaces.append(VggSpace(trunk, device=device, dtype=dtype))
        except WeightsError as error:
            notes.append(f"no FID and KID in VGG16's space: {error}")
        try:
            lpips = Lpips("alex", trunk, dtype=dtype).to(device)
        except WeightsError as error:
            notes.append(f"no LPIPS: {error}")
        if not spaces:
            raise WeightsError("there is no network to compare pictures with: " + "; ".join(notes))
        return Networks(spaces, lpips, notes)


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

    def units(self, faces: int = 0, outputs: Iterable[int] = (), generators: int = 0) -> int:
        """Units of work of an evaluation, for a progress bar.

        Args:
            faces: test faces; `generators` systems translate them.
            outputs: number of pictures in each folder of outputs.
        """
        s = self.settings
        per_generator = faces * s.styles + min(faces, s.diversity_faces) + min(faces, s.moved_faces)
        per_generator += min(faces, s.dfid_faces) * s.dfid_styles
        return len(self.real) + sum(outputs) + generators * per_generator

    def real_features(self) -> dict[str, NDArray[np.float32]]:
        """Features of the real pictures by space, computed once."""
        if not self._real_features:
            self._real_features = _embed(
                self.networks.spaces, ((0, p) for _, p in self.real), self.advance, "real pictures"
            )[0]
        return self._real_features

    def generator(self, name: str, engine: Engine, faces: Folder) -> Result:
        """Measure a generator on test faces.

        Args:
            name: in the table.
            engine: runs it; every picture gets a style code drawn from N(0, 1).
            faces: pictures framed as the training faces are.

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
        features, groups = _embed(self.networks.spaces, translated, self.advance, "translations")
        metrics |= _distances(features, real, groups)

        some = _evenly(crops, s.diversity_faces)
        metrics |= self._diversity(
            [[_translate(engine, crop, z) for z in self._styles(engine, s.diversity_styles)] for crop in some]
            if len(some) and s.diversity_styles > 1
            else []
        )
        metrics |= self._dfid(engine, _evenly(crops, s.dfid_faces))
        metrics |= self._equivariance(engine, _evenly(crops, s.moved_faces))
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

        def pictures() -> Any:
            for file, picture in folder:
                group = file.parent if file.parent != folder.path else file
                kept = parents.setdefault(file.parent, [])
                if file.parent != folder.path and len(kept) < self.settings.diversity_styles:
                    kept.append(picture)
                yield names.setdefault(group, len(names)), picture

        features, groups = _embed(self.networks.spaces, pictures(), self.advance, f"outputs {name}")
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
            images = to_tensor(pictures, SIDE)
            structural.append(pairwise_ms_ssim(images))
            if self.networks.lpips is not None:
                perceptual.append(pairwise_lpips(self.networks.lpips, images))
            self.advance("diversity")
        found = {"lpips_diversity": perceptual, "ms_ssim_diversity": structural}
        return {key: mean_estimate(values) for key, values in found.items() if values}

    def _dfid(self, engine: Engine, crops: Sequence[Picture]) -> dict[str, Estimate]:
        if not len(crops) or self.settings.dfid_styles < 2:
            return {}
        styles = self._styles(engine, self.settings.dfid_styles)
        faces: dict[str, list[NDArray[np.float32]]] = {space.name: [] for space in self.networks.spaces}
        for crop in crops:
            pictures = ((0, _translate(engine, crop, z)) for z in styles)
            for key, values in _embed(self.networks.spaces, pictures, self.advance, "DFID")[0].items():
                faces[key].append(values)
        real = self.real_features()
        return {_named("dfid", key): dfid_estimate(values, real[key]) for key, values in faces.items()}

    def _equivariance(self, engine: Engine, crops: Sequence[Picture]) -> dict[str, Estimate]:
        moves = random_moves(len(crops), self.settings.seed)
        styles = self._styles(engine, len(crops))
        errors = []
        for crop, move, style in zip(crops, moves, styles):
            errors.append(equivariance_error(partial(_translate, engine, style=style), crop, move))
            self.advance("equivariance")
        return {"equivariance_db": psnr(errors)} if errors else {}


def _translate(engine: Engine, crop: Picture, style: NDArray[np.float32]) -> Picture:
    return engine.translate(crop[None], style[None])[0]


def _embed(
    spaces: Sequence[FeatureSpace], pictures: Any, advance: Advance, stage: str, block: int = 32
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
        arrow = "v" if metric.better == "lower" else "^"
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
