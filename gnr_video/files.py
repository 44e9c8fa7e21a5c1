"""Names of outputs, and files written whole or not at all (`engines.files`, which all packages share)."""

from pathlib import Path

from engines.files import write_atomically

__all__ = ["anime_name", "write_atomically"]

STILLS = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}


def anime_name(path: Path) -> Path:
    """What the translation of a file is called, beside it: clip.mov -> clip_anime.mp4; images keep being images."""
    return path.with_name(f"{path.stem}_anime{'.png' if path.suffix.lower() in STILLS else '.mp4'}")
