"""Which of the faces in a picture are translated, and as whom: the step between the tracker and the aligner."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engines.errors import InputError
from gnr_video.frame import Face
from gnr_video.tracking.identities import FORGET_SECONDS

MAX_FACES = 8
REMEMBERED = 256
"""Faces whose roles are known for the frames that are still on their way."""

LOSS_SECONDS = 0.5
"""For so long a chosen face may be gone before another takes its place."""

LEAD = 1.25
"""How much larger than the chosen face, or how much of its size further out, another must be to replace it."""


@dataclass(frozen=True)
class FaceChoice:
    """A `--faces` value.

    Attributes:
        kind: "all", "count", "largest", "left", "right" or "id".
        number: N of a count, K of id:K.
    """

    kind: str
    number: int = 0

    @classmethod
    def parse(cls, text: str | int | FaceChoice) -> FaceChoice:
        """Of "all", "largest", "left", "right", a number of faces, "id:K", or one already.

        Raises:
            InputError: it is none of these.
        """
        if isinstance(text, FaceChoice):
            return text
        text = str(text).strip().lower()
        if text in ("all", "largest", "left", "right"):
            return cls(text)
        if (match := re.fullmatch(r"id:(\d+)", text)) and int(match[1]) < MAX_FACES:
            return cls("id", int(match[1]))
        if re.fullmatch(r"\d+", text) and 1 <= int(text) <= MAX_FACES:
            return cls("count", int(text))
        raise InputError(
            f"{text!r} chooses no faces",
            f"--faces takes all, largest, left, right, 1 to {MAX_FACES}, or id:0 to id:{MAX_FACES - 1}",
        )

    def __str__(self) -> str:
        return {"count": f"{self.number}", "id": f"id:{self.number}"}.get(self.kind, self.kind)

    @property
    def single(self) -> bool:
        """Whether it is always one face, whoever that is."""
        return self.kind not in ("all", "count") or (self.kind == "count" and self.number == 1)

    @property
    def max_faces(self) -> int:
        """How many faces the tracker is to follow for it."""
        return self.number if self.kind == "count" else MAX_FACES


ALL_FACES = FaceChoice("all")


class Cast:
    """Gives each face a role, the number that its style goes by, and picks those to translate.

    A new face takes the lowest role that is free, left to right where several come at once. The role of a face
    that is gone is free again when the tracker no longer waits for it, and all are after a scene cut. So a
    person alone is role 0, and people seen together never share one.

    Args:
        choice: which faces to translate. A single face has role 0, whoever is chosen.
    """

    def __init__(self, choice: FaceChoice | str | int = "all") -> None:
        self.choice = choice if isinstance(choice, FaceChoice) else FaceChoice.parse(choice)
        self._roles: dict[int, int] = {}
        self._seen: dict[int, tuple[float, Face]] = {}
        self._chosen: int | None = None

    def reset(self) -> None:
        """All roles are free: a new scene."""
        self._seen.clear()
        self._chosen = None

    def state(self) -> tuple[Any, ...]:
        """Who has which role, for `restore`."""
        return dict(self._roles), dict(self._seen), self._chosen

    def restore(self, state: tuple[Any, ...]) -> None:
        """Go on from there."""
        roles, seen, self._chosen = state
        self._roles, self._seen = dict(roles), dict(seen)

    def choose(self, faces: Sequence[Face], time_seconds: float) -> list[Face]:
        """Those of the faces of the next frame that are to be translated, in the order of `track_id`."""
        self._seen = {k: s for k, s in self._seen.items() if abs(time_seconds - s[0]) <= FORGET_SECONDS}
        for face in sorted(faces, key=lambda f: (f.track_id not in self._roles, f.box[0])):
            if face.track_id not in self._seen:
                taken = {self._roles[k] for k in self._seen}
                self._roles[face.track_id] = next(i for i in range(len(taken) + 1) if i not in taken)
            self._seen[face.track_id] = time_seconds, face
        while len(self._roles) > REMEMBERED:
            del self._roles[next(k for k in self._roles if k not in self._seen)]
        if self.choice.kind in ("all", "count"):
            return sorted(faces, key=lambda f: f.track_id)
        chosen = self._choose_one(time_seconds)
        return [face for face in faces if face.track_id == chosen]

    def role(self, track_id: int) -> int:
        """The role of a face of this frame or of one not long ago."""
        return 0 if self.choice.single else self._roles.get(track_id, 0)

    def _choose_one(self, time_seconds: float) -> int | None:
        present = {k: face for k, (t, face) in self._seen.items() if abs(time_seconds - t) <= LOSS_SECONDS}
        if self.choice.kind == "id":
            return next((k for k in present if self._roles[k] == self.choice.number), None)

        def rank(track_id: int) -> float:
            left, top, right, bottom = present[track_id].box
            size = max(right - left, bottom - top)
            lead = track_id == self._chosen
            if self.choice.kind == "largest":
                return size * (LEAD if lead else 1.0)
            middle = (left + right) / 2 * (1 if self.choice.kind == "right" else -1)
            return middle + (LEAD - 1.0) * size * lead

        self._chosen = max(present, key=rank, default=None)
        return self._chosen
