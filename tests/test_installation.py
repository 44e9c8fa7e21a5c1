"""The command that adds an extra, by how the program was installed. Device: none."""

from __future__ import annotations

import json
import shlex

import pytest

from engines.installation import install_line


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Puts a distribution with that direct_url.json (None: without) before the real one."""

    def put(record: dict[str, object] | None) -> None:
        info = tmp_path / "gnr_video-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gnr-video\nVersion: 1\n")
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


def test_from_a_wheel(installed):
    url = "file:///downloads/gnr_video-1-py3-none-any.whl"
    installed({"url": url, "archive_info": {}})
    assert shlex.split(install_line("web")) == ["pip", "install", f"gnr-video[web] @ {url}"]
