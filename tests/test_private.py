"""In private no frame shows a bare face, and none without a person a drawing. Device: CPU."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from gnr_video import LookOptions, Translator, pipeline
from gnr_video.compositing.compositor import Compositor
from gnr_video.compositing.cover import blurred_whole, covered_picture, draw_covers, hidden, opaque_under
from gnr_video.compositing.grid import GridCompositor
from gnr_video.frame import Alignment, Cover, FaceLayer, Frame, Layered
from gnr_video.hold import Drawings
from gnr_video.media.open import open_source
from gnr_video.options import EngineOptions
from gnr_video.pipeline import Counts
from gnr_video.privacy import BEGINNING, LOST, LOST_LONG, NOT_CHOSEN, NOT_FOUND, REASONS, reasons
from gnr_video.report import Report
from gnr_video.segments.written import from_json, to_json
from gnr_video.timing import StageTimes
from gnr_video.tracking.finder import Finder
from gnr_video.tracking.heads import DROP, HIGH, WIDE, bare_heads, inside
from gnr_video.tracking.landmarker import Landmarker
from gnr_video.tracking.likeness import Likeness
from gnr_video.tracking.selection import FaceChoice
from gnr_video.tracking.smoothing import LOOKAHEAD, Aligner
from tests.known_faces import CLIPS, FPS, Shown, black, dimmed, empty, placed
from tests.media_helpers import CLIPS as VIDEOS
from tests.test_smoothing import face

pytestmark = [pytest.mark.usefixtures("face_model", "person_model", "no_threads_left")]


@pytest.fixture(scope="module")
def translator(tiny: Path) -> Iterator[Translator]:
    engine = EngineOptions("torch", precision="fp32", threads=1)
    with Translator(tiny, engine=engine, look=LookOptions(private=True)) as made:
        yield made


def translated(
    translator: Translator, shown: Sequence[Shown], *, live: bool = False, faces: str = "all"
) -> list[Layered]:
    """The frames as a file's, or as they come."""
    frames = [Frame(one.image, i, Fraction(1, FPS), i) for i, one in enumerate(shown)]
    lookahead, times = 0 if live else LOOKAHEAD, StageTimes()
    with (
        Finder(translator.face_model, FaceChoice.parse(faces), lookahead, private=True) as finder,
        closing(translator.open_look(live=live)) as look,
    ):
        drawings = Drawings(look.engine, look.effects, times)
        items = pipeline.cut(pipeline.track(frames, finder, look, times), look, times)
        drawn = pipeline.draw(items, look, drawings, times, styles=translator.schedule())
        return list(pipeline.compose(drawn, look, times))


def check(shown: Sequence[Shown], made: Sequence[Layered]) -> None:
    assert [item.frame.index for item in made] == list(range(len(shown)))
    bare = [i for i, (one, item) in enumerate(zip(shown, made)) if one.is_bare(item.frame.image)]
    assert not bare
    ghosts = [
        i
        for i, (one, item) in enumerate(zip(shown, made))
        if not one.is_person and (item.faces or item.covers)
    ]
    assert not ghosts


@pytest.mark.slow
@pytest.mark.parametrize("name", CLIPS)
def test_no_face_is_bare_as_it_comes(translator: Translator, name: str) -> None:
    shown = list(CLIPS[name]())
    assert sum(one.is_bare(one.image) for one in shown) >= 10, "the judge sees bare faces"
    made = translated(translator, shown, live=True)
    check(shown, made)
    why = [reasons(item) for item in made]
    if name == "turns_away":  # its last drawing for a second, then a cover
        lost = [i for i, one in enumerate(why) if LOST in one]
        late = [i for i, one in enumerate(why) if LOST_LONG in one]
        assert len(lost) == FPS and late == list(range(lost[-1] + 1, len(shown)))
        assert all(item.covers for item in made[late[0] :])
    if name == "appears_after_cuts":
        assert why[:5] == [{BEGINNING}] * 5, "nobody is found: blurred"
        assert not any(why[5:21])
        assert why[21] == {BEGINNING}, "blurred after a cut"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["comes_and_leaves", "fades"])
def test_no_face_is_bare_in_a_file(translator: Translator, name: str) -> None:
    """A file is looked through ahead: nothing is blurred."""
    shown = list(CLIPS[name]())
    made = translated(translator, shown)
    check(shown, made)
    assert not any(item.blurred for item in made)
    if name == "fades":  # a face is drawn from the first frame on in which it can be seen
        seen = [i for i, one in enumerate(shown) if one.is_bare(one.image)]
        assert all(made[i].faces for i in seen)


@pytest.mark.parametrize("choice", ["left", "1"])
def test_faces_that_are_not_chosen_are_covered(translator: Translator, choice: str) -> None:
    shown = list(CLIPS["crosses"]())[:4]
    made = translated(translator, shown, faces=choice)
    check(shown, made)
    assert [len(item.faces) for item in made] == [1] * 4
    assert all(reasons(item) == {NOT_CHOSEN} for item in made)


