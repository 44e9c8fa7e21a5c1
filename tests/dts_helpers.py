"""DTS sound, written bit by bit: FFmpeg's encoder of it is not in every build. After ETSI TS 102 114."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av

RATE, SAMPLES = 48_000, 256
_SIZE = 96
"""Bytes of a frame, the fewest that it may have."""


def dts_frame() -> bytes:
    """A core frame of 256 samples, mono, in whose lowest subband lies a tone of 375 Hz."""
    header = [(0x7FFE8001, 32), (1, 1), (31, 5), (0, 1), (SAMPLES // 32 - 1, 7), (_SIZE - 1, 14)]
    header += [(0, 6), (13, 4), (15, 5)]  # mono, 48 kHz, 768 kbit/s
    header += [(0, 5), (0, 3), (0, 1), (0, 1), (0, 2), (1, 1), (0, 1), (7, 4), (0, 2), (0, 3), (0, 2), (0, 4)]
    # One subframe, one channel, two subbands without vector quantisation; plain codes for scales and allocation.
    coding = [(0, 4), (0, 3), (0, 5), (1, 5), (0, 3), (0, 2), (5, 3), (5, 3)]
    coding += [((1 << bits) - 1, bits) for bits in (1, 2, 2, 2, 2, 3, 3, 3, 3, 3)]  # block codes
    # One subsubframe, no prediction; three levels in the first subband, nothing in the second; how loud.
    side = [(0, 2), (0, 3), (0, 2), (1, 4), (0, 4), (55, 6)]
    samples = [(2 + 1 * 3 + 0 * 9 + 1 * 27, 7)] * 2  # +1, 0, -1, 0, twice
    bits = "".join(f"{value:0{width}b}" for value, width in [*header, *coding, *side, *samples, (0xFFFF, 16)])
    return int(bits.ljust(8 * _SIZE, "0"), 2).to_bytes(_SIZE, "big")


def with_dts(path: Path, silent: Path, seconds: float) -> Path:
    """A clip with such sound, in Matroska."""
    count = round(seconds * RATE / SAMPLES)
    raw = io.BytesIO(dts_frame() * max(count, 64))  # FFmpeg wants some to be sure
    with av.open(str(silent)) as video, av.open(raw, format="dts") as sound, av.open(str(path), "w") as out:
        pictures = out.add_stream_from_template(video.streams.video[0])
        tone = out.add_stream_from_template(sound.streams.audio[0])
        packets = [(p, pictures) for p in video.demux(video=0) if p.size]
        for number, packet in enumerate([p for p in sound.demux() if p.size][:count]):
            packet.pts = packet.dts = number * SAMPLES
            packet.time_base = Fraction(1, RATE)
            packets.append((packet, tone))
        for packet, stream in sorted(packets, key=lambda one: one[0].dts * one[0].time_base):
            packet.stream = stream
            out.mux(packet)
    return path
