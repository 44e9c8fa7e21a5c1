"""gnr-video styles fit and direction: styles found with what training has."""

from __future__ import annotations

from pathlib import Path

import click

from gnr_video.commands.options import (
    common_options,
    engine_options,
    face_model_option,
    weights_option,
)
from gnr_video.commands.progress import stages
from gnr_video.options import EngineOptions


@click.command("fit")
@common_options
@click.argument("picture", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="NAME.style.json")
@click.option("--steps", type=click.IntRange(0), default=100, show_default=True)
@click.option("--lpips-trunk", type=click.Path(path_type=Path), help="Folder or file with VGG16's weights.")
@click.option("--weights", metavar="NAME|FILE", help="default, official, or a .safetensors file.")
@face_model_option
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


@click.command("direction")
@common_options
@click.argument("with_it", metavar="WITH", type=click.Path(path_type=Path))
@click.argument("without", metavar="WITHOUT", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="NAME.style.json")
@click.option("--style", default="42", show_default=True, help="The style that is changed.")
@click.option(
    "--amount", type=float, default=1.0, show_default=True, help="1: as far as the groups are apart."
)
@weights_option
@engine_options
def styles_direction(
    with_it: Path,
    without: Path,
    output: Path,
    style: str,
    amount: float,
    weights: str | None,
    engine: EngineOptions,
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
    with Translator(weights, style, engine=engine) as translator:
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
