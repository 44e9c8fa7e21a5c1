"""gnr-video prepare: a data set brought into the form that training likes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from gnr_video.commands.options import common_options, face_model_option
from gnr_video.commands.progress import stages


@click.command()
@common_options
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--faces",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Another folder of faces; its result is OUT/<its name>. May be repeated.",
)
@click.option(
    "--heads",
    is_flag=True,
    help="Of those folders and the drawings, the whole heads as well, into OUT/<name>-heads: for `train --heads`.",
)
@click.option("--size", type=click.IntRange(16, 1024), default=256, show_default=True, help="Side, pixels.")
@face_model_option
def prepare(
    data: Path,
    out: Path,
    faces: Sequence[Path],
    heads: bool,
    size: int,
    face_model: Path | None,
    quiet: bool,
) -> None:
    """Write an aligned copy of the data set DATA to OUT, for `gnr-video train OUT`.

    Faces (trainA, testA) are cut out as they will be in videos; anime heads (trainB, testB, framed as
    selfie2anime's) get nearly the proportions of faces, so that training need not learn to move eyes and chins.
    Pictures without a face are left out and counted. What is there already is kept.

    \b
    Examples:
      gnr-video prepare selfie2anime prepared
      gnr-video prepare selfie2anime prepared --faces synthetic-faces --size 128
      gnr-video prepare selfie2anime prepared --faces synthetic-faces --heads
      gnr-video train prepared --faces prepared/synthetic-faces --heads prepared/synthetic-faces-heads --recipe cpu
    """
    from train.prepare import plan
    from train.prepare import prepare as run

    jobs = plan(data, out, faces, heads=heads)
    with stages(quiet, len(jobs)) as advance:
        done = run(jobs, size=size, face_model=face_model, advance=advance)
    for reason in done.skipped[:5]:
        click.secho(f"left out: {reason}", fg="yellow", err=True)
    if len(done.skipped) > 5:
        click.secho(f"and {len(done.skipped) - 5} more", fg="yellow", err=True)
    if not quiet:
        click.echo(", ".join(f"{count} in {out / name}" for name, count in done.written.items()), err=True)
