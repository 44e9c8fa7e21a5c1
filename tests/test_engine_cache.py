"""Compiled engines on disk: found again, whole or not there, built by one process, set aside when broken.

Device: CPU. What is stored here are bytes of any kind; tests/test_tensorrt.py stores real engines.
"""

from __future__ import annotations

import json
import multiprocessing
import threading
import time
from dataclasses import fields, replace

import pytest

from engines.cache import EngineCache, EngineKey, describe
from engines.errors import EngineError
from tests.cli_helpers import call

KEY = EngineKey(
    part="encoder",
    size=256,
    precision="fp16",
    batch=1,
    engine="tensorrt",
    version="11.4.0.106",
    sm="sm90",
    gpu="NVIDIA H200",
    weights="ab" * 32,
    graph=1,
    options=("polyphase",),
)


@pytest.fixture
def cache(tmp_path):
    return EngineCache(tmp_path / "engines")


def refuse():
    raise AssertionError("must not be built")


def test_readable_name():
    name = KEY.filename
    assert name.startswith("gnr256-encoder-fp16-b1-trt11.4.0.106-sm90-")
    assert name.endswith(f"-{KEY.digest[:12]}.engine")


@pytest.mark.parametrize("name", [f.name for f in fields(EngineKey)])
def test_everything_in_the_key_counts(name):
    value = getattr(KEY, name)
    other = {int: 7, str: "other", tuple: ("transposed",)}[type(value)]
    assert replace(KEY, **{name: other}).digest != KEY.digest


def test_built_once_then_found(cache):
    assert not cache.has(KEY)
    assert cache.get(KEY, lambda: b"plan", bytes) == b"plan"
    assert cache.has(KEY)
    assert cache.get(KEY, refuse, bytes) == b"plan"
    about = cache.about(KEY)
    assert about["engine"] == "tensorrt" and about["gpu"] == "NVIDIA H200" and about["built"]
    cache.note(KEY, golden_psnr_db=51.2)
    assert cache.about(KEY)["golden_psnr_db"] == 51.2
    assert cache.get(KEY, refuse, bytes) == b"plan"
    assert not list(cache.folder.glob(".*.part"))


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "sidecar", "no-sidecar"])
def test_damaged_is_set_aside_and_built_again(cache, damage):
    cache.get(KEY, lambda: b"plan" * 100, bytes)
    path = cache.path(KEY)
    sidecar = path.with_name(path.name + ".json")
    if damage == "sidecar":
        sidecar.write_text("{")
    elif damage == "no-sidecar":
        sidecar.unlink()
    else:
        good = path.read_bytes()
        path.write_bytes({"flip": b"q" + good[1:], "cut": good[:-1], "empty": b""}[damage])
    assert cache.get(KEY, lambda: b"anew", bytes) == b"anew"
    assert (cache.folder / "broken" / path.name).is_file()
    assert cache.get(KEY, refuse, bytes) == b"anew"


def test_what_does_not_load_is_rebuilt_once(cache):
    """A whole file of another driver, say: the hash is right and it does not deserialise."""
    cache.get(KEY, lambda: b"old", bytes)

    def load(data):
        if data == b"old":
            raise EngineError("does not deserialise")
        return data

    assert cache.get(KEY, lambda: b"new", load) == b"new"
    assert (cache.folder / "broken" / KEY.filename).read_bytes() == b"old"


def test_what_never_loads_is_given_up(cache):
    built = []

    def load(data):
        raise EngineError("does not deserialise", "hint")

    with pytest.raises(EngineError, match="fresh tensorrt engine does not load: does not deserialise"):
        cache.get(KEY, lambda: built.append(1) or b"plan", load)
    assert len(built) == 1
    assert not cache.has(KEY)


def test_a_failed_build_leaves_nothing(cache):
    with pytest.raises(KeyboardInterrupt):
        cache.get(KEY, lambda: (_ for _ in ()).throw(KeyboardInterrupt()), bytes)
    assert cache.entries() == []
    assert cache.get(KEY, lambda: b"plan", bytes) == b"plan"  # and the lock is free


def test_a_folder_that_cannot_be_written(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    cache = EngineCache(tmp_path / "file" / "engines")
    assert cache.get(KEY, lambda: b"plan", bytes) == b"plan"
    assert "cannot be kept" in caplog.text


def _hold(folder, ready, leave):
    with EngineCache(folder).locked(KEY):
        ready.set()
        leave.wait(30)


def _build(folder, log):
    def build():
        with open(log, "a") as stream:
            stream.write("built\n")
        time.sleep(0.3)
        return b"plan"

    assert EngineCache(folder).get(KEY, build, bytes) == b"plan"


def test_one_process_builds_the_others_wait(tmp_path):
    context = multiprocessing.get_context("spawn")
    log = tmp_path / "log"
    workers = [context.Process(target=_build, args=(tmp_path / "engines", log)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert log.read_text() == "built\n"


def test_a_killed_process_frees_its_lock(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, leave = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path / "engines", ready, leave))
    holder.start()
    assert ready.wait(30)
    with pytest.raises(EngineError, match="another process has been building"):
        EngineCache(tmp_path / "engines", lock_seconds=0.2).get(KEY, refuse, bytes)
    holder.kill()
    holder.join(30)
    assert EngineCache(tmp_path / "engines").get(KEY, lambda: b"plan", bytes) == b"plan"


def test_threads_wait_too(cache):
    built = []

    def build():
        built.append(1)
        time.sleep(0.1)
        return b"plan"

    threads = [threading.Thread(target=cache.get, args=(KEY, build, bytes)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert built == [1]


def test_other_keys_do_not_wait(cache):
    with cache.locked(KEY):
        other = replace(KEY, part="decoder")
        assert EngineCache(cache.folder, lock_seconds=0).get(other, lambda: b"plan", bytes) == b"plan"


def test_list_and_clean(tmp_path, monkeypatch):
    monkeypatch.setenv("GNR_VIDEO_CACHE", str(tmp_path))
    cache = EngineCache()
    assert cache.folder == tmp_path / "engines"
    cache.get(KEY, lambda: b"p" * 1_500_000, bytes)
    cache.note(KEY, golden_psnr_db=48.25)
    decoder = replace(KEY, part="decoder")
    cache.get(decoder, lambda: b"plan", bytes)
    cache.path(decoder).write_bytes(b"broken")
    assert cache.read(decoder) is None
    (entry,) = [e for e in cache.entries() if e.path == cache.path(KEY)]
    assert "1.5 MB" in describe(entry) and "48.2 dB" in describe(entry) and "H200" in describe(entry)
    done = call("engine", "list")
    assert done.status == 0
    assert KEY.filename in done.stdout and "48.2 dB" in done.stdout
    assert f"{decoder.filename}" in done.stdout and "broken, set aside" in done.stdout
    (cache.folder / "weights.other").write_text("not ours")
    done = call("engine", "clean")
    assert done.status == 0 and "2 engines" in done.stderr
    assert cache.entries() == []
    assert not list(cache.folder.rglob("*.json"))
    assert (cache.folder / "weights.other").exists()
    assert call("engine", "clean").status == 0


def test_sidecar_is_json_for_people(cache):
    cache.get(KEY, lambda: b"plan", bytes)
    path = cache.path(KEY)
    about = json.loads(path.with_name(path.name + ".json").read_text())
    assert {f.name for f in fields(EngineKey)} <= set(about)
