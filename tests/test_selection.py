"""Several faces: who is chosen, identities and styles through crossings and loss, one batch. Device: CPU.

The face model is fetched on first use; where that fails, the tests that need it are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from engines.errors import InputError
from gnr_video import Translator
from gnr_video.frame import Face, Frame, Image, Layered
from gnr_video.hold import Drawings
from gnr_video.options import EngineOptions, LookOptions
from gnr_video.pipeline import Look, cut, draw
from gnr_video.timing import StageTimes
from gnr_video.tracking.alignment import crop_face, fit_alignment
from gnr_video.tracking.finder import Finder
from gnr_video.tracking.identities import Identities
from gnr_video.tracking.search import PROBE_SECONDS
from gnr_video.tracking.selection import MAX_FACES, Cast, FaceChoice
from gnr_video.tracking.tracker import FaceTracker
from tests.faces_helpers import SIZE, passing, two_heads
from tests.media_helpers import frame_times, make_clip

pytestmark = pytest.mark.usefixtures("no_threads_left")


def face(track_id: int, x: float, size: float = 100.0) -> Face:
    points = np.zeros((478, 3), np.float32)
    points[0, :2], points[1, :2] = (x - size / 2, 0), (x + size / 2, size)
    points[2:, :2] = (x, size / 2)
    return Face(track_id, points)


def ids(faces: list[Face]) -> list[int]:
    return [f.track_id for f in faces]


# Who is chosen


@pytest.mark.parametrize("text", ["all", "largest", "left", "right", "1", "3", "id:0", "id:7"])
def test_choices_parse_and_print(text: str) -> None:
    choice = FaceChoice.parse(f" {text.upper()} ")
    assert str(choice) == text
    assert choice.single == (text not in ("all", "3"))
    assert choice.max_faces == (int(text) if text.isdecimal() else MAX_FACES)


@pytest.mark.parametrize("text", ["", "0", "9", "-1", "id:", "id:8", "id:x", "everybody", "1.5"])
def test_other_choices_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="chooses no faces") as caught:
        FaceChoice.parse(text)
    assert "largest" in caught.value.hint


def test_roles_are_free_again_when_somebody_is_gone_for_good() -> None:
    cast = Cast()
    cast.choose([face(3, 400), face(2, 50)], 0.0)
    assert (cast.role(2), cast.role(3)) == (0, 1)  # from left to right
    cast.choose([face(3, 100)], 0.5)
    cast.choose([face(3, 100), face(4, 300)], 1.0)
    assert cast.role(4) == 2  # face 2 may still come back
    cast.choose([face(2, 60), face(3, 100), face(4, 300)], 1.5)
    assert [cast.role(i) for i in (2, 3, 4)] == [0, 1, 2]
    cast.choose([face(3, 100)], 5.0)
    # It was away for longer than people are waited for, so it is somebody new.
    assert cast.role(3) == 0
    cast.choose([face(3, 100), face(9, 500)], 5.1)
    assert (cast.role(3), cast.role(9)) == (0, 1)
    assert cast.role(4) == 2  # frames on their way still know
    cast.reset()
    cast.choose([face(11, 10), face(10, 500)], 6.0)
    assert (cast.role(11), cast.role(10)) == (0, 1)


def test_roles_need_no_more_memory_with_time() -> None:
    cast = Cast()
    for i in range(3000):
        cast.choose([face(i, 0)], 10.0 * i)
        assert cast.role(i) == 0
    assert len(cast._roles) < 300


def test_the_largest_stays_until_another_is_clearly_larger() -> None:
    cast = Cast("largest")
    assert ids(cast.choose([face(0, 100, 80), face(1, 300, 100)], 0.0)) == [1]
    assert ids(cast.choose([face(0, 100, 120), face(1, 300, 100)], 0.1)) == [1]
    assert ids(cast.choose([face(0, 100, 130), face(1, 300, 100)], 0.2)) == [0]
    # Lost for a moment, it is waited for.
    assert cast.choose([face(1, 300, 100)], 0.3) == []
    assert ids(cast.choose([face(0, 100, 130), face(1, 300, 100)], 0.4)) == [0]
    assert ids(cast.choose([face(1, 300, 100)], 1.2)) == [1]
    assert cast.role(1) == 0  # always the same style


def test_left_right_and_id() -> None:
    left, right, second = Cast("left"), Cast("right"), Cast("id:1")
    for time, x in ((0.0, 200), (0.1, 310), (0.2, 400)):
        faces = [face(0, x), face(1, 300)]
        # A face that is hardly further out does not count as such.
        assert ids(left.choose(faces, time)) == [1 if x == 400 else 0]
        assert ids(right.choose(faces, time)) == [0 if x == 400 else 1]
        assert ids(second.choose(faces, time)) == [1]


# Identities


def test_faces_that_cross_in_one_row_keep_their_numbers() -> None:
    identities = Identities()
    for i in range(61):
        a, b = 10.0 * i, 600 - 10.0 * i
        boxes = {0: (a, 0, a + 100, 100), 1: (b, 0, b + 90, 95)}
        if abs(a - b) < 60:
            del boxes[0]  # hidden behind the other
        given = identities.assign(list(boxes.values()), i / 30)
        assert given == list(boxes), i


def test_new_numbers_are_given_from_left_to_right() -> None:
    boxes = [(300, 0, 400, 100), (0, 0, 100, 100), (600, 0, 700, 100)]
    assert Identities().assign(boxes, 0.0) == [1, 0, 2]


# On pictures


@pytest.fixture(scope="module")
def shared(face_model: Path) -> Iterator[FaceTracker]:
    with FaceTracker(face_model, max_faces=4) as tracker:
        yield tracker


@pytest.fixture
def tracker(shared: FaceTracker) -> FaceTracker:
    shared.reset()
    return shared


LEFT, RIGHT = (150.0, 200.0), (490.0, 200.0)


def test_all_faces_of_a_picture_are_found_at_once(tracker: FaceTracker) -> None:
    faces = tracker.track(two_heads((LEFT, RIGHT)), 0.0)
    middles = [(f.box[0] + f.box[2]) / 2 for f in faces]
    assert middles == pytest.approx([150, 490], abs=8)
    assert faces[0].track_id < faces[1].track_id


def test_a_new_face_is_noticed_within_a_second(tracker: FaceTracker) -> None:
    for start in (0.5, 1.2):
        tracker.reset()
        seen = None
        for i in range(40):
            time = i / 10
            frame = two_heads((LEFT, RIGHT if time >= start else None))
            if len(tracker.track(frame, time)) == 2:
                seen = time
                break
        assert seen is not None
        assert start <= seen <= start + PROBE_SECONDS


def test_one_more_face_does_not_shake_the_others(face_model: Path) -> None:
    """Each face is followed as if it were alone: MediaPipe's own filter works, its detector rests."""
    random = np.random.default_rng(0)
    jitter = {}
    for count, places in (("one", (LEFT, None)), ("two", (LEFT, RIGHT))):
        still = two_heads(places).astype(np.float32)
        with FaceTracker(face_model, max_faces=4) as tracker:
            fits = []
            for i in range(40):
                noisy = np.clip(still + random.normal(0, 4, still.shape), 0, 255).astype(np.uint8)
                fit = fit_alignment(tracker.track(noisy, i / 30)[0])
                fits.append((fit.center_x, fit.center_y))
        jitter[count] = float(np.sqrt(np.mean(np.diff(fits[15:], axis=0) ** 2)))
    assert jitter["two"] < 1.5 * jitter["one"] + 0.02


