"""Where segments begin, and the folder they wait in. Device: CPU."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import OutputError
from gnr_video.commands.runner import reported
from gnr_video.media.open import open_source
from gnr_video.options import OutputOptions
from gnr_video.segments.plan import LENGTHS, Plan, can_be_cut, make_plan
from gnr_video.segments.store import Store, folder_of, tidy
from tests.media_helpers import make_clip


class TestPlan:
    @pytest.fixture
    def film(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        pts = range(0, 120)
        return make_clip(
            tmp_path_factory.mktemp("film") / "film.mp4",
            size=(16, 16),
            pts=pts,
            time_base=Fraction(1),
            rate=Fraction(1),
        )

    def plan(self, film: Path, **part: Any) -> Plan | None:
        with open_source(film, **part) as video:
            return make_plan(video, "x.mp4", OutputOptions(**part), lookahead=15)

    def test_long_ones_are_cut(self, film: Path) -> None:
        plan = self.plan(film)
        assert plan is not None
        assert (plan.count, plan.segment, plan.suffix) == (4, LENGTHS.segment, ".mp4")

    def test_short_ones_are_not(self, film: Path) -> None:
        assert self.plan(film, end=80.0) is None
        assert self.plan(film, start=20.0) is not None

    @given(st.integers(1, 40), st.integers(0, 5000), st.integers(0, 200_000))
    def test_every_time_is_in_one_segment(self, count: int, begin: int, after: int) -> None:
        first, later = Fraction(begin, 100), Fraction(after, 100)
        plan = Plan(count, Fraction(30), Fraction(2), first, Fraction(0), ".mp4", OutputOptions(), 15)
        ends = [plan.end(i) for i in range(count)]
        inside = [
            i
            for i, end in enumerate(ends)
            if plan.start(i) <= first + later and (end is None or first + later < end)
        ]
        assert len(inside) == 1

    def test_what_cannot_be_cut(self, film: Path, tmp_path: Path) -> None:
        assert can_be_cut(film, tmp_path / "x.mp4") and can_be_cut(film, "x.WEBM")
        for target in ("x.gif", "x.png", f"{tmp_path}/", str(tmp_path)):
            assert not can_be_cut(film, target)
        for source in ("-", "https://example.org/film.mp4", tmp_path, tmp_path / "missing.mp4"):
            assert not can_be_cut(source, "x.mp4")


def test_a_command_that_is_stopped_says_what_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    stop = KeyboardInterrupt()
    stop.add_note("2 of 3 segments are kept, the same command goes on from there")
    with pytest.raises(click.exceptions.Exit), reported(quiet=True, debug=False):
        raise stop
    assert "stopped; 2 of 3 segments are kept, the same command goes on from there" in capsys.readouterr().err


class TestStore:
    def test_one_run_at_a_time(self, tmp_path: Path) -> None:
        target = tmp_path / "out.mp4"
        with Store(target), pytest.raises(OutputError, match="another gnr-video is writing"), Store(target):
            pass
        assert os.listdir(tmp_path) == []

    def test_tidying_leaves_what_another_run_holds(self, tmp_path: Path) -> None:
        target = tmp_path / "out.mp4"
        with Store(target) as store:
            (store.folder / "00000.mp4").touch()
            tidy(target, all_of_it=True)
            assert (store.folder / "00000.mp4").exists()
        tidy(target)
        tidy(Path("."))
        assert os.listdir(tmp_path) == []

    def test_names_are_no_longer_than_disks_take(self) -> None:
        names = [
            folder_of(Path(f"{letter * length}.mp4")).name for letter in "aä" for length in (3, 120, 250)
        ]
        assert names[0] == ".aaa.mp4.segments"
        assert all(len(os.fsencode(name)) <= 140 for name in names)
        assert len(set(names)) == len(names)
