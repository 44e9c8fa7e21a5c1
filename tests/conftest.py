"""What all tests share: one thread for small networks, which is quicker there and does not fight for cores;
tiny weights, a short clip with a face and sound, and the face model."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _loggers_as_at_the_start() -> None:
    """Libraries change the root logger and disable others while tests run; no test is to hear of an earlier one."""
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    root.filters.clear()
    logging.disable(logging.NOTSET)
    for name, logger in root.manager.loggerDict.items():
        if name.split(".")[0] in ("gnr_video", "engines", "train") and isinstance(logger, logging.Logger):
            logger.setLevel(logging.NOTSET)
            logger.filters.clear()
            logger.disabled, logger.propagate = False, True


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of a very small generator with random weights."""
    from tests.tiny_weights import make_tiny_weights

    return make_tiny_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="session")
def face_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of one moving face with sound: 320x180, 24 frames at 20 fps."""
    from gnr_video.demo import make_demo_clip

    target = tmp_path_factory.mktemp("clip") / "face.mp4"
    return make_demo_clip(target, seconds=1.2, fps=20, size=(320, 180))


@pytest.fixture(scope="session")
def face_model() -> Path:
    """MediaPipe's model; a test that asks for it skips where it is neither cached nor to be fetched."""
    from engines.errors import FaceModelError
    from gnr_video.face_model import resolve_face_model

    try:
        return resolve_face_model()
    except FaceModelError as error:
        pytest.skip(f"needs MediaPipe's face model: {error.message}")


@pytest.fixture
def no_threads_left() -> Iterator[None]:
    """The test fails if a stage's thread outlives it."""
    yield
    left = [t for t in threading.enumerate() if t.name.startswith("gnr-video ")]
    for thread in left:
        thread.join(5)
    assert not [t.name for t in left if t.is_alive()]
