"""MediaPipe's import, its errors in words, its chatter. Device: CPU."""

from __future__ import annotations

import logging
import subprocess

import pytest

from gnr_video.tracking import mediapipe_tasks


def test_other_lines_on_stderr_are_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    with mediapipe_tasks.quiet_stderr():
        subprocess.run(
            ["sh", "-c", "echo 'W0000 00:00:1.2 3 a.cc:1] chatter' >&2; echo news >&2"], check=True
        )
    assert capfd.readouterr().err == "news\n"


def test_missing_system_library_says_what_to_install() -> None:
    error = mediapipe_tasks.explained(OSError("libEGL.so.1: cannot open shared object file"))
    assert "libEGL.so.1" in error.message
    assert "apt-get install libegl1 libgles2" in error.hint


def test_other_failures_say_which_part_of_it() -> None:
    error = mediapipe_tasks.explained(RuntimeError("no graph\nat line 3"), "'s image segmenter")
    assert error.message == "MediaPipe's image segmenter does not start: no graph"


def test_a_mediapipe_with_metrics_is_warned_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import mediapipe

    monkeypatch.setattr(mediapipe, "__version__", "0.10.35")
    monkeypatch.setattr(mediapipe_tasks, "_warned_of_metrics", False)
    with caplog.at_level(logging.WARNING):
        mediapipe_tasks.import_mediapipe()
        mediapipe_tasks.import_mediapipe()
    assert [r.message for r in caplog.records if "usage metrics" in r.message] != []
    assert len(caplog.records) == 1
