"""Settings of the papers, fitted to another backbone.

Presets and ablations are written as published: block 24, 518 pixels. A profile whose backbone has
other blocks or another size says in its `changes` what stands for what. A plain value replaces a
field; a mapping translates it, value by value: ``blocks: {6: 2, 24: 6}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

from clipad_core.errors import ClipadError

# What a backbone does not limit: a value that the mapping does not hold stays as it is.
ANY_VALUE = ("epochs", "batch_size")


class Changeable(Protocol):
    """A config of the core."""

    def changed(self: Config, values: dict[str, Any]) -> Config:
        """The config with some fields replaced."""


Config = TypeVar("Config", bound=Changeable)


def fit(config: Config, fitted: Mapping[str, Any]) -> Config:
    """A config as published, for the profile's backbone.

    Raises:
        ClipadError: a field that the config does not have, or a value that the mapping does not hold.
    """
    return config.changed(
        {
            name: translated(name, getattr(config, name), fitted) if hasattr(config, name) else rule
            for name, rule in fitted.items()
        }
    )


def fit_all(values: Mapping[str, Any], fitted: Mapping[str, Any]) -> dict[str, Any]:
    """Changed fields, written as published, for the profile's backbone.

    What the profile translates is translated; what it sets for all is for somebody's change to set
    again.

    >>> fit_all({"blocks": [24], "precision": "float32"}, {"blocks": {24: 6}, "precision": "float64"})
    {'blocks': [6], 'precision': 'float32'}
    """
    return {
        name: translated(name, value, fitted) if isinstance(fitted.get(name), Mapping) else value
        for name, value in values.items()
    }


def translated(name: str, value: Any, fitted: Mapping[str, Any]) -> Any:
    """What stands for the published value of a field.

    Raises:
        ClipadError: a value that the profile's mapping does not hold.

    >>> translated("blocks", (6, 24), {"blocks": {6: 2, 24: 6}})
    [2, 6]
    >>> translated("sigma", 4.0, {"sigma": 0.75}), translated("epochs", 15, {"sigma": 0.75})
    (0.75, 15)
    >>> translated("epochs", 10, {"epochs": {10: 5}}), translated("epochs", 3, {"epochs": {10: 5}})
    (5, 3)
    """
    if name not in fitted:
        return value
    rule = fitted[name]
    if not isinstance(rule, Mapping):
        return rule
    if isinstance(value, (tuple, list)):
        return [_look_up(name, entry, rule) for entry in value]
    return _look_up(name, value, rule)


def _look_up(name: str, value: Any, rule: Mapping[Any, Any]) -> Any:
    if value in rule:
        return rule[value]
    if name in ANY_VALUE:
        return value
    raise ClipadError(
        f"{name}: found {value!r}, for which the profile's changes name nothing, only "
        f"{', '.join(map(str, rule))}; add it to profiles in params.yaml."
    )
