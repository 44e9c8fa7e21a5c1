"""Check, one finding of the doctor, and how findings are shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "off", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: what was looked at.
        status: "ok"; "off": optional and not installed; "warn": a run works, but not as well as it could;
            "fail": a run does not work.
        detail: what was found, one line.
        fix: what to do about it (a command where there is one); empty only when there is nothing to do.
    """

    name: str
    status: Status
    detail: str
    fix: str = ""

    def __post_init__(self) -> None:
        if self.status not in ("ok", "off", "warn", "fail"):
            raise ValueError(f"status must be ok, off, warn or fail, got {self.status!r}")
        if self.status == "fail" and not self.fix:
            raise ValueError(f"the failing check {self.name!r} names no fix")


def healthy(checks: Iterable[Check]) -> bool:
    """Whether a run can work: no check failed."""
    return all(check.status != "fail" for check in checks)


def format_checks(checks: Sequence[Check]) -> str:
    """The findings as aligned text, each fix below its finding, and a summary at the end."""
    width = max((len(check.name) for check in checks), default=0)
    mark = {"ok": "ok  ", "off": "-   ", "warn": "warn", "fail": "FAIL"}
    lines = []
    for check in checks:
        lines.append(f"{mark[check.status]}  {check.name:<{width}}  {check.detail}")
        if check.fix:
            lines.append(f"{'':{width + 6}}  -> {check.fix}")
    count = {status: sum(check.status == status for check in checks) for status in mark}
    if count["fail"]:
        summary = f"{count['fail']} failed, {count['warn']} warnings: mend what is marked FAIL"
    elif count["warn"]:
        summary = f"ready to run, {count['warn']} warnings"
    else:
        summary = "ready to run"
    return "\n".join([*lines, "", summary])
