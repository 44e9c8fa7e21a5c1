"""gnr-video evaluate: weights and finished outputs, measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from gnr_video.commands.options import check_writable, common_options, engine_options
from gnr_video.commands.progress import stages


@click.command()
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
@click.option("--faces", type=click.Path(path_type=Path), help="Faces to translate.  [default: DATA/testA]")
@click.option("--real", type=click.Path(path_type=Path), help="Real anime.  [default: DATA/testB]")
@click.option(
    "--clip",
    "clips",
    multiple=True,
    metavar="VIDEO",
    help="A clip with a face: warp error and style drift. May be repeated.",
)
@click.option("--quick", is_flag=True, help="A minute or two: FID, KID, diversity, equivariance.")
@click.option("--limit", type=click.IntRange(2), help="Most pictures of a folder that are used.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the styles that are drawn.")
@click.option(
    "--inception",
    metavar="FILE|download",
    help="Inception's weights as torch-fidelity publishes them: the FID and KID of papers.",
)
@click.option(
    "--lpips-trunk", type=click.Path(path_type=Path), help="Folder with VGG16 and AlexNet trunk weights."
)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="Write all figures."
)
@engine_options
@common_options
def evaluate(
    data: Path,
    generators: Sequence[str],
    outputs: Sequence[Path],
    faces: Path | None,
    real: Path | None,
    clips: Sequence[str],
    quick: bool,
    limit: int | None,
    seed: int,
    inception: str | None,
    lpips_trunk: Path | None,
    json_file: Path | None,
    engine: str,
    device: str,
    precision: str,
    calibrate: Path | None,
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
    from dataclasses import replace

    import engines
    from engines.devices import best_device
    from engines.files import write_atomically
    from engines.weights import load_weights
    from gnr_video.checkpoints import resolve_weights
    from gnr_video.machine import hardware
    from gnr_video.samples.face_clip import face_run
    from train.metrics.evaluate import FULL, QUICK, Evaluator, Folder, Networks, format_table, report_json

    if json_file is not None:
        check_writable(json_file)
    settings = replace(QUICK if quick else FULL, seed=seed)
    if limit is not None:
        settings = replace(settings, limit=limit)
    names = generators or (() if outputs else ("default",))
    files = [resolve_weights(name) for name in names]
    pictures = Folder.open(real or data / "testB", settings.limit)
    tests = Folder.open(faces or data / "testA", settings.limit) if files else None
    finished = [Folder.open(folder, settings.limit) for folder in outputs]
    networks = Networks.load(
        trunk=lpips_trunk,
        inception=None if inception in (None, "download") else Path(inception),
        download=inception == "download",
        path_length=bool(files and settings.paths),
        device=best_device() if device == "auto" else device,
    )
    runs = [face_run(clip, frames=settings.clip_frames) for clip in clips if files]
    faces_for_int8 = None
    if precision == "int8":
        from gnr_video.samples.calibration import calibration_faces

        faces_for_int8 = calibration_faces(calibrate)
    results = []
    evaluator = Evaluator(pictures, networks, settings)
    total = evaluator.units(len(tests or ()), map(len, finished), len(files), sum(map(len, runs)))
    with stages(quiet, total) as advance:
        evaluator.advance = advance
        for name, file in zip(names, files):
            loaded = load_weights(file)
            with engines.create(
                loaded,
                engine=engine,
                device=device,
                precision=precision,
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
