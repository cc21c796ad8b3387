"""Configs as frozen dataclasses: a field per choice, changed by name with values from YAML.

A field made by `choice` says of itself what throwing it changes, who throws it, and when it is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from clipad_core.errors import ClipadError

Config = TypeVar("Config")
# When a field is read: only where there are references, by a training alone, by no training, or for
# reasons of the run (its seed and precision), which are no switches between a paper and a code.
Read = Literal["always", "references", "training", "after training", "run"]


@dataclass(frozen=True)
class Choice:
    """What a field of a config says of itself.

    Attributes:
        meaning: what throwing the switch changes, for a reader of a table; "" where nobody throws it.
        source: who throws it; a repository at its commit, a file of it where one decides. P is the
            method's own paper.
        read: when it is read.
        together: the first field of a switch that published code decides as one; "" for a field that
            is a switch of its own or the first of several.
    """

    meaning: str = ""
    source: str = ""
    read: Read = "always"
    together: str = ""


def choice(
    default: Any,
    meaning: str = "",
    source: str = "",
    *,
    read: Read = "always",
    together: str = "",
) -> Any:
    """A field of a config with its default and its `Choice`."""
    return field(default=default, metadata={"choice": Choice(meaning, source, read, together)})


def choices(kind: type) -> dict[str, Choice]:
    """What every field of a config says of itself, in order; a plain field says nothing.

    >>> @dataclass(frozen=True)
    ... class Example:
    ...     sigma: float = choice(4.0, "no smoothing", "P 3.3", read="after training")
    ...     size: int = 240
    >>> choices(Example)["sigma"].meaning, choices(Example)["size"].meaning
    ('no smoothing', '')
    """
    return {one.name: one.metadata.get("choice", Choice()) for one in fields(kind)}


def fields_read(kind: type, moment: Read) -> tuple[str, ...]:
    """The fields of a config that are read at one moment only, in order."""
    return tuple(name for name, what in choices(kind).items() if what.read == moment)


def thrown_together(kind: type, name: str) -> tuple[str, ...]:
    """The fields of the switch that a field belongs to, the one that names it first.

    >>> @dataclass(frozen=True)
    ... class Example:
    ...     resize: str = "tiles"
    ...     channels: str = choice("rgb", together="resize")
    >>> thrown_together(Example, "channels")
    ('resize', 'channels')
    """
    known = choices(kind)
    first = known[name].together or name
    return (first, *(other for other, what in known.items() if what.together == first))


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
