"""Every engine gives the same picture: pairwise PSNR over ten faces in five styles, and from torch over heads.

Default weights. Device: CPU.
The faces are one real portrait under a camera's motion and changes of light; int8 is calibrated on others.
"""

from __future__ import annotations

from functools import cache
from itertools import combinations

import numpy as np
import pytest

import engines
from engines.accuracy import psnr
from engines.int8 import Calibration
from engines.weights import load_weights
from gnr_video.checkpoints import resolve_weights
from gnr_video.samples.calibration import sample_crops
from gnr_video.tracking.alignment import head_side

pytest.importorskip("skimage", reason="needs scikit-image, which holds the portrait")
pytestmark = pytest.mark.slow

EXECUTIONS = [
    ("torch", "fp32"),
    ("torch", "bf16"),
    ("onnx", "fp32"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("openvino", "int8"),
]
NEEDS = {"openvino": ("openvino",), "onnx": ("onnx", "onnxruntime"), "int8": ("nncf",)}
# Two engines in fp32 may differ where a value lies between two levels.
BARS = {"fp32": 55.0, "bf16": 40.0, "int8": 32.0}
FACES, STYLES = 10, 5
HEADS, HEAD_STYLES = 3, 2


@cache
def crops(size: int) -> np.ndarray:
    return np.stack(list(sample_crops(size, 30)))


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GNR_VIDEO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
    pictures.cache_clear()


@cache
def pictures(name: str, precision: str, heads: bool) -> np.ndarray:
    """uint8 (styles, faces, S, S, 3) of one engine, each style baked; of faces, or of what is larger around them."""
    weights = load_weights(resolve_weights(None))
    size = weights.architecture.size
    side = head_side(size) if heads else size
    calibration = Calibration("twenty faces", lambda size: crops(size)[FACES:])
    drawn = np.random.default_rng(77).standard_normal((STYLES, weights.architecture.latent_dim))
    styles = drawn.astype(np.float32)
    faces = crops(side)[:FACES]
    if heads:
        faces, styles = faces[:HEADS], styles[:HEAD_STYLES]
    with engines.create(
        weights, engine=name, precision=precision, device="cpu", calibration=calibration, side=side
    ) as engine:
        content = engine.encode(faces)
        found = []
        for style in styles:
            engine.set_style(style)
            found.append(engine.decode(content))
        # A batch of one, as torch adds up others in another order.
        np.testing.assert_array_equal(engine.translate(faces[:1]), engine.decode(engine.encode(faces[:1])))
    assert found[0].shape == (len(faces), side, side, 3)
    return np.stack(found)


def available(name: str, precision: str, heads: bool = False) -> np.ndarray:
    for module in (*NEEDS.get(name, ()), *NEEDS.get(precision, ())):
        pytest.importorskip(module, reason=f"needs {module}")
    return pictures(name, precision, heads)


def values(one: np.ndarray, other: np.ndarray) -> list[float]:
    return [psnr(a, b) for a, b in zip(one.reshape(-1, *one.shape[2:]), other.reshape(-1, *other.shape[2:]))]


@pytest.mark.parametrize(("one", "other"), list(combinations(EXECUTIONS, 2)), ids=lambda pair: "-".join(pair))
def test_pictures_are_the_same(one, other):
    found = values(available(*one), available(*other))
    assert len(found) == FACES * STYLES
    assert min(found) >= min(BARS[one[1]], BARS[other[1]]), f"mean {np.mean(found):.1f} dB"


@pytest.mark.parametrize("execution", EXECUTIONS[1:], ids="-".join)
def test_pictures_of_whole_heads_are_the_same(execution):
    found = values(available(*execution, heads=True), available(*EXECUTIONS[0], heads=True))
    assert len(found) == HEADS * HEAD_STYLES
    assert min(found) >= BARS[execution[1]], f"mean {np.mean(found):.1f} dB"


@pytest.mark.parametrize("execution", EXECUTIONS, ids="-".join)
def test_faces_and_styles_make_a_difference(execution):
    """Else the comparison would say nothing."""
    found = available(*execution)
    assert psnr(found[0], found[1]) < 30
    assert psnr(found[0, 0], found[0, 1]) < 25
