"""What all tests share: one thread for small networks, which is quicker there and does not fight for cores;
tiny weights, a short clip with a face and sound, and MediaPipe's models."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from gnr_video.tracking.model_files import ModelFile

os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked with `cuda` where torch sees no GPU. Files with slow tests come first: a worker that begins
    one last would keep the others waiting."""
    marked = [item for item in items if item.get_closest_marker("cuda")]
    if marked:
        import torch

        if not torch.cuda.is_available():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of a very small generator with random weights."""
    from tests.tiny_weights import make_tiny_weights

    return make_tiny_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="session")
def face_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of one moving face with sound: 320x180, 24 frames at 20 fps."""
    from gnr_video.samples.portrait import make_demo_clip

    target = tmp_path_factory.mktemp("clip") / "face.mp4"
    return make_demo_clip(target, seconds=1.2, fps=20, size=(320, 180))


@pytest.fixture(scope="session")
def face_model() -> Path:
    """MediaPipe's model; a test that asks for it skips where it is neither cached nor to be fetched."""
    from gnr_video.tracking.model_files import FACE_MODEL

    return _resolved(FACE_MODEL)


@pytest.fixture(scope="session")
def person_model() -> Path:
    """MediaPipe's selfie segmentation; a test that asks for it skips as with `face_model`."""
    from gnr_video.tracking.model_files import PERSON_MODEL

    return _resolved(PERSON_MODEL)


def _resolved(model: ModelFile) -> Path:
    from engines.errors import ModelFileError

    try:
        return model.resolve()
    except ModelFileError as error:
        pytest.skip(f"needs MediaPipe's {model.title.removeprefix('the ')}: {error.message}")


@pytest.fixture
def no_threads_left() -> Iterator[None]:
    """The test fails if a stage's thread outlives it."""
    yield
    left = [t for t in threading.enumerate() if t.name.startswith("gnr-video ")]
    for thread in left:
        thread.join(5)
    assert not [t.name for t in left if t.is_alive()]
