"""Options that several commands share, and the checks of the files they name."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from engines.errors import OutputError
from gnr_video.commands.runner import reported

PASTE_MODES = ("head", "face", "square", "crop", "side-by-side")
ENGINES = ("auto", "torch", "openvino", "onnx", "tensorrt", "tensorrt-rtx", "torch2trt")
PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8")


def generator_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options of every command that runs one generator."""
    return click.option(
        "--weights",
        metavar="NAME|FILE",
        help="default, official, a .safetensors file, or any image-to-image .onnx file.  [default: default]",
    )(engine_options(function))


def engine_options(function: Callable[..., Any]) -> Callable[..., Any]:
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


def onnx_options(function: Callable[..., Any]) -> Callable[..., Any]:
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


def effect_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """An option for each effect; the command takes `effects`: name -> whether it is on, None: by itself."""
    from gnr_video.effects import EFFECTS

    names = {effect.name.replace("-", "_"): effect.name for effect in EFFECTS}

    @wraps(function)
    def command(*arguments: Any, **values: Any) -> Any:
        effects = {name: values.pop(parameter) for parameter, name in names.items()}
        return function(*arguments, effects=effects, **values)

    for effect in reversed(EFFECTS):
        text = f"{effect.help}  [default: {effect.by_itself}]"
        command = click.option(f"--{effect.name}/--no-{effect.name}", default=None, help=text)(command)
    return command


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
    return generator_options(function)


def common_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """--quiet and --debug. The command itself is told `quiet`; both decide how what happens is reported."""

    @click.option("-q", "--quiet", is_flag=True, help="Only errors.")
    @click.option("--debug", is_flag=True, help="Log every step; errors with a traceback.")
    @wraps(function)
    def run(*, quiet: bool, debug: bool, **options: Any) -> None:
        with reported(quiet, debug):
            function(quiet=quiet, **options)

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
