"""Sound of a live session: a voice in step with the picture that it belongs to.

hub.py             which sound is heard just now, and the delay line that it goes into
line.py            the delay line: blocks with capture times in, samples at any times out
clock.py           which sample was captured when: a device's own rate, found out from the times of its blocks
resample.py        samples between samples
head.py            reading the line in one go, with soft edges around gaps
microphones.py     where sound comes from; pulse.py, alsa.py, portaudio.py: through which library; devices.py: which
voice.py           what the options mean
listening.py       a microphone read on a thread of its own, opened again when it has vanished
file_sound.py      the sound of a file that stands in for a camera
track.py           sink: the sound of a recording
virtual_microphone.py  sink: a microphone for video calls
"""

from __future__ import annotations

from gnr_video.live.sound.hub import Feed, Sound

__all__ = ["Feed", "Sound"]