@pytest.mark.parametrize("count", [55, 75])
def test_people_who_pass_each_other_keep_their_numbers(tracker: FaceTracker, count: int) -> None:
    seen = []
    for i, (frame, behind, front) in enumerate(passing(count)):
        faces = {f.track_id: (f.box[0] + f.box[2]) / 2 for f in tracker.track(frame, i / 30)}
        if i == 0:
            (back, x), (fore, y) = sorted(faces.items(), key=lambda item: item[1])
            assert x < y
        for track_id, x in faces.items():
            assert track_id in (back, fore), i
            assert x == pytest.approx(behind[0] if track_id == back else front[0], abs=25), i
        seen.append(len(faces))
    assert seen[:8] == [2] * 8 == seen[-8:]
    assert min(seen) == 1  # one was hidden for a while
    assert seen.count(1) < 20


def test_a_hidden_face_keeps_its_number_beside_another(tracker: FaceTracker) -> None:
    found = []
    for i in range(40):
        frame = two_heads((LEFT, None if 10 <= i < 22 else RIGHT))
        found.append(ids(tracker.track(frame, i / 30)))
    assert found[9] == found[-1]
    assert found[15] == found[9][:1]
    assert {number for each in found for number in each} == set(found[9])


# Styles of several people


@pytest.fixture(scope="module")
def made(tiny: Path) -> Iterator[Translator]:
    with Translator(tiny, "42,7", engine=EngineOptions("torch", precision="fp32", threads=1)) as translator:
        yield translator


