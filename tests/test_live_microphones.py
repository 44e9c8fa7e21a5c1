"""Microphones: opened, lost and found again; ALSA's pseudo devices and a PulseAudio server without hardware."""

from __future__ import annotations

import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.errors import InputError
from gnr_video.live.sound import Sound
from gnr_video.live.sound.alsa import AlsaMicrophone, alsa_devices, capture_time, reads_alsa
from gnr_video.live.sound.devices import list_microphones, open_microphone
from gnr_video.live.sound.line import RATE
from gnr_video.live.sound.listening import Listening
from gnr_video.live.sound.microphones import Block, Microphone, MicrophoneLost, mono_or_stereo
from gnr_video.live.sound.pulse import SINK, SOURCE, PulseMicrophone, pactl, parse_sources, pulse_sources
from gnr_video.live.sound.virtual_microphone import VirtualMicrophone, picture_delay, steer
from tests.cli_helpers import call
from tests.live_helpers import until

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")
needs_alsa = pytest.mark.skipif(
    not (sys.platform.startswith("linux") and reads_alsa()), reason="needs a PyAV with ALSA"
)
pytestmark = pytest.mark.usefixtures("no_threads_left")


class Whistle(Microphone):
    """A microphone that gives what a test puts into it, and can be unplugged."""

    def __init__(self, rate: float = 8000) -> None:
        self.name, self.rate = "whistle", rate
        self.blocks: queue.Queue[Block] = queue.Queue()
        self.unplugged = threading.Event()
        self.closed = 0

    def whistle(self) -> None:
        """Half a second, in five blocks."""
        now = time.perf_counter()
        for tenths in range(-5, 0):
            self.blocks.put(Block(np.ones((round(self.rate / 10), 1), np.float32), now + tenths / 10))

    def read(self, stop: threading.Event) -> Block | None:
        if self.unplugged.is_set():
            raise MicrophoneLost("whistle has vanished")
        try:
            return self.blocks.get(timeout=0.01)
        except queue.Empty:
            return None

    def close(self) -> None:
        self.closed += 1


def heard(sound: Sound) -> bool:
    """Whether there is sound somewhere in the last half minute."""
    now = time.perf_counter()
    return bool(sound.line.read(np.linspace(now - 25, now, 500))[1].any())


class TestListening:
    def test_one_that_vanishes_is_told_once_and_opened_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gnr_video.live.sound.listening.FIRST_PAUSE", 0.01)
        first, second, said = Whistle(), Whistle(), list[str]()
        tries: list[int] = []

        def reopen() -> Microphone:
            tries.append(1)
            if len(tries) < 4:
                raise InputError("there is no microphone")
            return second

        sound = Sound()
        listening = Listening(first, reopen, sound.open("whistle"), said.append)
        listening.start()
        first.whistle()
        until(lambda: heard(sound))
        first.unplugged.set()
        until(lambda: len(tries) >= 4)
        assert first.closed == 1
        assert sound.line.known_until(123.0) == 123.0, "silence is not waited for"
        second.whistle()
        until(lambda: "whistle is back" in said)
        assert said == ["whistle has vanished: silence until it is back", "whistle is back"]
        second.unplugged.set()
        until(lambda: len(said) == 3)
        listening.stop(20)
        listening.stop(20)
        assert second.closed >= 1
        assert sound.current is None

    def test_one_that_never_began_is_let_go_of(self) -> None:
        whistle = Whistle()
        Listening(whistle, lambda: whistle, Sound().open("whistle"), print).stop()
        assert whistle.closed == 1

    def test_a_device_that_gives_more_than_there_is_is_slowed_down(self) -> None:
        """As ALSA's pseudo devices do: what is read does not run away from the clock."""

        class Flood(Whistle):
            given = 0

            def read(self, stop: threading.Event) -> Block | None:
                self.given += 80
                return Block(np.zeros((80, 1), np.float32), time.perf_counter())

        flood, begun = Flood(), time.perf_counter()
        listening = Listening(flood, lambda: flood, Sound().open("flood"), print)
        listening.start()
        until(lambda: flood.given > 0.5 * 8000)
        assert time.perf_counter() - begun > 0.2
        listening.stop(20)

    def test_channels(self) -> None:
        assert mono_or_stereo(np.ones((5, 2), np.float32)).shape == (5, 2)
        four = np.arange(20, dtype=np.float32).reshape(5, 4)
        assert np.array_equal(mono_or_stereo(four)[:, 0], four.mean(1))


