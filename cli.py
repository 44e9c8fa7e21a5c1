"""The gnr-video command: translate videos, train, look after weights and styles, check the installation."""

from __future__ import annotations

import logging
import os
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import click

from engines.errors import EngineError, GnrVideoError, InputError, OutputError
from gnr_video._version import __version__

if TYPE_CHECKING:
    from engines.base import Engine
    from gnr_video.frame import Image
    from gnr_video.pipeline import Counts
    from gnr_video.report import Report
    from gnr_video.translator import Translator

STYLE_MODES = ("normal", "blend", "beat", "sefa")
PASTE_MODES = ("head", "face", "square", "crop", "side-by-side")
ENGINES = ("auto", "torch", "openvino", "onnx", "tensorrt", "tensorrt-rtx", "torch2trt")
EXPORTS = ("onnx", "openvino", "tensorrt", "torch2trt")
PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8")
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
STANDARD_INPUT = ("-", "pipe:", "pipe:0")
STILLS = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}

EPILOG = """\b
Examples:
  gnr-video clip.mp4                         writes clip_anime.mp4 beside it
  gnr-video clip.mp4 --style 42 -o out.mp4
  gnr-video clip.mp4 --style ref:girl.png    the style of an anime picture
  gnr-video clip.mp4 --style 42,7            two people, each with a look of their own
  gnr-video clip.mp4 --style 42*0.7+7*0.3~0.8+sefa3:2.5    mixed, toned down, edited
  gnr-video clip.mp4 --styles 0=42,5s=7 --transition 0.5s
  gnr-video clip.mp4 --mode beat             a new look on every beat of the sound track
  gnr-video clip.mov --paste side-by-side --start 3 --end 8
  gnr-video photo.jpg -o anime.png
  gnr-video live --virtual-camera            your webcam in a video call
  gnr-video styles sheet photo.jpg           try 15 seeds on one face
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
    """Options of every command that runs one generator."""
    return click.option(
        "--weights",
        metavar="NAME|FILE",
        help="default, official, a .safetensors file, or any image-to-image .onnx file.  [default: default]",
    )(_engine_options(function))


def _engine_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """How generators are run."""
    for option in reversed(
        (
            click.option("--engine", type=click.Choice(ENGINES), default="auto", show_default=True),
            click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ..."),
            click.option("--precision", type=click.Choice(PRECISIONS), default="auto", show_default=True),
            click.option(
                "--calibrate",
                type=click.Path(path_type=Path),
                metavar="CLIP",
                help="With --precision int8: a clip whose faces set its ranges.  [default: a sample face]",
            ),
        )
    ):
        function = option(function)
    return function


def _onnx_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """What a foreign ONNX file does not say of itself."""
    for option in (
        click.option("--onnx-layout", type=click.Choice(("nchw", "nhwc"))),
        click.option("--onnx-size", type=click.IntRange(min=16), help="Side of its pictures, pixels."),
        click.option(
            "--onnx-range",
            metavar="LOW,HIGH",
            help="Values of black and white in an .onnx file, such as -1,1.  [default: found out]",
        ),
    ):
        function = option(function)
    return function


def _target_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--target",
        multiple=True,
        metavar="SM",
        help="Compile for a GPU that is not here, with TensorRT for RTX: sm75, sm80, sm86, sm89, sm120.",
    )(function)


_face_model_option = click.option(
    "--face-model", type=click.Path(path_type=Path), help="MediaPipe's face_landmarker.task."
)
_report_option = click.option(
    "--report", type=click.Path(path_type=Path), metavar="FILE.json", help="Write times and settings."
)


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
    metavar="STYLE[,STYLE...]",
    help="A seed, ref:PICTURE, my.style.json, a mix (42*0.7+7*0.3); several for several people.  [default: 42]",
)
@click.option("--styles", default="", metavar="TIME=STYLE,...", help="Styles and when they begin: 0=42,5s=7.")
@click.option(
    "--mode",
    type=click.Choice(STYLE_MODES),
    default="normal",
    show_default=True,
    help="blend: a random walk; beat: a new look on each beat; sefa: an edit on each beat.",
)
@click.option("--transition", metavar="TIME", help="From style to style.  [default: 0.5s; on beats 0.1s]")
@click.option(
    "--every", metavar="TIME", default="2s", show_default=True, help="From look to look of a blend."
)
@click.option("--bpm", type=float, help="A steady tempo instead of the sound track's beats.")
@click.option("--amount", type=float, help="Greatest edit of mode sefa.  [default: half the styles' spread]")
@click.option("--grid", metavar="RxC", help="So many styles of one face at once, beside the original: 3x3.")
@click.option(
    "--faces",
    default="all",
    show_default=True,
    metavar="WHO",
    help="all, largest, left, right, a number, or id:K, the K-th to appear (from 0).",
)
@_generator_options
@_onnx_options
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
@_face_model_option
@_report_option
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT if it exists.")
@_common_options
def translate(
    input: str,
    output: str | None,
    style: str | None,
    styles: str,
    mode: str,
    transition: str | None,
    every: str,
    bpm: float | None,
    amount: float | None,
    grid: str | None,
    faces: str,
    weights: str | None,
    engine: str,
    device: str,
    precision: str,
    onnx_range: str | None,
    onnx_size: int | None,
    onnx_layout: Literal["nchw", "nhwc"] | None,
    calibrate: Path | None,
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
        if report is not None:
            _check_writable(report)
        from engines.image_model import ImageModelOptions, parse_range
        from gnr_video.faces import FaceChoice
        from gnr_video.schedule import StylePlan
        from gnr_video.source import open_source
        from gnr_video.style import parse_expressions, parse_seconds
        from gnr_video.translator import Translator

        onnx = ImageModelOptions(parse_range(onnx_range) if onnx_range else None, onnx_size, onnx_layout)
        # What does not parse is said before anything slow is loaded.
        if style is not None:
            parse_expressions(style)
        plan = StylePlan(
            styles,
            mode,  # type: ignore[arg-type]
            None if transition is None else parse_seconds(transition),
            parse_seconds(every),
            bpm,
            amount,
        )
        choice, cells = FaceChoice.parse(faces), _grid(grid)

        if input in STANDARD_INPUT:
            _await_standard_input()
        elif "://" not in input:
            with open_source(input, start=start, end=end) as source:  # before anything slow is loaded
                if not quiet:
                    click.echo(source.info.describe(), err=True)
        with (
            _build_progress(quiet) as building,
            Translator(
                weights,
                style,
                engine=engine,
                device=device,
                precision=precision,
                paste=paste,
                faces=choice,
                plan=plan,
                grid=cells,
                face_model=face_model,
                lookahead=lookahead,
                onnx=onnx,
                calibrate=calibrate,
                build_progress=building,
            ) as translator,
            _progress(quiet) as progress,
        ):
            done = translator.translate_video(
                input,
                target,
                start=start,
                end=end,
                codec=codec,
                crf=crf,
                overwrite=overwrite,
                progress=progress,
            )
        if report is not None:
            done.write(report)
        _summary(done, quiet)


def _grid(text: str | None) -> tuple[int, int] | None:
    """Rows and columns of "3x4"."""
    if text is None:
        return None
    rows, _, columns = text.lower().partition("x")
    if not (rows.isdecimal() and columns.isdecimal() and 1 <= int(rows) <= 16 and 1 <= int(columns) <= 16):
        raise InputError(f"{text!r} is no grid", "give rows and columns, 1 to 16 each: --grid 3x3")
    return int(rows), int(columns)


def _await_standard_input() -> None:
    """Wait until a pipe says something: here Ctrl-C ends the waiting, inside FFmpeg it does not."""
    import select

    with suppress(OSError, ValueError):  # not a file that can be waited for
        if sys.stdin is not None and not sys.stdin.isatty() and sys.platform != "win32":
            select.select([sys.stdin], [], [])


def _check_writable(report: Path) -> None:
    """Find out before the work is done, not after, whether its report can be written."""
    hint = "check the folder and its permissions"
    try:
        report.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write the report {report}: {error.strerror}", hint) from error
    if report.is_dir() or not os.access(report.parent, os.W_OK):
        raise OutputError(f"cannot write the report {report}", hint)


def default_output(input: str) -> str:
    """Name of the output beside the input: clip.mov -> clip_anime.mp4; images keep being images."""
    if input in STANDARD_INPUT or "://" in input:
        name = Path(input.rsplit("/", 1)[-1].split("?")[0]).stem if "://" in input else "stdin"
        return f"{name or 'stream'}_anime.mp4"
    path = Path(input)
    if path.is_dir():
        folder = path.resolve()
        return f"{folder.parent / folder.name}_anime/"
    suffix = ".png" if path.suffix.lower() in STILLS else ".mp4"
    return str(path.with_name(f"{path.stem}_anime{suffix}"))


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[Counts, int | None], None] | None]:
    """Progress bar with frames per second and time left; none where nobody looks."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    with tqdm(unit=" frames", dynamic_ncols=True, smoothing=0.1, leave=False) as bar:

        def update(counts: Counts, total: int | None) -> None:
            if bar.total != total:
                bar.total = total
            bar.update(counts.frames - bar.n)

        yield update


