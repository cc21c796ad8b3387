"""Parameters of a notebook: what stands in its first code cell, in place of what params.yaml says.

Papermill, JupyterLab and the pipeline set them in the same way, and a name or value that is wrong is
refused here, whoever wrote it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_type_hints

from clipad_core.errors import ClipadError
from clipad_core.validation import listed, validate, wrong
from clipad_harness.base.files import parse_yaml
from clipad_harness.base.settings import (
    GROUPS,
    HEADLINE,
    MethodSettings,
    Profile,
    read_ablations,
    read_method,
    read_params,
    read_profile,
    settings_read,
)

# How a notebook's own parameters cell begins, and how the one that Papermill puts behind it does.
OWN_CELL, INJECTED_CELL = "# Parameters:", "# Parameters\n"
# What messages call them.
SOURCE = "parameters"
# Of every notebook about results; that of a method has its section of params.yaml besides.
OF_PROFILE: Mapping[str, Any] = {"profile": str, "dataset": str, "categories": tuple[str, ...]}


def notebook_parameters(namespace: Mapping[str, Any]) -> dict[str, Any]:
    r"""The values of all parameters, by name, in the order of the notebook's parameters cell.

    Papermill injects any name. Which ones it did is read from the cells that ran, not from the names
    that exist: a notebook that runs a second time in its kernel has the variables of all its cells.

    Args:
        namespace: `globals()` of the notebook.

    Raises:
        ClipadError: a name that the parameters cell does not have, or a value of another kind than its
            default.

    >>> cells = ["", "# Parameters: paths\nphotos = []", "# Parameters\nphotos = '[a.png]'"]
    >>> notebook_parameters({"In": cells, "photos": "[a.png]", "later": 1})
    {'photos': ['a.png']}
    """
    cells = list(namespace.get("In", ()))
    starts = [place for place, source in enumerate(cells) if source.startswith(OWN_CELL)]
    if (
        not starts
    ):  # nbval keeps no history; it has a new kernel, where nothing else is assigned yet
        return {name: value for name, value in namespace.items() if _is_plain(name, value)}
    own = _assigned(cells[starts[-1]])
    after = [source for source in cells[starts[-1] + 1 :] if source.startswith(INJECTED_CELL)]
    check_names((name for source in after for name in _assigned(source)), own)
    return {name: _like(name, default, namespace[name]) for name, default in own.items()}


def _is_plain(name: str, value: Any) -> bool:
    kinds = (bool, int, float, str, list, dict, type(None))
    return type(value) in kinds and not name.startswith("_") and name not in ("In", "Out")


def _assigned(source: str) -> dict[str, ast.expr]:
    """What a cell assigns to names."""
    statements = [
        statement for statement in ast.parse(source).body if isinstance(statement, ast.Assign)
    ]
    return {
        target.id: statement.value
        for statement in statements
        for target in statement.targets
        if isinstance(target, ast.Name)
    }


def _like(name: str, default: ast.expr, value: Any) -> Any:
    """A value of the kind of its default; a default of None, or one that is computed, has none."""
    kinds = {ast.List: list, ast.Dict: dict}
    kind = type(default.value) if isinstance(default, ast.Constant) else kinds.get(type(default))
    if kind in (None, type(None)):
        return value
    plain = value if kind is str else from_text(name, value)
    if type(plain) is not kind:
        raise wrong(SOURCE, name, value, f"a {kind.__name__}")
    return plain


def from_text(name: str, value: Any) -> Any:
    """A list or mapping as it is, or as Papermill's `-p` hands it over: a text.

    >>> from_text("categories", '["hex_nut"]')
    ['hex_nut']
    """
    if not isinstance(value, str):
        return value
    try:
        return parse_yaml(value, f"{SOURCE}: {name}")
    except ClipadError as error:
        raise wrong(SOURCE, name, value, "a list or a mapping as YAML writes it") from error


def check_names(names: Iterable[str], supported: Iterable[str]) -> None:
    """Refuse names that are no parameters.

    Raises:
        ClipadError: one that is unknown.
    """
    supported = list(supported)
    if unknown := [name for name in names if name not in supported]:
        raise ClipadError(
            f"{SOURCE}: found {listed(unknown)}, expected some of {', '.join(supported)}; correct the "
            "spelling."
        )


def parameter_kinds(name: str) -> dict[str, Any]:
    """The parameters of a method's notebook, and of what type each is."""
    groups = Mapping[str, Mapping[str, Any]] | Literal["none"]
    hints = get_type_hints(MethodSettings) | dict.fromkeys(GROUPS, groups)
    return {**OF_PROFILE, **{setting: hints[setting] for setting in settings_read(name)}}


def read_parameterised(
    root: Path, name: str, parameters: Mapping[str, Any]
) -> tuple[Profile, MethodSettings]:
    """The profile and the section of a method, where no parameter says otherwise those of params.yaml.

    Args:
        root: the project's folder.
        name: of the method.
        parameters: values by name; None, or no value: what params.yaml says.

    Raises:
        ClipadError: an unknown name or a wrong value, among the parameters or in params.yaml.
    """
    kinds = parameter_kinds(name)
    check_names(parameters, kinds)
    values = {
        key: _checked(key, value, kinds[key])
        for key, value in parameters.items()
        if value is not None
    }
    of_profile = [values.pop(key, None) for key in OF_PROFILE]
    return read_profile(root, *of_profile), read_method(root, name, values)


def _checked(name: str, value: Any, kind: Any) -> Any:
    plain = value if kind is str else from_text(name, value)
    validate(kind, plain, SOURCE, name)
    return plain


def parameters_of(root: Path, name: str | None) -> dict[str, Any]:
    """What params.yaml says of every parameter: what the pipeline runs a notebook with.

    Args:
        root: the project's folder.
        name: of the method; None for a notebook about all of them.
    """
    profile = read_profile(root)
    values = {
        "profile": profile.name,
        "dataset": profile.dataset,
        "categories": list(profile.categories),
    }
    if name is None:
        return values
    section = read_params(root)[name]
    section |= {} if read_ablations(root) else HEADLINE
    return values | {setting: section[setting] for setting in settings_read(name)}
