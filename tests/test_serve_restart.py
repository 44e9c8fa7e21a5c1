"""Whatever ends the service, no job is lost: kill -9, SIGTERM, jobs that take it down. Device: CPU."""

from __future__ import annotations

import re
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engines.errors import OutputError
from gnr_video.serve.folder import Folder
from gnr_video.serve.store import MOST_STARTS, Busy, NewJob, QueueFull, Record, Store
from tests.cli_helpers import finish, start
from tests.live_helpers import until
from tests.media_helpers import frame_times, read_pictures
from tests.serve_helpers import LONG, Client, service

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
SLOW = """
import time
from engines.torch_engine import TorchEngine as Engine
quick, calls = Engine.translate, []
def translate(*given, **named):
    calls.append(time.sleep(0 if len(calls) < 8 else 3))
    return quick(*given, **named)
Engine.translate = translate
"""
"""A few frames come at once, and then one every three seconds: whoever looks finds the job at work."""
MAKER = {"version": "1", "weights": "w", "weights_sha256": "00", "engine": "e"}


class Process:
    """A service of its own process, whose network soon becomes slow."""

    def __init__(self, tiny: Path, folder: Path) -> None:
        self.process: Any = start(
            ["serve", "--host", "127.0.0.1:0", "--folder", folder, "--weights", tiny, "--engine", "torch",
             "--precision", "fp32"],
            before=f"exec({SLOW!r})",
        )  # fmt: skip
        said = ""
        for line in self.process.stderr:
            said += line.decode()
            if "token: in" in said:
                break
        found = re.search(r"serving at (\S+)", said)
        assert found, said
        self.client = Client(found[1], (folder / "token").read_text().strip())

    def at_work(self, id: str) -> bool:
        job = self.client.job(id)
        return job["state"] == "running" and job["frames"] > 0


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    started: list[Process] = []
    yield started
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.communicate()


@posix_only
@pytest.mark.slow
def test_a_kill_and_a_signal_in_mid_job(
    tiny: Path, face_clip: Path, face_model: Path, tmp_path: Path, processes: list[Process]
) -> None:
    folder = tmp_path / "jobs"
    first = Process(tiny, folder)
    processes.append(first)
    ids = [first.client.upload(face_clip, f"{i}.mp4", paste="crop", style=i).json["id"] for i in range(2)]
    until(lambda: first.at_work(ids[0]), LONG)
    first.process.kill()
    first.process.communicate()
    with sqlite3.connect(folder / "jobs.sqlite3") as db:
        states = [state for (state,) in db.execute("SELECT state FROM jobs ORDER BY number")]
    db.close()
    assert states == ["running", "queued"]

    second = Process(tiny, folder)
    processes.append(second)
    until(lambda: second.at_work(ids[0]), LONG)
    second.process.terminate()
    done = finish(second.process)
    assert done.status == 0 and "Traceback" not in done.stderr, done.stderr
    with Store(folder / "jobs.sqlite3") as store:
        jobs = [store.get(id) for id in ids]
        assert [job and (job.state, job.starts) for job in jobs] == [("queued", 1), ("queued", 0)]
    assert not [path for path in folder.rglob("*.part*")]

    with service(tiny, folder) as running:
        client = Client(running.urls[0], running.token)
        assert client.token == first.client.token
        for i, id in enumerate(ids):
            job = client.ended(id)
            assert job["state"] == "done" and f"style {i}" in job["message"], job
            result = tmp_path / f"{i}.mp4"
            result.write_bytes(client.ask("GET", f"/jobs/{id}/result").data)
            assert frame_times(result) == frame_times(face_clip) and len(read_pictures(result)) == 24


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "jobs.sqlite3") as made:
        yield made


def add(store: Store, id: str, most: int = 10) -> Record:
    return store.add(NewJob(id, f"{id}.mp4", f"{id}.mp4", True, {"style": 1}, MAKER), most)


