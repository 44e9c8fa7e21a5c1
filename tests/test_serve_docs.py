"""The examples of docs/serve.md, run as they stand by a shell with curl against a real service. Device: CPU."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli_helpers import REPOSITORY, TIMEOUT
from tests.media_helpers import make_clip
from tests.serve_helpers import Client, service


@pytest.mark.skipif(not shutil.which("curl") or not shutil.which("sh"), reason="needs sh and curl")
@pytest.mark.slow
def test_the_examples(tiny: Path, face_model: Path, tmp_path: Path) -> None:
    text = (REPOSITORY / "docs" / "serve.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", text.split("## Examples")[1].split("\n## ")[0], re.DOTALL)
    assert len(blocks) == 6
    (tmp_path / "videos").mkdir()
    for name in ("me.mp4", "videos/two.mp4"):
        make_clip(tmp_path / name)
    with service(tiny, tmp_path / "gnr-video-jobs", allow=(tmp_path / "videos",)) as running:
        script = "".join(blocks).replace("http://127.0.0.1:8091", running.urls[0].rstrip("/"))
        script = script.replace("/srv/videos", str(tmp_path / "videos")).replace("python3", sys.executable)
        done = subprocess.run(
            ["sh", "-eux"], input=script, cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT
        )
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "head").read_bytes() == (tmp_path / "me_anime.mp4").read_bytes()[:100]
        assert "the job is done already" in done.stdout
        id = json.loads((tmp_path / "job.json").read_text())["id"]
        client = Client(running.urls[0], running.token)
        assert client.ask("GET", f"/jobs/{id}").status == 404, "it was deleted at the end"
        (other,) = client.ask("GET", "/jobs").json["jobs"]
        assert client.ended(other["id"])["result"]["name"] == "two_anime.webm"
