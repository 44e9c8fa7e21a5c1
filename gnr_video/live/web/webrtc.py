"""Pictures through WebRTC, to a page and from it (aiortc)."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from gnr_video.frame import Frame
from gnr_video.live.web.pictures import Newest
from gnr_video.media.images import even

log = logging.getLogger(__name__)

BITRATE = 4_000_000
"""Bits a second that a WebRTC picture may take: aiortc's own 1.5 Mbit/s blurs 720p."""
START_BITRATE, LEAST_BITRATE = 3_000_000, 1_500_000
"""Bits a second that a browser's own picture begins with, and keeps."""
_CLOCK = 90_000


async def connect(
    offer: dict[str, str],
    stun: str,
    picture: Any,
    on_video: Callable[[Any], None],
    on_sound: Callable[[Any], None] = lambda track: None,
) -> tuple[Any, dict[str, str]]:
    """Answer a page's offer.

    Args:
        offer: SDP and its type.
        stun: URL of a STUN server that is asked how this machine is seen from outside; "": none is asked.
        picture: the track that the page gets.
        on_video, on_sound: told of the page's own tracks.

    Returns:
        (the peer, the answer: SDP and its type).

    Raises:
        ValueError: the offer is none that can be answered.
    """
    from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCSessionDescription

    # Without a list aiortc asks a server of Google's.
    servers = [RTCIceServer(urls=stun)] if stun else []
    peer = RTCPeerConnection(RTCConfiguration(iceServers=servers))

    @peer.on("track")
    def on_track(track: Any) -> None:
        (on_video if track.kind == "video" else on_sound)(track)

    @peer.on("connectionstatechange")
    async def on_state() -> None:
        if peer.connectionState == "failed":
            await peer.close()

    try:
        await peer.setRemoteDescription(RTCSessionDescription(sdp=offer["sdp"], type=offer["type"]))
        peer.addTrack(picture)
        await peer.setLocalDescription(await peer.createAnswer())
    except Exception as error:  # aiortc raises many kinds for an SDP it does not like
        log.debug("offer refused", exc_info=True)
        await peer.close()
        raise ValueError(str(error)) from None
    return peer, {"sdp": with_bitrates(peer.localDescription.sdp), "type": peer.localDescription.type}


def with_bitrates(sdp: str) -> str:
    """An answer that tells Chromium at which rate its picture begins and what it keeps.

    Else it goes by aiortc's estimate of the line, which begins near zero, grows slowly, and has it send a quarter of
    the pixels meanwhile. Other browsers pass over these parameters (x-google-*, kbit/s).
    """
    limits = (
        f"x-google-start-bitrate={START_BITRATE // 1000};x-google-min-bitrate={LEAST_BITRATE // 1000};"
        f"x-google-max-bitrate={BITRATE // 1000}"
    )
    lines = sdp.split("\r\n")
    videos = re.findall(r"^a=rtpmap:(\d+) (?:VP8|VP9|H264)/90000", sdp, re.MULTILINE)
    for number in videos:
        known = next((i for i, line in enumerate(lines) if line.startswith(f"a=fmtp:{number} ")), None)
        if known is not None:
            lines[known] += f";{limits}"
        else:
            at = next(i for i, line in enumerate(lines) if line.startswith(f"a=rtpmap:{number} "))
            lines.insert(at + 1, f"a=fmtp:{number} {limits}")
    return "\r\n".join(lines)


def picture_track(newest: Newest, delivered: Callable[[Frame], None]) -> Any:
    """A video track of aiortc that sends the newest picture whenever it is asked for one."""
    import av
    from aiortc import MediaStreamTrack

    class LiveTrack(MediaStreamTrack):
        kind = "video"

        def __init__(self) -> None:
            super().__init__()
            self._last: Frame | None = None
            self._first = 0.0

        async def recv(self) -> Any:
            # It is asked again once the last picture is encoded and sent.
            if self._last is not None:
                delivered(self._last)
            frame = self._last = await newest.after(self._last)
            captured: float = frame.props["captured"]
            self._first = self._first or captured
            picture = av.VideoFrame.from_ndarray(even(frame.image), "rgb24")
            picture.pts, picture.time_base = round((captured - self._first) * _CLOCK), Fraction(1, _CLOCK)
            return picture

    return LiveTrack()


def widen_bitrate() -> None:
    """aiortc has no option for its encoders' rates; they read these when they are made."""
    from aiortc.codecs import h264, vpx

    for module in (h264, vpx):
        vars(module).update(DEFAULT_BITRATE=BITRATE // 2, MAX_BITRATE=BITRATE)
