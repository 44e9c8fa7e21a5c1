"""Inputs spread over the workers of a real Ray cluster on this machine. Device: CPU."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from engines.accuracy import psnr
from engines.errors import EngineError
from gnr_video.batch.jobs import Job, plan
from gnr_video.batch.run import Outcome
from gnr_video.cluster.head import Head
from gnr_video.cluster.run import Cluster, import_ray, run
from gnr_video.cluster.worker import Setup
from gnr_video.options import EngineOptions, LookOptions, OutputOptions
from gnr_video.pipeline import Counts
from gnr_video.segments.plan import Lengths
from gnr_video.segments.run import translate
from gnr_video.translator import Translator
from tests.cli_helpers import call, finish, start
from tests.live_helpers import until
from tests.media_helpers import frame_times, read_pictures

ray = pytest.importorskip("ray", reason="needs ray")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("face_model", "person_model")]

SETUP = Setup(engine=EngineOptions(engine="torch"), look=LookOptions(paste="crop"))
TWO_WORKERS = Cluster(cpus=1)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Ray, with room for two workers of one core."""
    import_ray()
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  by itself 15: tests beside these would starve them
    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=100_000_000,
        include_dashboard=False,
        log_to_driver=False,
    )
    yield
    ray.shutdown()


@pytest.fixture
def clips(tmp_path: Path, face_clip: Path) -> Path:
    (tmp_path / "in").mkdir()
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        shutil.copy(face_clip, tmp_path / "in" / name)
    return tmp_path / "in"


def spread(
    clips: Path, tiny: Path, setup: Setup = SETUP, cluster: Cluster = TWO_WORKERS, **options: Any
) -> list[Outcome]:
    out = clips.parent / "out"
    return list(run(plan([str(clips)], out), tiny, setup, OutputOptions(**options), cluster, out=out))


def workers() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            found += [process] if "ray::Worker" in "".join(process.cmdline()) else []
        except psutil.Error:  # ended meanwhile
            continue
    return found


def kill_one(folder: Path, pattern: str) -> None:
    """Kill a worker as soon as one writes."""
    until(lambda: list(folder.glob(pattern)), seconds=100)
    workers()[0].kill()


def test_a_worker_that_dies_in_mid_work_costs_nothing(
    cluster: None, clips: Path, tiny: Path, face_clip: Path
) -> None:
    (clips / "bad.mp4").write_text("no video")
    out = clips.parent / "out"
    killer = threading.Thread(target=kill_one, args=(out, ".gnr-video/unfinished/*/.*.part.mp4"))
    killer.start()
    outcomes = spread(clips, tiny)
    killer.join()
    assert sorted((one.job.source.name, one.status) for one in outcomes) == [
        ("a.mp4", "done"),
        ("b.mp4", "done"),
        ("bad.mp4", "failed"),
        ("c.mp4", "done"),
    ]
    assert sorted(one.name for one in out.iterdir()) == [".gnr-video", "a.mp4", "b.mp4", "c.mp4"]
    assert sorted(one.name for one in (out / ".gnr-video").iterdir()) == ["done.jsonl", "lock"]
    noted = [json.loads(line)["target"] for line in (out / ".gnr-video/done.jsonl").read_text().splitlines()]
    assert sorted(noted) == sorted(["a.mp4", "b.mp4", "c.mp4"] * 2), "each once, and once with its hash"
    with Translator(tiny, engine=SETUP.engine, look=SETUP.look) as translator:
        translator.translate_video(face_clip, out.parent / "alone.mp4")
    alone = [picture.tolist() for picture in read_pictures(out.parent / "alone.mp4")]
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        assert [picture.tolist() for picture in read_pictures(out / name)] == alone

    (clips / "bad.mp4").unlink()
    assert [one.status for one in spread(clips, tiny, cluster=Cluster(cpus=2))] == ["skipped"] * 3


