"""Ctrl-C that strikes within a lock of `threading` (CPU)."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from engines.errors import interrupts


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