@contextmanager
def _build_progress(quiet: bool) -> Iterator[Callable[[str, float], bool] | None]:
    """Progress bar of an engine that is being built; it shows up when there is one."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    bar: Any = None

    def update(phase: str, done: float) -> bool:
        nonlocal bar
        if bar is None:
            bar = tqdm(total=100, bar_format="building the engine {percentage:3.0f}%|{bar}| {elapsed} {desc}")
        bar.set_description_str(phase, refresh=False)
        bar.update(round(100 * done, 1) - bar.n)
        return True

    try:
        yield update
    finally:
        if bar is not None:
            bar.close()


def _summary(report: Report, quiet: bool) -> None:
    _warn([*report.fallbacks, *report.warnings])
    if not quiet:
        click.echo(
            f"{report.target}: {report.frames} frames in {report.seconds:.1f} s ({report.fps:.1f} fps, "
            f"{report.engine}), style {report.style}",
            err=True,
        )


# -- live


def _size(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """WIDTHxHEIGHT."""
    if value is None:
        return None
    width, _, height = value.lower().partition("x")
    if not (width.isdigit() and height.isdigit() and 32 <= int(width) <= 8192 and 32 <= int(height) <= 8192):
        raise click.BadParameter(f"{value!r} is no size; write it as 1280x720")
    return int(width), int(height)


@command.command()
@click.option("--camera", default="0", show_default=True, metavar="N|DEVICE|URL|FILE|test|browser")
@click.option("--size", callback=_size, metavar="WxH", help="Ask the camera for this size.")
@click.option("--fps", type=click.FloatRange(1, 240), help="Ask the camera for this rate.")
@click.option(
    "--style", metavar="STYLE", help="As for a file; with commas, one for each person.  [default: 42]"
)
@click.option("--faces", default="all", show_default=True, metavar="WHO", help="As for a file.")
@click.option(
    "--virtual-camera", is_flag=False, flag_value="auto", metavar="[DEVICE]", help="For video calls."
)
@click.option("--preview", is_flag=True, help="A window; the default where there is a display.")
@click.option(
    "--web", is_flag=False, flag_value="", metavar="[HOST:PORT]", help="The browser.  [127.0.0.1:8090]"
)
@click.option(
    "--allow-remote", is_flag=True, help="Let --web serve other machines; its address holds a token."
)
@click.option("--record", metavar="FILE", help="Write what is shown to a video file.")
@click.option("--mirror", is_flag=True, help="Show yourself as in a mirror.")
@_generator_options
@_onnx_options
@click.option("--paste", type=click.Choice(PASTE_MODES), default="head", show_default=True)
@click.option("--codec", metavar="NAME", help="Of --record: h264, vp9, or an FFmpeg encoder.")
@click.option(
    "--capture",
    "backend",
    type=click.Choice(["auto", "opencv", "pyav"]),
    default="auto",
    show_default=True,
    help="What reads the camera.",
)
@click.option("--seconds", type=click.FloatRange(min=0.1), help="Stop by itself after so long.")
@_face_model_option
@_report_option
@click.option("--overwrite", is_flag=True, help="Replace the --record file if it exists.")
@_common_options
def live(
    camera: str,
    size: tuple[int, int] | None,
    fps: float | None,
    style: str | None,
    faces: str,
    virtual_camera: str | None,
    preview: bool,
    web: str | None,
    allow_remote: bool,
    record: str | None,
    mirror: bool,
    weights: str | None,
    engine: str,
    device: str,
    precision: str,
    calibrate: Path | None,
    onnx_range: str | None,
    onnx_size: int | None,
    onnx_layout: Literal["nchw", "nhwc"] | None,
    paste: str,
    codec: str | None,
    backend: str,
    seconds: float | None,
    face_model: Path | None,
    report: Path | None,
    overwrite: bool,
    quiet: bool,
    debug: bool,
) -> None:
    """Translate a camera's picture as it comes: for video calls, in a window, in the browser.

    \b
    Examples:
      gnr-video live                                   webcam to a window (or the browser)
      gnr-video live --virtual-camera --preview        for a video call
      gnr-video live --web --camera browser            the browser's camera, translated here
      gnr-video live --camera clip.mp4 --record out.mp4

    Keys, in the window, the terminal and the browser: n, p next and previous style; digits and Enter a seed;
    s save; b blend; c before/after; g grid; m mirror; r record; h help; q quit.
    """
    with _errors(quiet, debug):
        if report is not None:
            _check_writable(report)
        from engines.image_model import ImageModelOptions, parse_range
        from gnr_video.live.run import LiveOptions, run_live

        done = run_live(
            LiveOptions(
                camera=camera,
                size=size,
                fps=fps,
                style=style,
                faces=faces,
                virtual_camera=virtual_camera,
                preview=preview,
                web=web,
                allow_remote=allow_remote,
                record=record,
                mirror=mirror,
                weights=weights,
                engine=engine,
                device=device,
                precision=precision,
                calibrate=calibrate,
                paste=paste,
                codec=codec,
                backend=backend,
                seconds=seconds,
                face_model=face_model,
                overwrite=overwrite,
                onnx=ImageModelOptions(
                    parse_range(onnx_range) if onnx_range else None, onnx_size, onnx_layout
                ),
            ),
            say=lambda text: None if quiet else click.echo(text, err=True),
        )
        if report is not None:
            done.write(report)


# -- training


@command.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--recipe", default="default", show_default=True, help="default, cpu, official, paper, tiny.")
@click.option("-o", "--out", type=click.Path(path_type=Path), default=Path("runs/gnr"), show_default=True)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option("--minutes", type=float, help="Stop cleanly after so long; the same command goes on later.")
@click.option("--steps", type=int, help="Stop at this step instead of the recipe's end.")
@click.option("--lr", type=float, help="Adam's learning rate instead of the recipe's.")
@click.option("--r1", type=float, help="Weight of the R1 penalty instead of the recipe's.")
@click.option("--batch", type=int, help="Images per domain and step instead of the recipe's.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--faces",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Another folder of faces for domain A, framed as trainA is. May be repeated.",
)
@click.option(
    "--ffhq-faces",
    type=click.Path(path_type=Path),
    multiple=True,
    help="The same for faces framed as FFHQ's (StyleGAN pictures); they are brought to trainA's framing.",
)
@click.option(
    "--hold-out", type=int, default=0, show_default=True, help="Images of each such folder kept for samples."
)
@click.option(
    "--cache", type=click.Path(path_type=Path), help="Folder for decoded images; quicker next start."
)
@click.option(
    "--lpips-trunk", type=click.Path(path_type=Path), help="VGG16 weights under torchvision's names."
)
@click.option("--sample-every", type=int, default=500, show_default=True)
@click.option("--log-every", type=int, default=50, show_default=True)
@click.option("--fresh", is_flag=True, help="Start over, even if --out holds a checkpoint.")
@_common_options
def train(
    data: Path,
    recipe: str,
    out: Path,
    device: str,
    minutes: float | None,
    steps: int | None,
    lr: float | None,
    r1: float | None,
    batch: int | None,
    seed: int,
    faces: Sequence[Path],
    ffhq_faces: Sequence[Path],
    hold_out: int,
    cache: Path | None,
    lpips_trunk: Path | None,
    sample_every: int,
    log_every: int,
    fresh: bool,
    quiet: bool,
    debug: bool,
) -> None:
    """Train on DATA, a folder with trainA (faces), trainB (anime) and, if there are any, testA and testB.

    \b
    Examples:
      gnr-video train selfie2anime --recipe default --minutes 30
      gnr-video train selfie2anime --ffhq-faces synthetic-faces --hold-out 100
      gnr-video train selfie2anime --recipe official --device cuda -o runs/official
      torchrun --nproc-per-node 4 -m cli train selfie2anime     four GPUs, each with the recipe's batch

    Training can be killed at any moment; the same command goes on from the last checkpoint in --out.
    """
    with _errors(quiet, debug):
        from dataclasses import replace

        import engines
        from train import distributed
        from train.data import FFHQ_FRAMING, Framing, load_dataset
        from train.one_way import trainer_class
        from train.recipes import get_recipe
        from train.trainer import tensorboard_scalars

        plan = get_recipe(recipe)
        if lr is not None:
            plan = replace(plan, lr=lr)
        if r1 is not None:
            plan = replace(plan, loss=replace(plan.loss, r1=r1))
        if batch is not None:
            plan = replace(plan, stages=tuple(replace(stage, batch=batch) for stage in plan.stages))
        extra = [(folder, Framing()) for folder in faces] + [(folder, FFHQ_FRAMING) for folder in ffhq_faces]
        images = load_dataset(data, plan.architecture.size, extra_a=extra, hold_out=hold_out, cache=cache)
        where = engines.best_device() if device == "auto" else device
        trainer = trainer_class(plan)(images, plan, out, device=where, seed=seed, lpips_trunk=lpips_trunk)

        def say(text: str) -> None:
            if not quiet and distributed.rank() == 0:
                click.echo(text, err=True)

        say(
            f"{len(images.train_a)} faces, {len(images.train_b)} anime pictures; recipe {plan.name}; on {where}"
        )
        if not fresh and trainer.resume():
            say(f"goes on from step {trainer.step} in {out}")
        try:
            trainer.run(
                minutes=minutes,
                steps=steps,
                log_every=log_every,
                sample_every=sample_every,
                progress=say,
                scalars=tensorboard_scalars(out) if distributed.rank() == 0 else None,
            )
            say(f"weights: {out / 'weights.safetensors'}")
        finally:
            distributed.leave()


# -- evaluation


@command.command()
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
@_engine_options
@_common_options
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
    debug: bool,
) -> None:
    """Measure weights, or folders of finished outputs, against the real pictures of DATA (testA, testB).

    \b
    Examples:
      gnr-video evaluate selfie2anime --quick
      gnr-video evaluate selfie2anime --weights a.safetensors --weights b.safetensors --json ab.json
      gnr-video evaluate selfie2anime --outputs cyclegan-outputs --outputs ugatit-outputs

    Without --weights and with --outputs, only the folders are measured.
    """
    with _errors(quiet, debug):
        import json
        from dataclasses import replace

        import engines
        from engines.files import write_atomically
        from engines.weights import load_weights
        from gnr_video.clips import face_run
        from gnr_video.report import hardware
        from gnr_video.weights import resolve_weights
        from train.metrics.evaluate import FULL, QUICK, Evaluator, Folder, Networks, format_table, report_json

        if json_file is not None:
            _check_writable(json_file)
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
            device=engines.best_device() if device == "auto" else device,
        )
        runs = [face_run(clip, frames=settings.clip_frames) for clip in clips if files]
        faces_for_int8 = None
        if precision == "int8":
            from gnr_video.calibration import clip_faces, sample_faces

            faces_for_int8 = clip_faces(calibrate) if calibrate else sample_faces()
        results = []
        evaluator = Evaluator(pictures, networks, settings)
        total = evaluator.units(len(tests or ()), map(len, finished), len(files), sum(map(len, runs)))
        with _stages(quiet, total) as advance:
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


@contextmanager
def _stages(quiet: bool, total: int) -> Iterator[Callable[[str], None]]:
    """Progress bar over units of work, with the name of the stage."""
    from tqdm import tqdm

    with tqdm(total=total, disable=quiet or not sys.stderr.isatty(), dynamic_ncols=True, leave=False) as bar:

        def advance(stage: str) -> None:
            bar.set_description_str(stage, refresh=False)
            bar.update()

        yield advance


# -- weights


@command.group()
def weights() -> None:
    """Import, fetch and look at weights."""


@weights.command("import")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="FILE.safetensors")
@click.option("--direction", type=click.Choice(["A2B", "B2A"]), default="A2B", show_default=True)
@click.option("--raw", is_flag=True, help="The trained weights instead of their moving average.")
@_common_options
def weights_import(
    checkpoint: Path, output: Path, direction: str, raw: bool, quiet: bool, debug: bool
) -> None:
    """Convert CHECKPOINT.pt of the official GANs N' Roses code.

    \b
    Example:
      gnr-video weights import 400000.pt -o gnr.safetensors
      gnr-video clip.mp4 --weights gnr.safetensors
    """
    with _errors(quiet, debug):
        from gnr_video.weights import describe_weights, import_checkpoint

        import_checkpoint(checkpoint, output, direction="B2A" if direction == "B2A" else "A2B", raw=raw)
        if not quiet:
            click.echo(describe_weights(output))


@weights.command("pull")
@click.argument("name", type=click.Choice(["official"]))
@_common_options
def weights_pull(name: str, quiet: bool, debug: bool) -> None:
    """Fetch released weights into the cache; then `--weights official` works."""
    with _errors(quiet, debug):
        from gnr_video.weights import describe_weights, pull_official

        def progress(done: int) -> None:
            click.echo(f"\r{done / 1e6:.0f} MB", nl=False, err=True)

        path = pull_official(None if quiet else progress)
        if not quiet:
            click.echo(f"\r{describe_weights(path)}")


@weights.command("info")
@click.argument("file", metavar="NAME|FILE", default="default")
@_common_options
def weights_info(file: str, quiet: bool, debug: bool) -> None:
    """Architecture, parameters, provenance and licence of a weights file."""
    with _errors(quiet, debug):
        from gnr_video.weights import describe_weights, resolve_weights

        click.echo(describe_weights(resolve_weights(file)))


# -- engines


@command.command()
@click.argument("file", metavar="[NAME|FILE]", default="default")
@click.option("--format", "form", type=click.Choice(EXPORTS), default="onnx", show_default=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("."),
    show_default="here",
    help="Folder for the files.",
)
@click.option(
    "--precision", type=click.Choice(("fp32", "fp16", "bf16", "int8")), default="fp32", show_default=True
)
@click.option(
    "--calibrate",
    type=click.Path(path_type=Path),
    metavar="CLIP",
    help="With --precision int8: a clip whose faces set its ranges.  [default: a sample face]",
)
@_target_option
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
@_common_options
def export(
    file: str,
    form: str,
    output: Path,
    precision: str,
    calibrate: Path | None,
    target: Sequence[str],
    overwrite: bool,
    quiet: bool,
    debug: bool,
) -> None:
    """Write the generator of a weights file as graphs for other programs: encoder and decoder apart.

    \b
    Examples:
      gnr-video export -o graphs
      gnr-video export official --format openvino --precision fp16
      gnr-video export --format tensorrt --precision fp16 --target sm89
    """
    with _errors(quiet, debug):
        from engines.export import export
        from engines.weights import load_weights
        from gnr_video.weights import resolve_weights

        calibration = None
        if precision == "int8":
            from gnr_video.calibration import clip_faces, sample_faces

            calibration = clip_faces(calibrate) if calibrate else sample_faces()
        path = resolve_weights(file)
        with _build_progress(quiet) as progress:
            written = export(
                load_weights(path),
                output,
                name=path.stem,
                form=form,
                precision=precision,
                overwrite=overwrite,
                targets=target,
                progress=progress,
                calibration=calibration,
            )
        for done in written:
            click.echo(str(done))


@command.group()
def engine() -> None:
    """Look after compiled engines."""


@engine.command("list")
@_common_options
def engine_list(quiet: bool, debug: bool) -> None:
    """What the cache holds: size, when it was built, how close it is to torch."""
    with _errors(quiet, debug):
        from engines.cache import EngineCache, describe

        cache = EngineCache()
        for entry in cache.entries():
            click.echo(describe(entry))
        if not quiet:
            click.echo(f"{len(cache.entries())} engines in {cache.folder}", err=True)


@engine.command("build")
@click.argument("file", metavar="[NAME|FILE]", default="default")
@click.option("--engine", "name", type=click.Choice(("tensorrt", "tensorrt-rtx", "torch2trt")))
@click.option("--device", default="cuda", show_default=True, help="cuda, cuda:1, ...")
@click.option("--precision", type=click.Choice(("fp16", "bf16", "fp32")), default="fp16", show_default=True)
@_target_option
@_common_options
def engine_build(
    file: str,
    name: str | None,
    device: str,
    precision: str,
    target: Sequence[str],
    quiet: bool,
    debug: bool,
) -> None:
    """Compile the engines of a weights file before they are needed. Ctrl-C stops cleanly.

    \b
    Examples:
      gnr-video engine build official
      gnr-video engine build --engine tensorrt-rtx --target sm86 --target sm120    for GPUs elsewhere
    """
    with _errors(quiet, debug), _build_progress(quiet) as progress:
        from engines.tensorrt_engine import build_ahead, create_tensorrt
        from engines.weights import load_weights
        from gnr_video.weights import resolve_weights

        if target and name not in (None, "tensorrt-rtx"):
            raise EngineError(f"{name} does not compile ahead of time", "use --engine tensorrt-rtx")
        weights = load_weights(resolve_weights(file))
        if target:
            for path in build_ahead(weights, precision, target, progress=progress):
                click.echo(str(path))
            return
        with create_tensorrt(
            weights, name=name or "tensorrt", device=device, precision=precision, progress=progress
        ) as made:
            said = f" ({made.fallback})" if made.fallback else ""
            click.echo(f"{made.name} {made.precision} on {made.device}{said}")


@engine.command("import")
@click.argument("encoder", type=click.Path(path_type=Path))
@click.argument("decoder", type=click.Path(path_type=Path))
@click.option("--weights", metavar="NAME|FILE", help="What they were made of.  [default: default]")
@click.option("--device", default="cuda", show_default=True, help="cuda, cuda:1, ...")
@click.option("--precision", type=click.Choice(("fp16", "bf16", "fp32")), default="fp16", show_default=True)
@_common_options
def engine_import(
    encoder: Path, decoder: Path, weights: str | None, device: str, precision: str, quiet: bool, debug: bool
) -> None:
    """Take engines that torch2trt saved (TRTModule state dicts); then `--engine torch2trt` runs them."""
    with _errors(quiet, debug):
        from engines.tensorrt_engine import import_engines
        from engines.weights import load_weights
        from gnr_video.weights import resolve_weights

        loaded = load_weights(resolve_weights(weights))
        for path in import_engines([encoder, decoder], loaded, precision, device=device):
            click.echo(str(path))


@engine.command("clean")
@_common_options
def engine_clean(quiet: bool, debug: bool) -> None:
    """Delete all compiled engines; they are built again when needed."""
    with _errors(quiet, debug):
        from engines.cache import EngineCache

        count, size = EngineCache().clean()
        if not quiet:
            click.echo(f"{count} engines, {size / 1e6:.1f} MB deleted", err=True)


# -- styles


@command.group()
def styles() -> None:
    """Save styles, look at them, walk through them."""


def _picture_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options of the commands that translate the face in one picture."""
    for option in reversed(
        (
            _face_model_option,
            click.option("--overwrite", is_flag=True, help="Replace the output if it exists."),
        )
    ):
        function = option(function)
    return _generator_options(function)


