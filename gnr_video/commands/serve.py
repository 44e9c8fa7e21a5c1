"""gnr-video serve: a service for other programs."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from gnr_video.commands.options import (
    any_engine_options,
    common_options,
    face_model_option,
    weights_option,
)


@click.command()
@common_options
@click.option("--host", default="127.0.0.1:8091", show_default=True, metavar="HOST:PORT")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default="gnr-video-jobs",
    show_default=True,
    help="Where jobs, results and the token are kept.",
)
@click.option(
    "--allow",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="DIR",
    help="Files below it may be submitted by their path; may be repeated.",
)
@click.option("--allow-remote", is_flag=True, help="Let --host serve other machines.")
@click.option("--no-token", is_flag=True, help="Let every user of this machine come.")
@click.option(
    "--queue", type=click.IntRange(1, 100_000), default=100, show_default=True, help="Jobs that may wait."
)
@click.option(
    "--max-upload",
    type=click.FloatRange(0, 10_000, min_open=True),
    default=10.0,
    show_default=True,
    metavar="GB",
    help="Of one upload.",
)
@click.option(
    "--keep",
    type=click.FloatRange(0, 1_000_000),
    default=50.0,
    show_default=True,
    metavar="GB",
    help="Of all results; beyond it the oldest are deleted.",
)
@click.option(
    "--keep-days",
    type=click.FloatRange(0, 36_500, min_open=True),
    default=7.0,
    show_default=True,
    help="After which results are deleted.",
)
@weights_option
@any_engine_options
@face_model_option
def serve(quiet: bool, **values: Any) -> None:
    """Translate what other programs submit over HTTP: by upload, or by path below an --allow folder.

    Jobs are translated one at a time, and outlast restarts. Requests hold the token of the file FOLDER/token; what they
    may be says /openapi.json. docs/serve.md has examples.
    """
    from gnr_video.serve.run import ServeOptions, run_serve

    def say(text: str) -> None:
        # A terminal that was closed takes nothing any more; the service ends as it should all the same.
        with suppress(OSError):
            click.echo(text, err=True)

    run_serve(ServeOptions(**values), say=(lambda text: None) if quiet else say)
