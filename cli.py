"""The gnr-video command: it joins gnr_video/commands and train/commands; a first argument that is none is an input."""

from __future__ import annotations

import signal

import click

from engines.errors import leaving
from gnr_video._version import __version__
from gnr_video.commands import doctor, engine, live, serve, styles, translate, weights
from train.commands import evaluate, prepare, train
from train.commands import styles as fitted_styles

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


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


@click.group(cls=_Group, context_settings=CONTEXT, epilog=translate.EXAMPLES, invoke_without_command=True)
@click.version_option(__version__, prog_name="gnr-video")
@click.pass_context
def command(ctx: click.Context) -> None:
    """Turn the face in a video into an anime face that follows it.

    `gnr-video translate --help` lists the options of a translation.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


for _subcommand in (
    translate.translate,
    live.live,
    serve.serve,
    prepare.prepare,
    train.train,
    evaluate.evaluate,
    weights.weights,
    engine.export,
    engine.engine,
    styles.styles,
    styles.interpolate,
    doctor.doctor,
):
    command.add_command(_subcommand)
for _subcommand in (fitted_styles.styles_fit, fitted_styles.styles_direction):
    styles.styles.add_command(_subcommand)


def main() -> None:
    """Entry point of the `gnr-video` command."""
    with leaving():
        try:
            command(prog_name="gnr-video")
        except KeyboardInterrupt:  # before a command has begun, or after it has ended
            raise SystemExit(128 + signal.SIGINT) from None


if __name__ == "__main__":
    main()