@needs_alsa
class TestAlsa:
    @pytest.fixture(autouse=True)
    def pseudo_devices(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """One that plays a file."""
        tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
        (tone * 32767).astype("<i2").tofile(tmp_path / "tone.raw")
        (tmp_path / "asound.conf").write_text(
            "pcm.tone { type file slave.pcm { type null } file /dev/null "
            f'infile "{tmp_path}/tone.raw" format raw }}\n'
        )
        monkeypatch.setenv("ALSA_CONFIG_PATH", str(tmp_path / "asound.conf"))
        monkeypatch.setenv("PULSE_SERVER", f"unix:{tmp_path}/none")

    def test_it_is_read(self) -> None:
        microphone = AlsaMicrophone("tone")
        before = time.perf_counter()
        block = microphone.read(threading.Event())
        microphone.close()
        assert microphone.rate == RATE
        assert block is not None and block.samples.shape[0] >= 0.02 * RATE
        tone = block.samples[:, 0]
        assert np.abs(tone).max() > 0.45
        assert np.abs(tone[:-2] - 2 * np.cos(2 * np.pi * 440 / RATE) * tone[1:-1] + tone[2:]).max() < 1e-3
        assert before - 2 < block.captured <= time.perf_counter()

    def test_an_unknown_one(self, capfd: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(InputError, match="there is no microphone nonsense"):
            open_microphone("nonsense")
        assert capfd.readouterr().err == "", "libasound says nothing itself"

    def test_it_is_said_before_anything_slow(self) -> None:
        done = call("live", "--camera", "test", "--record", "x.mp4", "--microphone", "nonsense")
        assert done.status == 3
        assert "there is no microphone nonsense" in done.stderr and "Traceback" not in done.stderr

    def test_which_there_are(self, tmp_path: Path) -> None:
        listing = tmp_path / "pcm"
        listing.write_text(
            "00-00: ALC256 Analog : ALC256 Analog : playback 1 : capture 1\n"
            "00-03: HDMI 0 : HDMI 0 : playback 1\n"
            "02-00: USB Audio : USB Audio : capture 1\n"
        )
        assert alsa_devices(listing) == [("plughw:0,0", "ALC256 Analog"), ("plughw:2,0", "USB Audio")]
        assert alsa_devices(tmp_path / "none") == []

    def test_capture_times(self) -> None:
        """By the time of day as FFmpeg has them; what cannot be, as after a leap of that, is the block's length."""
        assert capture_time(Fraction(999), 0.02, 1000.5, 50.0) == 48.5
        assert capture_time(990.0, 0.02, 1000.0, 50.0) == 49.98
        assert capture_time(1001.0, 0.02, 1000.0, 50.0) == 49.98
        assert capture_time(None, 0.02, 1000.0, 50.0) == 49.98


@pytest.fixture(scope="module")
def pulse_server() -> Iterator[str]:
    """A PulseAudio of its own, without hardware."""
    program = shutil.which("pulseaudio")
    if program is None or not all(map(shutil.which, ("pactl", "pacat", "parec"))):
        pytest.skip("needs pulseaudio and pulseaudio-utils")
    with tempfile.TemporaryDirectory(prefix="gnr-pulse-", ignore_cleanup_errors=True) as folder:
        server = f"unix:{folder}/socket"
        command = [
            program,
            "-n",
            "--daemonize=no",
            "--exit-idle-time=-1",
            "--use-pid-file=no",
            "--disable-shm",
        ]
        command += ["-L", f"module-native-protocol-unix socket={folder}/socket auth-anonymous=1"]
        command += ["-L", "module-null-sink sink_name=room"]
        own = {"HOME": folder, "XDG_RUNTIME_DIR": folder, "PULSE_RUNTIME_PATH": f"{folder}/run"}
        process = subprocess.Popen(command, env=os.environ | own, stderr=subprocess.DEVNULL)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PULSE_SERVER", server)
            try:
                until(lambda: process.poll() is not None or pactl("info"))
                if process.poll() is not None:
                    pytest.skip("pulseaudio does not start here")
                yield server
            finally:
                process.terminate()
                process.wait(20)


class Speaker:
    """Somebody who goes on whistling into a session, in real time."""

    def __init__(self, sound: Sound) -> None:
        self._stop = threading.Event()
        self._feed = sound.open("speaker")
        self._thread = threading.Thread(target=self._work, name="gnr-video speaker", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        begun, count = time.perf_counter(), 0
        while not self._stop.wait(max(0.0, begun + (count + 960) / RATE - time.perf_counter())):
            wave = 0.5 * np.sin(2 * np.pi * 500 * (count + np.arange(960)) / RATE)
            self._feed.push(np.asarray(wave, np.float32)[:, None], RATE, begun + count / RATE)
            count += 960

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(20)


def whistled(microphone: PulseMicrophone) -> bool:
    """Whether a whistle of 500 Hz is in the next block."""
    block = microphone.read(threading.Event())
    if block is None or len(block.samples) < 480:
        return False
    spectrum = np.abs(np.fft.rfft(block.samples[:480, 0]))
    return bool(spectrum[5] > 30 and spectrum.argmax() == 5)


class TestPulse:
    @pytest.mark.slow
    def test_the_virtual_microphone_is_heard_and_goes_away(self, pulse_server: str) -> None:
        sound, said = Sound(), list[str]()
        speaker = Speaker(sound)
        voice = VirtualMicrophone(sound.line, lambda: 0.2, said.append)
        try:
            voice.start()
            assert f"\t{SOURCE}\t" in (pactl("list", "short", "sources") or "")
            assert pulse_sources() == [], "its own is no microphone to listen to"
            other = PulseMicrophone(SOURCE)
            until(lambda: whistled(other), 60)
            player = voice._player
            assert player is not None
            player.kill()  # as when the server has gone for a moment
            until(lambda: voice._player is not player, 60)
            until(lambda: whistled(other), 60)
            assert said == ["the virtual microphone has vanished: trying again"]
            other.close()
        finally:
            voice.stop(20)
            voice.stop(20)
            speaker.stop()
        left = pactl("list", "short", "modules") or ""
        assert SINK not in left and SOURCE not in left

    def test_one_that_was_left_over_is_used(self, pulse_server: str) -> None:
        """By a process that was killed: not a second one beside it."""
        for _ in range(2):
            voice = VirtualMicrophone(Sound().line, lambda: 0.0, print)
        assert (pactl("list", "short", "sinks") or "").count(SINK) == 1
        voice.stop()
        assert SINK not in (pactl("list", "short", "modules") or "")

    @pytest.mark.slow
    def test_a_source_by_its_name_or_its_title(self, pulse_server: str) -> None:
        pactl("load-module", "module-null-sink", "sink_name=desk")
        number = pactl(
            "load-module",
            "module-remap-source",
            "master=desk.monitor",
            "source_name=headset",
            "source_properties=device.description=Headset",
        )
        assert number is not None
        for name in ("headset", "HEADSET", "default"):
            microphone = open_microphone(name)
            assert microphone.name == "microphone headset"
            assert until(lambda microphone=microphone: microphone.read(threading.Event())) is not None
            microphone.close()
        assert [device.title for device in pulse_sources()] == ["Headset"]
        assert "headset" in [device.name for device in list_microphones()]
        microphone = open_microphone("headset")
        pactl("unload-module", number.strip())
        with pytest.raises(MicrophoneLost, match="has vanished"):
            until(lambda: microphone.read(threading.Event()) is Ellipsis)
        microphone.close()

    def test_listing(self) -> None:
        text = (
            "Source #1\n\tState: IDLE\n\tName: alsa_input.pci\n\tDescription: Built-in: Analog\n\tDriver: x\n"
        )
        assert parse_sources(text) == [("alsa_input.pci", "Built-in: Analog")]


class TestVirtual:
    def test_it_is_steered_not_cut(self) -> None:
        """The picture becomes 0.2 s later, then 0.1 s earlier: reached within a minute, never a hundredth off pitch."""
        at, now, delays = 0.0, 0.0, [0.2] * 6000 + [0.1] * 6000
        for delay in delays:
            before = at
            at, step = steer(at, now - delay)
            assert at == before
            assert abs(step * RATE - 1) < 0.0101
            at, now = at + 480 * step, now + 480 / RATE
        assert now - at == pytest.approx(0.1, abs=0.002)

    def test_after_an_interruption_it_begins_anew(self) -> None:
        assert steer(1.0, 9.0) == (9.0, 1 / RATE)

    def test_the_picture_it_goes_by(self) -> None:
        recent = {"network": 0.03, "to recording": 0.3, "to browser": 0.2}
        assert picture_delay(recent) == 0.2
        assert picture_delay(recent | {"to virtual camera": 0.1}) == 0.1
        assert picture_delay({"to recording": 0.3}) == 0.3
        assert picture_delay({}) == 0.0

    @linux_only
    @pytest.mark.parametrize(
        ("arguments", "status", "words"),
        [
            (["--microphone", "none"], 3, ["nothing to play"]),
            ([], 4, ["pactl load-module module-null-sink", "module-remap-source"]),
        ],
    )
    def test_where_it_cannot_be(
        self, arguments: list[str], status: int, words: list[str], tmp_path: Path, monkeypatch: Any
    ) -> None:
        if shutil.which("pactl") is None or shutil.which("pacat") is None:
            pytest.skip("needs pulseaudio-utils")
        monkeypatch.setenv("PULSE_SERVER", f"unix:{tmp_path}/none")
        done = call("live", "--camera", "test", "--record", "x.mp4", "--virtual-microphone", *arguments)
        assert done.status == status, done.stderr
        assert "Traceback" not in done.stderr
        assert all(word in done.stderr for word in words)

    @linux_only
    def test_without_its_programs(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        done = call("live", "--camera", "test", "--record", "x.mp4", "--virtual-microphone")
        assert done.status == 4
        assert "pulseaudio-utils" in done.stderr
