"""gnr-video engine and export: compiled engines, and graphs for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from engines.errors import EngineError
from gnr_video.commands.options import common_options, target_option
from gnr_video.commands.progress import build_progress

if TYPE_CHECKING:
    from engines.onnx_export import Side

EXPORTS = ("onnx", "openvino", "tensorrt", "torch2trt")


@click.command()
@common_options
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
@click.option(
    "--side",
    metavar="PIXELS|any",
    help="Side of the pictures; any: not fixed (onnx, openvino).  [default: the weights', 256]",
)
@target_option
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
def export(
    file: str,
    form: str,
    output: Path,
    precision: str,
    calibrate: Path | None,
    side: str | None,
    target: Sequence[str],
    overwrite: bool,
    quiet: bool,
) -> None:
    """Write the generator of a weights file as graphs for other programs: encoder and decoder apart.

    \b
    Examples:
      gnr-video export -o graphs
      gnr-video export official --format openvino --precision fp16
      gnr-video export --format tensorrt --precision fp16 --target sm89
    """
    from engines.export import export
    from engines.weights import load_weights
    from gnr_video.checkpoints import resolve_weights

    calibration = None
    if precision == "int8":
        from gnr_video.samples.calibration import calibration_faces

        calibration = calibration_faces(calibrate)
    path = resolve_weights(file)
    with build_progress(quiet) as progress:
        written = export(
            load_weights(path),
            output,
            name=path.stem,
            form=form,
            precision=precision,
            side=_side(side),
            overwrite=overwrite,
            targets=target,
            progress=progress,
            calibration=calibration,
        )
    for done in written:
        click.echo(str(done))


def _side(text: str | None) -> Side:
    if text is None or text == "any":
        return text  # type: ignore[return-value]
    if not text.isdecimal():
        raise click.BadParameter(f"{text!r} is neither a number of pixels nor any", param_hint="--side")
    return int(text)


@click.group()
def engine() -> None:
    """Look after compiled engines."""


@engine.command("list")
@common_options
def engine_list(quiet: bool) -> None:
    """What the cache holds: size, when it was built, for which crops, how close it is to torch."""
    from engines.cache import EngineCache, describe

    cache = EngineCache()
    entries = cache.entries()
    for entry in entries:
        click.echo(describe(entry))
    if not quiet:
        click.echo(f"{len(entries)} engines in {cache.folder}", err=True)


@engine.command("build")
@common_options
@click.argument("file", metavar="[NAME|FILE]", default="default")
@click.option("--engine", "name", type=click.Choice(("tensorrt", "tensorrt-rtx", "torch2trt")))
@click.option("--device", default="cuda", show_default=True, help="cuda, cuda:1, ...")
@click.option("--precision", type=click.Choice(("fp16", "bf16", "fp32")), default="fp16", show_default=True)
@click.option(
    "--side",
    type=click.IntRange(min=16),
    multiple=True,
    metavar="PIXELS",
    help="Side of the crops; may be repeated.  [default: of faces and of whole heads, 256 and 320]",
)
@target_option
def engine_build(
    file: str,
    name: str | None,
    device: str,
    precision: str,
    side: Sequence[int],
    target: Sequence[str],
    quiet: bool,
) -> None:
    """Compile the engines of a weights file before they are needed. Ctrl-C stops cleanly.

    \b
    Examples:
      gnr-video engine build official
      gnr-video engine build --engine tensorrt-rtx --target sm86 --target sm120    for GPUs elsewhere
    """
    with build_progress(quiet) as progress:
        from engines.tensorrt_ahead import build_ahead
        from engines.tensorrt_engine import create_tensorrt
        from engines.weights import load_weights
        from gnr_video.checkpoints import resolve_weights
        from gnr_video.tracking.alignment import head_side

        if target and name not in (None, "tensorrt-rtx"):
            raise EngineError(f"{name} does not compile ahead of time", "use --engine tensorrt-rtx")
        weights = load_weights(resolve_weights(file))
        a = weights.architecture
        sides = side or [s for s in (a.size, head_side(a.size)) if a.fits(s)]
        if target:
            for path in build_ahead(weights, precision, target, sides=sides, progress=progress):
                click.echo(str(path))
            return
        for s in sides:
            with create_tensorrt(
                weights,
                name=name or "tensorrt",
                device=device,
                precision=precision,
                side=s,
                progress=progress,
            ) as made:
                said = f" ({made.fallback})" if made.fallback else ""
                click.echo(f"{made.name} {made.precision} on {made.device}, crops of {s}x{s}{said}")


@engine.command("import")
@common_options
@click.argument("encoder", type=click.Path(path_type=Path))
@click.argument("decoder", type=click.Path(path_type=Path))
@click.option("--weights", metavar="NAME|FILE", help="What they were made of.  [default: default]")
@click.option("--device", default="cuda", show_default=True, help="cuda, cuda:1, ...")
@click.option("--precision", type=click.Choice(("fp16", "bf16", "fp32")), default="fp16", show_default=True)
def engine_import(
    encoder: Path, decoder: Path, weights: str | None, device: str, precision: str, quiet: bool
) -> None:
    """Take engines that torch2trt saved (TRTModule state dicts); then `--engine torch2trt` runs them."""
    from engines.tensorrt_ahead import import_engines
    from engines.weights import load_weights
    from gnr_video.checkpoints import resolve_weights

    loaded = load_weights(resolve_weights(weights))
    for path in import_engines([encoder, decoder], loaded, precision, device=device):
        click.echo(str(path))


@engine.command("clean")
@common_options
def engine_clean(quiet: bool) -> None:
    """Delete all compiled engines; they are built again when needed."""
    from engines.cache import EngineCache

    count, size = EngineCache().clean()
    if not quiet:
        click.echo(f"{count} engines, {size / 1e6:.1f} MB deleted", err=True)
