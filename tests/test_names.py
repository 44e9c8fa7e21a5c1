"""Names of files: long ones, capitals, file:// addresses. Device: none."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import av
import pytest

from engines.errors import InputError
from gnr_video.commands.translate import default_output
from gnr_video.media.open import anime_name, open_source
from gnr_video.media.sink import temporary_name
from tests.cli_helpers import call
from tests.media_helpers import copy, make_clip

WIDE = "ü漢😀"
"""Two, three and four bytes."""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows counts letters, not bytes")
@pytest.mark.parametrize("letter", ["a", *WIDE])
def test_the_longest_name_can_be_written(tmp_path: Path, letter: str) -> None:
    clip = make_clip(tmp_path / "a.mp4")
    size = len(os.fsencode(letter))
    target = tmp_path / f"{letter * ((255 - 4) // size)}.mp4"
    copy(clip, target)
    assert target.is_file()
    copy(clip, tmp_path / f"{letter * ((255 - 4 - 4) // size)}-%d.png")


@pytest.mark.parametrize("letter", ["a", *WIDE])
@pytest.mark.parametrize("length", [1, 30, 100, 240, 251])
def test_temporary_names_fit_where_names_fit(letter: str, length: int) -> None:
    name = f"{letter * max(1, length // len(os.fsencode(letter)))}.mp4"
    made = temporary_name(Path(name)).name
    assert len(os.fsencode(made)) <= max(len(os.fsencode(name)), 140)
    assert made.startswith(".") and made.endswith(".part.mp4")
    other = temporary_name(Path(f"{Path(name).stem}x.mp4")).name
    assert other != made


@pytest.mark.parametrize("letter", ["a", *WIDE])
def test_default_names_that_would_not_fit_are_shortened(tmp_path: Path, letter: str) -> None:
    clip = tmp_path / f"{letter * ((255 - 4) // len(os.fsencode(letter)))}.mov"
    made = anime_name(clip)
    assert len(os.fsencode(made.name)) <= 255
    assert made.name.endswith("_anime.mp4")
    copy(make_clip(tmp_path / "a.mp4"), made)


def test_a_name_that_no_disk_takes_is_refused_in_a_line(tmp_path: Path) -> None:
    long = "a" * 5000
    with pytest.raises(InputError, match="no such file"):
        open_source(tmp_path / long)
    clip = make_clip(tmp_path / "a.mp4")
    for arguments in ((long + ".mp4",), (clip, "-o", long + ".mp4"), (clip, "-o", tmp_path / long / "b.mp4")):
        done = call(*arguments)
        assert done.status != 0
        assert "\nerror:" in f"\n{done.stderr}"


def test_file_addresses(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a b#1.mp4")
    for address in (clip.as_uri(), clip.as_uri().replace("file://", "file://localhost")):
        with open_source(address) as source:
            assert len(list(source)) == 12
        assert Path(default_output(address)) == tmp_path / "a b#1_anime.mp4"


def test_capitals(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.MP4", audio="aac")
    copy(clip, tmp_path / "b.MP4", codec="h265")
    with av.open(str(tmp_path / "b.MP4")) as made:
        assert made.streams.video[0].codec_tag == "hvc1"
    copy(clip, tmp_path / "c.PNG".replace("c", "c-%d"))
    assert (tmp_path / "c-0.PNG").is_file()
