"""gnr-video live: a camera, translated as it comes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from gnr_video.commands.options import (
    check_writable,
    common_options,
    effect_options,
    face_model_option,
    generator_options,
    onnx_options,
    paste_option,
    report_option,
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
@click.option("--camera", default="0", show_default=True, metavar="N|DEVICE|URL|FILE|test|browser")
@click.option("--size", callback=_size, metavar="WxH", help="Ask the camera for this size.")
@click.option("--fps", type=click.FloatRange(1, 240), help="Ask the camera for this rate.")
@click.option(
    "--style", metavar="STYLE", help="As for a file; with commas, one for each person.  [default: 42]"
)
@click.option("--faces", default="all", show_default=True, metavar="WHO", help="As for a file.")
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
@click.option("--record", metavar="FILE", help="Write what is shown to a video file.")
@click.option("--mirror", is_flag=True, help="Show yourself as in a mirror.")
@generator_options
@onnx_options
@paste_option
@effect_options
@click.option(
    "--hold",
    type=click.IntRange(1, 12),
    metavar="N",
    help="As for a file.  [default: as few as keep up with the camera, 3 at most]",
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
@click.option("--seconds", type=click.FloatRange(min=0.1), help="Stop by itself after so long.")
@face_model_option
@report_option
@click.option("--overwrite", is_flag=True, help="Replace the --record file if it exists.")
@common_options
def live(
    camera: str,
    size: tuple[int, int] | None,
    fps: float | None,
    style: str | None,
    faces: str,
    virtual_camera: str | None,
    preview: bool,
    web: str | None,
    allow_remote: bool,
    record: str | None,
    mirror: bool,
    weights: str | None,
    engine: str,
    device: str,
    precision: str,
    calibrate: Path | None,
    onnx_range: str | None,
    onnx_size: int | None,
    onnx_layout: Literal["nchw", "nhwc"] | None,
    paste: str,
    effects: dict[str, bool | None],
    hold: int | None,
    codec: str | None,
    backend: str,
    seconds: float | None,
    face_model: Path | None,
    report: Path | None,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Translate a camera's picture as it comes: for video calls, in a window, in the browser.

    \b
    Examples:
      gnr-video live                                   webcam to a window (or the browser)
      gnr-video live --virtual-camera --preview        for a video call
      gnr-video live --web --camera browser            a page: the browser's camera, and dropped files
      gnr-video live --camera clip.mp4 --record out.mp4

    Keys, in the window, the terminal and the browser: n, p next and previous style; digits and Enter a seed;
    s save; b blend; c before/after; g grid; m mirror; r record; h help, with the keys of effects; q quit.
    """
    if report is not None:
        check_writable(report)
    from engines.image_model import ImageModelOptions, parse_range
    from gnr_video.live.run import LiveOptions, run_live

    done = run_live(
        LiveOptions(
            camera=camera,
            size=size,
            fps=fps,
            style=style,
            faces=faces,
            virtual_camera=virtual_camera,
            preview=preview,
            web=web,
            allow_remote=allow_remote,
            record=record,
            mirror=mirror,
            weights=weights,
            engine=engine,
            device=device,
            precision=precision,
            calibrate=calibrate,
            paste=paste,
            effects=effects,
            hold=hold,
            codec=codec,
            backend=backend,
            seconds=seconds,
            face_model=face_model,
            overwrite=overwrite,
            onnx=ImageModelOptions(parse_range(onnx_range) if onnx_range else None, onnx_size, onnx_layout),
        ),
        say=lambda text: None if quiet else click.echo(text, err=True),
    )
    if report is not None:
        done.write(report)
