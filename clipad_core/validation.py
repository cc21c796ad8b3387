"""Values from YAML and JSON against type hints: pydantic finds what is wrong, one message says it.

Plain values stay what they are: True is no number, "1" neither. A whole number is a float too and
becomes one, a list becomes the tuple that a hint asks for, names with values below them a dataclass.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import date
from functools import cache
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from clipad_core.errors import ClipadError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails, SchemaValidator

# Longer values are cut in a message; its place says where the whole one stands.
LONGEST = 200
UNION = (Union, UnionType)


def validate(hint: Any, value: Any, source: object, where: str = "") -> Any:
    """The value as its type hint asks for it.

    Args:
        hint: a dataclass, or what a field of one may have.
        value: plain data; dataclasses that are built already may stand in it.
        source: the file that it was read from, or the method whose config it is.
        where: the place in the source, as in `profiles.demo`; "" for all of it.

    Raises:
        ClipadError: an unknown or a missing name, told with the names that exist; a value of another
            type, told with its place; whatever a dataclass's own ``__post_init__`` refuses.

    >>> validate(tuple[float, ...], [1, 0.5], "params.yaml")
    (1.0, 0.5)
    >>> validate(Mapping[str, int], {"normal": True}, "mvtec.yaml", "counts")
    Traceback (most recent call last):
        ...
    clipad_core.errors.ClipadError: mvtec.yaml: counts.normal: found True, expected int.
    """
    from pydantic import ValidationError

    try:
        return _validator(hint).validate_python(value, extra="forbid")
    except ValidationError as error:
        errors = error.errors(include_url=False)
    own = errors[0].get("ctx", {}).get("error")
    raise own if isinstance(own, ClipadError) else _refusal(hint, value, source, where, errors)


def wrong(source: object, where: str, value: object, expected: str) -> ClipadError:
    """The error about a value: source and place, what was found, what was expected."""
    value_text = repr(value)
    value_text = value_text if len(value_text) <= LONGEST else f"{value_text[:LONGEST]}..."
    return ClipadError(f"{_at(source, where)}: found {value_text}, expected {expected}.")


def listed(values: Iterable[object]) -> str:
    """Values in a message, so that each can be seen: "none", and quotes around what looks like nothing.

    >>> listed(["hex_nut", 0]), listed([]), listed(["", "a ", "a, b"])
    ('hex_nut, 0', 'none', "'', 'a ', 'a, b'")
    """
    texts = [str(value) for value in values]
    plain = [text == text.strip() != "" and "," not in text for text in texts]
    shown = [text if is_plain else repr(text) for text, is_plain in zip(texts, plain, strict=True)]
    return ", ".join(shown) or "none"


@cache
def _validator(hint: Any) -> SchemaValidator:
    # Imported here: it takes longer than all of `clipad --help`.
    from pydantic import TypeAdapter
    from pydantic_core import SchemaValidator

    return SchemaValidator(_strict(TypeAdapter(hint).core_schema))


def _strict(schema: Any) -> Any:
    """The schema with plain values strict; strict all over, it would refuse a list for a tuple."""
    if isinstance(schema, list):
        return [_strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {"strict": True} if schema.get("type") in ("bool", "int", "float", "str") else {}
    return {key: _strict(part) for key, part in schema.items()} | strict


def _refusal(
    hint: Any, value: Any, source: object, where: str, errors: Sequence[ErrorDetails]
) -> ClipadError:
    """The message of the first error; of one about a name, all wrong names at its place."""
    path = errors[0]["loc"]
    if path and path[-1] == "[key]":
        _, _, where = _follow(path[:-2], hint, value, where)
        return wrong(source, where, errors[0]["input"], "a name; put quotes around it")
    hint, value, where = _follow(path, hint, value, where)
    if not (is_dataclass(_single_type(hint)) and isinstance(value, Mapping)):
        return wrong(source, where, value, allowed(hint) + _advice(hint, value))
    names = [field.name for field in fields(_single_type(hint))]
    missing = [
        str(error["loc"][-1])
        for error in errors
        if error["type"] == "missing" and error["loc"][:-1] == path[:-1]
    ]
    unknown = [str(name) for name in value if name not in names]
    parts = [f"no {', '.join(missing)}"] if missing else []
    parts += [f"an unknown {listed(unknown)}"] if unknown else []
    return ClipadError(
        f"{_at(source, where)}: found {' and '.join(parts)}, expected fields of {', '.join(names)}."
    )


def _advice(hint: Any, value: Any) -> str:
    """What to do where YAML reads a word as something else: 01 as a number, no as false."""
    entries = value if isinstance(value, (list, tuple)) else [value]
    misread = any(isinstance(entry, (int, float, date)) for entry in entries)
    return "; put quotes around it" if misread and "str" in allowed(hint).split() else ""


def _follow(path: Sequence[int | str], hint: Any, value: Any, where: str) -> tuple[Any, Any, str]:
    """Type, value and place at the end of an error's path.

    A path goes on into what is not there, and into each of several types that are allowed; both are
    told of the value around them.
    """
    for part in path:
        inner = _type_of(part, hint)
        keys = range(len(value)) if isinstance(value, (list, tuple)) else value
        if inner is None or part not in keys:
            break
        step = f"[{part}]" if isinstance(part, int) else f".{part}" if where else part
        hint, value, where = inner, value[part], where + step
    return hint, value, where


def _type_of(part: int | str, hint: Any) -> Any:
    """The type of a part of a value; None where there is no such part, or several are allowed."""
    hint = _single_type(hint)
    inner = get_args(hint)
    if is_dataclass(hint):
        return get_type_hints(hint).get(str(part))
    if get_origin(hint) in UNION:
        return None
    if row := _row(hint):
        return row[part] if isinstance(part, int) and part < len(row) else None
    return inner[-1] if _holds_names(hint) else inner[0]


def allowed(hint: Any) -> str:
    """What a type allows, in words.

    >>> allowed(float | Literal["clip"]), allowed(tuple[int, ...]), allowed(int | None)
    ("float or one of 'clip'", 'a list of int', 'int or null')
    """
    inner = get_args(hint)
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(repr(choice) for choice in inner)
    if get_origin(hint) in UNION:
        return " or ".join(allowed(part) for part in inner)
    if is_dataclass(hint) or _holds_names(hint):
        return "names with values below them"
    if row := _row(hint):
        columns = [allowed(part) for part in row]
        names = getattr(hint, "_fields", ())
        return f"[{', '.join(names or columns)}]"
    if inner:
        plain = isinstance(inner[0], type) and not is_dataclass(inner[0]) and not _row(inner[0])
        return (
            f"a list of {allowed(inner[0])}" if plain else f"a list, each entry {allowed(inner[0])}"
        )
    return "null" if hint is NoneType else str(hint.__name__)


def _single_type(hint: Any) -> Any:
    """What is allowed besides None, where that is one type."""
    types = [part for part in get_args(hint) if part is not NoneType]
    return types[0] if get_origin(hint) in UNION and len(types) == 1 else hint


def _row(hint: Any) -> tuple[Any, ...]:
    """The types of a list of fixed length; none for any other type."""
    if hasattr(hint, "_fields"):
        return tuple(get_type_hints(hint).values())
    inner = get_args(hint)
    return inner if get_origin(hint) is tuple and inner[-1] is not ... else ()


def _holds_names(hint: Any) -> bool:
    return get_origin(hint) in (Mapping, dict)


def _at(source: object, where: str) -> str:
    return f"{source}: {where}" if where else str(source)
