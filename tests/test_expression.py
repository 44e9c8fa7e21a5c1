"""Mouths and eyelids drawn from landmarks (CPU)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engines.weights import load_weights
from gnr_video import Translator
from gnr_video.checkpoints import resolve_weights
from gnr_video.effects import expression
from gnr_video.effects.expression import Expression
from gnr_video.frame import Alignment, Image, Points
from gnr_video.options import EngineOptions, LookOptions
from gnr_video.samples.portrait import portrait
from gnr_video.tracking.alignment import fit_alignment, mirrored
from gnr_video.tracking.face_mesh import CHIN, FOREHEAD, LIPS
from gnr_video.tracking.tracker import FaceTracker
from tests.layers import layers

SKIN, LINE, IRIS = (245, 214, 184), (60, 40, 40), (40, 90, 200)
MIDDLE, HALF = (128.0, 178.0), 30.0
EYES = (90.0, 166.0)
CLOSED = 0.0


def landmarks(gap: float, *, smile: float = 0.0, eyes: tuple[float, float] = (0.35, 0.35)) -> Points:
    """A face looking ahead whose inner lips are `gap` pixels apart; corners of a smile are higher.

    Eyes are open by so much of their width.
    """
    points = np.zeros((478, 3), np.float32)
    points[:, :2] = (128, 120)
    points[FOREHEAD, :2], points[CHIN, :2], points[expression._NOSE, :2] = (128, 30), (128, 220), (128, 150)
    x = np.linspace(-1, 1, len(expression._UPPER))
    line = MIDDLE[1] - smile * x**2
    for numbers, side in ((expression._UPPER, -1), (expression._LOWER, 1)):
        points[list(numbers), 0] = MIDDLE[0] + HALF * x
        points[list(numbers), 1] = line + side * gap / 2 * (1 - x**2)
    turn = np.linspace(0, 2 * np.pi, len(LIPS), endpoint=False)
    outer = np.stack([MIDDLE[0] - 36 * np.cos(turn), MIDDLE[1] + (9 + gap / 2) * np.sin(turn)], axis=1)
    inner = [i for i, number in enumerate(LIPS) if number not in expression._UPPER + expression._LOWER]
    points[np.array(LIPS)[inner], :2] = outer[inner]
    for number, place in zip(
        expression._CHEEKS, [(80, 128), (85, 136), (80, 144), (176, 128), (171, 136), (176, 144)]
    ):
        points[number, :2] = place
    for (outer, inner, upper, lower), x, side, height in zip(expression._EYES, EYES, (-1, 1), eyes):
        points[outer, :2], points[inner, :2] = (x + 15 * side, 95), (x - 15 * side, 95)
        points[upper, :2], points[lower, :2] = (x, 95 - 15 * height), (x, 95 + 15 * height)
    return points


def drawing() -> Image:
    """Skin and two eyes: lashes, and below them irises."""
    picture = np.full((256, 256, 3), SKIN, np.uint8)
    for x in map(int, EYES):
        picture[88:97, x - 16 : x + 17] = LINE
        picture[97:112, x - 8 : x + 9] = IRIS
    return picture


def place(points: Points | None, track_id: int = 0) -> Alignment:
    return Alignment(track_id, 128.0, 128.0, 1.0, 0.0, landmarks=points)


def drawn(gap: float, picture: Image | None = None, **kind: float) -> Image:
    made = Expression().apply([(place(landmarks(gap, **kind)), drawing() if picture is None else picture)])
    return made[0][1]


def is_inside(picture: Image) -> np.ndarray:
    """Where a mouth is open: redder than skin, lighter than lines."""
    rgb = picture.astype(int)
    return (rgb[..., 0] > 150) & (rgb[..., 1] < 140)


def is_line(picture: Image) -> np.ndarray:
    return picture[120:].max(axis=2) < 100


def test_closed_lips_are_a_line() -> None:
    picture = drawn(CLOSED)
    rows, columns = np.nonzero(is_line(picture))
    assert not is_inside(picture).any()
    assert 30 < np.ptp(columns) < 2 * HALF
    assert np.ptp(rows) <= 3
    assert abs(rows.mean() + 120 - MIDDLE[1]) < 1


def test_a_smile_bends_it() -> None:
    picture = drawn(CLOSED, smile=8.0)
    rows, columns = np.nonzero(is_line(picture))
    ends = np.abs(columns - MIDDLE[0]) > 15
    assert rows[ends].mean() < rows[~ends].mean() - 2


@given(st.floats(6, 30), st.floats(2, 12))
def test_it_opens_as_the_lips_do(gap: float, more: float) -> None:
    less, wider = (np.count_nonzero(is_inside(drawn(g))) for g in (gap, gap + more))
    assert 0 < less < wider


def test_lips_that_hardly_part_are_closed() -> None:
    picture = drawn(0.01 * 190)
    assert not is_inside(picture).any()
    np.testing.assert_array_equal(is_line(picture), is_line(drawn(CLOSED)))


def test_what_the_network_drew_there_is_gone() -> None:
    picture = drawing()
    picture[176:179, 105:150] = LINE
    picture[182:187, 122:132] = LINE  # the blot below
    below = drawn(CLOSED, picture)[181:194, 118:136]
    np.testing.assert_allclose(below, np.broadcast_to(SKIN, below.shape), atol=8)
    assert np.abs(drawn(CLOSED, picture).astype(int) - drawn(CLOSED)).max() <= 8


def test_the_rest_is_untouched() -> None:
    rng = np.random.default_rng(0)
    picture = drawing()
    noisy = np.clip(picture + rng.integers(-3, 4, picture.shape), 0, 255).astype(np.uint8)
    kept = noisy.copy()
    changed = (drawn(20.0, noisy) != noisy).any(axis=2)
    np.testing.assert_array_equal(noisy, kept)
    assert not changed[:145].any() and not changed[215:].any()
    assert not changed[:, :70].any() and not changed[:, 186:].any()


def test_lines_that_lead_out_stay() -> None:
    picture = drawing()
    picture[140:, 150:153] = LINE  # the far edge of a turned face
    result = drawn(CLOSED, picture)
    assert result[150:215, 151].max() < 110


def test_where_there_is_no_skin_nothing_is_drawn() -> None:
    picture = drawing()
    picture[149:] = (40, 60, 140)  # something before the mouth
    np.testing.assert_array_equal(drawn(20.0, picture), picture)


def irises(picture: Image) -> list[int]:
    """Pixels of each iris."""
    is_iris = (np.abs(picture.astype(int) - IRIS) < 40).all(axis=2)
    return [np.count_nonzero(is_iris[:, int(x) - 20 : int(x) + 21]) for x in EYES]


def test_open_eyes_stay_as_they_are() -> None:
    picture = drawing()
    for eyes in ((0.35, 0.35), (0.19, 0.19)):
        np.testing.assert_array_equal(drawn(CLOSED, picture, eyes=eyes)[:140], picture[:140])


@given(st.floats(0.07, 0.17), st.floats(0.005, 0.03))
def test_a_lid_comes_down_as_eyes_close(height: float, less: float) -> None:
    wide, narrow = (irises(drawn(CLOSED, eyes=(h, h)))[0] for h in (height, height - less))
    assert narrow <= wide <= irises(drawing())[0]


def test_closed_eyes_are_bows() -> None:
    picture = drawn(CLOSED, eyes=(0.02, 0.02))
    assert irises(picture) == [0, 0]
    rows, columns = np.nonzero((picture[:140, :128] < 110).all(axis=2))
    middle = np.abs(columns - EYES[0]) < 5
    assert 25 < np.ptp(columns) < 50
    assert rows[middle].mean() > rows[np.abs(columns - EYES[0]) > 12].mean() + 3
    assert np.ptp(rows[middle]) <= 6, "nothing is left above"


def test_one_eye_winks() -> None:
    left, right = irises(drawn(CLOSED, eyes=(0.02, 0.35)))
    assert left == 0
    assert right == irises(drawing())[1]


def test_eyes_that_do_not_wink_are_alike() -> None:
    both = irises(drawn(CLOSED, eyes=(0.07, 0.11)))
    assert both[0] == both[1]
    assert 0 < both[0] < irises(drawing())[0]


def test_an_eye_under_hair_stays_under_it() -> None:
    picture = drawing()
    picture[60:130, :128] = LINE
    np.testing.assert_array_equal(drawn(CLOSED, picture, eyes=(0.02, 0.02))[:140, :110], picture[:140, :110])


def test_a_mirror_shows_the_same_mouth() -> None:
    points = landmarks(14.0, smile=6.0)
    points[:, 0] += 3 * (points[:, 1] > 170)  # not the same on both sides
    flipped = mirrored(np.zeros((256, 256, 3), np.uint8), place(points))[1]
    assert flipped.landmarks is not None
    picture = drawing()
    one = Expression().apply([(place(points), picture)])[0][1]
    other = Expression().apply([(place(flipped.landmarks), np.ascontiguousarray(picture[:, ::-1]))])[0][1]
    assert np.abs(one.astype(int) - other[:, ::-1]).mean() < 0.1


def test_lines_have_the_color_of_lashes_settling_over_frames() -> None:
    blue = drawing()
    blue[88:97] = np.where(blue[88:97] == LINE, (30, 30, 160), blue[88:97])
    expressions = Expression()
    where = place(landmarks(CLOSED))

    def line(picture: Image) -> np.ndarray:
        return expressions.apply([(where, picture)])[0][1][178, 128].astype(int)

    first, second = line(drawing()), line(blue)
    last = [line(blue) for _ in range(20)][-1]
    assert first[2] < second[2] < last[2]
    expressions.reset()
    np.testing.assert_allclose(line(blue), last, atol=2)


def test_lips_settle_by_seconds() -> None:
    def followed(rate: int) -> np.ndarray:
        """Lips that open slowly within a fifth of a second."""
        effect = Expression()
        for i in range(rate // 5 + 1):
            faces = layers([(place(landmarks(0.2 * i / rate * 30)), drawing())])
            faces[0].seconds = i / rate
            effect.face(faces)
        return effect._before[0, 0][0]

    difference = np.abs(followed(60) - followed(30)).max()
    assert difference < 0.3 * np.abs(landmarks(1.2) - landmarks(0.0)).max()


def test_faces_of_a_frame() -> None:
    """One without landmarks is left alone; the drawings of a grid, all of one person, do not mix their colours."""
    blue = drawing()
    blue[88:97] = np.where(blue[88:97] == LINE, (30, 30, 160), blue[88:97])
    where, expressions = place(landmarks(CLOSED)), Expression()
    for _ in range(2):
        made = expressions.apply([(where, drawing()), (where, blue), (place(None, 1), blue)])
    np.testing.assert_array_equal(made[0][1], drawn(CLOSED))
    np.testing.assert_array_equal(made[1][1], drawn(CLOSED, blue))
    assert made[2][1] is blue


def test_it_draws_on_the_layers_of_a_frame_where_they_have_drawings() -> None:
    where = place(landmarks(20.0))
    faces = layers([(where, drawing()), (place(None, 1), drawing())])
    faces.append(replace(faces[0], drawing=None))
    Expression().face(faces)
    assert np.count_nonzero(is_inside(faces[0].drawing)) > np.count_nonzero(is_inside(drawing())) + 50
    np.testing.assert_array_equal(faces[1].drawing, drawing())
    assert faces[2].drawing is None


def test_a_mouth_at_the_border() -> None:
    points = landmarks(20.0)
    points[:, 1] += 70
    far = replace(place(points), landmarks=points + np.float32(300))
    picture = drawing()
    np.testing.assert_array_equal(Expression().apply([(far, picture)])[0][1], picture)
    assert Expression().apply([(place(points), picture)])[0][1].shape == picture.shape


def test_weights_of_our_trainer_have_it_by_themselves(tiny: Path) -> None:
    assert "recipe" in load_weights(resolve_weights("default")).metadata
    for weights, asked, on in (
        (tiny, None, False),
        (tiny, True, True),
        (None, None, True),
        (None, False, False),
    ):
        with Translator(
            weights,
            engine=EngineOptions("torch", precision="fp32", threads=1),
            look=LookOptions(effects={"expression": asked}),
        ) as translator:
            assert translator.effects["expression"] is on
            assert translator.sibling("face", None).effects["expression"] is on


def test_a_picture(face_model: Path) -> None:
    """The demo portrait smiles, and so does its drawing, in a look that does not by itself."""
    with Translator(
        None, 15, engine=EngineOptions("torch", precision="fp32", threads=1), look=LookOptions(paste="crop")
    ) as translator:
        with FaceTracker(face_model) as tracker:
            place_there = fit_alignment(tracker.track(portrait(), 0.0)[0])
        around = [int(v) for v in (np.array(place_there.landmarks)[13:15, :2].mean(axis=0))]
        x, y = slice(around[0] - 14, around[0] + 15), slice(around[1] - 4, around[1] + 5)
        smiling = translator.translate_frame(portrait())[y, x]
        translator.effects.switch("expression", False)
        own = translator.translate_frame(portrait())[y, x]
    assert np.count_nonzero(is_inside(smiling)) > 60
    assert np.count_nonzero(is_inside(own)) < 20
