"""Many inputs in one run: which they are, what their translations are called, what is done already. Device: CPU."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from engines.errors import InputError, OutputError
from gnr_video.batch.jobs import plan, read_list
from gnr_video.batch.ledger import Ledger
from tests.cli_helpers import Done, call


def touched(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def targets(*inputs: object, out: Path | None, recursive: bool = False) -> list[str]:
    jobs = plan([str(one) for one in inputs], out, recursive=recursive)
    return [job.target.relative_to(out).as_posix() if out else job.target.name for job in jobs]


class TestPlan:
    def test_a_folder_by_name_without_what_is_hidden_or_no_video(self, tmp_path: Path) -> None:
        clips = touched(tmp_path / "in", "b.mov", "a.MP4", "c.txt", ".d.mp4", "sub/e.mkv", ".x/f.mp4")
        Image.new("RGB", (8, 8)).save(clips / "g.png")
        assert targets(clips, out=tmp_path / "out") == ["a.mp4", "b.mp4", "g.png"]
        assert targets(clips, out=tmp_path / "out", recursive=True) == [
            "a.mp4",
            "b.mp4",
            "g.png",
            "sub/e.mp4",
        ]

    def test_beside_the_inputs(self, tmp_path: Path) -> None:
        clips = touched(tmp_path, "a.mov", "b.mp4", "b_anime.mp4")
        assert targets(clips, out=None) == ["a_anime.mp4", "b_anime.mp4"]

    def test_names_that_collide_stay_apart(self, tmp_path: Path) -> None:
        touched(tmp_path, "1/a.mov", "1/a.mp4", "2/a.mov", "1/b.mp4")
        inputs = [tmp_path / name for name in ("1/a.mov", "1/a.mp4", "2/a.mov", "1/b.mp4")]
        assert targets(*inputs, out=tmp_path / "out") == ["a.mov.mp4", "a.mp4.mp4", "a.mov-2.mp4", "b.mp4"]

    def test_an_input_that_is_named_twice_is_one(self, tmp_path: Path) -> None:
        clips = touched(tmp_path / "in", "a.mp4")
        assert targets(clips / "a.mp4", clips, out=tmp_path / "out") == ["a.mp4"]

    def test_translations_within_the_folder_are_no_inputs(self, tmp_path: Path) -> None:
        clips = touched(tmp_path, "a.mp4", "out/a.mp4")
        assert targets(clips, out=tmp_path / "out", recursive=True) == ["a.mp4"]

    @pytest.mark.slow
    def test_ten_thousand(self, tmp_path: Path) -> None:
        touched(tmp_path / "in", *(f"{i:05}.mp4" for i in range(10_000)))
        assert len(set(targets(tmp_path / "in", out=tmp_path / "out"))) == 10_000

    def test_what_cannot_be(self, tmp_path: Path) -> None:
        clips = touched(tmp_path, "a.mp4", "empty/x.txt")
        with pytest.raises(InputError, match=r"no such file: .*b\.mp4"):
            plan([str(clips / "a.mp4"), str(clips / "b.mp4")], None)
        with pytest.raises(InputError, match="no videos and no pictures"):
            plan([str(clips / "empty")], None)
        with pytest.raises(InputError, match="would replace an input"):
            plan([str(clips)], clips)

    def test_a_list(self, tmp_path: Path) -> None:
        (tmp_path / "list.txt").write_text("﻿a.mp4\n\n# no\nsub/b c.mp4  \n", encoding="utf-8")
        assert read_list(tmp_path / "list.txt") == [str(tmp_path / "a.mp4"), str(tmp_path / "sub/b c.mp4")]
        with pytest.raises(InputError, match="cannot read the list"):
            read_list(tmp_path / "none.txt")


class TestLedger:
    @pytest.fixture
    def pair(self, tmp_path: Path) -> tuple[Path, Path]:
        touched(tmp_path, "a.mp4", "out/a.mp4")
        with Ledger(tmp_path / "out") as ledger:
            ledger.add(tmp_path / "a.mp4", tmp_path / "out/a.mp4", "s", (tmp_path / "a.mp4").stat())
        return tmp_path / "a.mp4", tmp_path / "out/a.mp4"

    def is_done(self, pair: tuple[Path, Path], settings: str = "s") -> bool:
        with Ledger(pair[1].parent) as ledger:
            return ledger.is_done(*pair, settings)

    def test_what_is_done_is_known_to_the_next_run(self, pair: tuple[Path, Path]) -> None:
        assert self.is_done(pair)
        assert not self.is_done(pair, "other")

    def test_a_copy_of_the_input_counts_as_it(self, pair: tuple[Path, Path]) -> None:
        os.utime(pair[0], ns=(1, 1))
        assert self.is_done(pair)

    def test_another_input_does_not(self, pair: tuple[Path, Path]) -> None:
        pair[0].write_text("A.mp4")  # as long
        os.utime(pair[0], ns=(1, 1))
        assert not self.is_done(pair)

    @pytest.mark.parametrize("change", ["cut off", "gone"])
    def test_nor_another_output(self, pair: tuple[Path, Path], change: str) -> None:
        pair[1].unlink() if change == "gone" else pair[1].write_text("")
        assert not self.is_done(pair)

    def test_a_line_that_was_cut_off_is_done_anew(self, pair: tuple[Path, Path]) -> None:
        file = pair[1].parent / ".gnr-video" / "done.jsonl"
        file.write_text(file.read_text().splitlines()[0][:-20])
        assert not self.is_done(pair)

    def test_a_run_that_is_killed_while_the_input_is_hashed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def killed(path: Path) -> str:
            raise KeyboardInterrupt

        touched(tmp_path, "a.mp4", "out/a.mp4")
        pair = tmp_path / "a.mp4", tmp_path / "out/a.mp4"
        monkeypatch.setattr("gnr_video.batch.ledger.file_sha256", killed)
        with pytest.raises(KeyboardInterrupt), Ledger(tmp_path / "out") as ledger:
            ledger.add(*pair, "s", pair[0].stat())
        monkeypatch.undo()
        assert self.is_done(pair)
        os.utime(pair[0], ns=(1, 1))
        assert not self.is_done(pair), "whether it is the same nobody knows"

    def test_an_input_that_grew_meanwhile_is_not_noted(self, tmp_path: Path) -> None:
        touched(tmp_path, "a.mp4", "out/a.mp4")
        before = (tmp_path / "a.mp4").stat()
        (tmp_path / "a.mp4").write_text("longer than before")
        with Ledger(tmp_path / "out") as ledger:
            ledger.add(tmp_path / "a.mp4", tmp_path / "out/a.mp4", "s", before)
            assert not ledger.is_done(tmp_path / "a.mp4", tmp_path / "out/a.mp4", "s")

    def test_one_run_at_a_time(self, tmp_path: Path) -> None:
        with (
            Ledger(tmp_path),
            pytest.raises(OutputError, match="another gnr-video is writing"),
            Ledger(tmp_path),
        ):
            pass
        with Ledger(tmp_path):
            pass


class TestCommand:
    @pytest.fixture
    def clips(self, tmp_path: Path, face_clip: Path) -> Path:
        touched(tmp_path / "in", "bad.mp4")
        for name in ("a.mp4", "b.mp4"):
            shutil.copy(face_clip, tmp_path / "in" / name)
        return tmp_path / "in"

    def run(self, clips: Path, tiny: Path, *options: object) -> Done:
        out = clips.parent / "out"
        return call(
            clips,
            "-o",
            out,
            "--end",
            0.2,
            "--weights",
            tiny,
            "--engine",
            "torch",
            "--paste",
            "crop",
            *options,
        )

    def test_failures_are_collected_and_what_is_done_is_passed_over(
        self, clips: Path, tiny: Path, face_model: Path, face_clip: Path
    ) -> None:
        out = clips.parent / "out"
        done = self.run(clips, tiny, "--report", clips.parent / "r.jsonl")
        assert done.status == 1
        assert "2 done, 0 skipped, 1 failed" in done.stderr
        assert "failed: " in done.stderr and "bad.mp4 is not a video" in done.stderr
        assert sorted(one.name for one in out.iterdir()) == [".gnr-video", "a.mp4", "b.mp4"]
        lines = [json.loads(line) for line in (clips.parent / "r.jsonl").read_text().splitlines()]
        assert [line["status"] for line in lines] == ["done", "done", "failed"]
        assert lines[0]["report"]["frames"] == 4
        (clips / "bad.mp4").unlink()
        before = {one: (out / one).stat().st_mtime_ns for one in ("a.mp4", "b.mp4")}

        again = self.run(clips, tiny)
        assert again.status == 0
        assert "0 done, 2 skipped, 0 failed" in again.stderr
        assert before == {one: (out / one).stat().st_mtime_ns for one in before}

        with (clips / "b.mp4").open("ab") as stream:
            stream.write(b"\0" * 100)
        assert "1 done, 1 skipped, 0 failed" in self.run(clips, tiny).stderr, "an input has changed"
        assert "2 done, 0 skipped, 0 failed" in self.run(clips, tiny, "--style", 7).stderr, "another style"

    def test_what_another_program_wrote_stays(self, clips: Path, tiny: Path, face_model: Path) -> None:
        out = touched(clips.parent / "out", "a.mp4")
        done = self.run(clips, tiny)
        assert done.status == 1
        assert "a.mp4 exists already" in done.stderr
        assert (out / "a.mp4").read_text() == "a.mp4"

    def test_one_file_into_a_folder(self, clips: Path, tiny: Path, face_model: Path, tmp_path: Path) -> None:
        done = call(
            clips / "a.mp4", "-o", f"{tmp_path}/new/", "--end", 0.2, "--weights", tiny, "--engine", "torch"
        )
        assert done.status == 0, done.stderr
        assert (tmp_path / "new" / "a.mp4").is_file()

    def test_one_name_for_many(self, clips: Path, tiny: Path) -> None:
        done = call(clips, "-o", clips.parent / "one.mp4", "--weights", tiny)
        assert done.status == 4
        assert "is one file, for many inputs" in done.stderr

    def test_nothing_to_do(self) -> None:
        done = call("translate")
        assert done.status == 2
        assert "Missing argument 'INPUT...'" in done.stderr
