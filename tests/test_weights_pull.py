"""`weights pull official`, against a server on this machine. Device: CPU; needs gdown."""

from __future__ import annotations

import io
import re
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from urllib.parse import parse_qs, urlparse

import pytest
import torch

from engines.errors import WeightsError
from engines.installation import install_line
from gnr_video import checkpoints as weights_module
from gnr_video.checkpoints import OFFICIAL_IDS, pull_official, resolve_weights, weights_info
from tests.golden import generator_state, narrow

needs_gdown = pytest.mark.skipif(find_spec("gdown") is None, reason="needs gdown (the weights extra)")
NEWER, OLDER = OFFICIAL_IDS


@pytest.fixture(scope="module")
def checkpoint():
    buffer = io.BytesIO()
    torch.save({"G_A2B_ema": generator_state(narrow(), 3)}, buffer)
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GNR_VIDEO_CACHE", str(tmp_path / "cache"))
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache" / "weights"


@contextmanager
def serve(files, stall_after=None):
    """A server that gives `files[id]` at ?id=...; with `stall_after`, goes silent after so many bytes."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            drive_id = parse_qs(urlparse(self.path).query)["id"][0]
            asked.append(drive_id)
            body = files.get(drive_id)
            if body is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            try:
                self.wfile.write(body[:stall_after])
                if stall_after is not None:
                    self.wfile.flush()
                    time.sleep(20)
            except OSError:
                pass  # the client was stopped

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/uc?id={{id}}", asked
    finally:
        server.shutdown()
        server.server_close()


@needs_gdown
def test_pull(cache, checkpoint):
    seen = []
    with serve({NEWER: checkpoint}) as (url, asked):
        path = pull_official(seen.append, url=url)
        assert pull_official(url=url) == path  # there already: nothing is fetched
    assert asked == [NEWER]
    assert resolve_weights("official") == path
    assert list(cache.iterdir()) == [path]
    assert seen[-1] == len(checkpoint)
    assert weights_info(path)["name"] == "official"


@needs_gdown
def test_the_older_copy_serves_when_the_newer_is_gone(cache, checkpoint):
    with serve({OLDER: checkpoint}) as (url, asked):
        path = pull_official(url=url)
    assert NEWER in asked and asked[-1] == OLDER
    assert OLDER in weights_info(path)["provenance"]


@needs_gdown
def test_failure_leaves_everything_as_it_was(cache):
    cache.mkdir(parents=True)
    before = cache / "official.safetensors"
    before.write_bytes(b"older weights")
    with (
        serve({NEWER: b"<html>Too many users have viewed this file</html>"}) as (url, _),
        pytest.raises(WeightsError, match="not a torch checkpoint") as caught,
    ):
        pull_official(url=url, force=True)
    assert "gdown failed" in caught.value.message  # the older id, which is not served
    assert "weights import" in caught.value.hint
    assert list(cache.iterdir()) == [before]
    assert before.read_bytes() == b"older weights"


@needs_gdown
def test_a_silent_server_is_given_up(cache, checkpoint):
    started = time.monotonic()
    with (
        serve({NEWER: checkpoint, OLDER: checkpoint}, stall_after=1000) as (url, _),
        pytest.raises(WeightsError, match="nothing arrived for 4 s"),
    ):
        pull_official(url=url, stall_seconds=4)
    assert time.monotonic() - started < 18
    assert list(cache.iterdir()) == []


def test_without_gdown(monkeypatch):
    monkeypatch.setattr(weights_module, "find_spec", lambda name: None)
    with pytest.raises(WeightsError, match=re.escape(install_line("weights"))):
        pull_official(url="http://127.0.0.1:1/{id}")
