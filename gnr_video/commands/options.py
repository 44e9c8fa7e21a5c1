"""Options that several commands share, and the checks of the files they name."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeAlias

import click

from engines.errors import OutputError
from gnr_video.commands.runner import reported
from gnr_video.effects import EFFECTS
from gnr_video.options import EngineOptions, LookOptions

Decorator: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]

PASTE_MODES = ("head", "face", "square", "crop", "side-by-side")
ENGINES = ("auto", "torch", "openvino", "onnx", "tensorrt", "tensorrt-rtx", "torch2trt")
PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8")


def grouped(parameter: str, make: Callable[..., Any], *options: Decorator) -> Decorator:
    """A decorator: the command takes `parameter`, what `make` makes of the values of `options`, instead of those."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        names: list[str] = []

        @wraps(function)
        def gathering(**values: Any) -> Any:
            return function(**{parameter: make(**{name: values.pop(name) for name in names})}, **values)

        command: Callable[..., Any] = gathering
        known = list(getattr(command, "__click_params__", ()))
        for option in reversed(options):
            command = option(command)
        names += [one.name for one in command.__click_params__ if one not in known]  # type: ignore[attr-defined]
        return command

    return decorate


def _engine(**values: Any) -> EngineOptions:
    asked = {name: values.pop(f"onnx_{name}", None) for name in ("range", "size", "layout")}
    onnx = None
    if any(value is not None for value in asked.values()):
        from engines.image_model import ImageModelOptions, parse_range

        limits = parse_range(asked["range"]) if asked["range"] else None
        onnx = ImageModelOptions(limits, asked["size"], asked["layout"])
    return EngineOptions(**values, onnx=onnx)


_ENGINE_OPTIONS = (
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
_ONNX_OPTIONS = (
    click.option(
        "--onnx-range",
        metavar="LOW,HIGH",
        help="Values of black and white in an .onnx file, such as -1,1.  [default: found out]",
    ),
    click.option("--onnx-size", type=click.IntRange(min=16), help="Side of its pictures, pixels."),
    click.option("--onnx-layout", type=click.Choice(("nchw", "nhwc"))),
)

engine_options = grouped("engine", _engine, *_ENGINE_OPTIONS)
"""How generators are run: the command takes `engine`, `EngineOptions`."""
any_engine_options = grouped("engine", _engine, *_ENGINE_OPTIONS, *_ONNX_OPTIONS)
"""The same, and what a foreign ONNX file does not say of itself."""
weights_option = click.option(
    "--weights",
    metavar="NAME|FILE",
    help="default, official, a .safetensors file, or any image-to-image .onnx file.  [default: default]",
)


def target_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--target",
        multiple=True,
        metavar="SM",
        help="Compile for a GPU that is not here, with TensorRT for RTX: sm75, sm80, sm86, sm89, sm120.",
    )(function)


face_model_option = click.option(
    "--face-model", type=click.Path(path_type=Path), help="MediaPipe's face_landmarker.task."
)
paste_option = click.option(
    "--paste",
    type=click.Choice(PASTE_MODES),
    default="head",
    show_default=True,
    help="head: with its hair. face: its oval only. square: the whole crop. crop: nothing but that. "
    "side-by-side: before and after.",
)


faces_option = click.option(
    "--faces",
    default="all",
    show_default=True,
    metavar="WHO",
    help="all, largest, left, right, a number, or id:K, the K-th to appear (from 0).",
)


background_option = click.option(
    "--background",
    default="keep",
    show_default=True,
    metavar="WHAT",
    help="Behind people: keep, blur, key (a green screen), transparent, a colour (white, #00ff00) or a picture.",
)


def private_option(default: bool) -> Decorator:
    return click.option(
        "--private/--no-private",
        default=default,
        show_default=True,
        help="Never show a bare face: lost ones keep their drawing, others are covered.",
    )


def look_options(*others: Decorator) -> Decorator:
    """Whose faces are drawn and how: the command takes `look`, `LookOptions`. Every effect has an option.

    Args:
        others: options of further fields of `LookOptions`.
    """

    def make(**values: Any) -> LookOptions:
        effects = {name: values.pop(name.replace("-", "_")) for name in (one.name for one in EFFECTS)}
        return LookOptions(**values, effects=effects)

    switches = (
        click.option(
            f"--{one.name}/--no-{one.name}", default=None, help=f"{one.help}  [default: {one.by_itself}]"
        )
        for one in EFFECTS
    )
    return grouped(
        "look", make, faces_option, paste_option, background_option, *switches, *others, face_model_option
    )


report_option = click.option(
    "--report", type=click.Path(path_type=Path), metavar="FILE.json", help="Write times and settings."
)


def picture_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options of the commands that translate the face in one picture."""
    for option in reversed(
        (
            face_model_option,
            click.option("--overwrite", is_flag=True, help="Replace the output if it exists."),
        )
    ):
        function = option(function)
    return weights_option(engine_options(function))


def common_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """--quiet and --debug, last in the help. The command is told `quiet`; both decide how what happens is reported.

    It stands above all other options: what goes wrong in making objects of those is reported as well.
    """

    @wraps(function)
    def run(*, quiet: bool, debug: bool, **options: Any) -> None:
        with reported(quiet, debug):
            function(quiet=quiet, **options)

    own = (
        click.Option(["--debug"], is_flag=True, help="Log every step; errors with a traceback."),
        click.Option(["-q", "--quiet"], is_flag=True, help="Only errors."),
    )
    run.__click_params__ = [*own, *getattr(function, "__click_params__", ())]  # type: ignore[attr-defined]
    return run


def check_writable(report: Path) -> None:
    """Find out before the work is done, not after, whether its report can be written."""
    hint = "check the folder and its permissions"
    try:
        report.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write the report {report}: {error.strerror}", hint) from error
    if report.is_dir() or not os.access(report.parent, os.W_OK):
        raise OutputError(f"cannot write the report {report}", hint)


def refuse_existing(target: Path, overwrite: bool) -> None:
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists already", "give --overwrite to replace it, or another -o")
