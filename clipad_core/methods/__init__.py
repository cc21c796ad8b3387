"""The methods, a room each: a folder that exposes one ``METHOD`` by the contract of `method`.

Rooms are found by their folder, so nothing keeps a list of them; and they never import each other.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from clipad_core.errors import ClipadError

if TYPE_CHECKING:
    from clipad_core.methods.method import Method


def rooms() -> list[str]:
    """The names of all methods, by the alphabet.

    >>> "winclip" in rooms()
    True
    """
    return sorted(path.parent.name for path in Path(__file__).parent.glob("*/__init__.py"))


@cache
def find_method(name: str) -> Method:
    """The method of a room.

    Raises:
        ClipadError: there is no such room.

    >>> find_method("winclip").title
    'WinCLIP'
    """
    if name not in rooms():
        raise ClipadError(f"method: found {name!r}, expected one of {', '.join(rooms())}.")
    method: Method = import_module(f"{__name__}.{name}").METHOD
    return method