def _refuse_existing(target: Path, overwrite: bool) -> None:
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists already", "give --overwrite to replace it, or another -o")


def _warn(texts: Sequence[str]) -> None:
    for text in texts:
        click.secho(f"warning: {text}", fg="yellow", err=True)


@contextmanager
def _face_translator(image: Path, style: str | int, **options: Any) -> Iterator[tuple[Translator, Image]]:
    """A translator with the options of `_picture_options`, and the face in a picture as it wants it."""
    from gnr_video.source import read_image
    from gnr_video.translator import Translator

    picture = read_image(image)
    with Translator(options.pop("weights"), style, **options) as translator:
        yield translator, translator.find_face(picture)


@styles.command("save")
@click.argument("style")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="FILE.style.json")
@click.option("--weights", metavar="NAME|FILE", help="Whose style it is.  [default: default]")
@_face_model_option
@click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
@_common_options
def styles_save(
    style: str,
    output: Path,
    weights: str | None,
    face_model: Path | None,
    overwrite: bool,
    quiet: bool,
    debug: bool,
) -> None:
    """Write the code of STYLE to a file, which is a style itself then.

    \b
    Example:
      gnr-video styles save "42*0.7+ref:girl.png*0.3" -o mine.style.json
      gnr-video clip.mp4 --style mine.style.json
    """
    with _errors(quiet, debug):
        from gnr_video.style import parse_expression, parse_style, save_style

        parse_expression(style)
        _refuse_existing(output, overwrite)
        with _style_engine(weights) as engine:
            code = parse_style(style, engine, face_model=face_model)
            _warn(code.warnings)
            save_style(output, code, engine)
        if not quiet:
            click.echo(str(output), err=True)


