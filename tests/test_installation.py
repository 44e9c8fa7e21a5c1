"""The command that adds an extra, by how the program was installed. Device: none."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engines.installation import install_line, pip_install


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Puts a distribution with that direct_url.json (None: none) before the real one; its pip is on the PATH."""
    monkeypatch.setattr(shutil, "which", lambda name: str(Path(sys.executable).with_name(name)))

    def put(record: dict[str, object] | None, installer: str = "pip") -> None:
        info = tmp_path / "gnr_video-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gnr-video\nVersion: 1\n")
        (info / "INSTALLER").write_text(f"{installer}\n")
        if record is not None:
            (info / "direct_url.json").write_text(json.dumps(record))
        monkeypatch.syspath_prepend(tmp_path)

    return put


def test_from_an_index(installed):
    installed(None)
    assert install_line("live") == 'pip install "gnr-video[live]"'


def test_from_a_clone(installed, tmp_path):
    clone = tmp_path / "my clone"
    clone.mkdir()
    (clone / "constraints.txt").touch()
    installed({"url": clone.as_uri(), "dir_info": {"editable": True}})
    words = shlex.split(install_line("cpu"))
    assert words == ["pip", "install", "-c", f"{clone}/constraints.txt", "-e", f"{clone}[cpu]"]
    (clone / "constraints.txt").unlink()
    assert shlex.split(install_line("cpu")) == ["pip", "install", "-e", f"{clone}[cpu]"]


def test_from_a_folder(installed, tmp_path):
    installed({"url": tmp_path.as_uri(), "dir_info": {}})
    assert shlex.split(install_line("cpu")) == ["pip", "install", f"{tmp_path}[cpu]"]


def test_from_a_wheel(installed):
    url = "file:///downloads/gnr_video-1-py3-none-any.whl"
    installed({"url": url, "archive_info": {}})
    assert shlex.split(install_line("web")) == ["pip", "install", f"gnr-video[web] @ {url}"]


def test_from_a_repository(installed):
    installed(
        {"url": "https://example.org/gnr-video.git", "vcs_info": {"vcs": "git", "commit_id": "0123abcd"}}
    )
    assert shlex.split(install_line("web"))[-1] == (
        "gnr-video[web] @ git+https://example.org/gnr-video.git@0123abcd"
    )


def test_environments_that_are_not_activated(installed, monkeypatch):
    """Nor on the PATH: its own Python is named; where uv has made it, it may have no pip."""
    installed(None)
    for elsewhere in ("/usr/bin/pip", None):
        monkeypatch.setattr(shutil, "which", lambda name, found=elsewhere: found)
        words = shlex.split(pip_install("av"))
        assert words == [sys.executable, "-m", "pip", "install", "av"]
        assert subprocess.run([*words[:3], "--version"], capture_output=True, timeout=60).returncode == 0


def test_environments_of_uv(installed):
    installed(None, installer="uv")
    assert shlex.split(install_line("web")) == [
        *("uv", "pip", "install", "--python", sys.executable),
        "gnr-video[web]",
    ]
