"""Which microphone an option means, and which there are."""

from __future__ import annotations

import sys

from engines.errors import InputError
from gnr_video.live.sound.alsa import AlsaMicrophone, alsa_devices, reads_alsa
from gnr_video.live.sound.microphones import Device, Microphone, NoMicrophone
from gnr_video.live.sound.portaudio import PortAudioMicrophone, portaudio_devices
from gnr_video.live.sound.pulse import PulseMicrophone, find_source, pulse_sources


def open_microphone(spec: str) -> Microphone:
    """Open what stands behind `--microphone`.

    On Linux it is a source of PulseAudio or PipeWire, else a device of ALSA (a name such as plughw:1,0, or a card's
    number); elsewhere a device of PortAudio, by a part of its name or its number.

    Raises:
        InputError: there is none, it is busy, or not to be used; the hint lists those that there are.
        EngineError: what reads it is not installed.
    """
    try:
        source = find_source(spec) if sys.platform.startswith("linux") else None
        if source is not None:
            return PulseMicrophone(source)
        if sys.platform.startswith("linux") and reads_alsa():
            return AlsaMicrophone(spec)
        return PortAudioMicrophone(spec)
    except NoMicrophone as error:
        raise InputError(error.message, which_there_are()) from None


def list_microphones() -> list[Device]:
    """What `open_microphone` could open here, best first; does not open them."""
    if sys.platform.startswith("linux"):
        return [*pulse_sources(), *alsa_devices()]
    return portaudio_devices()


def which_there_are() -> str:
    """A hint: the microphones of this machine."""
    devices = list_microphones()
    if not devices:
        return "plug one in, or allow it in the system's privacy settings; --microphone none goes on without sound"
    return f"there is {', '.join(f'{device.name} ({device.title})' for device in devices)}"
