"""Imports go one way: cli -> gnr_video.commands -> {train, gnr_video} -> engines. Device: none."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
FORBIDDEN = {
    "engines": ("gnr_video", "train", "cli"),
    "gnr_video": ("gnr_video.commands", "train", "cli"),
    "gnr_video/commands": ("cli",),
    "train": ("gnr_video.commands", "cli"),
}
"""What the modules of a folder must not import, not even inside functions."""


def imported(nodes: Iterator[ast.AST]) -> list[str]:
    """The names that a module imports, absolute, those after `from` each with its module's."""
    names = []
    for node in nodes:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_imports_go_one_way(folder: str) -> None:
    files = [
        file
        for file in (REPOSITORY / folder).rglob("*.py")
        if folder != "gnr_video" or "commands" not in file.relative_to(REPOSITORY / folder).parts
    ]
    assert files
    for file in files:
        wrong = [n for n in imported(ast.walk(ast.parse(file.read_text()))) if within(n, FORBIDDEN[folder])]
        assert not wrong, f"{file.relative_to(REPOSITORY)} imports {wrong}"


def test_commands_import_what_they_run_when_they_run() -> None:
    """Help answers at once because the modules of the commands import only what they are made of."""
    allowed = ("engines.errors", "gnr_video._version", "gnr_video.commands")
    for file in [REPOSITORY / "cli.py", *(REPOSITORY / "gnr_video/commands").glob("*.py")]:
        names = imported(iter(ast.parse(file.read_text()).body))
        slow = [n for n in names if within(n, ("train", "gnr_video", "engines")) and not within(n, allowed)]
        assert not slow, f"{file.name} imports {slow}"
