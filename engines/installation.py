"""How this program was installed, and so how its optional parts are."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

NAME = "gnr-video"


def install_line(extra: str) -> str:
    """The command that adds an extra of pyproject.toml to this installation, for any shell.

    A clone that was installed with ``-e`` keeps its constraints; a wheel or an archive is named again, with the extra.
    The source is read from the installation's direct_url.json (PEP 610); there is none where it came from an index.
    """
    folder = Path(__file__).parent.parent
    try:
        record = distribution(NAME).read_text("direct_url.json")
    except PackageNotFoundError:  # run from a clone
        return _of_clone(folder, extra)
    if record is None:
        return f'pip install "{NAME}[{extra}]"'
    source = json.loads(record)
    url = str(source["url"])
    if "dir_info" in source:
        return _of_clone(Path(url2pathname(urlsplit(url).path)), extra)
    return f'pip install "{NAME}[{extra}] @ {url}"'


def _of_clone(folder: Path, extra: str) -> str:
    constraints = folder / "constraints.txt"
    pinned = f'-c "{constraints}" ' if constraints.is_file() else ""
    return f'pip install {pinned}-e "{folder}[{extra}]"'
