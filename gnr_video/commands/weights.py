"""gnr-video weights: import, fetch and look at weights."""

from __future__ import annotations

from pathlib import Path

import click

from gnr_video.commands.options import common_options


@click.group()
def weights() -> None:
    """Import, fetch and look at weights."""


@weights.command("import")
@common_options
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="FILE.safetensors")
@click.option("--direction", type=click.Choice(["A2B", "B2A"]), default="A2B", show_default=True)
@click.option("--raw", is_flag=True, help="The trained weights instead of their moving average.")
def weights_import(checkpoint: Path, output: Path, direction: str, raw: bool, quiet: bool) -> None:
    """Convert CHECKPOINT.pt of the official GANs N' Roses code.

    \b
    Example:
      gnr-video weights import 400000.pt -o gnr.safetensors
      gnr-video clip.mp4 --weights gnr.safetensors
    """
    from gnr_video.checkpoints import describe_weights, import_checkpoint

    import_checkpoint(checkpoint, output, direction="B2A" if direction == "B2A" else "A2B", raw=raw)
    if not quiet:
        click.echo(describe_weights(output))


@weights.command("pull")
@common_options
@click.argument("name", type=click.Choice(["official"]))
def weights_pull(name: str, quiet: bool) -> None:
    """Fetch released weights into the cache; then `--weights official` works."""
    from gnr_video.checkpoints import describe_weights, pull_official

    def progress(done: int) -> None:
        click.echo(f"\r{done / 1e6:.0f} MB", nl=False, err=True)

    path = pull_official(None if quiet else progress)
    if not quiet:
        click.echo(f"\r{describe_weights(path)}")


@weights.command("info")
@common_options
@click.argument("file", metavar="NAME|FILE", default="default")
def weights_info(file: str, quiet: bool) -> None:
    """Architecture, parameters, provenance and licence of a weights file."""
    from gnr_video.checkpoints import describe_weights, resolve_weights

    click.echo(describe_weights(resolve_weights(file)))
