"""gnr-video doctor: the installation, checked."""

from __future__ import annotations

import click

from gnr_video.commands.options import common_options


@click.command()
@common_options
def doctor(quiet: bool) -> None:
    """Check versions, devices, engines, encoders and MediaPipe's models; say how to mend what is missing."""
    from gnr_video.doctor import run_doctor
    from gnr_video.doctor.check import format_checks, healthy

    checks = run_doctor()
    if not quiet:
        click.echo(format_checks(checks))
    if not healthy(checks):
        raise click.exceptions.Exit(1)
