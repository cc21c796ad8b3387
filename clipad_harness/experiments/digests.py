"""Digests of code: what is kept under a key is never used again once the code that made it changed.

No list is kept by hand. Of the core it is everything but the other methods' rooms, of the harness a
module with all that it imports, there or further down.
"""

from __future__ import annotations

import ast
import hashlib
from functools import cache, lru_cache
from pathlib import Path

from clipad_core.methods import rooms

PACKAGES = Path(__file__).resolve().parents[2]
HARNESS = "clipad_harness"


@cache
def code_digest(method: str, module: str, packages: Path = PACKAGES) -> str:
    """SHA-256 of all code that decides what a module of the harness computes for a method.

    Args:
        method: name of its room.
        module: dotted name, such as ``clipad_harness.experiments.scorer``.
        packages: the folder that holds both packages.
    """
    digest = hashlib.sha256()
    for path in sorted({*core_files(method, packages), *import_closure(module, packages)}):
        digest.update(path.relative_to(packages).as_posix().encode() + b"\0")
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


def core_files(method: str, packages: Path = PACKAGES) -> list[Path]:
    """All modules of the core but those of the other methods' rooms."""
    core = packages / "clipad_core"
    foreign_rooms = [core / "methods" / room for room in rooms() if room != method]
    return [
        path
        for path in sorted(core.rglob("*.py"))
        if not any(path.is_relative_to(room) for room in foreign_rooms)
    ]


def import_closure(module: str, packages: Path = PACKAGES) -> list[Path]:
    """The files of a module of the harness and of all that it imports, wherever the import stands."""
    files: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _file_of(name, packages)
        if name not in files and path is not None:
            files[name] = path
            package = name.rpartition(".")[0]  # whose __init__ runs as well
            waiting += [*imports(path.read_text(encoding="utf-8")), package]
    return sorted(files.values())


def _file_of(module: str, packages: Path) -> Path | None:
    """The file of a module or package of the harness; None of any other name."""
    if module.partition(".")[0] != HARNESS:
        return None
    path = packages / module.replace(".", "/")
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


@lru_cache(maxsize=1024)
def imports(source: str) -> list[str]:
    """Dotted names that a source imports; of a name from a package that of a module it may be, too.

    What is imported for its types alone decides nothing.
    """
    names = []
    nodes: list[ast.AST] = [ast.parse(source)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            nodes += node.orelse
            continue
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        nodes += ast.iter_child_nodes(node)
    return names
