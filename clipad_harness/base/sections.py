"""Sections of params.yaml as frozen dataclasses: every name known, every value of its type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_type_hints

from clipad_core.config import allowed, fits
from clipad_core.errors import ClipadError

PARAMS = "params.yaml"


def get(section: Mapping[str, Any], key: str, where: str) -> Any:
    """One value of a section; a name that is missing is told with those that are there."""
    if key not in section:
        known = ", ".join(map(str, section)) or "nothing"
        raise ClipadError(
            f"{where}: found no {key!r}, only {known}; add it or correct its spelling."
        )
    return section[key]


def mapping(value: Any, where: str) -> dict[str, Any]:
    """Names with values below them, or a message."""
    if not isinstance(value, dict):
        raise ClipadError(f"{where}: found {value!r}, expected names with values below it.")
    return value


def build(kind: type, section: Mapping[str, Any], where: str) -> Any:
    """Fill a dataclass.

    Raises:
        ClipadError: an unknown or a missing name, told with the names that exist; a value that its
            field's type does not allow.
    """
    known = [field.name for field in fields(kind)]
    unknown = [str(key) for key in section if key not in known]
    missing = [key for key in known if key not in section]
    if unknown or missing:
        parts = [f"unknown {', '.join(unknown)}"] if unknown else []
        parts += [f"missing {', '.join(missing)}"] if missing else []
        raise ClipadError(
            f"{PARAMS}, {where}: {' and '.join(parts)}; expected exactly {', '.join(known)}."
        )
    frozen = {key: tuple(v) if isinstance(v, list) else v for key, v in section.items()}
    for name, hint in get_type_hints(kind).items():
        if not fits(frozen[name], hint):
            raise ClipadError(
                f"{PARAMS}, {where}.{name}: found {section[name]!r}, expected {allowed(hint)}."
            )
    return kind(**frozen)
