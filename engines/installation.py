"""How this program was installed, and so how its optional parts are."""

from __future__ import annotations

import json
import shutil
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

NAME = "gnr-video"


def pip_install(*arguments: str) -> str:
    """The command that installs `arguments` into the environment that runs this program, for any shell."""
    return pip("install", *arguments)


def pip(action: str, *arguments: str) -> str:
    """The command with which pip does something to the environment that runs this program, for any shell.

    An argument with characters that a shell reads (brackets, comparisons, spaces) is put into double quotes, which
    Windows has too.
    """
    python = Path(sys.executable)
    command: tuple[str, ...]
    found = shutil.which("pip")
    if _installer() == "uv":
        command = ("uv", "pip", action, "--python", str(python))
    elif found and Path(found).parent == python.parent:
        command = ("pip", action)
    else:  # not activated: a `pip` would be another environment's
        command = (str(python), "-m", "pip", action)
    return " ".join(map(_quoted, (*command, *arguments)))


def install_line(extra: str = "", *options: str) -> str:
    """The command that adds an extra of pyproject.toml ("": none) to this installation, for any shell.

    A clone that was installed with ``-e`` keeps its constraints; a folder, a wheel, an archive or a repository is named
    again, with the extra. The source is read from the installation's direct_url.json (PEP 610); there is none where it
    came from an index.
    """
    found = _distribution()
    name = f"[{extra}]" if extra else ""
    if found is None:  # run from a clone
        return pip_install(*options, *_of_clone(Path(__file__).parent.parent, name))
    record = found.read_text("direct_url.json")
    if record is None:
        return pip_install(*options, NAME + name)
    source = json.loads(record)
    url = str(source["url"])
    if "dir_info" in source:
        folder = Path(url2pathname(urlsplit(url).path))
        if source["dir_info"].get("editable"):
            return pip_install(*options, *_of_clone(folder, name))
        return pip_install(*options, f"{folder}{name}")
    if "vcs_info" in source:
        url = f"{source['vcs_info']['vcs']}+{url}@{source['vcs_info']['commit_id']}"
    return pip_install(*options, f"{NAME}{name} @ {url}")


def _of_clone(folder: Path, name: str) -> tuple[str, ...]:
    constraints = folder / "constraints.txt"
    pinned = ("-c", str(constraints)) if constraints.is_file() else ()
    return (*pinned, "-e", f"{folder}{name}")


def _distribution() -> Distribution | None:
    try:
        return distribution(NAME)
    except PackageNotFoundError:
        return None


def _installer() -> str:
    found = _distribution()
    return ((found and found.read_text("INSTALLER")) or "").strip()


def _quoted(word: str) -> str:
    return f'"{word}"' if any(c in word for c in " []<>=&()") else word
