"""What stages write down and go on from: the same faces, the same drawings, to the bit. Device: CPU."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gnr_video.effects.base import Effect
from gnr_video.frame import Face, FaceLayer, Frame
from gnr_video.segments.written import from_json, to_json
from gnr_video.timing import StageTimes
from gnr_video.tracking.boxes import Track
from gnr_video.tracking.finder import Finder
from gnr_video.tracking.landmark_tracker import GraphFollower
from gnr_video.tracking.smoothing import Aligner
from tests.faces_helpers import passing


def written(value: Any) -> Any:
    """A value after it has been in a file."""
    return from_json(json.loads(json.dumps(to_json(value))))


def found(finder: Finder, frames: list[Frame]) -> list[list[FaceLayer]]:
    finder.reset()
    return [layered.faces for layered in finder.track(frames, StageTimes())]


@pytest.fixture(scope="module")
def crowd() -> list[Frame]:
    """Two people who pass each other: by the end the one who was on the left is on the right."""
    images = [image for image, *_ in passing(46)]
    return [Frame(image, i, Fraction(1, 15), i) for i, image in enumerate(images)]


LATE = 34
"""A frame after they have passed each other."""


@pytest.mark.usefixtures("face_model")
@pytest.mark.slow
def test_who_is_who_after_they_have_passed_each_other(crowd: list[Frame]) -> None:
    crowd[LATE].props["states"] = states = {}
    with Finder(lookahead=5) as finder:
        whole = found(finder, crowd)[LATE:]
    assert {face.alignment.track_id for face in whole[5]} == {0, 1}
    left = min(whole[5], key=lambda face: face.alignment.center_x)
    assert left.alignment.track_id == left.role == 1, "they have passed each other"

    with Finder(lookahead=5) as finder:
        finder.reset()
        finder.restore(written(states["finder"]))
        part = [layered.faces for layered in finder.track(crowd[LATE:], StageTimes())]
    assert [[(f.role, f.alignment) for f in frame] for frame in part] == [
        [(f.role, f.alignment) for f in frame] for frame in whole
    ]
    with Finder(lookahead=5) as finder:
        anew = found(finder, crowd[LATE:])
    assert min(anew[5], key=lambda face: face.alignment.center_x).role == 0, "without, they would be swapped"


@pytest.mark.usefixtures("face_model")
def test_graphs_take_their_faces_over(crowd: list[Frame]) -> None:
    """MediaPipe's own graphs, where OpenVINO is not."""
    with Finder(lookahead=0) as finder:
        for frame in crowd[:3]:
            finder.tracker.track(frame.image, frame.pts_seconds)
        state = written(finder.tracker._followers[0].state())
        points, model = state["points"], finder.tracker._model
    follower = GraphFollower(model)
    follower.restore(state)
    follower.follow(crowd[3].image, crowd[3].pts_seconds)
    assert follower.points is not None and follower.track_id == state["id"]
    assert np.abs(follower.points - points)[:, :2].max() < 12
    follower.close()


def faces(count: int) -> Iterator[list[Face]]:
    random = np.random.default_rng(0)
    points = random.uniform(0, 100, (478, 3)).astype(np.float32)
    for i in range(count):
        yield [Face(0, points + np.float32(i) + random.normal(0, 0.3, (478, 3)).astype(np.float32))]


@pytest.mark.parametrize("lookahead", [0, 4, 15])
def test_smoothing(lookahead: int) -> None:
    """From the first frame on, whatever is pending."""
    whole, part = Aligner(lookahead), Aligner(lookahead)
    expected, got = [], []
    for i, seen in enumerate(faces(50)):
        if i == 30:
            part.restore(written(whole.state()))
        expected += whole.push(i / 30, seen)
        if i >= 30:
            got += part.push(i / 30, seen)
    expected += whole.flush()
    got += part.flush()
    assert got == expected[30:]


def test_all_that_states_hold_comes_back() -> None:
    values = {
        "plain": [None, True, 3, 0.1, "x", (1, (2.5, "y"))],
        7: {(0, 1): np.arange(6, dtype=np.float32).reshape(2, 3), 2: np.zeros((0, 3), np.uint8)},
        "track": Track((0.0, 1.0, 2.0, 3.0), 4.0, (5.0, 6.0), np.ones((6, 6, 3), np.float32)),
    }
    back = written(values)
    assert back["plain"] == values["plain"]
    np.testing.assert_array_equal(back[7][0, 1], values[7][0, 1])
    assert back[7][0, 1].dtype == np.float32 and back[7][2].shape == (0, 3)
    assert back["track"].expected(5.0) == values["track"].expected(5.0)


def test_nothing_else_is_read() -> None:
    with pytest.raises(TypeError, match="no state has a "):
        to_json(Path())
    with pytest.raises(KeyError):
        from_json({"class": "Path", "fields": {}})
    with pytest.raises(ValueError, match="OBJECT"):
        from_json({"array": "AAAA", "type": "O", "shape": [1]})


def test_every_effect_that_remembers_writes_it_down() -> None:
    """One that keeps something between frames and has no state would break resumed renders at their seams."""
    from gnr_video.effects import EFFECTS

    for entry in EFFECTS:
        effect = entry.make()
        remembers = type(effect).reset is not Effect.reset
        writes = type(effect).state is not Effect.state and type(effect).restore is not Effect.restore
        assert remembers == writes, entry.name
        assert effect.stage in ("cut", "compose")
