"""MediaPipe's face landmarker with arrays in and arrays out, and the clock that it wants."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np

from gnr_video.frame import Image, Points
from gnr_video.tracking.boxes import size_of
from gnr_video.tracking.mediapipe_tasks import explained, import_mediapipe, quiet_stderr


class MillisecondClock:
    """Presentation times as the strictly increasing whole milliseconds that MediaPipe demands.

    Frames less than a millisecond apart and repeated times are spread one millisecond apart; a jump back (a
    seek, a stream that starts again) continues from where the clock stands.

    Args:
        speed: milliseconds on this clock for a millisecond of the video.
    """

    JUMP_MS = 500

    def __init__(self, speed: float = 1.0) -> None:
        self.speed = speed
        self._offset: int | None = None
        self._last = 0

    def stamp(self, time_seconds: float) -> int:
        """Milliseconds for a frame shown at `time_seconds`: more than any before, at least 1."""
        milliseconds = round(time_seconds * 1000 * self.speed)
        if self._offset is None or milliseconds + self._offset < self._last - self.JUMP_MS * self.speed:
            self._offset = self._last + 1 - milliseconds
        self._last = max(milliseconds + self._offset, self._last + 1)
        return self._last

    def tick(self) -> int:
        """The next millisecond, for something that belongs to no frame."""
        self._last += 1
        return self._last

    def skip(self, milliseconds: int) -> None:
        """Let time pass that the video does not have; the frames to come move with it."""
        self._last += milliseconds
        if self._offset is not None:
            self._offset += milliseconds


class Landmarker:
    """One MediaPipe graph, arrays in and arrays out."""

    def __init__(self, model: Path, *, num_faces: int, video: bool) -> None:
        vision, self._mediapipe = import_mediapipe()
        mode = vision.RunningMode.VIDEO if video else vision.RunningMode.IMAGE
        try:
            with quiet_stderr():
                options = vision.FaceLandmarkerOptions(
                    base_options=self._mediapipe.tasks.BaseOptions(model_asset_path=str(model)),
                    running_mode=mode,
                    num_faces=num_faces,
                )
                self._graph: Any = vision.FaceLandmarker.create_from_options(options)
        except (OSError, RuntimeError, ValueError) as error:
            raise explained(error) from error
        self._results = _ResultArrays.of(self._graph)

    def video(self, image: Image, milliseconds: int, size: tuple[int, int] | None = None) -> list[Points]:
        """Landmarks in pixels of a picture of that size (width, height), of which `image` may be a copy."""
        wrapped = self._wrap(image)
        if self._results is not None:
            faces = self._results.video(self._graph, wrapped, milliseconds)
        else:
            faces = self._arrays(self._graph.detect_for_video(wrapped, milliseconds))
        return _in_pixels(faces, size or size_of(image))

    def image(self, image: Image) -> list[Points]:
        return _in_pixels(self._arrays(self._graph.detect(self._wrap(image))), size_of(image))

    def restart(self, clock: MillisecondClock) -> None:
        # An empty picture loses the face, which clears the region of interest and the filter: 3 ms, where
        # building the graph anew takes 200.
        self.video(np.zeros((64, 64, 3), np.uint8), clock.tick())

    def close(self) -> None:
        self._graph.close()

    def _wrap(self, image: Image) -> Any:
        return self._mediapipe.Image(
            image_format=self._mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(image)
        )

    @staticmethod
    def _arrays(result: Any) -> list[Points]:
        return [np.array([(p.x, p.y, p.z) for p in face], np.float32) for face in result.face_landmarks]


def _in_pixels(faces: list[Points], size: tuple[int, int]) -> list[Points]:
    # z comes in the same scale as x: multiples of the picture's width.
    scale = np.array([size[0], size[1], size[0]], np.float32)
    return [face * scale for face in faces]


class _ResultArrays:
    """Reads landmarks out of the C result of MediaPipe's graph.

    Its Python layer makes an object of each of 478 landmarks, which takes 2 ms of every frame, while no other thread
    of Python's runs.
    """

    def __init__(self, result: Any, landmark: Any) -> None:
        self._result = result
        fields = ("x", "y", "z")
        self._landmark = np.dtype(
            {
                "names": fields,
                "formats": [np.float32] * 3,
                "offsets": [getattr(landmark, name).offset for name in fields],
                "itemsize": ctypes.sizeof(landmark),
            }
        )

    @classmethod
    def of(cls, graph: Any) -> _ResultArrays | None:
        """None where this version of MediaPipe is made otherwise."""
        try:
            from mediapipe.tasks.python.components.containers.landmark_c import NormalizedLandmarkC
            from mediapipe.tasks.python.vision.face_landmarker import FaceLandmarkerResultC

            for name in ("MpFaceLandmarkerDetectForVideo", "MpFaceLandmarkerCloseResult"):
                getattr(graph._lib, name)
            return cls(FaceLandmarkerResultC, NormalizedLandmarkC)
        except (ImportError, AttributeError):
            return None

    def video(self, graph: Any, image: Any, milliseconds: int) -> list[Points]:
        """`graph.detect_for_video`: float32 478x3 for each face, in shares of the picture."""
        result = self._result()
        graph._lib.MpFaceLandmarkerDetectForVideo(
            graph._handle, image._image_ptr, None, milliseconds, ctypes.byref(result)
        )
        try:
            return [self._points(result.face_landmarks[i]) for i in range(result.face_landmarks_count)]
        finally:
            graph._lib.MpFaceLandmarkerCloseResult(ctypes.byref(result))

    def _points(self, landmarks: Any) -> Points:
        data = ctypes.string_at(landmarks.landmarks, landmarks.landmarks_count * self._landmark.itemsize)
        points = np.frombuffer(data, self._landmark)
        return np.stack([points["x"], points["y"], points["z"]], axis=1)
