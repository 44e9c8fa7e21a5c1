"""Log levels: what a command sets, and that all is as it was when it has ended, however it ends. Device: CPU."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import click
import numpy as np
import pytest
from click.testing import CliRunner

from engines.errors import InputError
from gnr_video.commands.options import common_options
from gnr_video.commands.runner import reported

NAMES = ("", "gnr_video", "engines", "train")
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="needs openvino")


def levels() -> list[int]:
    return [logging.getLogger(name).level for name in NAMES]


@pytest.fixture
def start() -> Iterator[list[int]]:
    """Levels that no command sets; the former ones are put back."""
    before = levels()
    own = [21, 42, 0, 14]
    for name, level in zip(NAMES, own):
        logging.getLogger(name).setLevel(level)
    yield own
    for name, level in zip(NAMES, before):
        logging.getLogger(name).setLevel(level)


def command(work: Callable[[], object]) -> click.Command:
    @click.command()
    @common_options
    def made(quiet: bool) -> None:
        work()

    return made


def said() -> None:
    """Several loggers say something at every level."""
    for name in ("gnr_video.tracking.tracker", "engines", "train.data", "someone.else"):
        for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
            logging.getLogger(name).log(level, "said")


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([], {"gnr_video.tracking.tracker": 1, "engines": 1, "train.data": 3, "someone.else": 1}),
        (["-q"], {"gnr_video.tracking.tracker": 1, "engines": 1, "train.data": 1, "someone.else": 1}),
        (["--debug"], {"gnr_video.tracking.tracker": 4, "engines": 4, "train.data": 4, "someone.else": 1}),
    ],
)
def test_what_a_command_says(start: list[int], args: list[str], expected: dict[str, int]) -> None:
    """Translations have a summary, so only errors; training tells how it goes."""
    done = CliRunner().invoke(command(said), args)
    lines = [
        f"{level} {name}: said"
        for name, count in expected.items()
        for level in ("DEBUG", "INFO", "WARNING", "ERROR")[4 - count :]
    ]
    assert done.output.splitlines() == lines
    assert levels() == start


@pytest.mark.parametrize(
    "error", [InputError("no"), KeyboardInterrupt(), BrokenPipeError(), ValueError("bug")]
)
@pytest.mark.parametrize("args", [["-q"], ["--debug"]])
def test_after_a_command_that_fails(start: list[int], error: BaseException, args: list[str]) -> None:
    def fail() -> None:
        raise error

    assert CliRunner().invoke(command(fail), args).exit_code != 0
    assert levels() == start


def test_commands_within_commands(start: list[int]) -> None:
    seen: list[list[int]] = []

    def work() -> None:
        seen.append(levels())
        with reported(quiet=True, debug=False):
            said()
        seen.append(levels())

    CliRunner().invoke(command(work), ["--debug"])
    assert seen == [[21, logging.DEBUG, logging.DEBUG, logging.DEBUG]] * 2
    assert levels() == start


def test_every_run_has_its_own_standard_error() -> None:
    """The handler of an earlier run may write to a stream that is closed by now."""
    handlers = logging.getLogger().handlers[:]
    for _ in range(2):
        done = CliRunner().invoke(command(lambda: logging.getLogger("train").info("heard")))
        assert done.output == "INFO train: heard\n"
        assert logging.getLogger().handlers == handlers


@needs_openvino
def test_a_failed_conversion_does_not_silence_the_program(start: list[int]) -> None:
    """OpenVINO sets the root logger to ERROR while it converts, and leaves it so when it fails."""
    from engines.openvino_runtime import import_openvino, root_logger_kept

    ov, root = import_openvino(), logging.getLogger()
    filters, handlers = root.filters[:], root.handlers[:]
    during: list[int] = []
    with pytest.raises(Exception, match=r".*"), root_logger_kept():
        try:
            ov.convert_model(object())
        finally:
            during += levels()
    assert during[0] == logging.ERROR, "OpenVINO has mended this: the context manager can go"
    assert levels() == start
    assert (root.filters, root.handlers) == (filters, handlers)


@needs_openvino
def test_conversions_at_once_do_not_silence_the_program(start: list[int]) -> None:
    """One that begins while another runs would find its level, and put that back last."""
    from engines.openvino_runtime import root_logger_kept

    root, first_is_in, second_is_in = logging.getLogger(), threading.Event(), threading.Event()

    def first() -> None:
        with root_logger_kept():
            root.setLevel(logging.ERROR)
            first_is_in.set()
            second_is_in.wait(0.2)  # it cannot come in

    def second() -> None:
        first_is_in.wait(5)
        with root_logger_kept():
            second_is_in.set()

    threads = [threading.Thread(target=work) for work in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert second_is_in.is_set()
    assert levels() == start


@needs_openvino
def test_an_engine_is_made_and_changed_in_silence(start: list[int]) -> None:
    import engines
    from tests.golden import golden_weights, narrow

    weights = golden_weights(narrow(num_down=2))
    with engines.create(weights, engine="openvino", device="cpu", precision="fp32") as made:
        made.set_style(np.zeros(weights.architecture.style_dim, np.float32))
        assert levels() == start
