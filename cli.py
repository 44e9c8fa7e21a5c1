"""The gnr-video command: translate videos, train, look after weights and styles, check the installation."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from engines.errors import GnrVideoError, OutputError
from gnr_video._version import __version__

if TYPE_CHECKING:
    from gnr_video.pipeline import Counts
    from gnr_video.report import Report

PASTE_MODES = ("head", "face", "square", "crop", "side-by-side")
ENGINES = ("auto", "torch", "openvino")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
STILLS = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}

EPILOG = """\b
Examples:
  gnr-video clip.mp4                         writes clip_anime.mp4 beside it
  gnr-video clip.mp4 --style 42 -o out.mp4
  gnr-video clip.mp4 --style ref:girl.png    the style of an anime picture
  gnr-video clip.mov --paste side-by-side --start 3 --end 8
  gnr-video photo.jpg -o anime.png
  gnr-video styles sheet photo.jpg           try 16 seeds on one face
  gnr-video doctor                           what is installed, what is missing
"""


class _Group(click.Group):
    """A first argument that is no command is an input to translate."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        first = next((a for a in args if a == "-" or not a.startswith("-")), None)
        own = {"-h", "--help", "--version"}
        if (
            args
            and first not in self.commands
            and not (args[0] in own or (args[0] == "--debug" and not first))
        ):
            args = ["translate", *args]
        return super().parse_args(ctx, args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage("gnr-video", "INPUT [-o OUTPUT] [--style STYLE] [OPTIONS]")
        formatter.write_usage("gnr-video", "COMMAND [ARGS]...", prefix="       ")


@click.group(cls=_Group, context_settings=CONTEXT, epilog=EPILOG, invoke_without_command=True)
@click.version_option(__version__, prog_name="gnr-video")
@click.pass_context
def command(ctx: click.Context) -> None:
    """Turn the face in a video into an anime face that follows it.

    `gnr-video translate --help` lists the options of a translation.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def _generator_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options of every command that runs a generator."""
    for option in reversed(
        (
            click.option(
                "--weights",
                metavar="NAME|FILE",
                help="default, official, or a .safetensors file.  [default: default]",
            ),
            click.option("--engine", type=click.Choice(ENGINES), default="auto", show_default=True),
            click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ..."),
            click.option("--precision", type=click.Choice(PRECISIONS), default="auto", show_default=True),
        )
    ):
        function = option(function)
    return function


def _common_options(function: Callable[..., Any]) -> Callable[..., Any]:
    function = click.option("--debug", is_flag=True, help="Log every step; errors with a traceback.")(
        function
    )
    return click.option("-q", "--quiet", is_flag=True, help="Only errors.")(function)


@command.command(epilog=EPILOG)
@click.argument("input", metavar="INPUT")
@click.option("-o", "--output", metavar="FILE", help="Container by extension.  [default: INPUT_anime.mp4]")
@click.option(
    "--style",
    default="42",
    show_default=True,
    metavar="SEED|ref:PICTURE",
    help="One look for the whole video: a number, or the style of an anime picture.",
)
@_generator_options
@click.option(
    "--paste", type=click.Choice(PASTE_MODES), default="head", show_default=True, help="What is shown."
)
@click.option("--start", type=float, metavar="SECONDS", help="Leave out what is before.")
@click.option("--end", type=float, metavar="SECONDS", help="Leave out what is after.")
@click.option(
    "--codec", metavar="NAME", help="h264, h265, vp9, av1, or an FFmpeg encoder such as h264_nvenc."
)
@click.option(
    "--crf", type=click.IntRange(0, 63), help="Encoder quality, lower is better.  [default: 18 for h264]"
)
@click.option(
    "--lookahead",
    type=click.IntRange(0, 120),
    default=15,
    show_default=True,
    help="Frames that smoothing sees ahead.",
)
@click.option("--face-model", type=click.Path(path_type=Path), help="MediaPipe's face_landmarker.task.")
@click.option(
    "--report", type=click.Path(path_type=Path), metavar="FILE.json", help="Write times and settings."
)
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT if it exists.")
@_common_options
def translate(
    input: str,
    output: str | None,
    style: str,
    weights: str | None,
    engine: str,
    device: str,
    precision: str,
    paste: str,
    start: float | None,
    end: float | None,
    codec: str | None,
    crf: int | None,
    lookahead: int,
    face_model: Path | None,
    report: Path | None,
    overwrite: bool,
    quiet: bool,
    debug: bool,
) -> None:
    """Translate INPUT: a video, an image, a folder of images, a URL, or - for standard input."""
    with _errors(quiet, debug):
        target = output or default_output(input)
        if not overwrite and Path(target).is_file():
            raise OutputError(f"{target} exists already", "give --overwrite to replace it, or another -o")
        from gnr_video.translator import Translator

        with Translator(
            weights, first, engine=engine, device=device, precision=precision, face_model=face_model
        ) as translator:
            face = translator.find_face(read_image(image))
            save_png(target, style_sheet(translator, face, range(first, first + count)))
        if not quiet:
            click.echo(str(target), err=True)


@command.command()
@_common_options
def doctor(quiet: bool, debug: bool) -> None:
    """Check versions, devices, engines, encoders and the face model; say how to mend what is missing."""
    with _errors(quiet, debug):
        from gnr_video.doctor import format_checks, healthy, run_doctor

        checks = run_doctor()
        if not quiet:
            click.echo(format_checks(checks))
        if not healthy(checks):
            raise click.exceptions.Exit(1)


# -- errors


@contextmanager
def _errors(quiet: bool, debug: bool) -> Iterator[None]:
    """Log as asked for; print one line for what the user can mend, and leave with its exit status."""
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger().setLevel(logging.ERROR)
    for name in ("gnr_video", "engines", "train"):
        logging.getLogger(name).setLevel(logging.DEBUG if debug else logging.ERROR if quiet else logging.INFO)
    if not debug:
        # What a run has to say stands in its summary; training has none.
        logging.getLogger("gnr_video").setLevel(logging.ERROR)
        logging.getLogger("engines").setLevel(logging.ERROR)
    try:
        with _terminable():
            yield
    except GnrVideoError as error:
        if debug:
            raise
        click.secho(f"error: {error.message}", fg="red", err=True)
        if error.hint:
            click.echo(f"  {error.hint}", err=True)
        raise click.exceptions.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        click.echo("\nstopped; nothing unfinished was left behind", err=True)
        raise click.exceptions.Exit(130) from None
    except BrokenPipeError:
        raise click.exceptions.Exit(141) from None


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does: cleanly."""

    def stop(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not on the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main() -> None:
    """Entry point of the `gnr-video` command."""
    command(prog_name="gnr-video")


if __name__ == "__main__":
    main()