def drawn(made: Translator, frames: list[Frame], face_model: Path, lookahead: int = 0) -> Iterator[Layered]:
    """The frames with all their faces drawn, each in its style."""
    times, look = StageTimes(), Look(made.engine, made.compositor, made.effects)
    with Finder(face_model, lookahead=lookahead) as finder:
        found = cut(finder.track(frames, times), look, times)
        yield from draw(
            found, look, Drawings(look.engine, look.effects, times), times, styles=made.schedule()
        )


@pytest.mark.slow
def test_people_who_pass_each_other_keep_their_styles(made: Translator, face_model: Path) -> None:
    """Every translated crop is what its person's style makes of it, before and after the crossing."""
    pictures = list(passing(60))
    frames = [Frame(p[0], i, Fraction(1, 30), i) for i, p in enumerate(pictures)]
    checked = 0
    for item in drawn(made, frames, face_model, 15):
        index = item.frame.index
        behind, front = pictures[index][1][0], pictures[index][2][0]
        if abs(behind - front) < 120:
            continue
        assert len(item.faces) == 2, index
        for alignment, crop, picture in ((f.alignment, f.crop, f.drawing) for f in item.faces):
            style = 42 if abs(alignment.center_x - behind) < abs(alignment.center_x - front) else 7
            own, other = (
                np.abs(made.translate_face(crop, one).astype(int) - picture) for one in (style, 49 - style)
            )
            assert own.max() <= 6, index  # a drawing follows the one before it with 5 levels between at most
            assert other.mean() > 4 * own.mean(), index
            checked += 1
    assert checked > 50


def test_a_photograph_of_two_people(made: Translator) -> None:
    image = two_heads((LEFT, RIGHT))
    result = made.translate_frame(image)
    for x in (LEFT[0], RIGHT[0]):
        middle = slice(160, 240), slice(int(x) - 30, int(x) + 30)
        assert np.abs(result[middle].astype(int) - image[middle]).mean() > 8
    np.testing.assert_array_equal(result[:, 300:340], image[:, 300:340])


def test_only_the_chosen_face_is_translated(tiny: Path) -> None:
    image = two_heads((LEFT, RIGHT))
    for choice, changed in (("left", LEFT), ("right", RIGHT)):
        with Translator(
            tiny, engine=EngineOptions("torch", precision="fp32", threads=1), look=LookOptions(faces=choice)
        ) as translator:
            result = translator.translate_frame(image)
        difference = np.abs(result.astype(int) - image).mean((0, 2))
        assert abs(float(np.average(np.arange(SIZE[0]), weights=difference)) - changed[0]) < 20


def test_faces_of_a_frame_are_one_batch(made: Translator, face_model: Path, monkeypatch) -> None:
    sizes = []
    original = made.engine.translate

    def counted(crops, styles=None):
        sizes.append((len(crops), styles is None))
        return original(crops, styles)

    monkeypatch.setattr(made.engine, "translate", counted)
    frames = [Frame(two_heads((LEFT, RIGHT if i > 2 else None)), i, Fraction(1, 2), i) for i in range(8)]
    for _ in drawn(made, frames, face_model):
        pass
    # One face in the engine's own style needs no style vectors; two have one each.
    assert sizes[0] == (1, True)
    assert sizes[-1] == (2, False)
    assert len(sizes) == 8


def test_two_people_in_a_video(tiny: Path, tmp_path: Path, face_model: Path) -> None:
    frames = [p[0] for p in passing(20)]
    clip = make_clip(tmp_path / "two.mp4", size=SIZE, pts=range(20), images=frames)
    with Translator(tiny, "42,7", engine=EngineOptions("torch", precision="fp32", threads=1)) as translator:
        report = translator.translate_video(clip, tmp_path / "out.mp4")
    assert report.faces >= 30
    assert report.settings["faces"] == "all"
    assert report.style == "42,7"
    assert frame_times(tmp_path / "out.mp4") == frame_times(clip)


def test_crop_of_the_same_face_is_the_same_alone_and_in_company(tracker: FaceTracker) -> None:
    def crop(image: Image) -> Image:
        tracker.reset()
        first = min(tracker.track(image, 0.0), key=lambda f: f.box[0])
        return crop_face(image, fit_alignment(first), 64)

    alone, together = crop(two_heads((LEFT, None))), crop(two_heads((LEFT, RIGHT)))
    assert np.abs(alone.astype(int) - together).mean() < 3
