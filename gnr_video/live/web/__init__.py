"""The browser, a sink and a camera when live: one aiohttp server with a small page.

sink.py      the sink: the server on a thread of its own, and which request goes where
access.py    who may ask, as owner or viewer: the tokens, and no other web site through the user's browser
clients.py   the open pages: their sockets, what they ask for, what they are told
pictures.py  the newest picture, and JPEGs over the socket
webrtc.py    pictures through WebRTC, both ways
source.py    pages that give their own camera
sheet.py     the last face in many styles
share.py     photos, and loops of the last seconds
transfer.py  files that are fetched and handed over
"""

from __future__ import annotations

from gnr_video.live.web.sink import WebSink, require_packages

__all__ = ["WebSink", "require_packages"]
