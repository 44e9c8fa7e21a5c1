"""The delay line: sound at the times of the pictures, whatever a device's clock does. Device: CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnr_video.frame import Frame
from gnr_video.live.recorder import Recorder, RecordSink
from gnr_video.live.sound import Sound
from gnr_video.live.sound.clock import SampleClock
from gnr_video.live.sound.head import FADE, Head, fades
from gnr_video.live.sound.line import PATIENCE, RATE, DelayLine
from gnr_video.live.sound.resample import Samples, interpolate
from gnr_video.live.sound.track import SoundTrack
from gnr_video.live.stream_cameras import FileCamera
from tests.live_helpers import live_session, until
from tests.media_helpers import make_clip
from tests.sound_helpers import DeviceBlock, device, make_beeping_clip, measure, numbered, sine

MOST = 0.02
"""Seconds that sound may be off its picture."""


def follow(clock: SampleClock, blocks: object, *, after: float = 0.0) -> float:
    """How far off the clock was, at most, from `after` seconds on."""
    worst = 0.0
    for block in blocks:  # type: ignore[attr-defined]
        assert clock.add(block.first, block.count, block.stamped) is None, "no gap"
        if clock.ready and block.true >= after:
            worst = max(worst, abs(clock.time_at(block.first) - block.true))
    return worst


class TestClock:
    @pytest.mark.parametrize("ppm", [-300, 300])
    def test_three_hours(self, ppm: float) -> None:
        """A device off by 3.2 seconds by then: never 20 ms from the truth, and its rate is known."""
        clock = SampleClock(RATE)
        blocks = device(3 * 3600, RATE, 9600, ppm=ppm, jitter=0.004, seed=1)
        assert follow(clock, blocks) < MOST
        assert clock.period * RATE == pytest.approx(1 - ppm * 1e-6, abs=1e-4)

    @settings(max_examples=15, deadline=None)
    @given(
        ppm=st.floats(-300, 300),
        rate=st.sampled_from([8000, 16000, 44100, 48000, 96000]),
        milliseconds=st.sampled_from([5, 20, 100]),
        jitter=st.floats(0, 0.006),
        seed=st.integers(0, 1000),
    )
    def test_any_device(self, ppm: float, rate: int, milliseconds: int, jitter: float, seed: int) -> None:
        blocks = device(30, rate, rate * milliseconds // 1000, ppm=ppm, jitter=jitter, seed=seed)
        assert follow(SampleClock(rate), blocks) < MOST

    def test_a_reader_that_was_held_up_is_no_gap(self) -> None:
        """Blocks that are stamped when they are read: those of 0.4 s come all at once."""
        clock = SampleClock(RATE)
        blocks = [
            block._replace(stamped=max(block.true, min(block.true // 5 * 5 + 2.4, block.true + 0.4)))
            if 2 <= block.true % 5 < 2.4
            else block
            for block in device(30, RATE, 960, ppm=100)
        ]
        assert follow(clock, blocks) < MOST

    def test_a_first_block_that_is_late_does_not_count(self) -> None:
        clock = SampleClock(RATE)
        blocks = [b._replace(stamped=b.true + 0.2 * (b.first == 0)) for b in device(10, RATE, 960)]
        assert follow(clock, blocks) < 0.001

    def test_lost_samples_are_a_gap(self) -> None:
        clock, gaps = SampleClock(RATE), []
        for block in device(10, RATE, 960):
            lost = 0.5 if block.true >= 5 else 0.0
            if gap := clock.add(block.first, block.count, block.true + lost):
                gaps.append(gap)
                clock = clock.after_gap(*gap)
        assert gaps == [(5 * RATE, pytest.approx(0.5))]
        assert clock.time_at(9 * RATE) == pytest.approx(9.5)

    def test_what_is_early_is_caught_up_with_not_cut(self) -> None:
        """Sound that jumps ahead by 0.1 s is played a little quicker until it is in time again."""
        clock = SampleClock(RATE)
        for block in device(40, RATE, 960):
            clock.add(block.first, block.count, block.true - (0.1 if block.true > 10 else 0))
        times = [clock.time_at(index) for index in range(10 * RATE, 40 * RATE, 4800)]
        assert np.all(np.abs(np.diff(times) * 10 - 1) < 0.016)
        assert clock.time_at(40 * RATE) == pytest.approx(39.9, abs=MOST)

    def test_there_and_back(self) -> None:
        clock = SampleClock(RATE)
        follow(clock, device(20, RATE, 960, ppm=200, jitter=0.002))
        indices = np.linspace(5 * RATE, 21 * RATE, 50)
        times = np.array([clock.time_at(float(index)) for index in indices])
        assert np.allclose(clock.index_at(times), indices, atol=1e-3)
        assert np.isnan(clock.index_at(np.array([-1.0])))[0]


def level_of(block: DeviceBlock) -> Samples:
    """Sound whose level says when it was."""
    return np.asarray(0.1 + (block.first + np.arange(block.count)) / RATE / 10, np.float32)[:, None]


def through(rate: int, channels: int, *, seconds: float = 6.0, ppm: float = 300.0) -> Samples:
    """A tone of 440 Hz through the line, read in blocks: float32 [n, 2], from 0.5 s on."""
    line, read = DelayLine(), []
    head = Head(line)
    at = 0.5
    for block in device(seconds, rate, rate // 50, ppm=ppm, jitter=0.003):
        times = block.true + np.arange(block.count) / (rate * (1 + ppm * 1e-6))
        line.push(np.repeat(sine(times), channels, axis=1), rate, block.stamped, block.true)
        while at + 0.02 < block.true - 0.1:
            read.append(head.take(at, 960))
            at += 0.02
    return np.concatenate(read)


class TestLine:
    @pytest.mark.parametrize(
        ("rate", "channels"), [(8000, 1), (16000, 1), (44100, 2), (48000, 1), (48000, 2), (96000, 2)]
    )
    def test_a_tone_goes_through_without_a_click(self, rate: int, channels: int) -> None:
        """Any rate, mono and stereo: on both sides, in phase with the session's clock, and without a jump."""
        tone = through(rate, channels)
        assert np.array_equal(tone[:, 0], tone[:, 1])
        tone = tone[RATE // 10 :, 0]
        times = 0.6 + np.arange(len(tone)) / RATE
        # What a tone of one pitch leaves of x[n-1] - 2 cos(w) x[n] + x[n+1] is nothing; a jump of 1 % is 0.005.
        left = tone[:-2] - 2 * np.cos(2 * np.pi * 440 / RATE) * tone[1:-1] + tone[2:]
        assert np.abs(left).max() < 2e-4
        turns = tone * np.exp(-2j * np.pi * 440 * times)
        phase = np.angle(turns[: len(turns) // 4800 * 4800].reshape(-1, 4800).mean(1) * 1j)
        assert np.abs(phase).max() / (2 * np.pi * 440) < MOST / 4

    def test_lost_samples_are_silence_and_nothing_is_heard_twice(self) -> None:
        """Half a second is lost at 3 s: what comes later is in its place, and the edges are soft."""
        line, read, at = DelayLine(), [], 0.5
        head = Head(line)
        for block in device(6, RATE, 960):
            lost = 0.5 if block.true >= 3 else 0.0
            ramp = level_of(block)
            line.push(ramp, RATE, block.true + lost, block.true + lost)
            while at + 0.03 < line.known_until(block.true + lost):
                read.append(head.take(at, 960))
                at += 0.02
        level = np.concatenate(read)[:, 0]
        times = 0.5 + np.arange(len(level)) / RATE
        early, late = (times > 1) & (times < 2.98), times > 3.52
        assert level[(times > 3.01) & (times < 3.49)].max() == 0
        assert np.allclose(level[early], 0.1 + times[early] / 10, atol=1e-3)
        assert np.allclose(level[late], 0.05 + times[late] / 10, atol=1e-3)
        assert np.abs(np.diff(level)).max() < 1.5 / FADE

    def test_a_gap_that_is_found_late_does_not_repeat_what_was_heard(self) -> None:
        """Read as soon as it comes, sound after a gap is too early until that is known; then it pauses."""
        line, read, at = DelayLine(), [], 0.5
        head = Head(line)
        for block in device(6, RATE, 960):
            lost = 0.5 if block.true >= 3 else 0.0
            ramp = level_of(block)
            line.push(ramp, RATE, block.true + lost, block.true + lost)
            while at + 0.02 < block.true + lost:
                read.append(head.take(at, 960))
                at += 0.02
        level = np.concatenate(read)[RATE:, 0]
        whole = level[level > 0.2]
        # Soft edges go down and up; what lies between them only rises.
        inner = whole[np.concatenate([np.abs(np.diff(whole)) < 1e-4, [False]])]
        assert np.all(np.diff(inner) > -1e-4)

    def test_silence_before_after_and_once_it_has_ended(self) -> None:
        line = DelayLine()
        assert line.known_until(5.0) == 5.0
        assert not Head(line).take(0.0, 960).any()
        for block in device(1, RATE, 960):
            line.push(sine(block.true + np.arange(960) / RATE), RATE, 10 + block.true, 10 + block.true)
        assert 10.9 < line.known_until(11.0) < 11.0
        assert line.known_until(11.0 + PATIENCE + 0.1) > 12, "it is not waited for for ever"
        line.end()
        assert line.known_until(11.0) == 11.0
        assert not Head(line).take(11.1, 960).any()

    def test_sound_that_is_on_its_way_is_waited_for(self) -> None:
        line = DelayLine()
        line.push(np.ones((RATE, 1), np.float32), RATE, 0.0, 0.0, exact=True)
        line.begin(0.5, 0.6)
        assert line.known_until(0.7) == 0.5
        _, heard = line.read(np.array([0.4, 0.6]))
        assert heard.tolist() == [True, False]
        line.push(np.ones((RATE, 1), np.float32), RATE, 0.52, 0.8, exact=True)
        _, heard = line.read(np.array([0.4, 0.51, 0.6]))
        assert heard.tolist() == [True, False, True]

    def test_memory_is_bounded(self) -> None:
        line = DelayLine()
        for block in device(150, 8000, 800):
            line.push(np.zeros((800, 1), np.float32), 8000, block.true, block.true)
        for start in range(200, 300):  # a device that comes and goes
            line.push(np.zeros((80, 1), np.float32), 8000, start, start)
            line.end()
        line.push(np.zeros((80, 1), np.float32), 8000, 500.0, 500.0)
        assert len(line._segments) == 1

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.booleans(), min_size=1, max_size=60), st.floats(0, 1))
    def test_edges_are_soft(self, runs: list[bool], before: float) -> None:
        """Of any pattern, and from whatever gain: no step above a fade's, silence where there is no sound."""
        heard = np.repeat(runs, 100)
        gains = fades(np.concatenate([heard, np.zeros(FADE, bool)]), before)
        assert len(gains) == len(heard)
        assert not gains[~heard].any()
        rises = np.diff(gains, prepend=before)
        assert rises.max() <= 1 / FADE + 1e-6
        down = rises[: int(np.argmin(heard)) or None] if not heard.all() else rises
        assert gains[-1] <= 1 / FADE + 1e-6, "it has gone down by the end"
        assert len(down)

    def test_what_the_lower_rate_cannot_hold_is_left_out(self) -> None:
        times = np.arange(9600) / 96_000
        high = sine(times, 30_000)
        assert np.abs(interpolate(high, np.arange(100, 9000, 2.0), 0.5)).max() < 0.01
        low = sine(times, 1000)
        assert np.allclose(interpolate(low, np.arange(100, 9000, 2.0), 0.5), low[100:9000:2], atol=1e-3)


class TestFeeds:
    def test_the_newest_is_heard_and_then_the_one_before(self) -> None:
        sound = Sound()
        device_feed, page = sound.open("device"), sound.open("page")
        assert sound.current is page
        device_feed.push(np.ones((RATE, 1), np.float32), RATE, 0.0)
        assert not sound.line.read(np.array([0.5]))[1].any()
        page.close()
        page.close()
        assert sound.current is device_feed
        device_feed.push(np.ones((RATE, 1), np.float32), RATE, 0.0, exact=True)
        assert sound.line.read(np.array([0.5]))[1].all()
        device_feed.close()
        assert sound.current is None


class TestTrack:
    def test_it_goes_on_with_the_pictures_and_never_waits(self) -> None:
        """Sound up to the picture, then silence in place of a microphone that says nothing."""
        line, written = DelayLine(), []
        for block in device(1, RATE, 960):
            line.push(sine(block.true + np.arange(960) / RATE), RATE, block.true, block.true)
        track = SoundTrack(line, written.append, 0.2)
        track.advance(0.5, 1.0)
        assert sum(map(len, written)) == pytest.approx(0.3 * RATE, abs=960)
        track.advance(3.0, 1.5)
        assert sum(map(len, written)) < 0.8 * RATE, "there may be more to come"
        track.advance(3.0, 3.0)
        assert sum(map(len, written)) == pytest.approx(2.8 * RATE, abs=1400)
        track.finish(3.0)
        sound = np.concatenate(written)
        assert len(sound) == round(2.8 * RATE)
        assert np.abs(sound[: RATE // 2]).max() > 0.4 and not sound[RATE:].any()

    @pytest.mark.parametrize(
        ("extension", "codec"), [("mp4", "aac"), ("mov", "aac"), ("webm", "opus"), ("mkv", "opus")]
    )
    def test_every_container_is_in_step(self, tmp_path: Path, extension: str, codec: str) -> None:
        """What encoders add at the beginning is told to players, or moves pictures as well."""
        import av

        line, target = DelayLine(), tmp_path / f"out.{extension}"
        times = np.arange(5 * RATE) / RATE
        beeps = np.where((times - 0.5) % 1 < 0.02, sine(times, 1000)[:, 0] * 1.6, 0).astype(np.float32)[
            :, None
        ]
        line.push(beeps, RATE, 100.0, 100.0, exact=True)
        sink = RecordSink(target, (160, 64), 30, line=line)
        for index in range(120):
            sink.deliver(Frame(numbered(index), 0, None, index, {"captured": 100 + index / 30}))  # type: ignore[arg-type]
        sink.close(30)
        assert sink.failure is None
        with av.open(str(target)) as container:
            assert container.streams.audio[0].codec_context.name == codec
        found = measure(target)
        assert found.numbers == list(range(120))
        assert len(found.beeps) == 4
        assert np.abs(found.offsets(120, 30)).max() < 0.005

    def test_a_recording_without_sound_has_no_track(self, tmp_path: Path) -> None:
        import av

        sink = RecordSink(tmp_path / "out.mp4", (160, 64), 30)
        sink.deliver(Frame(numbered(0), 0, None, 0, {"captured": 0.0}))  # type: ignore[arg-type]
        sink.close(30)
        with av.open(str(tmp_path / "out.mp4")) as container:
            assert not container.streams.audio


class TestFiles:
    def test_a_file_without_sound_is_none(self, tmp_path: Path) -> None:
        camera = FileCamera(str(make_clip(tmp_path / "a.mp4")))
        assert not camera.listen(Sound().open("none"))
        camera.close()

    @pytest.mark.slow
    def test_flash_and_beep_of_a_file_in_real_time(
        self, tiny: Path, face_model: Path, tmp_path: Path
    ) -> None:
        """A clip of two seconds, again and again, through live into a recording; pictures may be missing on a busy
        machine, each says which it is."""
        clip = make_beeping_clip(tmp_path / "clip.mp4", 2.0)
        camera = FileCamera(str(clip))
        with live_session(tiny, camera, folder=tmp_path) as session:
            assert camera.listen(session.sound.open("clip"))
            recorder = Recorder(session, tmp_path / "out.mp4")
            recorder.start()
            until(lambda: recorder.current is not None and recorder.current.seconds > 5.2, 90)
            recorder.stop()
        found = measure(tmp_path / "out.mp4")
        assert len(found.beeps) >= 3
        offsets = found.offsets(60, 30)
        assert offsets and np.abs(offsets).max() < MOST
