"""New faces followed backwards over the frames that wait: drawn from where they can be seen. Device: CPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnr_video.frame import Frame
from gnr_video.samples.portrait import portrait
from gnr_video.timing import StageTimes
from gnr_video.tracking.finder import Finder
from gnr_video.tracking.selection import FaceChoice
from gnr_video.tracking.smoothing import FADE_OUT_SECONDS, HOLD_SECONDS, Aligner
from tests.test_smoothing import face

FPS = 30


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 15), st.integers(0, 12), st.integers(0, 10_000))
def test_it_is_as_if_the_face_had_been_seen_at_once(late: int, gone: int, seed: int) -> None:
    """Also for one that comes again after a long absence."""
    random = np.random.default_rng(seed)
    places = 300 + np.cumsum(random.normal(0, 3, (60, 2)), axis=0)
    faces = [[face(x, y)] for x, y in places]
    start = 0
    if gone:
        start = 12 + gone + 16  # longer than what is bridged
        faces[12:start] = [[] for _ in faces[12:start]]
    prompt, tardy = Aligner(15), Aligner(15)
    expected, found = [], []
    for i, seen in enumerate(faces):
        expected += prompt.push(i / FPS, seen)
        missed = start <= i < start + late
        before = {0: [faces[j][0] for j in range(i - 1, start - 1, -1)]} if i == start + late else None
        found += tardy.push(i / FPS, [] if missed else seen, before=before)
    expected, found = expected + prompt.flush(), found + tardy.flush()
    assert [len(frame) for frame in found] == [len(frame) for frame in expected]
    for one, other in zip(found, expected, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(astuple(a)[1:6], astuple(b)[1:6], atol=1e-6)


def sliding(people: int = 1) -> Iterator[tuple[Frame, float]]:
    """A portrait that comes in from the left, and where the middle of its face is; another stands at the right."""
    head = np.asarray(cv2.resize(portrait(), (300, 300), interpolation=cv2.INTER_AREA), np.uint8)
    middle = (180 + 271) / 2 * 300 / 512
    for i in range(60):
        image = np.full((300, 900, 3), 60, np.uint8)
        if people == 2:
            image[:, 600:] = head
        x = -300 + 8 * i
        left, right = max(x, 0), min(x + 300, 900)
        if right > left:
            image[:, left:right] = head[:, left - x : right - x]
        yield Frame(image, i, Fraction(1, FPS), i), x + middle


def drawn(face_model: Path, lookahead: int, people: int = 1, faces: str = "all") -> dict[int, list[float]]:
    """Where faces are, by frame."""
    frames = list(sliding(people))
    with Finder(face_model, FaceChoice.parse(faces), lookahead) as finder:
        items = finder.track((frame for frame, _ in frames), StageTimes())
        return {
            item.frame.index: [layer.alignment.center_x - frames[item.frame.index][1] for layer in item.faces]
            for item in items
        }


def test_a_face_that_comes_in_is_drawn_sooner_and_where_it_is(face_model: Path) -> None:
    live, file = (drawn(face_model, lookahead) for lookahead in (0, 15))
    first = {
        name: min(i for i, seen in made.items() if seen) for name, made in (("live", live), ("file", file))
    }
    with Finder(face_model) as finder:
        if finder.tracker.graphs:
            pytest.skip("needs OpenVINO: MediaPipe's graphs only go forwards")
    assert first["file"] <= first["live"] - 4
    apart = np.array([file[i][0] for i in range(first["file"], first["live"] + 10)])
    assert np.abs(apart - np.median(apart)).max() < 8, "half of it is outside at first"
    assert all(len(file[i]) == 1 for i in range(first["file"], 60)), "and it stays"


def test_nobody_is_drawn_beside_the_one_who_is_chosen(face_model: Path) -> None:
    """The one who comes in is the left one from some frame on; until then the other is, and goes as lost faces go."""
    both = [i for i, seen in drawn(face_model, 15, 2, "left").items() if len(seen) > 1]
    assert len(both) <= FPS * (HOLD_SECONDS + FADE_OUT_SECONDS) + 1


def test_two_people(face_model: Path) -> None:
    live, file = (drawn(face_model, lookahead, 2) for lookahead in (0, 15))
    count = {i: len(seen) for i, seen in file.items()}
    assert set(count.values()) <= {1, 2}
    assert sum(count.values()) >= sum(len(seen) for seen in live.values())