def test_segments_of_a_long_video_are_shared(
    cluster: None, tmp_path: Path, tiny: Path, face_clip: Path
) -> None:
    """With what an earlier run has left; and a worker dies at one of them."""
    setup = replace(SETUP, lengths=Lengths(segment=0.3, warm_up=0.2, least=0.5))
    target, folder = tmp_path / "out" / "a.mp4", tmp_path / "out" / ".a.mp4.segments"
    job = Job(face_clip, target)
    with Translator(tiny, engine=SETUP.engine, look=SETUP.look) as translator:
        translator.translate_video(face_clip, tmp_path / "alone.mp4")
        ended = RuntimeError("a crash")

        def crash(counts: Counts, expected: int | None) -> None:
            if len(list(folder.glob("*.json"))) > 1:  # its settings, and a segment
                raise ended

        target.parent.mkdir()
        with pytest.raises(RuntimeError, match="a crash"):
            translate(translator, face_clip, target, progress=crash, lengths=setup.lengths)
    said: list[str] = []
    killer = threading.Thread(target=kill_one, args=(folder, "unfinished/*/.*.part.mp4"))
    killer.start()
    (outcome,) = run([job], tiny, setup, OutputOptions(), TWO_WORKERS, out=target.parent, say=said.append)
    killer.join()
    assert outcome.status == "done", outcome.why
    assert said == ["face.mp4: going on: 1 of 4 segments are there"]
    assert outcome.report and outcome.report.settings["segments_from_before"] == 4
    assert sorted(one.name for one in target.parent.iterdir()) == [".gnr-video", "a.mp4"]
    found, alone = read_pictures(target), read_pictures(tmp_path / "alone.mp4")
    assert len(found) == len(alone)
    # The encoder begins anew with each segment, and the drawings of random weights are noise to it.
    assert min(psnr(a, b) for a, b in zip(found, alone)) > 38
    assert frame_times(target) == frame_times(tmp_path / "alone.mp4")


def test_inputs_and_results_that_are_sent(cluster: None, clips: Path, tiny: Path) -> None:
    outcomes = spread(clips, tiny, cluster=Cluster(cpus=2, send=True), end=0.2)
    assert [one.status for one in outcomes] == ["done"] * 3
    assert all(str(one.report and one.report.target) == str(one.job.target) for one in outcomes)
    assert len(read_pictures(clips.parent / "out" / "a.mp4")) == 4


def test_a_worker_with_another_version_is_refused(cluster: None, clips: Path, tiny: Path) -> None:
    with pytest.raises(EngineError, match=r"has gnr-video \d.*, the run has 0\.0\.1.*same version"):
        spread(clips, tiny, Setup(version="0.0.1"), Cluster(cpus=2))


def test_a_cluster_without_room(cluster: None, clips: Path, tiny: Path) -> None:
    with pytest.raises(EngineError, match="the cluster has 2 cores, a worker takes 100"):
        spread(clips, tiny, cluster=Cluster(cpus=100))


def test_a_head_that_is_silent(cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    head = Head(ray)
    assert head.ask(ray.cluster_resources)["CPU"] == 2
    with pytest.raises(ZeroDivisionError):
        head.ask(lambda: 1 / 0)
    monkeypatch.setattr("gnr_video.cluster.head.SILENT_SECONDS", 0.0)
    heard = threading.Event()
    with pytest.raises(EngineError, match=r"the head of the cluster at .*:\d+ is lost .*the same command"):
        head.ask(heard.wait)
    heard.set()
    with pytest.raises(EngineError, match="is lost"):  # once and for all
        head.ask(lambda: 1)


@pytest.mark.parametrize("end", ["kill", "suspend"])
def test_a_head_that_is_lost_ends_the_run_with_a_word(
    clips: Path, tiny: Path, tmp_path: Path, end: str
) -> None:
    """Not Ray, which ends the process without one."""
    out = tmp_path / "out"
    # Shorter than a user's, and longer than a busy machine leaves any process without a turn.
    patience = "import gnr_video.cluster.head as head; head.SILENT_SECONDS = 10.0"
    process = start(
        [clips, "-o", out, "--weights", tiny, "--engine", "torch", "--ray", "--ray-cpus=1"], before=patience
    )
    parts = ".gnr-video/unfinished/*/.*.part.mp4"
    until(lambda: process.poll() is not None or list(out.glob(parts)), seconds=240)  # 20 by itself
    assert process.poll() is None, finish(process)
    (head,) = [one for one in psutil.Process(process.pid).children() if one.name() == "gcs_server"]
    getattr(head, end)()
    done = finish(process)
    assert done.status == 6, done.stderr
    assert "the head of the cluster at" in done.stderr and "give the same command" in done.stderr
    head.wait(timeout=10)  # Ray's processes end with it


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--ray", "{clips}"], "is no address of a cluster: put inputs before --ray"),
        (["--ray-send"], "--ray-send sends to the workers of --ray"),
    ],
)
def test_options_that_make_no_sense(clips: Path, options: list[str], said: str) -> None:
    done = call(clips, *(one.format(clips=clips) for one in options))
    assert done.status == 2
    assert said in " ".join(done.stderr.split())


def test_a_folder_of_pictures_alone_is_no_job(tmp_path: Path, clips: Path) -> None:
    (tmp_path / "pictures").mkdir()
    done = call(tmp_path / "pictures", "--ray=here")
    assert done.status == 3
    assert "pictures is no file\n  a cluster is given files" in done.stderr
