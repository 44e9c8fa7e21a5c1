"""gnr-video styles and interpolate: styles saved, shown, walked through, fitted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gnr_video.commands.options import (
    common_options,
    face_model_option,
    generator_options,
    picture_options,
    refuse_existing,
)
from gnr_video.commands.progress import stages, warn

if TYPE_CHECKING:
    from engines.base import Engine
    from gnr_video.frame import Image
    from gnr_video.translator import Translator


@click.group()
def styles() -> None:
    """Save styles, look at them, walk through them."""


@contextmanager
def _face_translator(image: Path, style: str | int, **options: Any) -> Iterator[tuple[Translator, Image]]:
    """A translator with the options of `picture_options`, and the face in a picture as it wants it."""
    from gnr_video.media.images import read_image
    from gnr_video.translator import Translator

    picture = read_image(image)
    with Translator(options.pop("weights"), style, **options) as translator:
        yield translator, translator.find_face(picture)


@styles.command("save")
@click.argument("style")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="FILE.style.json")
@click.option("--weights", metavar="NAME|FILE", help="Whose style it is.  [default: default]")
@face_model_option
@click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
@common_options
def styles_save(
    style: str,
    output: Path,
    weights: str | None,
    face_model: Path | None,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Write the code of STYLE to a file, which is a style itself then.

    \b
    Example:
      gnr-video styles save "42*0.7+ref:girl.png*0.3" -o mine.style.json
      gnr-video clip.mp4 --style mine.style.json
    """
    from gnr_video.styles.grammar import parse_expression
    from gnr_video.styles.looks import parse_style
    from gnr_video.styles.saved import save_style

    parse_expression(style)
    refuse_existing(output, overwrite)
    with _style_engine(weights) as engine:
        code = parse_style(style, engine, face_model=face_model)
        warn(code.warnings)
        save_style(output, code, engine)
    if not quiet:
        click.echo(str(output), err=True)


@styles.command("show")
@click.argument("style")
@click.option("--weights", metavar="NAME|FILE", help="Whose style it is.  [default: default]")
@face_model_option
@common_options
def styles_show(style: str, weights: str | None, face_model: Path | None, quiet: bool) -> None:
    """Say what STYLE is made of: its code, its distance from the mean look, the directions it lies along."""
    from gnr_video.styles.grammar import parse_expression
    from gnr_video.styles.looks import describe_style, parse_style

    parse_expression(style)
    with _style_engine(weights) as engine:
        code = parse_style(style, engine, face_model=face_model)
        warn(code.warnings)
        click.echo(describe_style(code, engine))


def _style_engine(weights: str | None) -> Engine:
    """What turns styles into codes: the same for every engine, so the one that is there everywhere."""
    import engines
    from engines.weights import load_weights
    from gnr_video.checkpoints import resolve_weights

    return engines.create(
        load_weights(resolve_weights(weights)), engine="torch", device="cpu", precision="fp32"
    )


@styles.command("sheet")
@click.argument("image", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="[default: IMAGE_styles.png]")
@click.option("--count", type=click.IntRange(1, 400), default=15, show_default=True)
@click.option("--first", type=int, default=0, show_default=True, help="The first seed.")
@picture_options
@common_options
def styles_sheet(
    image: Path,
    output: Path | None,
    count: int,
    first: int,
    overwrite: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Translate the face in IMAGE with COUNT seeds: one picture, each face with its seed written on it."""
    from gnr_video.contact_sheet import save_png, style_sheet

    target = output or image.with_name(f"{image.stem}_styles.png")
    refuse_existing(target, overwrite)
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
@picture_options
@common_options
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
    **options: Any,
) -> None:
    """A video of the face in IMAGE that walks from look to look and returns to the first (it loops)."""
    from gnr_video.style_walk import write_walk
    from gnr_video.styles.grammar import parse_expression, parse_seconds

    parse_expression(style)
    pace = parse_seconds(every)
    target = output or image.with_name(f"{image.stem}_walk.mp4")
    refuse_existing(target, overwrite)
    with _face_translator(image, style, **options) as (translator, face):
        warn(translator.looks.warnings if translator.looks else ())
        write_walk(
            translator, face, target, seconds=seconds, fps=fps, every=pace, size=size, overwrite=overwrite
        )
    if not quiet:
        click.echo(str(target), err=True)


@click.command()
@click.argument("first", metavar="STYLE_A")
@click.argument("last", metavar="STYLE_B")
@click.argument("image", type=click.Path(path_type=Path))
@click.option("-n", "--count", type=click.IntRange(2, 64), default=8, show_default=True, help="Pictures.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="[default: IMAGE_interpolation.png]")
@picture_options
@common_options
def interpolate(
    first: str,
    last: str,
    image: Path,
    count: int,
    output: Path | None,
    overwrite: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """A strip of pictures: the face in IMAGE from STYLE_A to STYLE_B.

    \b
    Example:
      gnr-video interpolate 42 ref:girl.png photo.jpg -n 8
    """
    from gnr_video.contact_sheet import interpolation_strip, save_png
    from gnr_video.styles.grammar import parse_expression

    parse_expression(first), parse_expression(last)
    target = output or image.with_name(f"{image.stem}_interpolation.png")
    refuse_existing(target, overwrite)
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
@face_model_option
@common_options
def styles_fit(
    picture: Path,
    output: Path,
    steps: int,
    lpips_trunk: Path | None,
    weights: str | None,
    face_model: Path | None,
    quiet: bool,
) -> None:
    """Find the style that makes an anime PICTURE: closer than ref:PICTURE, and slower.

    \b
    Example:
      gnr-video styles fit girl.png -o girl.style.json
      gnr-video clip.mp4 --style girl.style.json
    """
    import engines
    from engines.weights import load_weights
    from gnr_video.checkpoints import resolve_weights
    from gnr_video.styles.code import StyleCode
    from gnr_video.styles.reference import read_reference
    from gnr_video.styles.saved import save_style
    from train.lpips import Lpips
    from train.metrics.style_tools import fit_style

    loaded = load_weights(resolve_weights(weights))
    target, warning = read_reference(picture, loaded.architecture.size, face_model)
    net = Lpips("vgg", lpips_trunk)
    with stages(quiet, steps + 1) as advance:
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
@generator_options
@common_options
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
) -> None:
    """Change a style by what the anime pictures in folder WITH have and those in folder WITHOUT have not.

    \b
    Example:
      gnr-video styles direction blonde/ dark/ --style 42 --amount 1.5 -o blonde42.style.json
    """
    from gnr_video.styles.code import StyleCode
    from gnr_video.styles.saved import save_style
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