@styles.command("show")
@click.argument("style")
@click.option("--weights", metavar="NAME|FILE", help="Whose style it is.  [default: default]")
@_face_model_option
@_common_options
def styles_show(style: str, weights: str | None, face_model: Path | None, quiet: bool, debug: bool) -> None:
    """Say what STYLE is made of: its code, its distance from the mean look, the directions it lies along."""
    with _errors(quiet, debug):
        from gnr_video.style import describe_style, parse_expression, parse_style

        parse_expression(style)
        with _style_engine(weights) as engine:
            code = parse_style(style, engine, face_model=face_model)
            _warn(code.warnings)
            click.echo(describe_style(code, engine))


def _style_engine(weights: str | None) -> Engine:
    """What turns styles into codes: the same for every engine, so the one that is there everywhere."""
    import engines
    from engines.weights import load_weights
    from gnr_video.weights import resolve_weights

    return engines.create(
        load_weights(resolve_weights(weights)), engine="torch", device="cpu", precision="fp32"
    )


@styles.command("sheet")
@click.argument("image", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="[default: IMAGE_styles.png]")
@click.option("--count", type=click.IntRange(1, 400), default=15, show_default=True)
@click.option("--first", type=int, default=0, show_default=True, help="The first seed.")
@_picture_options
@_common_options
def styles_sheet(
    image: Path,
    output: Path | None,
    count: int,
    first: int,
    overwrite: bool,
    quiet: bool,
    debug: bool,
    **options: Any,
) -> None:
    """Translate the face in IMAGE with COUNT seeds: one picture, each face with its seed written on it."""
    with _errors(quiet, debug):
        from gnr_video.sheet import save_png, style_sheet

        target = output or image.with_name(f"{image.stem}_styles.png")
        _refuse_existing(target, overwrite)
        with _face_translator(image, first, **options) as (translator, face):
            save_png(target, style_sheet(translator, face, range(first, first + count)))
        if not quiet:
            click.echo(str(target), err=True)


