"""Voice: what `--microphone` means, opened before anything slow is loaded: a device, or the camera's own sound."""

from __future__ import annotations

from collections.abc import Callable

from gnr_video.live.camera import BROWSER, Camera
from gnr_video.live.sound.devices import open_microphone
from gnr_video.live.sound.hub import Feed, Sound
from gnr_video.live.sound.listening import Listening
from gnr_video.live.sound.microphones import DEFAULT, Microphone

AUTO, NONE = "auto", "none"


class Voice:
    """The sound of a session.

    Args:
        spec: a device; "auto": the camera's own sound, else the default device; "none"; None: the camera's own or
            none.
        sound: gets it.
        say: told what the user should know.
    """

    def __init__(self, spec: str | None, sound: Sound, say: Callable[[str], None]) -> None:
        self._spec = spec
        self._sound = sound
        self._say = say
        self._own: Feed | None = None
        self._listening: Listening | None = None

    def opener(self, opened: Callable[[], Camera]) -> Callable[[], Camera]:
        """Opens the same camera, and listens to it where its own sound is wanted."""

        def open_and_listen() -> Camera:
            camera = opened()
            if self._spec in (None, AUTO):
                feed = self._own or self._sound.open(f"the sound of {camera.name}")
                if camera.listen(feed):
                    self._own = feed
                elif self._own is None:
                    feed.close()
            return camera

        return open_and_listen

    def open(self, camera: str) -> None:
        """Open the microphone, if one is wanted, once the camera is open.

        Args:
            camera: as the option has it.

        Raises:
            GnrVideoError: there is none; says which there are.
        """
        if self._own is not None:
            if self._spec == AUTO:
                self._say(self._own.name)
            return
        if self._spec in (None, NONE):
            return
        if self._spec == AUTO and camera == BROWSER:
            self._say("microphone: the browser's, once its page gives it")
            return
        microphone = self._open()
        self._say(f"{microphone.name}, {microphone.rate / 1000:g} kHz")
        self._listening = Listening(microphone, self._open, self._sound.open(microphone.name), self._say)

    def _open(self) -> Microphone:
        return open_microphone(DEFAULT if self._spec in (None, AUTO) else self._spec)

    def start(self) -> None:
        if self._listening is not None:
            self._listening.start()

    def stop(self) -> None:
        """Let go of the microphone. May be called twice."""
        if self._listening is not None:
            self._listening.stop()
