"""What the fields of the configs say of themselves: every method's, those of a new one included."""

from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import pytest

import clipad_core
from clipad_core.config import Read, choices, fields_read, thrown_together

ROOMS = Path(clipad_core.__file__).parent / "methods"
METHODS = sorted(path.parent.name for path in ROOMS.glob("*/config.py"))


def presets(method: str) -> dict[str, Any]:
    return import_module(f"clipad_core.methods.{method}.config").PRESETS


def config(method: str) -> type:
    return type(next(iter(presets(method).values())))


@pytest.mark.parametrize("method", METHODS)
def test_a_field_that_a_preset_changes_says_what_it_means_and_who_throws_it(method: str) -> None:
    for name, choice in choices(config(method)).items():
        if len({getattr(preset, name) for preset in presets(method).values()}) > 1:
            assert choice.meaning and choice.source, name


@pytest.mark.parametrize("method", METHODS)
def test_a_meaning_has_a_source_and_a_source_a_meaning(method: str) -> None:
    for name, choice in choices(config(method)).items():
        assert bool(choice.meaning) is bool(choice.source), name
        assert choice.read in get_args(Read), name


@pytest.mark.parametrize("method", METHODS)
def test_a_switch_of_several_fields_is_named_by_the_one_that_comes_first(method: str) -> None:
    order = [field.name for field in fields(config(method))]
    for name, choice in choices(config(method)).items():
        if choice.together:
            assert order.index(choice.together) < order.index(name)
            group = thrown_together(config(method), name)
            assert group[0] == choice.together and group == thrown_together(
                config(method), group[0]
            )


@pytest.mark.parametrize("method", METHODS)
def test_the_run_decides_the_precision_of_every_method_and_the_seed_of_a_training(
    method: str,
) -> None:
    own = [name for name in ("precision", "seed") if name in choices(config(method))]
    assert set(fields_read(config(method), "run")) == set(own)


def test_a_field_without_a_choice_is_a_switch_of_its_own_that_nobody_throws() -> None:
    from clipad_core.methods.winclip.config import WinCLIPConfig

    choice = choices(WinCLIPConfig)["map_source"]
    assert (choice.meaning, choice.source, choice.read, choice.together) == ("", "", "always", "")
    assert thrown_together(WinCLIPConfig, "map_source") == ("map_source",)
    assert thrown_together(WinCLIPConfig, "test_channels") == ("resize", "test_channels")