class TestStore:
    def test_the_queue_goes_in_order(self, store: Store) -> None:
        for id in "abc":
            assert add(store, id).state == "queued"
        store.cancel("b")
        taken = store.take(MAKER)
        assert taken and (taken.id, taken.state, taken.starts, taken.made_by) == ("a", "running", 1, MAKER)
        back = store.put_back("a")
        assert (back.state, back.starts, back.started) == ("queued", 0, None)
        again = store.take(MAKER), store.take(MAKER), store.take(MAKER)
        assert [job and job.id for job in again] == ["a", "c", None]

    def test_so_many_may_wait(self, store: Store) -> None:
        add(store, "a", 1)
        with pytest.raises(QueueFull, match="1 jobs wait"):
            add(store, "b", 1)
        assert set(store.states()) == {"a"}

    def test_a_job_that_is_to_be_cancelled_is_whatever_comes_of_it(self, store: Store) -> None:
        for id in "abc":
            add(store, id)
            store.take(MAKER)
            found = store.cancel(id)
            assert found and found.state == "cancelling"
        with pytest.raises(Busy, match="cancel it"):
            store.remove("a")
        assert store.end("a", "done", {"message": "", "result": "a.mp4"}, 100).state == "cancelled"
        assert store.put_back("b").state == "cancelled"
        assert [job.id for job in store.recover()] == ["c"]
        assert store.kept_bytes() == 0
        with pytest.raises(Busy, match="cancelled already"):
            store.cancel("a")
        assert store.remove("a") and not store.remove("a")

    def test_a_job_that_takes_the_program_down_is_given_up(self, store: Store) -> None:
        add(store, "a")
        add(store, "b")
        for _ in range(MOST_STARTS - 1):
            store.take(MAKER)
            assert store.recover() == []
        store.take(MAKER)
        (ended,) = store.recover()
        assert ended.state == "failed" and f"{MOST_STARTS} times" in ended.outcome["message"]
        following = store.take(MAKER)
        assert following and following.id == "b"

    def test_what_is_forgotten(self, store: Store) -> None:
        for id in "abcd":
            add(store, id)
        for id in "abc":
            store.take(MAKER)
            store.end(id, "done", {"message": "", "result": "x"}, 100)
        now = time.time()
        assert store.forget(now - 1000, 1000) == []
        assert store.forget(now - 1000, 250) == ["a"]
        assert store.forget(now + 1000, 1000) == ["b", "c"]
        assert set(store.states()) == {"d"}, "what waits stays"

    def test_of_a_newer_version(self, store: Store, tmp_path: Path) -> None:
        store.close()
        with sqlite3.connect(tmp_path / "jobs.sqlite3") as db:
            db.execute("PRAGMA user_version = 99")
        db.close()
        with pytest.raises(OutputError, match="newer gnr-video"):
            Store(tmp_path / "jobs.sqlite3")

    def test_half_a_write_is_none(self, store: Store) -> None:
        add(store, "a")
        with pytest.raises(KeyError), store._writing():
            store._db.execute("DELETE FROM jobs")
            raise KeyError
        assert set(store.states()) == {"a"}
        add(store, "b")


def test_what_is_of_no_use_any_more_is_cleared_away(tmp_path: Path) -> None:
    with Folder(tmp_path / "jobs") as folder:
        for id in ("waits", "done", "failed", "half"):
            (folder.make(id) / "a.mp4").write_bytes(b"x")
            folder.results(id).mkdir()
            (folder.results(id) / "b.mp4").write_bytes(b"x")
        folder.clear_others({"waits": "queued", "done": "done", "failed": "failed", "other": "queued"})
        left = {path.relative_to(folder.path / "jobs").as_posix() for path in folder.path.glob("jobs/*/*/*")}
        assert left == {"waits/source/a.mp4", "waits/result/b.mp4", "done/result/b.mp4"}
        assert len(list((folder.path / "jobs").iterdir())) == 2
        assert sys.platform == "win32" or (tmp_path / "jobs").stat().st_mode & 0o077 == 0
