"""gnr-video live: a camera, translated as it comes."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from gnr_video.commands.options import (
    any_engine_options,
    check_writable,
    common_options,
    look_options,
    private_option,
    report_option,
    weights_option,
)


def _size(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """WIDTHxHEIGHT."""
    if value is None:
        return None
    width, _, height = value.lower().partition("x")
    if not (width.isdigit() and height.isdigit() and 32 <= int(width) <= 8192 and 32 <= int(height) <= 8192):
        raise click.BadParameter(f"{value!r} is no size; write it as 1280x720")
    return int(width), int(height)


@click.command()
@common_options
@click.option("--camera", default="0", show_default=True, metavar="N|DEVICE|URL|FILE|sample|test|browser")
@click.option("--size", callback=_size, metavar="WxH", help="Ask the camera for this size.")
@click.option("--fps", type=click.FloatRange(1, 240), help="Ask the camera for this rate.")
@click.option(
    "--style", metavar="STYLE", help="As for a file; with commas, one for each person.  [default: 42]"
)
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
@click.option("--no-token", is_flag=True, help="Let every user of this machine open the page.")
@click.option("--open/--no-open", "open_page", default=True, help="Open the page in your browser.")
@click.option("--stun", metavar="stun:HOST:PORT", help="For WebRTC between networks; none is asked else.")
@click.option("--record", metavar="FILE", help="Write what is shown to a video file.")
@click.option(
    "--microphone",
    is_flag=False,
    flag_value="auto",
    metavar="[DEVICE|default|none]",
    help="Sound in step with the picture; a file as camera has its own.",
)
@click.option(
    "--virtual-microphone", is_flag=True, help="For video calls: the sound, as late as the picture. [Linux]"
)
@click.option("--mirror", is_flag=True, help="Show yourself as in a mirror.")
@weights_option
@any_engine_options
@look_options(
    private_option(True),
    click.option(
        "--hold",
        type=click.IntRange(1, 12),
        metavar="N",
        help="As for a file.  [default: as few as keep up with the camera, 3 at most]",
    ),
)
@click.option("--codec", metavar="NAME", help="Of --record: h264, vp9, or an FFmpeg encoder.")
@click.option(
    "--capture",
    "backend",
    type=click.Choice(["auto", "opencv", "pyav"]),
    default="auto",
    show_default=True,
    help="What reads the camera.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.1),
    help="Stop by itself after so long, from the first picture on.",
)
@report_option
@click.option("--overwrite", is_flag=True, help="Replace the --record file if it exists.")
def live(report: Path | None, quiet: bool, **values: Any) -> None:
    """Translate a camera's picture as it comes: for video calls, in a window, in the browser.

    \b
    Examples:
      gnr-video live                                   webcam to a window (or the browser)
      gnr-video live --virtual-camera --preview        for a video call
      gnr-video live --web --camera browser            a page: the browser's camera, and dropped files
      gnr-video live --camera clip.mp4 --record out.mp4

    --web prints two addresses: yours, and one for people who see the picture and change nothing.

    Keys, in the window, the terminal and the browser: n, p next and previous style; s save; 1 to 9, 0 recall; a point,
    digits and Enter a seed; b blend; c before/after; g grid; m mirror; space still; x cover; r record; h help, with the
    keys of effects; q quit.
    """
    if report is not None:
        check_writable(report)
    from gnr_video.live.run import LiveOptions, run_live

    def say(text: str) -> None:
        # A terminal that was closed takes nothing any more; the session ends as it should all the same.
        with suppress(OSError):
            click.echo(text, err=True)

    done = run_live(LiveOptions(**values), say=(lambda text: None) if quiet else say)
    if report is not None:
        done.report.write(report)
    if done.failure is not None:
        raise done.failure