@styles.command("walk")
@click.argument("image", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="[default: IMAGE_walk.mp4]")
@click.option("--style", default="42", show_default=True, help="Where it starts; its seed leads it on.")
@click.option("--seconds", type=click.FloatRange(0.1, 600), default=12.0, show_default=True)
@click.option("--fps", type=click.IntRange(1, 120), default=30, show_default=True)
@click.option("--every", metavar="TIME", default="2s", show_default=True, help="From look to look.")
@click.option("--size", type=click.IntRange(64, 2048), default=512, show_default=True, help="Side, pixels.")
@_picture_options
@_common_options
def styles_walk(
    image: Path,
    output: Path | None,
    style: str,
    seconds: float,
    fps: int,
    every: str,
    size: int,
    overwrite: bool,
    quiet: bool,
    debug: bool,
    **options: Any,
) -> None:
    """A video of the face in IMAGE that walks from look to look and returns to the first (it loops)."""
    with _errors(quiet, debug):
        from gnr_video.style import parse_expression, parse_seconds
        from gnr_video.walk import write_walk

        parse_expression(style)
        pace = parse_seconds(every)
        target = output or image.with_name(f"{image.stem}_walk.mp4")
        _refuse_existing(target, overwrite)
        with _face_translator(image, style, **options) as (translator, face):
            _warn(translator.looks.warnings if translator.looks else ())
            write_walk(
                translator, face, target, seconds=seconds, fps=fps, every=pace, size=size, overwrite=overwrite
            )
        if not quiet:
            click.echo(str(target), err=True)


