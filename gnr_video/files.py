"""Writes a small file whole or not at all: see `engines.files`, which all packages share."""

from engines.files import write_atomically

__all__ = ["write_atomically"]
