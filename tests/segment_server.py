"""A process that forks one for each translation that is asked for, so that tests can kill those (POSIX).

It has imported much of what takes long, and started no thread. On standard input it takes the arguments of a
translation, a line of JSON; on standard output come "pid N", "frame N" for each frame, and "ended STATUS".
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]


def translate(weights: str, source: str, target: str) -> None:
    """Translate a clip in segments of half a second."""
    from gnr_video.options import EngineOptions, LookOptions
    from gnr_video.segments.plan import Lengths
    from gnr_video.segments.run import translate
    from gnr_video.translator import Translator

    engine, look = EngineOptions("torch", precision="fp32", threads=1), LookOptions(paste="face")
    with Translator(weights, 1, engine=engine, look=look) as translator:
        translate(
            translator,
            source,
            target,
            progress=lambda done, _: tell(f"frame {done.frames}"),
            lengths=Lengths(segment=0.5, warm_up=0.5, least=0.0),
        )


def tell(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def serve() -> None:
    for name in ("engines.torch_engine", "gnr_video.segments.run", "gnr_video.tracking.finder", "av"):
        import_module(name)
    for line in sys.stdin:
        if (pid := os.fork()) == 0:
            status = 1
            try:
                tell(f"pid {os.getpid()}")
                translate(*json.loads(line))
                status = 0
            finally:
                os._exit(status)
        tell(f"ended {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}")


class Server:
    """The process, from outside. A context manager."""

    def __init__(self) -> None:
        self._process: Any = subprocess.Popen(
            [sys.executable, "-m", "tests.segment_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=REPOSITORY,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            text=True,
            bufsize=1,
        )

    def run(self, weights: Path, source: Path, target: Path, kill_after: int | None = None) -> int:
        """Translate, and kill the process after so many frames; with -1 as soon as there is one.

        Returns:
            Its exit status; a signal's number, negative.
        """
        self._process.stdin.write(json.dumps([str(weights), str(source), str(target)]) + "\n")
        self._process.stdin.flush()
        word, pid = self._process.stdout.readline().split()
        assert word == "pid"
        if kill_after == -1:
            os.kill(int(pid), signal.SIGKILL)
        for told, line in enumerate(self._process.stdout):
            word, number = line.split()
            if word == "ended":
                return int(number)
            if told == kill_after:
                os.kill(int(pid), signal.SIGKILL)
        raise RuntimeError("the server has ended")

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


if __name__ == "__main__":
    serve()
