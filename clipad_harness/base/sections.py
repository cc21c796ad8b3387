"""What params.yaml holds by name, with a message where a name is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clipad_core.errors import ClipadError

PARAMS = "params.yaml"


def get(section: Mapping[str, Any], key: str, where: str) -> Any:
    """One value of a section; a name that is missing is told with those that are there."""
    if key not in section:
        names = ", ".join(map(str, section)) or "nothing"
        raise ClipadError(
            f"{where}: found no {key!r}, only {names}; add it or correct its spelling."
        )
    return section[key]


def mapping(value: Any, where: str) -> dict[str, Any]:
    """Names with values below them, or a message."""
    if not isinstance(value, dict):
        raise ClipadError(f"{where}: found {value!r}, expected names with values below it.")
    return value
