"""A card in YAML as a frozen dataclass: every name known, every value of its type, file and field named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from clipad_core.config import allowed, fits
from clipad_core.errors import ClipadError


def fill(hint: Any, value: Any, path: Path, where: str) -> Any:
    """A value of a card as its field's type asks for it, dataclasses inside included.

    Args:
        hint: the type; of a union with None, whose field may be left out, the other part.
        where: the field, as in `departures[0].why`; "" for the whole card.

    Raises:
        ClipadError: an unknown or a missing name, or a value of another type; file and field are named.
    """
    if get_origin(hint) is UnionType:
        hint = get_args(hint)[0]
    inner = get_args(hint)
    if is_dataclass(hint) and isinstance(value, dict):
        _check_names(hint, value, path, where)
        hints, start = get_type_hints(hint), f"{where}." if where else ""
        parts = {name: fill(hints[name], part, path, start + name) for name, part in value.items()}
        return hint(**parts)  # type: ignore[operator]
    if get_origin(hint) is Mapping and isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise wrong(path, where, key, "a name; put quotes around it")
        return {key: fill(inner[1], part, path, f"{where}.{key}") for key, part in value.items()}
    if get_origin(hint) is tuple and isinstance(value, list):
        return tuple(
            fill(inner[0], part, path, f"{where}[{place}]") for place, part in enumerate(value)
        )
    if not is_dataclass(hint) and get_origin(hint) is not tuple and fits(value, hint):
        return value
    expected = "names with values below them" if is_dataclass(hint) else allowed(hint)
    raise wrong(path, where, value, expected)


def _check_names(kind: Any, value: Mapping[Any, Any], path: Path, where: str) -> None:
    """Refuse a name that no field has, and a field without a default that is not there."""
    known = {part.name: part for part in fields(kind)}
    unknown = [str(name) for name in value if name not in known]
    missing = [
        name
        for name, part in known.items()
        if name not in value and part.default is MISSING and part.default_factory is MISSING
    ]
    if missing or unknown:
        parts = [f"no {', '.join(missing)}"] if missing else []
        parts += [f"an unknown {', '.join(unknown)}"] if unknown else []
        raise ClipadError(
            f"{_at(path, where)}: found {' and '.join(parts)}, expected fields of {', '.join(known)}."
        )


def wrong(path: Path, where: str, value: object, expected: str) -> ClipadError:
    """The error of a card: file and field, what was found, what was expected."""
    return ClipadError(f"{_at(path, where)}: found {value!r}, expected {expected}.")


def _at(path: Path, where: str) -> str:
    return f"{path}: {where}" if where else str(path)
