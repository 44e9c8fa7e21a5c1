"""The demonstration: makes a clip out of a portrait, translates it, and puts both on a sheet.

python -m gnr_video.demo out/
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from engines.errors import GnrVideoError, OutputError
from gnr_video.samples.portrait import make_demo_clip

STYLE = "42"


def run_demo(folder: str | Path, *, style: str = STYLE) -> str:
    """Make the clip, translate it with the default weights, and put both side by side on a sheet.

    Writes `demo_source.mp4`, `demo.mp4` and `demo_sheet.png` into `folder`.

    Returns:
        The stage table.

    Raises:
        GnrVideoError: whatever the clip, the translation or the sheet could not do.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make the folder {folder}: {error.strerror}", "choose another one"
        ) from error
    source = make_demo_clip(folder / "demo_source.mp4")
    result = folder / "demo.mp4"

    from gnr_video import OutputOptions, Translator
    from gnr_video.contact_sheet import before_after_sheet

    report = Translator(style=style).translate_video(source, result, OutputOptions(overwrite=True))
    before_after_sheet(source, result, folder / "demo_sheet.png")
    return report.table()


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of the demo; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m gnr_video.demo", description=run_demo.__doc__)
    parser.add_argument("folder", nargs="?", default="out", help="where the files go (default: out)")
    parser.add_argument("--style", default=STYLE, help=f"style to translate with (default: {STYLE})")
    options = parser.parse_args(arguments)
    try:
        table = run_demo(options.folder, style=options.style)
    except GnrVideoError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(table)
    for name in ("demo_source.mp4", "demo.mp4", "demo_sheet.png"):
        print(Path(options.folder) / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
