"""Imports go one way and never in a circle.

cli -> train.commands, gnr_video.commands -> train -> gnr_video -> engines. Device: none.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
FORBIDDEN = {
    "engines": ("gnr_video", "train", "cli", "benchmarks"),
    "gnr_video": ("gnr_video.commands", "train", "cli", "benchmarks"),
    "gnr_video/commands": ("train", "cli", "benchmarks"),
    "train": ("gnr_video.commands", "train.commands", "cli", "benchmarks"),
    "train/commands": ("cli", "benchmarks"),
}
"""What the modules of a folder must not import, not even inside functions."""


def modules() -> dict[str, Path]:
    """Every module of the project by its dotted name; a package goes by its folder's."""
    files = [REPOSITORY / "cli.py"]
    for package in ("engines", "gnr_video", "train", "benchmarks"):
        files += sorted((REPOSITORY / package).rglob("*.py"))
    names = {file: ".".join(file.relative_to(REPOSITORY).with_suffix("").parts) for file in files}
    return {name.removesuffix(".__init__"): file for file, name in names.items()}


MODULES = modules()


def imported(nodes: Iterable[ast.AST]) -> list[str]:
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


def imported_modules(module: str) -> set[str]:
    """The project's modules that one imports: at its top, inside functions, for types."""
    found = set()
    for name in imported(ast.walk(ast.parse(MODULES[module].read_text()))):
        while name and name not in MODULES:
            name = name.rpartition(".")[0]
        if name and name != module:
            found.add(name)
    return found


def room(module: str) -> str:
    """The folder a module lies in, of the packages that have folders; else the module itself."""
    parts = module.split(".")
    if parts[0] in ("engines", "benchmarks"):
        return parts[0]
    return ".".join(parts[:2])


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Nodes that lead back to the first of them, the first again at the end; empty where there are none."""
    done: set[str] = set()

    def walk(node: str, way: list[str]) -> Iterator[list[str]]:
        if node in way:
            yield [*way[way.index(node) :], node]
        elif node not in done:
            for other in sorted(graph.get(node, ())):
                yield from walk(other, [*way, node])
            done.add(node)

    return next((found for node in sorted(graph) for found in walk(node, [])), [])


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_imports_go_one_way(folder: str) -> None:
    files = [
        file
        for file in (REPOSITORY / folder).rglob("*.py")
        if folder.endswith("commands") or "commands" not in file.relative_to(REPOSITORY / folder).parts
    ]
    assert files
    for file in files:
        wrong = [n for n in imported(ast.walk(ast.parse(file.read_text()))) if within(n, FORBIDDEN[folder])]
        assert not wrong, f"{file.relative_to(REPOSITORY)} imports {wrong}"


def test_modules_import_each_other_in_no_circle() -> None:
    assert circle({module: imported_modules(module) for module in MODULES}) == []


def test_rooms_import_each_other_in_no_circle() -> None:
    graph: dict[str, set[str]] = {}
    for module in MODULES:
        rooms = {room(other) for other in imported_modules(module)}
        graph.setdefault(room(module), set()).update(rooms - {room(module)})
    assert circle(graph) == []


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c", "d"}, "c": set(), "d": {"b"}}) == ["b", "d", "b"]


def test_commands_import_what_they_run_when_they_run() -> None:
    """Help answers at once because the modules of the commands import only what they are made of."""
    allowed = (
        "engines.errors",
        "gnr_video._version",
        "gnr_video.commands",
        "gnr_video.effects.EFFECTS",
        "gnr_video.options",
        "train.commands",
    )
    commands = [
        p for folder in ("gnr_video", "train") for p in (REPOSITORY / folder / "commands").glob("*.py")
    ]
    for file in [REPOSITORY / "cli.py", *commands]:
        names = imported(iter(ast.parse(file.read_text()).body))
        slow = [n for n in names if within(n, ("train", "gnr_video", "engines")) and not within(n, allowed)]
        assert not slow, f"{file.name} imports {slow}"