def test_a_person_whose_face_is_not_found_is_covered(translator: Translator) -> None:
    """A tracker that finds nothing at all, as in a dark or blurred picture."""
    shown = placed(120)
    with closing(translator.open_look()) as look:
        assert look.privacy is not None
        item = Layered(Frame(shown.image, 0, Fraction(1, FPS), 0))
        (made,) = pipeline.compose(look.privacy.guard([item], StageTimes()), look, StageTimes())
        assert not shown.is_bare(made.frame.image)
        assert reasons(made) == {NOT_FOUND}
        look.privacy.reset()
        nobody = Layered(Frame(empty().image, 1, Fraction(1, FPS), 1))
        (made,) = pipeline.compose(look.privacy.guard([nobody], StageTimes()), look, StageTimes())
        assert not made.covers and (made.frame.image == nobody.frame.image).all()


@pytest.mark.parametrize("paste", ["side-by-side", "face", "square", "crop"])
def test_paste_modes(translator: Translator, paste: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = placed(120)
    monkeypatch.setattr(translator, "compositor", Compositor(paste))
    (made,) = translated(translator, [shown])
    parts = np.hsplit(made.frame.image, 2) if paste == "side-by-side" else [made.frame.image]
    if paste == "crop":
        assert np.ptp(made.frame.image.reshape(-1, 3).mean(0)) > 60, "violet"
        return
    assert not any(shown.is_bare(part) for part in parts)
    assert all((part != shown.image).any() for part in parts)


def test_a_grid_covers_the_original(translator: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = GridCompositor(3, 3, cell=64)
    monkeypatch.setattr(translator, "compositor", grid)
    monkeypatch.setattr(translator, "_grid_styles", grid.styles)
    shown = placed(120)
    (private,) = translated(translator, [shown])
    monkeypatch.setattr(translator, "private", False)
    (public,) = translated(translator, [shown])
    middle = np.s_[64:128, 64:128]
    changed = np.abs(private.frame.image.astype(int) - public.frame.image).max(axis=2) > 10
    assert changed[middle].mean() > 0.6
    changed[middle] = False
    assert not changed.any()


@pytest.mark.slow
def test_a_detector_finds_no_face_in_a_real_clip(translator: Translator, face_model: Path) -> None:
    """The tests' network draws no faces: whatever is found in its pictures is a photograph's."""
    clip = VIDEOS / "hands_over_face.mkv"
    if not clip.is_file():
        pytest.skip("needs ../shared/data/video/hands_over_face.mkv")
    with open_source(clip, start=1.0, end=2.2) as source:
        shown = [Shown(frame.image, np.zeros(frame.image.shape[:2], bool)) for frame in source]
    made = translated(translator, shown, live=True)
    looked_at = range(0, len(shown), 3)
    detector = Landmarker(face_model, num_faces=2, video=False)
    try:

        def found(image: np.ndarray) -> int:
            height, width = image.shape[:2]
            top = image[: height // 2, width // 4 : 3 * width // 4]  # larger, and so found more easily
            return len(detector.image(image)) + len(detector.image(np.ascontiguousarray(top)))

        assert sum(found(shown[i].image) > 0 for i in looked_at) > 0.8 * len(looked_at)
        assert not [i for i in looked_at if found(made[i].frame.image)]
    finally:
        detector.close()


@pytest.mark.slow
def test_a_run_goes_on_where_another_has_stopped(translator: Translator) -> None:
    """In mid-loss, with states that were written to disk: what is held and covered stays where it was."""
    shown = list(CLIPS["turns_away"]())[:24]
    whole = translated(translator, shown, live=True)
    made: list[Frame] = []

    def run(frames: Sequence[Frame], states: Mapping[str, Any] | None = None) -> None:
        with (
            Finder(translator.face_model, private=True) as finder,
            closing(translator.open_look(live=True)) as look,
        ):
            styles = translator.schedule()
            pipeline.run(frames, made.append, finder, look, StageTimes(), styles=styles, states=states)

    frames = [Frame(one.image, i, Fraction(1, FPS), i) for i, one in enumerate(shown)]
    frames[14].props["states"] = states = {}
    run(frames[:15])
    del made[14:]
    written = json.dumps(to_json(states))
    run(frames[14:], from_json(json.loads(written)))
    assert len(written) < 5e6, "no frame is in it"
    assert LOST in reasons(whole[14])
    assert not [i for i, (one, item) in enumerate(zip(made, whole)) if (one.image != item.frame.image).any()]


class TestCounts:
    def test_a_report_says_why(self, translator: Translator, face_clip: Path, tmp_path: Path) -> None:
        report = translator.translate_video(face_clip, tmp_path / "out.mp4")
        assert report.settings["private"] is True
        assert set(report.covered) <= set(REASONS)
        text = Report(frames=9, covered={LOST: 4, BEGINNING: 2}).table()
        assert "frames covered: 4 lost, 2 beginning" in text

    def test_frames_are_counted_by_reason(self) -> None:
        place = Alignment(0, 10, 10, 1, 0)
        frame = Frame(np.zeros((4, 4, 3), np.uint8), 0, Fraction(1), 0)
        item = Layered(frame, [FaceLayer(place, held=1.0)], covers=[Cover(place, NOT_FOUND)] * 2)
        counts = Counts()
        for one in (item, item, Layered(frame, blurred=BEGINNING), Layered(frame)):
            counts.add(one)
        assert counts.covered == {LOST: 2, NOT_FOUND: 2, BEGINNING: 1}
        assert (counts + counts).covered == {LOST: 4, NOT_FOUND: 4, BEGINNING: 2}


class TestCovers:
    def test_a_cover_hides_the_whole_head(self) -> None:
        image = np.random.default_rng(0).integers(0, 255, (300, 400, 3)).astype(np.uint8)
        out, place = image.copy(), Alignment(0, 200, 150, 0.6, 0.3)
        draw_covers(out, [Cover(place, LOST_LONG)])
        y, x = np.mgrid[0:300, 0:400]
        c, s = np.cos(0.3), np.sin(0.3)
        across, down = c * (x - 200) + s * (y - 150), c * (y - 150) - s * (x - 200)
        away = np.hypot(across / (WIDE * 0.6), (down + DROP * 0.6) / (HIGH * 0.6))
        changed = (out != image).any(axis=2)
        assert changed[away < 0.98].mean() > 0.999
        assert not changed[away > 1.06].any()
        alpha = opaque_under(np.zeros((300, 400), np.uint8), [Cover(place, LOST_LONG)])
        assert alpha is not None and alpha[away < 0.98].all() and not alpha[away > 1.05].any()

    def test_nothing_fine_is_left_of_a_blurred_picture(self) -> None:
        shown = placed(120)
        assert not shown.is_bare(blurred_whole(shown.image))
        hazy = blurred_whole(shown.image).astype(np.float32)
        assert np.abs(hazy - cv2.GaussianBlur(hazy, (0, 0), 3)).mean() < 1

    def test_what_was_there_is_hidden(self) -> None:
        shown, place = placed(120), Alignment(0, 226, 88, 0.26, 0.0)
        item = Layered(Frame(shown.image, 0, Fraction(1), 0), [FaceLayer(place)])
        assert not shown.is_bare(hidden(shown.image, item))
        assert not shown.is_bare(hidden(shown.image, replace(item, faces=[], blurred=BEGINNING)))
        assert shown.is_bare(hidden(shown.image, replace(item, faces=[])))

    def test_a_covered_picture_is_the_same_for_everybody(self) -> None:
        assert covered_picture((64, 48)).shape == (48, 64, 3)


class TestWhereTheyAre:
    def test_likeness(self) -> None:
        shown = placed(120)
        likeness = Likeness.of(shown.image, 226, 88, 45)
        moved = likeness.find(placed(132, 24).image, 226, 88)
        assert moved.is_like and abs(moved.x - 238) < 3 and abs(moved.y - 82) < 3
        dark = likeness.find(dimmed(shown, 0.2).image, 226, 88)
        assert dark.is_like and dark.brightness < 0.3 * likeness.brightness
        assert not likeness.find(empty().image, 226, 88).is_like
        assert not likeness.find(black().image, 226, 88).is_like

    def test_heads_in_an_outline(self) -> None:
        matte = np.zeros((256, 256), np.uint8)
        for x in (70, 190):
            cv2.ellipse(matte, (x, 80), (24, 32), 0, 0, 360, 255, -1)
            cv2.rectangle(matte, (x - 10, 100), (x + 10, 130), 255, -1)
            cv2.ellipse(matte, (x, 230), (55, 100), 0, 0, 360, 255, -1)
        for place, x in zip(bare_heads(matte, (512, 512), []), (140, 380), strict=True):
            assert abs(place.center_x - x) < 8 and 0.4 < place.scale < 0.7
        left = Alignment(0, 140, 160 + DROP * 0.45, 0.45, 0.0)
        (right,) = bare_heads(matte, (512, 512), [left])
        assert inside(right, Alignment(1, 380, 160 + DROP * 0.45, 0.45, 0.0))
        assert not bare_heads(np.zeros((256, 256), np.uint8), (512, 512), [])

    def test_an_aligner_that_does_not_fade(self) -> None:
        aligner = Aligner(0, fades=False)
        for i in range(30):
            (made,) = aligner.push(i / 30, [face(300, 300)] if 5 <= i < 20 else [])
            assert [one.opacity for one in made] == ([1.0] if 5 <= i < 20 else []), i
