"""Style codes: seeds give the same code everywhere, references are encoded, mistakes are named. Device: CPU."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.data import astronaut

import engines
from engines.errors import StyleError
from gnr_video.styles.code import StyleCode, style_from_seed
from gnr_video.styles.looks import parse_style
from gnr_video.styles.reference import read_reference, reference_square
from tests.golden import golden_weights, narrow

SEED_42 = (0.33669036, 0.12880941, 0.23446237, 0.23033303, -1.12285638, -0.18632829, 2.20820141, -0.63799703)


@pytest.fixture(scope="module")
def engine():
    weights = golden_weights(narrow(), style_encoder=True)
    return engines.create(weights, engine="torch", device="cpu", precision="fp32")


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (100, 140, 3), dtype=np.uint8)


def test_seed_42():
    style = style_from_seed(42)
    np.testing.assert_allclose(style.z, SEED_42, rtol=0, atol=1e-7)
    assert style.label == "42"
    assert style.array().dtype == np.float32


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(-(2**63), 2**63 - 1))
def test_seeds_are_drawn_as_the_official_notebook_does(seed):
    state = torch.get_rng_state()
    style = style_from_seed(seed)
    assert torch.equal(torch.get_rng_state(), state)  # the global generator is left alone
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        assert torch.equal(torch.from_numpy(style.array()), torch.randn(1, 8)[0])


def test_code_is_a_value():
    assert style_from_seed(1) == style_from_seed(1)
    assert style_from_seed(1) != style_from_seed(2)
    assert len({style_from_seed(1), style_from_seed(1)}) == 1
    style_from_seed(1).array()[:] = 0
    assert style_from_seed(1).array().any()
    assert "StyleCode('42', z=(0.337, " in repr(style_from_seed(42))


@pytest.mark.parametrize("bad", [(), (float("nan"),), ((1.0, 2.0),)])
def test_bad_codes(bad):
    with pytest.raises(StyleError):
        StyleCode(bad)


def test_parse_seed(engine):
    assert parse_style("42") == style_from_seed(42)
    assert parse_style(" -7 ") == style_from_seed(-7)
    assert parse_style(42, engine) == style_from_seed(42)
    assert len(parse_style("1", latent_dim=5).z) == 5
    with pytest.raises(StyleError, match="64 bits"):
        parse_style(str(2**70))


@pytest.mark.parametrize("text", ["", "blue", "4.2", "42x"])
def test_parse_nonsense(text):
    with pytest.raises(StyleError, match=r"a seed \(42\), a picture"):
        parse_style(text)


@pytest.mark.parametrize("prefix", ["", "ref:"])
def test_reference(engine, picture, tmp_path, prefix):
    path = tmp_path / "girl ä.png"
    path.write_bytes(cv2.imencode(".png", picture[..., ::-1])[1].tobytes())
    style = parse_style(f"{prefix}{path}", engine)
    assert style.label == "ref:girl ä.png"
    square, warning = read_reference(path, engine.size)
    assert not warning
    assert square.shape == (64, 64, 3)
    np.testing.assert_array_equal(style.array(), engine.encode_style(square))


def test_reference_keeps_colors_and_centre(tmp_path):
    picture = np.zeros((64, 128, 3), np.uint8)
    picture[:, 32:96] = (200, 100, 50)
    path = tmp_path / "a.png"
    path.write_bytes(cv2.imencode(".png", picture[..., ::-1])[1].tobytes())
    np.testing.assert_array_equal(read_reference(path, 64)[0], picture[:, 32:96])
    assert np.abs(read_reference(path, 32)[0].astype(int) - (200, 100, 50)).max() <= 1
    assert np.abs(read_reference(path, 128)[0].astype(int) - (200, 100, 50)).max() <= 1


def test_the_face_of_a_larger_picture_is_cut_out(face_model, tmp_path):
    # As anime pictures go: a face of a quarter of the height, away from the middle.
    scene = np.full((600, 900, 3), (200, 220, 240), np.uint8)
    face = astronaut()[20:240, 110:330]
    scene[300:520, 600:820] = face
    (left, top, side), warning = reference_square(scene, face_model)
    assert not warning
    assert 250 > side > 120
    # The eyes' midpoint, as one reads it off the picture.
    x, y = 600 + 225 - 110, 300 + 102 - 20
    assert (x - left) / side == pytest.approx(0.5, abs=0.08)
    assert (y - top) / side == pytest.approx(0.4, abs=0.1)
    # A picture framed as the training pictures are is taken whole.
    assert reference_square(face[:160, 40:200], face_model) == ((0, 0, 160), "")


def test_a_picture_without_a_face_is_used_with_a_warning(face_model):
    square, warning = reference_square(np.full((700, 900, 3), 90, np.uint8), face_model)
    assert square == (100, 0, 700)
    assert "no face was found" in warning


def test_without_a_face_model_the_middle_is_used(tmp_path):
    square, warning = reference_square(np.zeros((80, 100, 3), np.uint8), tmp_path / "missing.task")
    assert square == (10, 0, 80)
    assert "no face was looked for" in warning


def test_bad_references(engine, picture, tmp_path):
    with pytest.raises(StyleError, match="no style reference at"):
        parse_style("ref:missing.png", engine)
    for name, content in (("text.png", b"no picture"), ("empty.png", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(StyleError, match="not an image"):
            parse_style(f"ref:{tmp_path / name}", engine)
    path = tmp_path / "a.png"
    path.write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    with pytest.raises(StyleError, match="needs an engine"):
        parse_style(f"ref:{path}")
    plain = engines.create(golden_weights(narrow()), engine="torch", device="cpu", precision="fp32")
    with pytest.raises(StyleError, match=r"no style can be read off a\.png: .*no style encoder"):
        parse_style(f"ref:{path}", plain)
