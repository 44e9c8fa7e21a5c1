"""Ctrl-C: within a lock of `threading`, and while foreign code waits (CPU)."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from engines.errors import interrupts
from gnr_video import channels
from gnr_video.channels import LeftWaiting, interruptibly


def struck(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """An event whose waits are interrupted when they take their lock back, as Ctrl-C at that moment does."""
    event = threading.Event()

    def strike(saved: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(event._cond, "_acquire_restore", strike)  # type: ignore[attr-defined]
    return event


def test_python_hides_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="release unlocked lock"):
        struck(monkeypatch).wait(0.01)


def test_it_comes_out_as_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt), interrupts():
        struck(monkeypatch).wait(0.01)


def test_other_errors_stay() -> None:
    with pytest.raises(RuntimeError, match="wrong"), interrupts():
        raise RuntimeError("wrong")


def test_work_on_a_thread_hands_back_what_it_returns_and_raises():
    assert interruptibly(lambda: 7, "test") == 7
    with pytest.raises(TimeoutError, match="its own"):
        interruptibly(lambda: (_ for _ in ()).throw(TimeoutError("its own")), "test", seconds=5)


@pytest.mark.parametrize("succeeds", [True, False])
def test_work_that_takes_too_long_is_left_and_undone_if_it_succeeds(succeeds: bool):
    may_end, undone = threading.Event(), threading.Event()

    def work() -> None:
        may_end.wait(10)
        if not succeeds:
            raise ValueError

    with pytest.raises(LeftWaiting):
        interruptibly(work, "test left", seconds=0.1, undo=undone.set)
    assert not undone.is_set()
    [thread] = [thread for thread in threading.enumerate() if thread.name == "test left"]
    may_end.set()
    thread.join(10)
    assert undone.is_set() is succeeds


def test_work_that_is_interrupted_is_left(monkeypatch: pytest.MonkeyPatch):
    def strike(self: threading.Event, timeout: float | None = None) -> bool:
        raise KeyboardInterrupt

    may_end, undone = threading.Event(), threading.Event()
    wait = threading.Event.wait
    monkeypatch.setattr(channels.threading.Event, "wait", strike)
    with pytest.raises(KeyboardInterrupt):
        interruptibly(lambda: wait(may_end, 10), "test", undo=undone.set)
    monkeypatch.undo()
    may_end.set()
    assert undone.wait(10)
