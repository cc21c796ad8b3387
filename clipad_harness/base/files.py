"""Files written so that a kill, a full disk or a second writer never leaves half; YAML read as plain data."""

from __future__ import annotations

import math
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from pathlib import Path
from types import NoneType
from typing import Any

import yaml
from filelock import FileLock, Timeout

from clipad_core.errors import ClipadError

# In C where PyYAML was built with it: five times as fast on params.yaml, nine on dvc.lock.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# What a person writes comes nowhere near: lists and names inside each other, and characters, aliases
# counted as what they stand for.
_DEEPEST, _LONGEST = 50, 10_000_000
_INT64 = range(-(2**63), 2**63)
_MERGE = "<<"
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


def read_yaml(path: Path) -> Any:
    """Read a YAML file as plain data.

    Raises:
        OSError: the file cannot be read.
        ClipadError: it is no file, is not valid YAML, or holds something else than plain data; see
            `check_regular` and `parse_yaml`.
    """
    check_regular(path)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ClipadError(f"{path}: not in UTF-8 ({error}); save it as UTF-8.") from error
    return parse_yaml(text, path)


def parse_yaml(text: str, source: object) -> Any:
    """Plain data out of YAML: names with values, lists, texts, numbers, dates, true, false and null.

    Args:
        text: the YAML.
        source: what messages call it, as a file.

    Raises:
        ClipadError: it is not valid; a value that is not what YAML takes it for (2020-02-30), that is
            too large for 64 bits or not finite; a name that is neither text nor number, or there
            twice; values that are nested or repeated beyond measure.

    >>> parse_yaml("{a: [1, 2.5, no]}", "text")
    {'a': [1, 2.5, False]}
    """
    try:
        return deepcopy(_parsed(text))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise ClipadError(
            f"{source}: not valid YAML{line} ({problem}); correct it there."
        ) from error


@lru_cache(maxsize=32)
def _parsed(text: str) -> Any:
    """What `parse_yaml` gives copies of: a page over all methods reads the same settings a hundred times."""
    _check_size(text)
    return yaml.load(text, _PlainLoader)


def yaml_line(value: object) -> str:
    """A value on one line, as it can be pasted into a YAML file: with quotes where YAML needs them.

    >>> yaml_line(["01", "no", "hex_nut"]), yaml_line("Ours: all."), yaml_line(None)
    ("['01', 'no', hex_nut]", "'Ours: all.'", 'null')
    """
    flow = yaml.dump(
        [value], Dumper=_LineDumper, default_flow_style=True, allow_unicode=True, width=10**6
    )
    return str(flow).strip()[1:-1]


class _LineDumper(yaml.SafeDumper):
    """PyYAML's own, which reads YAML 1.1; DVC reads 1.2, where 1e3 and 0o7 are numbers as well."""


def _represent_text(dumper: _LineDumper, text: str) -> yaml.ScalarNode:
    """Line breaks are escaped, which YAML does between double quotes alone."""
    style = '"' if text.splitlines() not in ([], [text]) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_LineDumper.add_representer(str, _represent_text)
_LineDumper.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|0o[0-7]+$"),
    list("-+.0123456789"),
)


@dataclass
class _Open:
    """A list, or names with values, that is being read; ``size`` in characters."""

    anchor: str | None
    has_names: bool
    names: set[str] = field(default_factory=set)
    size: int = 1
    nodes: int = 0


