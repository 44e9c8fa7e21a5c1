"""MediaPipe's networks run by OpenVINO: the same numbers as from MediaPipe's graphs, in a third to half of the time.

The model files are MediaPipe's own, read as they are. Where OpenVINO is not, the graphs are used.
"""

from __future__ import annotations

import logging
import math
import os
import tempfile
import threading
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines import unavailable
from engines.devices import candidates
from engines.errors import EngineError, ModelFileError
from engines.openvino_runtime import import_openvino
from engines.paths import cache_dir
from gnr_video.frame import Image, Points
from gnr_video.tracking.model_files import FACE_MODEL, PERSON_MODEL

log = logging.getLogger(__name__)

LANDMARKS_MEMBER = "face_landmarks_detector.tflite"
"""The landmark network in face_landmarker.task, which is a zip archive."""
NETWORK_SIDE = 256
"""Of the pictures that both networks take, pixels."""


class LandmarkNetwork:
    """The landmarks of one face that fills a picture: its box takes up two thirds of the side, its eyes are level.

    One thread at a time. Takes one core.
    """

    def __init__(self, compiled: Any) -> None:
        self._request = compiled.create_infer_request()

    def __call__(self, picture: Image) -> tuple[Points, float]:
        """Landmarks float32 478x3 in the picture's pixels (0 is the first one's edge), and 0..1: how sure it is that
        there is a face.

        Args:
            picture: uint8 256x256x3 RGB.
        """
        found = self._request.infer([picture[None]], share_inputs=True, share_outputs=True)
        return found[0].reshape(-1, 3).copy(), (1 + math.tanh(found[1].item() / 2)) / 2


class PersonNetwork:
    """How likely each pixel of a picture shows a person. One thread at a time. Takes one core."""

    def __init__(self, compiled: Any) -> None:
        self._request = compiled.create_infer_request()

    def __call__(self, picture: Image) -> NDArray[np.float32]:
        """float32 SxS, 0..1.

        Args:
            picture: uint8 SxSx3 RGB; 256x256 is what the network works at.
        """
        import cv2

        side = len(picture)
        seen = picture if side == NETWORK_SIDE else cv2.resize(picture, (NETWORK_SIDE, NETWORK_SIDE))
        found = self._request.infer([seen[None]], share_inputs=True, share_outputs=True)[0]
        person = found.reshape(NETWORK_SIDE, NETWORK_SIDE).copy()
        if side != NETWORK_SIDE:
            person = cv2.resize(person, (side, side))
        return np.asarray(person, np.float32)


def try_landmarks(model: Path) -> LandmarkNetwork | None:
    """The network of face_landmarker.task; None where OpenVINO is missing or does not run it."""
    return _tried(_landmarks, LandmarkNetwork, model)


def try_person(model: Path) -> PersonNetwork | None:
    """The network of selfie_segmentation.tflite; None where OpenVINO is missing or does not run it."""
    return _tried(_person, PersonNetwork, model)


def compile_beside(face_model: Path | None = None) -> None:
    """Begin to compile both networks on a thread of their own, where their files are at hand: that takes half a second,
    in which a program that has just started has other things to load.
    """
    if _runs_here():
        threading.Thread(target=_compile_those_at_hand, args=(face_model,), name="gnr-video compile").start()


def _compile_those_at_hand(face_model: Path | None) -> None:
    for model, path, run in ((FACE_MODEL, face_model, try_landmarks), (PERSON_MODEL, None, try_person)):
        with suppress(ModelFileError):  # whoever needs it says so
            if (file := model.at_hand(path)) is not None:
                run(file)


def _runs_here() -> bool:
    # Only where it is the fastest runtime: on ARM it has not been measured.
    return "openvino" in candidates("cpu") and not unavailable("openvino")


def _tried(compiled: Callable[[Path], Any], network: Callable[[Any], Any], model: Path) -> Any:
    if not _runs_here():
        return None
    try:
        with _compiling:
            return network(compiled(model))
    except (EngineError, RuntimeError, OSError, zipfile.BadZipFile, KeyError) as error:
        log.info("MediaPipe's graph runs %s, OpenVINO does not: %s", model.name, error)
        return None


_compiling = threading.Lock()


@cache
def _landmarks(model: Path) -> Any:
    # OpenVINO reads this format from a path only.
    with tempfile.TemporaryDirectory(prefix="gnr-video-") as folder, zipfile.ZipFile(model) as task:
        return _compiled(task.extract(LANDMARKS_MEMBER, folder))


@cache
def _person(model: Path) -> Any:
    return _compiled(model)


def _compiled(file: str | Path) -> Any:
    """A network whose input is bytes, for one core, in float32: landmarks are finer than bf16 is.

    It is kept for good, so that callers' threads may run it (see `engines.openvino_runtime.Request`).
    """
    ov = import_openvino()
    from openvino.frontend import ConversionExtension
    from openvino.preprocess import PrePostProcessor

    core = ov.Core()
    core.add_extension(ConversionExtension("Convolution2DTransposeBias", _transposed_convolution))
    model = core.read_model(file)
    model.reshape([1, NETWORK_SIDE, NETWORK_SIDE, 3])
    process = PrePostProcessor(model)
    process.input().tensor().set_element_type(ov.Type.u8)
    process.input().preprocess().convert_element_type(ov.Type.f32).scale(255.0)
    config: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": 1,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    with suppress(OSError):  # compiled again the next time, then
        folder = cache_dir() / "openvino"
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            config["CACHE_DIR"] = str(folder)
    return core.compile_model(process.build(), "CPU", config)


def _transposed_convolution(node: Any) -> list[Any]:
    """MediaPipe's own operation: a transposed convolution of 2x2 and stride 2, and a bias."""
    import openvino.opset13 as ops

    picture, weights, bias = (node.get_input(i) for i in range(3))
    # TFLite has pictures as NHWC and weights as output, height, width, input.
    up = ops.convolution_backprop_data(
        ops.transpose(picture, [0, 3, 1, 2]),
        ops.transpose(weights, [3, 0, 1, 2]),
        strides=[2, 2],
        auto_pad="same_upper",
    )
    return [ops.add(ops.transpose(up, [0, 2, 3, 1]), bias).output(0)]
