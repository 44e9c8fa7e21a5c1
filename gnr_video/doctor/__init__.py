"""Examines the installation: every part that a run needs, and the line that mends what is missing.

Nothing is downloaded and nothing is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from engines.installation import install_line
from gnr_video.doctor import machine, models, packages
from gnr_video.doctor.check import Check

CHECKS: tuple[Callable[[], Iterator[Check]], ...] = (
    packages.check_python,
    packages.check_packages,
    packages.check_opencv_conflict,
    packages.check_mediapipe,
    machine.check_graphics_libraries,
    models.check_face_model,
    models.check_person_model,
    machine.check_processor,
    machine.check_gpu,
    machine.check_engines,
    packages.check_extras,
    models.check_weights,
    machine.check_ffmpeg,
    machine.check_encoders,
    machine.check_microphones,
    machine.check_cache,
)
"""What `run_doctor` goes through."""


def run_doctor() -> list[Check]:
    """All checks, in the order of the pipeline. Takes a few seconds, most of it for importing torch."""
    checks: list[Check] = []
    for examine in CHECKS:
        try:
            checks += examine()
        except Exception as error:  # a broken part must not hide the others
            name = examine.__name__.removeprefix("check_").replace("_", " ")
            checks.append(
                Check(
                    name,
                    "fail",
                    f"{type(error).__name__}: {error}",
                    f"reinstall: {install_line('', '--force-reinstall', '--no-deps')}",
                )
            )
    return checks
