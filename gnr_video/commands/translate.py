"""gnr-video translate: a file, a folder, a URL or standard input, translated. The command without a name."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import click

from engines.errors import InputError, OutputError
from gnr_video.commands.many import cluster_options, tell
from gnr_video.commands.options import (
    any_engine_options,
    check_writable,
    common_options,
    grouped,
    look_options,
    private_option,
    report_option,
    weights_option,
)
from gnr_video.commands.progress import build_progress, frame_progress, speaker, warn
from gnr_video.options import EngineOptions, LookOptions, OutputOptions

if TYPE_CHECKING:
    from gnr_video.batch.jobs import Job
    from gnr_video.cluster.run import Cluster
    from gnr_video.report import Report
    from gnr_video.styles.schedule import Mode, StylePlan
    from gnr_video.translator import Translator

EXAMPLES = """\b
Examples:
  gnr-video clip.mp4                         writes clip_anime.mp4 beside it
  gnr-video clip.mp4 --style 42 -o out.mp4
  gnr-video clip.mp4 --style hair:pink+skin:tan      the colours that you ask for
  gnr-video clip.mp4 --style ref:girl.png    the style of an anime picture
  gnr-video clip.mp4 --style 42,7            two people, each with a look of their own
  gnr-video clip.mp4 --style 42*0.7+7*0.3~0.8+sefa3:2.5    mixed, toned down, edited
  gnr-video clip.mp4 --styles 0=42,5s=7 --transition 0.5s
  gnr-video clip.mp4 --mode beat             a new look on every beat of the sound track
  gnr-video clip.mov --paste side-by-side --start 3 --end 8
  gnr-video photo.jpg -o anime.png
  gnr-video clips/*.mp4 -o out/              many; again: what is done is passed over
  gnr-video clips/ -o out/ --ray=auto        on all machines of a Ray cluster
  gnr-video live --virtual-camera            your webcam in a video call
  gnr-video styles sheet photo.jpg           try 15 seeds on one face
  gnr-video doctor                           what is installed, what is missing
"""

STYLE_MODES = ("normal", "blend", "beat", "sefa")


def _grid(ctx: click.Context, parameter: click.Parameter, text: str | None) -> tuple[int, int] | None:
    """Rows and columns of "3x4"."""
    if text is None:
        return None
    rows, _, columns = text.lower().partition("x")
    if not (rows.isdecimal() and columns.isdecimal() and 1 <= int(rows) <= 16 and 1 <= int(columns) <= 16):
        raise click.BadParameter(f"{text!r} is no grid; give rows and columns, 1 to 16 each: --grid 3x3")
    return int(rows), int(columns)


def _plan(
    *,
    styles: str,
    mode: Mode,
    transition: str | None,
    every: str,
    bpm: float | None,
    amount: float | None,
) -> StylePlan:
    from gnr_video.styles.grammar import parse_seconds
    from gnr_video.styles.schedule import StylePlan

    change = None if transition is None else parse_seconds(transition)
    return StylePlan(styles, mode, change, parse_seconds(every), bpm, amount)


@dataclass(frozen=True)
class Inputs:
    """What is to be translated.

    Attributes:
        named: on the command line.
        listed: a file with more.
        recursive: folders within folders, too.
        output: where it goes: a file, or the folder of many.
    """

    named: tuple[str, ...]
    listed: Path | None
    recursive: bool
    output: str | None

    def jobs(self) -> list[Job]:
        """Those of a run over many inputs; none for a single one, which may be a URL, a pipe or a folder of images.

        Raises:
            UsageError, InputError, OutputError: there is none, one does not exist, or the output is a file's name.
        """
        from gnr_video.batch.jobs import holds_videos, plan, read_list

        output = self.output
        texts = [*self.named, *(read_list(self.listed) if self.listed else ())]
        if not texts:
            raise click.UsageError("Missing argument 'INPUT...'.")
        first = Path(texts[0])
        is_folder = output is not None and (output.endswith(("/", os.sep)) or os.path.isdir(output))
        is_many = (
            len(texts) > 1
            or self.listed is not None
            or (os.path.isdir(first) and (self.recursive or holds_videos(first)))
            or (os.path.isfile(first) and is_folder)
        )
        if not is_many:
            return []
        if output is not None and (Path(output).suffix or os.path.isfile(output)) and not is_folder:
            raise OutputError(
                f"{output} is one file, for many inputs", f"name a folder: -o {Path(output).stem}/"
            )
        return plan(texts, None if output is None else Path(output), recursive=self.recursive)

    def single(self) -> list[Job]:
        """The job of a single file.

        Raises:
            InputError: it is none.
        """
        from gnr_video.batch.jobs import Job

        source = Path(self.named[0])
        if not source.is_file():
            raise InputError(f"{source} is no file", "a cluster is given files, or folders of videos")
        return [Job(source, Path(self.output or default_output(str(source))))]


@click.command(epilog=EXAMPLES)
@common_options
@grouped(
    "inputs",
    Inputs,
    click.argument("named", metavar="INPUT...", nargs=-1),
    click.option(
        "--list",
        "listed",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Further inputs, one a line.",
    ),
    click.option("--recursive", is_flag=True, help="Folders within folders, too."),
    click.option(
        "-o",
        "--output",
        metavar="FILE|DIR/",
        help="Container by extension; the folder of many outputs.  [default: INPUT_anime.mp4]",
    ),
)
@click.option(
    "--style",
    metavar="STYLE[,STYLE...]",
    help="A seed, colours (7+hair:pink), ref:PICTURE, my.style.json, a mix (42*0.7+7*0.3); several for several "
    "people.  [default: 42]",
)
@grouped(
    "plan",
    _plan,
    click.option(
        "--styles", default="", metavar="TIME=STYLE,...", help="Styles and when they begin: 0=42,5s=7."
    ),
    click.option(
        "--mode",
        type=click.Choice(STYLE_MODES),
        default="normal",
        show_default=True,
        help="blend: a random walk; beat: a new look on each beat; sefa: an edit on each beat.",
    ),
    click.option("--transition", metavar="TIME", help="From style to style.  [default: 0.5s; on beats 0.1s]"),
    click.option(
        "--every", metavar="TIME", default="2s", show_default=True, help="From look to look of a blend."
    ),
    click.option("--bpm", type=float, help="A steady tempo instead of the sound track's beats."),
    click.option(
        "--amount", type=float, help="Greatest edit of mode sefa.  [default: half the styles' spread]"
    ),
)
@weights_option
@any_engine_options
@look_options(
    private_option(False),
    click.option(
        "--grid",
        metavar="RxC",
        callback=_grid,
        help="Many styles of one face at once. 3x3: eight around the original; 2x3: six beside it.",
    ),
    click.option(
        "--lookahead",
        type=click.IntRange(0, 120),
        default=15,
        show_default=True,
        help="Frames that smoothing sees ahead.",
    ),
    click.option(
        "--hold",
        type=click.IntRange(1, 12),
        default=1,
        show_default=True,
        metavar="N",
        help="Draw a face for every N-th frame; between, its drawing moves along. 2: on twos, as anime is.",
    ),
)
@grouped(
    "result",
    OutputOptions,
    click.option("--start", type=float, metavar="SECONDS", help="Leave out what is before."),
    click.option("--end", type=float, metavar="SECONDS", help="Leave out what is after."),
    click.option(
        "--stream",
        type=click.IntRange(0),
        metavar="N",
        help="Which of several video streams, from 0.  [default: the input's default, or the best]",
    ),
    click.option(
        "--interlaced",
        type=click.Choice(("deinterlace", "keep")),
        default="deinterlace",
        show_default=True,
        help="What becomes of interlaced pictures.",
    ),
    click.option(
        "--codec", metavar="NAME", help="h264, h265, vp9, av1, or an FFmpeg encoder such as h264_nvenc."
    ),
    click.option(
        "--crf", type=click.IntRange(0, 63), help="Encoder quality, lower is better.  [default: 18 for h264]"
    ),
    click.option("--overwrite", is_flag=True, help="Replace OUTPUT if it exists."),
    click.option(
        "--resume/--no-resume",
        default=True,
        show_default=True,
        help="Keep what is done of a long video, for the same command to go on from if it is stopped or killed.",
    ),
)
@cluster_options
@report_option
def translate(
    inputs: Inputs,
    style: str | None,
    plan: StylePlan,
    weights: str | None,
    engine: EngineOptions,
    look: LookOptions,
    result: OutputOptions,
    cluster: Cluster | None,
    report: Path | None,
    quiet: bool,
) -> None:
    """Translate INPUT: a video, an image, a folder, a URL, or - for standard input; or many of them.

    Many inputs, or a folder of videos: what is done already is passed over, and what fails does not end the others.
    A folder of images alone is one input.
    """
    from gnr_video.styles.grammar import parse_expressions
    from gnr_video.tracking.selection import FaceChoice

    if report is not None:
        check_writable(report)
    # What does not parse, cannot be read or must not be replaced is said before anything slow is loaded.
    if style is not None:
        parse_expressions(style)
    FaceChoice.parse(look.faces)
    look = replace(look, plan=plan)
    jobs = inputs.jobs()
    folder = Path(inputs.output) if jobs and inputs.output else None
    if cluster is not None:
        from gnr_video.cluster.run import run as spread
        from gnr_video.cluster.worker import Setup

        many, setup = jobs or inputs.single(), Setup(style, engine, look)
        tell(
            many,
            lambda begin: spread(
                many, weights, setup, result, cluster, out=folder, progress=begin, say=speaker(quiet)
            ),
            report,
            quiet,
        )
        return
    if not jobs:
        _check_single(inputs, result, quiet)
    from gnr_video.batch.run import run
    from gnr_video.translator import Translator

    with (
        build_progress(quiet) as building,
        Translator(weights, style, engine=engine, look=look, build_progress=building) as translator,
    ):
        if jobs:
            say = speaker(quiet)
            tell(
                jobs,
                lambda begin: run(jobs, translator, result, out=folder, progress=begin, say=say),
                report,
                quiet,
            )
        else:
            _translate_one(inputs, translator, result, report, quiet)


def _translate_one(
    inputs: Inputs, translator: Translator, result: OutputOptions, report: Path | None, quiet: bool
) -> None:
    from gnr_video.segments.run import translate as translate_one

    (input,) = inputs.named
    target = inputs.output or default_output(input)
    with frame_progress(quiet) as progress:
        done = translate_one(translator, input, target, result, progress=progress, say=speaker(quiet))
    if report is not None:
        done.write(report)
    _summary(done, quiet)


def _check_single(inputs: Inputs, result: OutputOptions, quiet: bool) -> None:
    from gnr_video.media.open import comes_once, open_source
    from gnr_video.segments.store import tidy

    (input,) = inputs.named
    target = inputs.output or default_output(input)
    tidy(Path(target))
    if not result.overwrite and os.path.isfile(target):
        raise OutputError(f"{target} exists already", "give --overwrite to replace it, or another -o")
    # What comes through a pipe comes once.
    if not comes_once(input):
        with open_source(input, start=result.start, end=result.end, stream=result.stream) as source:
            if not quiet:
                click.echo(source.info.describe(), err=True)


def default_output(input: str) -> str:
    """Name of the output beside the input: clip.mov -> clip_anime.mp4; images keep being images."""
    from gnr_video.media.open import (
        STANDARD_INPUT,
        TRANSLATED,
        anime_name,
        is_url,
        local_path,
        picture_format,
    )

    kind = picture_format(input)
    if input in STANDARD_INPUT:
        return str(anime_name(Path("stdin"), kind))
    if is_url(input):
        return str(anime_name(Path(Path(unquote(urlsplit(input).path)).name or "stream"), kind))
    path = local_path(input)
    if os.path.isdir(path):
        folder = path.resolve()
        return f"{folder.parent / folder.name}{TRANSLATED}/"
    return str(anime_name(path, kind))


def _summary(report: Report, quiet: bool) -> None:
    warn([*report.fallbacks, *report.warnings])
    if not quiet:
        click.echo(
            f"{report.target}: {report.frames} frames in {report.seconds:.1f} s ({report.fps:.1f} fps, "
            f"{report.engine}), style {report.style}",
            err=True,
        )
        if report.tip:
            click.echo(f"tip: {report.tip}", err=True)
