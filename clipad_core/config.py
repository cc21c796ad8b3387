"""Configs as frozen dataclasses: a field per choice, changed by name with values from YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import cache
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from clipad_core.errors import ClipadError

Config = TypeVar("Config")


def changed(config: Config, values: Mapping[str, Any], method: str) -> Config:
    """Return ``config`` with some fields replaced; lists become tuples, whole numbers floats.

    Raises:
        ClipadError: an unknown field, or a value that its type does not allow; whatever the
            config's own ``__post_init__`` refuses.
    """
    hints = _hints(type(config))  # type: ignore[arg-type]
    changes: dict[str, Any] = {}
    for name, value in values.items():
        if name not in hints:
            known = ", ".join(sorted(hints))
            raise ClipadError(f"{method}: found the field {name!r}, expected one of {known}.")
        value = tuple(value) if isinstance(value, list) else value
        if not fits(value, hints[name]):
            raise ClipadError(f"{name}: found {value!r}, expected {allowed(hints[name])}.")
        # Equal settings must have equal hashes, and 1 prints unlike 1.0.
        if float in (hints[name], *get_args(hints[name])):
            value = tuple(map(float, value)) if isinstance(value, tuple) else value
            value = float(value) if isinstance(value, int) else value
        changes[name] = value
    return replace(config, **changes)  # type: ignore[type-var]


@cache
def _hints(kind: type) -> dict[str, Any]:
    """Types of the fields; Python compiles each of them anew at every call."""
    return get_type_hints(kind)


def fields_read(config: Any, when: str) -> list[str]:
    """The fields that are read at one time only, as their metadata says.

    Args:
        config: a config or its class.
        when: "references": only where there are references; "training"; "after training"; "run": what
            no image sees, or what a profile decides.
    """
    return [field.name for field in fields(config) if field.metadata.get("read") == when]


def look_up_preset(presets: Mapping[str, Config], name: str) -> Config:
    """Look a preset up by name, with a message that lists the names."""
    if name not in presets:
        raise ClipadError(
            f"preset: found {name!r}, expected one of {', '.join(presets)}; choose one of them."
        )
    return presets[name]


def allowed(hint: Any) -> str:
    """What a field's type allows, in words, for the message."""
    inner = get_args(hint)
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(repr(choice) for choice in inner)
    if get_origin(hint) is tuple:
        return f"a list of {inner[0].__name__}"
    if get_origin(hint) is Sequence:
        return f"a list, each entry {allowed(inner[0])}"
    if get_origin(hint) is Mapping:
        return "names with values below them"
    return " or ".join(allowed(part) for part in inner) or getattr(hint, "__name__", str(hint))


def fits(value: Any, hint: Any) -> bool:
    """Whether a value read from YAML fits a field's type; a whole number is a float too."""
    inner, origin = get_args(hint), get_origin(hint)
    if hint is Any:
        return True
    if origin is Literal:
        return value in inner
    if origin is Mapping:
        return isinstance(value, Mapping) and all(fits(one, inner[1]) for one in value.values())
    if origin is Sequence:
        return isinstance(value, (list, tuple)) and all(fits(one, inner[0]) for one in value)
    if origin is tuple:
        return isinstance(value, tuple) and all(fits(part, inner[0]) for part in value)
    if inner:
        return any(fits(value, part) for part in inner)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is hint