@command.command()
@click.argument("first", metavar="STYLE_A")
@click.argument("last", metavar="STYLE_B")
@click.argument("image", type=click.Path(path_type=Path))
@click.option("-n", "--count", type=click.IntRange(2, 64), default=8, show_default=True, help="Pictures.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="[default: IMAGE_interpolation.png]")
@_picture_options
@_common_options
def interpolate(
    first: str,
    last: str,
    image: Path,
    count: int,
    output: Path | None,
    overwrite: bool,
    quiet: bool,
    debug: bool,
    **options: Any,
) -> None:
    """A strip of pictures: the face in IMAGE from STYLE_A to STYLE_B.

    \b
    Example:
      gnr-video interpolate 42 ref:girl.png photo.jpg -n 8
    """
    with _errors(quiet, debug):
        from gnr_video.sheet import interpolation_strip, save_png
        from gnr_video.style import parse_expression

        parse_expression(first), parse_expression(last)
        target = output or image.with_name(f"{image.stem}_interpolation.png")
        _refuse_existing(target, overwrite)
        with _face_translator(image, first, **options) as (translator, face):
            save_png(target, interpolation_strip(translator, face, first, last, count))
        if not quiet:
            click.echo(str(target), err=True)


@styles.command("fit")
@click.argument("picture", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="NAME.style.json")
@click.option("--steps", type=click.IntRange(0), default=100, show_default=True)
@click.option("--lpips-trunk", type=click.Path(path_type=Path), help="Folder or file with VGG16's weights.")
@click.option("--weights", metavar="NAME|FILE", help="default, official, or a .safetensors file.")
@_face_model_option
@_common_options
def styles_fit(
    picture: Path,
    output: Path,
    steps: int,
    lpips_trunk: Path | None,
    weights: str | None,
    face_model: Path | None,
    quiet: bool,
    debug: bool,
) -> None:
    """Find the style that makes an anime PICTURE: closer than ref:PICTURE, and slower.

    \b
    Example:
      gnr-video styles fit girl.png -o girl.style.json
      gnr-video clip.mp4 --style girl.style.json
    """
    with _errors(quiet, debug):
        import engines
        from engines.weights import load_weights
        from gnr_video.style import StyleCode, read_reference, save_style
        from gnr_video.weights import resolve_weights
        from train.lpips import Lpips
        from train.metrics.style_tools import fit_style

        loaded = load_weights(resolve_weights(weights))
        target, warning = read_reference(picture, loaded.architecture.size, face_model)
        net = Lpips("vgg", lpips_trunk)
        with _stages(quiet, steps + 1) as advance:
            fitted = fit_style(loaded, target, lpips=net, steps=steps, advance=lambda: advance("fitting"))
        with engines.create(loaded, engine="torch", device="cpu") as made:
            save_style(output, StyleCode(tuple(fitted.z.tolist()), f"fitted to {picture.name}"), made)
        if warning:
            click.secho(f"warning: {picture.name}: {warning}", fg="yellow", err=True)
        if not quiet:
            click.echo(f"{output}: distance {fitted.before:.3f} -> {fitted.after:.3f}", err=True)


@styles.command("direction")
@click.argument("with_it", metavar="WITH", type=click.Path(path_type=Path))
@click.argument("without", metavar="WITHOUT", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="NAME.style.json")
@click.option("--style", default="42", show_default=True, help="The style that is changed.")
@click.option(
    "--amount", type=float, default=1.0, show_default=True, help="1: as far as the groups are apart."
)
@_generator_options
@_common_options
def styles_direction(
    with_it: Path,
    without: Path,
    output: Path,
    style: str,
    amount: float,
    weights: str | None,
    engine: str,
    device: str,
    precision: str,
    calibrate: Path | None,
    quiet: bool,
    debug: bool,
) -> None:
    """Change a style by what the anime pictures in folder WITH have and those in folder WITHOUT have not.

    \b
    Example:
      gnr-video styles direction blonde/ dark/ --style 42 --amount 1.5 -o blonde42.style.json
    """
    with _errors(quiet, debug):
        from gnr_video.style import StyleCode, save_style
        from gnr_video.translator import Translator
        from train.metrics.pictures import Folder
        from train.metrics.style_tools import attribute_direction, encode_styles

        groups = [Folder.open(folder) for folder in (with_it, without)]
        with Translator(
            weights, style, engine=engine, device=device, precision=precision, calibrate=calibrate
        ) as translator:
            codes = [encode_styles(translator.engine, group) for group in groups]
            assert translator.style is not None
            start = translator.style.array()
            if len(start) != codes[0].shape[1]:  # mixes are made in w space
                codes = [translator.engine.to_w(group) for group in codes]
            direction = attribute_direction(*codes)
            moved = direction.apply(start, amount)
            save_style(output, StyleCode(tuple(moved.tolist()), f"{style} {amount:+g}"), translator.engine)
        for note in (note for group in groups for note in group.notes()):
            click.secho(f"note: {note}", fg="yellow", err=True)
        if not quiet:
            present, absent = direction.counts
            click.echo(
                f"{output}: {present} with, {absent} without; the direction tells {direction.accuracy:.0%} apart",
                err=True,
            )


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
    # What a translation has to say stands in its summary; training has none.
    levels = {"": logging.ERROR, "gnr_video": logging.ERROR, "engines": logging.ERROR, "train": logging.INFO}
    loggers = {logging.getLogger(name): level for name, level in levels.items()}
    before = {logger: logger.level for logger in loggers}
    for logger, level in loggers.items():
        own = logging.DEBUG if debug else logging.ERROR if quiet else level
        logger.setLevel(level if logger is logging.root else own)
    try:
        with _terminable():
            yield
    except GnrVideoError as error:
        if debug:
            raise
        click.secho(f"error: {error.message}", fg="red", err=True)
        if error.hint:
            click.echo(textwrap.indent(error.hint, "  "), err=True)
        raise click.exceptions.Exit(error.exit_code) from None
    except KeyboardInterrupt as interrupt:
        below = "\n" if sys.stderr.isatty() else ""  # the terminal has written ^C
        click.echo(f"{below}stopped; nothing unfinished was left behind", err=True)
        # 128 + the signal's number, as a shell has it.
        number = signal.SIGTERM if isinstance(interrupt, _Terminated) else signal.SIGINT
        raise click.exceptions.Exit(128 + number) from None
    except BrokenPipeError:
        raise click.exceptions.Exit(141) from None
    finally:
        for logger, level in before.items():
            logger.setLevel(level)


class _Terminated(KeyboardInterrupt):
    """SIGTERM arrived."""


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does: cleanly."""

    def stop(*_: object) -> NoReturn:
        raise _Terminated

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
    try:
        command(prog_name="gnr-video")
    except KeyboardInterrupt:  # before a command has begun, or after it has ended
        raise SystemExit(128 + signal.SIGINT) from None


if __name__ == "__main__":
    main()
