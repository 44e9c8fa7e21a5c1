"""gnr-video evaluate: weights and finished outputs, measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gnr_video.commands.options import check_writable, common_options, engine_options, grouped
from gnr_video.commands.progress import stages
from gnr_video.options import EngineOptions

if TYPE_CHECKING:
    from train.metrics.evaluate import Settings


def _settings(*, quick: bool, limit: int | None, seed: int) -> Settings:
    from dataclasses import replace

    from train.metrics.evaluate import FULL, QUICK

    settings = replace(QUICK if quick else FULL, seed=seed)
    return settings if limit is None else replace(settings, limit=limit)


@click.command()
@common_options
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--weights",
    "generators",
    metavar="NAME|FILE",
    multiple=True,
    help="default, official, or a .safetensors file. May be repeated.  [default: default]",
)
@click.option(
    "--outputs",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A folder of any system's finished outputs, for a column of its own. May be repeated.",
)
@grouped(
    "pictures",
    dict,
    click.option(
        "--faces", type=click.Path(path_type=Path), help="Faces to translate.  [default: DATA/testA]"
    ),
    click.option("--real", type=click.Path(path_type=Path), help="Real anime.  [default: DATA/testB]"),
)
@click.option(
    "--clip",
    "clips",
    multiple=True,
    metavar="VIDEO",
    help="A clip with a face: warp error and style drift. May be repeated.",
)
@grouped(
    "settings",
    _settings,
    click.option("--quick", is_flag=True, help="A minute or two: FID, KID, diversity, equivariance."),
    click.option("--limit", type=click.IntRange(2), help="Most pictures of a folder that are used."),
    click.option("--seed", type=int, default=0, show_default=True, help="Of the styles that are drawn."),
)
@grouped(
    "trunks",
    dict,
    click.option(
        "--inception",
        metavar="FILE|download",
        help="Inception's weights as torch-fidelity publishes them: the FID and KID of papers.",
    ),
    click.option(
        "--lpips-trunk", type=click.Path(path_type=Path), help="Folder with VGG16 and AlexNet trunk weights."
    ),
)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="Write all figures."
)
@engine_options
def evaluate(
    data: Path,
    generators: Sequence[str],
    outputs: Sequence[Path],
    pictures: dict[str, Path | None],
    clips: Sequence[str],
    settings: Settings,
    trunks: dict[str, Any],
    json_file: Path | None,
    engine: EngineOptions,
    quiet: bool,
) -> None:
    """Measure weights, or folders of finished outputs, against the real pictures of DATA (testA, testB).

    \b
    Examples:
      gnr-video evaluate selfie2anime --quick
      gnr-video evaluate selfie2anime --weights a.safetensors --weights b.safetensors --json ab.json
      gnr-video evaluate selfie2anime --outputs cyclegan-outputs --outputs ugatit-outputs

    Without --weights and with --outputs, only the folders are measured.
    """
    import json

    import engines
    from engines.devices import best_device
    from engines.files import write_atomically
    from engines.weights import load_weights
    from gnr_video.checkpoints import resolve_weights
    from gnr_video.generator import calibration
    from gnr_video.machine import hardware
    from gnr_video.samples.face_clip import face_run
    from train.metrics.evaluate import Evaluator, Folder, Networks, format_table, report_json

    if json_file is not None:
        check_writable(json_file)
    names = generators or (() if outputs else ("default",))
    files = [resolve_weights(name) for name in names]
    real = Folder.open(pictures["real"] or data / "testB", settings.limit)
    tests = Folder.open(pictures["faces"] or data / "testA", settings.limit) if files else None
    finished = [Folder.open(folder, settings.limit) for folder in outputs]
    inception = trunks["inception"]
    networks = Networks.load(
        trunk=trunks["lpips_trunk"],
        inception=None if inception in (None, "download") else Path(inception),
        download=inception == "download",
        path_length=bool(files and settings.paths),
        device=best_device() if engine.device == "auto" else engine.device,
    )
    runs = [face_run(clip, frames=settings.clip_frames) for clip in clips if files]
    faces_for_int8 = calibration(engine)
    results = []
    evaluator = Evaluator(real, networks, settings)
    total = evaluator.units(len(tests or ()), map(len, finished), len(files), sum(map(len, runs)))
    with stages(quiet, total) as advance:
        evaluator.advance = advance
        for name, file in zip(names, files):
            loaded = load_weights(file)
            with engines.create(
                loaded,
                engine=engine.engine,
                device=engine.device,
                precision=engine.precision,
                calibration=faces_for_int8,
            ) as made:
                assert tests is not None
                results.append(evaluator.generator(name, made, tests, weights=loaded, clips=runs))
        for folder in finished:
            results.append(evaluator.outputs(str(folder.path), folder))
    click.echo(format_table(results))
    for note in dict.fromkeys(note for result in results for note in result.notes):
        click.secho(f"note: {note}", fg="yellow", err=True)
    if json_file is not None:
        report = report_json(results, evaluator, hardware=hardware())
        write_atomically(json_file, json.dumps(report, indent=2).encode())