def _check_size(text: str) -> None:
    """Refuse what would take minutes or all memory, before anything is made of it; names that are twice.

    Raises:
        yaml.MarkedYAMLError: such a value, with its place.
    """
    sizes: dict[str, int] = {}
    nested = [_Open(None, has_names=False)]
    for event in yaml.parse(text, _LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            nested.append(_Open(event.anchor, isinstance(event, yaml.MappingStartEvent)))
            if len(nested) > _DEEPEST:
                raise _problem(f"values are nested more than {_DEEPEST} deep", event)
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            closed = nested.pop()
            anchor, size = closed.anchor, closed.size
        elif isinstance(event, yaml.ScalarEvent):
            anchor, size = event.anchor, 1 + len(event.value)
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise _problem(
                    f"the alias {event.anchor!r} stands inside or before its anchor", event
                )
            anchor, size = None, sizes[event.anchor]
        else:
            continue
        if anchor is not None:
            sizes[anchor] = size
        around = nested[-1]
        around.size += size
        if around.size > _LONGEST:
            raise _problem(f"aliases stand for more than {_LONGEST:,} characters", event)
        is_name = around.has_names and around.nodes % 2 == 0
        around.nodes += 1
        if is_name and isinstance(event, yaml.ScalarEvent) and event.value != _MERGE:
            if event.value in around.names:
                raise _problem(f"the name {event.value!r} is there twice", event)
            around.names.add(event.value)


class _PlainLoader(_LOADER):
    """PyYAML's own, with a message where it stops at a value or makes something that is not plain."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """The value of a node; 1:30 is a text, as in YAML 1.2, where 1.1 has a number to the base 60."""
        if node.tag in _NUMBERS and ":" in node.value:
            node.tag = "tag:yaml.org,2002:str"
        try:
            value = super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, OverflowError) as error:
            raise _problem(f"{_shown(node)} is no value of this kind", node) from error
        if isinstance(value, int) and value not in _INT64:
            raise _problem(f"{_shown(node)} does not fit into 64 bits", node)
        if isinstance(value, float) and not math.isfinite(value):
            raise _problem(f"{_shown(node)} is no finite number", node)
        if not isinstance(value, (str, int, float, NoneType, date, list, dict)):
            raise _problem(f"{_shown(node)} is neither text, number, list nor names", node)
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Values by their names, which may be numbers, as where one number stands for another."""
        values: dict[Any, Any] = super().construct_mapping(node, deep)
        for name in values:
            if type(name) not in (str, int, float):
                raise _problem(f"{name!r} is no name; put quotes around it", node)
        return values


def _shown(node: yaml.Node) -> str:
    """A value as it is written, cut, with what YAML takes it for."""
    kind = node.tag.rpartition(":")[2]
    text = repr(node.value[:40]) if isinstance(node.value, str) else "a value"
    return f"{text}, which YAML takes for !!{kind},"


def _problem(problem: str, place: Any) -> yaml.MarkedYAMLError:
    """What is wrong with a node or an event, where it stands."""
    return yaml.MarkedYAMLError(problem=problem, problem_mark=place.start_mark)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside ``path`` and rename it over ``path`` when the block succeeds.

    Raises:
        ClipadError: the folder cannot be written (read-only, or the disk is full), or something else
            than a file stands there, see `check_place`.
    """
    check_place(path)
    name = None
    try:
        if not path.parent.is_dir():  # asking costs a fraction of trying
            path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        os.close(handle)
        yield Path(name)
        Path(name).chmod(0o644)
        os.replace(name, path)
        name = None
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        if name is not None:
            Path(name).unlink(missing_ok=True)


@contextmanager
def alone(path: Path) -> Iterator[bool]:
    """Yield whether no other process works at ``path`` now; whoever gets False comes back later.

    The lock goes with the process that holds it, however that ends.

    Raises:
        ClipadError: the folder cannot be written (read-only, or the disk is full), or something else
            than a file stands there, see `check_place`.
    """
    lock = FileLock(f"{path}.lock", timeout=0)
    check_place(path)
    check_place(Path(lock.lock_file))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        yield False
        return
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        yield True
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _unwritable(path: Path, error: OSError) -> ClipadError:
    """The message about a file that the system does not let be written."""
    return ClipadError(
        f"{path}: cannot be written ({error.strerror or error}). Make its folder writable or free "
        "some space, then run again; what was finished is kept."
    )


def check_place(path: Path) -> None:
    """Refuse a path where no file can be read or written, since something else stands there.

    A link that leads nowhere is no obstacle at the path itself, where a file takes its place, but it
    is one in the place of a folder.

    Raises:
        ClipadError: a folder, a pipe or a device at the path; anything but a folder above it.
    """
    # Each is looked at once: another process may make or remove it between two looks.
    mode = _mode(path)
    if mode is not None:
        if stat.S_ISREG(mode):
            return
        raise _obstacle(path, _words(mode), "a file")
    for folder in path.parents:
        mode = _mode(folder)
        if mode is not None and stat.S_ISDIR(mode):
            return
        if mode is not None:
            raise _obstacle(folder, "something that is no folder", "a folder")
        if folder.is_symlink():
            raise _obstacle(folder, "a link that leads nowhere", "a folder")


def check_regular(path: Path) -> None:
    """Refuse what is no regular file, before it is opened: a pipe would be waited for, for ever.

    A path where nothing stands passes; whoever opens it says so.

    Raises:
        ClipadError: a folder, a pipe, a device or a link that leads nowhere.
    """
    mode = _mode(path)
    if mode is None and not path.is_symlink() or mode is not None and stat.S_ISREG(mode):
        return
    standing = "a link that leads nowhere" if mode is None else _words(mode)
    raise ClipadError(
        f"{path}: found {standing}, expected a file; put the file there, or correct the path."
    )


def _words(mode: int) -> str:
    """What is no regular file, in words."""
    return "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"


def _mode(path: Path) -> int | None:
    """What stands at a path, links followed; None: nothing, or nobody may look."""
    try:
        return path.stat().st_mode
    except OSError:
        return None


def _obstacle(path: Path, standing: str, expected: str) -> ClipadError:
    return ClipadError(
        f"{path}: found {standing}, expected {expected} or nothing; move it away or remove it, then "
        "run again; what was finished is kept."
    )


def write_text(path: Path, text: str) -> Path:
    """Write a text file atomically, with Unix line ends."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return path
