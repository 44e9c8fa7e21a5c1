"""gnr-video styles and interpolate: styles saved, shown, walked through."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gnr_video.commands.options import (
    common_options,
    face_model_option,
    picture_options,
    refuse_existing,
)
from gnr_video.commands.progress import warn
from gnr_video.options import EngineOptions, LookOptions

if TYPE_CHECKING:
    from engines.base import Engine
    from gnr_video.still import StillFace
    from gnr_video.translator import Translator


@click.group()
def styles() -> None:
    """Save styles, look at them, walk through them."""


@contextmanager
def _still_face(
    image: Path, style: str | int, *, weights: str | None, engine: EngineOptions, face_model: Path | None
) -> Iterator[tuple[Translator, StillFace]]:
    """A translator with the options of `picture_options`, and the face in a picture."""
    from gnr_video.media.image_files import read_image
    from gnr_video.still import StillFace
    from gnr_video.translator import Translator

    picture = read_image(image)
    with Translator(weights, style, engine=engine, look=LookOptions(face_model=face_model)) as translator:
        yield translator, StillFace(translator, picture)


@styles.command("save")
@common_options
@click.argument("style")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="FILE.style.json")
@click.option("--weights", metavar="NAME|FILE", help="Whose style it is.  [default: default]")
@face_model_option
@click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
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
@common_options
@click.argument("style")
@click.option("--weights", metavar="NAME|FILE", help="Whose style it is.  [default: default]")
@face_model_option
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
@common_options
@click.argument("image", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="[default: IMAGE_styles.png]")
@click.option("--count", type=click.IntRange(1, 400), default=15, show_default=True)
@click.option("--first", type=int, default=0, show_default=True, help="The first seed.")
@picture_options
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
    with _still_face(image, first, **options) as (translator, face):
        seeds = range(first, first + count)
        save_png(target, style_sheet(face, [translator.parse(seed) for seed in seeds]))
    if not quiet:
        click.echo(str(target), err=True)


@styles.command("walk")
@common_options
@click.argument("image", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="[default: IMAGE_walk.mp4]")
@click.option("--style", default="42", show_default=True, help="Where it starts; its seed leads it on.")
@click.option("--seconds", type=click.FloatRange(0.1, 600), default=12.0, show_default=True)
@click.option("--fps", type=click.IntRange(1, 120), default=30, show_default=True)
@click.option("--every", metavar="TIME", default="2s", show_default=True, help="From look to look.")
@click.option("--size", type=click.IntRange(64, 2048), default=512, show_default=True, help="Side, pixels.")
@picture_options
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
    with _still_face(image, style, **options) as (translator, face):
        assert translator.looks is not None  # there is a style
        warn(translator.looks.warnings)
        write_walk(
            face,
            translator.looks,
            target,
            seconds=seconds,
            fps=fps,
            every=pace,
            size=size,
            overwrite=overwrite,
        )
    if not quiet:
        click.echo(str(target), err=True)


@click.command()
@common_options
@click.argument("first", metavar="STYLE_A")
@click.argument("last", metavar="STYLE_B")
@click.argument("image", type=click.Path(path_type=Path))
@click.option("-n", "--count", type=click.IntRange(2, 64), default=8, show_default=True, help="Pictures.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="[default: IMAGE_interpolation.png]")
@picture_options
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
    with _still_face(image, first, **options) as (translator, face):
        strip = interpolation_strip(face, translator.parse(first), translator.parse(last), count)
        save_png(target, strip)
    if not quiet:
        click.echo(str(target), err=True)
