"""`gnr-video live` as users run it: its options, its ends, and what goes wrong. Device: CPU."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli_helpers import call, finish, run, start
from tests.live_helpers import until
from tests.media_helpers import read_pictures

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
NO_DISPLAY = {"DISPLAY": "", "WAYLAND_DISPLAY": ""}


@pytest.fixture
def options(tiny: Path, face_clip: Path) -> list[object]:
    return ["--camera", face_clip, "--weights", tiny, "--engine", "torch", "--precision", "fp32"]


def read_until(process: Any, pattern: str) -> str:
    """Standard error of a process up to a line that matches."""
    text = ""
    for line in process.stderr:
        text += line.decode()
        if re.search(pattern, text):
            return text
    raise AssertionError(f"it ended before {pattern!r}:\n{text}")


@pytest.fixture
def recording(options: list[object], tmp_path: Path, face_model: Path) -> Iterator[Any]:
    """A session of its own process that records and serves the browser."""
    process = start(
        ["live", *options, "--record", tmp_path / "out.mp4", "--web", "127.0.0.1:0"], env=NO_DISPLAY
    )
    said = read_until(process, "recording to")
    links = re.findall(
        r"^(open|to let others only watch:) http://127\.0\.0\.1:\d+/\?token=(\S+)", said, re.MULTILINE
    )
    assert len({token for _, token in links}) == 2, said
    part = tmp_path / ".out.part.mp4"
    until(lambda: part.exists() and part.stat().st_size > 3000, 60)  # header and first frames
    yield process
    if process.poll() is None:
        process.kill()
        process.communicate()


@posix_only
@pytest.mark.slow
class TestEnding:
    @pytest.mark.parametrize("number", ["SIGTERM", "SIGINT", "SIGHUP"])
    def test_a_signal_ends_it_with_the_recording_whole(
        self, recording: Any, tmp_path: Path, number: str
    ) -> None:
        time.sleep(1.0)
        begun = time.perf_counter()
        recording.send_signal(getattr(signal, number))
        done = finish(recording)
        spent = time.perf_counter() - begun
        assert done.status == 0, done.stderr
        assert "Traceback" not in done.stderr
        assert "recorded" in done.stderr
        assert len(read_pictures(tmp_path / "out.mp4")) >= 3
        assert not list(tmp_path.glob(".*"))
        # It takes one second on a machine that is idle; this one may not be.
        assert spent < 30.0

    def test_a_recording_that_fails_is_how_the_session_ends(
        self, options: list[object], tmp_path: Path, face_model: Path
    ) -> None:
        """No file may grow beyond so many bytes, as on a full disk; what was recorded until then is kept."""
        done = run(
            "live", *options, "--record", tmp_path / "out.mp4", "--seconds", 60, "--report", tmp_path / "r.json",
            env=NO_DISPLAY, before="import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (90_000, 90_000))",
        )  # fmt: skip
        assert done.status == 4, done.stderr
        assert "error: " in done.stderr and "Traceback" not in done.stderr
        assert "recorded only" in done.stderr
        assert len(read_pictures(tmp_path / "out.mp4")) >= 1
        assert json.loads((tmp_path / "r.json").read_text())["warnings"]

    def test_even_a_kill_leaves_something_to_play(self, recording: Any, tmp_path: Path) -> None:
        time.sleep(4.0)
        recording.kill()
        recording.communicate()
        part = tmp_path / ".out.part.mp4"
        part.rename(tmp_path / "rescued.mp4")
        assert len(read_pictures(tmp_path / "rescued.mp4")) >= 1


@pytest.mark.slow
class TestSeconds:
    def test_it_ends_by_itself_and_reports(
        self, options: list[object], tmp_path: Path, face_model: Path
    ) -> None:
        done = run(
            "live", *options, "--record", tmp_path / "out.mkv", "--seconds", 8, "--report", tmp_path / "r.json",
            "--mirror", "--paste", "square", "--style", "3,4", env=NO_DISPLAY,
        )  # fmt: skip
        assert done.status == 0, done.stderr
        assert "face.mp4: 320x180, 20 fps" in done.stderr
        report = json.loads((tmp_path / "r.json").read_text())
        assert report["style"] == "3,4"
        assert report["faces"] > 3
        assert {"wait", "track", "network", "compose", "to recording"} <= set(report["stages"])
        assert len(read_pictures(tmp_path / "out.mkv")) > 3

    @posix_only
    def test_keys_in_the_terminal(self, options: list[object], tmp_path: Path, face_model: Path) -> None:
        import pty

        pid, terminal = pty.fork()
        if pid == 0:
            os.environ.update(NO_DISPLAY)
            command = ["live", *map(str, options), "--record", str(tmp_path / "out.mp4")]
            os.execv(sys.executable, [sys.executable, "-m", "cli", *command])
        text, part = "", tmp_path / ".out.part.mp4"
        steps = [("keys:", ".12\r"), ("style 12", "n"), ("style 13", "q")]
        try:
            while True:
                text += os.read(terminal, 4096).decode(errors="replace")
                if steps and steps[0][0] in text:
                    if len(steps) == 1:
                        until(lambda: part.exists() and part.stat().st_size > 3000, 60)
                    os.write(terminal, steps.pop(0)[1].encode())
        except OSError:  # the terminal is gone with the program
            pass
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0, text
        assert not steps
        assert len(read_pictures(tmp_path / "out.mp4")) >= 1


class TestBadSituations:
    """Each is one line and a hint, before anything slow is loaded."""

    @pytest.mark.parametrize(
        ("arguments", "status", "words"),
        [
            (["--web", "--camera", "9876"], 3, ["no camera", "--camera"]),
            (["--web", "--camera", "missing.mp4"], 3, ["no such file"]),
            (["--web", "0.0.0.0:0", "--camera", "test"], 4, ["other machines", "--allow-remote"]),
            (["--web", "nonsense:x", "--camera", "test"], 4, ["no address", "HOST:PORT"]),
            (["--camera", "browser", "--record", "x.mp4"], 3, ["add --web"]),
            (["--record", "x.txt", "--camera", "test"], 4, ["cannot record", ".mp4"]),
            (["--record", "no/such/folder/x.mp4", "--camera", "test"], 4, ["no such folder", "mkdir -p"]),
            (["--web", "--camera", "test", "--style", "nonsense"], 2, ["does not parse"]),
            (["--web", "--camera", "test", "--size", "large"], 2, ["is no size"]),
            (
                ["--web", "0.0.0.0:0", "--allow-remote", "--no-token", "--camera", "test"],
                4,
                ["every machine"],
            ),
            (["--web", "--stun", "example.org", "--camera", "test"], 4, ["stun:HOST:PORT"]),
        ],
    )
    def test_it_is_said(self, arguments: list[str], status: int, words: list[str]) -> None:
        if "9876" in arguments and not sys.platform.startswith("linux"):
            pytest.skip("needs Linux's /dev")
        done = call("live", *arguments)
        assert done.status == status, done.stderr
        assert "Traceback" not in done.stderr
        for word in words:
            assert word in done.stderr

    def test_a_port_in_use(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            done = call("live", "--camera", "test", "--web", f"127.0.0.1:{other.getsockname()[1]}")
        assert done.status == 4
        assert "in use" in done.stderr and "--web" in done.stderr

    @pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs X11")
    def test_no_display(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in NO_DISPLAY:
            monkeypatch.delenv(name, raising=False)
        done = call("live", "--camera", "test", "--preview")
        assert done.status == 4
        assert "no display" in done.stderr and "--web" in done.stderr

    @pytest.mark.slow
    def test_no_display_and_no_sink_asked_for(self, tiny: Path, face_model: Path) -> None:
        done = run(
            "live", "--camera", "test", "--size", "320x240", "--seconds", 0.5, "--weights", tiny,
            "--engine", "torch", "--precision", "fp32", env=NO_DISPLAY, before="",
        )  # fmt: skip
        if sys.platform.startswith("linux"):
            assert "showing in the browser" in done.stderr or "in use" in done.stderr
        assert "Traceback" not in done.stderr

    def test_an_existing_recording_stays(self, tmp_path: Path) -> None:
        (tmp_path / "a.mp4").write_bytes(b"mine")
        done = call("live", "--camera", "test", "--record", tmp_path / "a.mp4")
        assert done.status == 4
        assert "--overwrite" in done.stderr
        assert (tmp_path / "a.mp4").read_bytes() == b"mine"
