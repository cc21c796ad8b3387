"""Values against type hints: what passes, what it becomes, and what the message says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal, NamedTuple

import pytest

from clipad_core.errors import ClipadError
from clipad_core.validation import LONGEST, validate


class Row(NamedTuple):
    steps: int
    rate: float


@dataclass(frozen=True)
class Effect:
    group: str
    size: int | None = None


@dataclass(frozen=True)
class Example:
    title: str = ""
    seed: int = 0
    limit: float = 0.3
    on: bool = True
    precision: Literal["float32", "float64"] = "float32"
    temperature: float | Literal["clip"] = 0.07
    states: tuple[str, ...] | Literal["defects"] = ()
    sha256: str | None = None
    scales: tuple[int, ...] = (2, 3)
    betas: tuple[float, ...] = ()
    rounds: tuple[Row, ...] = ()
    pairs: tuple[tuple[int, int], ...] = ()
    steps: Sequence[Mapping[str, Any]] = ()
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    effect: Effect | None = None
    effects: Mapping[str, Effect] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ClipadError(f"seed: found {self.seed}, expected 0 or more.")


@pytest.mark.parametrize(
    ("name", "value", "becomes"),
    [
        ("limit", 1, 1.0),
        ("temperature", 1, 1.0),
        ("temperature", "clip", "clip"),
        ("scales", [2], (2,)),
        ("scales", (2,), (2,)),
        ("betas", [1, 0.5], (1.0, 0.5)),
        ("states", ["{} with a hole"], ("{} with a hole",)),
        ("states", "defects", "defects"),
        ("rounds", [[2, 1]], (Row(2, 1.0),)),
        ("steps", [{"scales": [2]}], [{"scales": [2]}]),
        ("counts", {"nut": {"good": 1}}, {"nut": {"good": 1}}),
        ("effect", {"group": "a"}, Effect("a")),
        ("effect", Effect("a"), Effect("a")),
        ("effect", None, None),
    ],
)
def test_plain_data_becomes_what_the_hint_asks_for(name: str, value: Any, becomes: Any) -> None:
    converted = getattr(validate(Example, {name: value}, "params.yaml"), name)
    assert repr(converted) == repr(becomes)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("seed", True, "seed: found True, expected int"),
        ("seed", 1.0, "seed: found 1.0, expected int"),
        ("seed", "1", "seed: found '1', expected int"),
        ("limit", "0.3", "limit: found '0.3', expected float"),
        ("limit", False, "limit: found False, expected float"),
        ("on", 1, "on: found 1, expected bool"),
        ("on", "no", "on: found 'no', expected bool"),
        ("title", 3, "title: found 3, expected str; put quotes around it"),
        (
            "title",
            date(2024, 1, 2),
            "title: found datetime.date(2024, 1, 2), expected str; put quotes around it",
        ),
        ("title", None, "title: found None, expected str"),
        ("sha256", 12, "sha256: found 12, expected str or null; put quotes around it"),
        ("precision", "half", "precision: found 'half', expected one of 'float32', 'float64'"),
        ("temperature", "warm", "temperature: found 'warm', expected float or one of 'clip'"),
        ("states", ["a", None], "states: found ['a', None], expected a list of str or one of"),
        ("scales", 2, "scales: found 2, expected a list of int"),
        ("scales", [2, True], "scales[1]: found True, expected int"),
        ("rounds", [[1, 2], [1]], "rounds[1]: found [1], expected [steps, rate]"),
        ("rounds", [[1, "fast"]], "rounds[0][1]: found 'fast', expected float"),
        ("rounds", 3, "rounds: found 3, expected a list, each entry [steps, rate]"),
        ("pairs", [[1, 2, 3]], "pairs[0]: found [1, 2, 3], expected [int, int]"),
        ("steps", ["a"], "steps[0]: found 'a', expected names with values below them"),
        ("counts", {"nut": {"good": "1"}}, "counts.nut.good: found '1', expected int"),
        (
            "counts",
            {"nut": {False: 1}},
            "counts.nut: found False, expected a name; put quotes around it",
        ),
        ("counts", None, "counts: found None, expected names with values below them"),
        ("effect", 3, "effect: found 3, expected names with values below them or null"),
        ("effect", {"group": "a", "size": "2"}, "effect.size: found '2', expected int or null"),
        (
            "effect",
            {"gruop": "a", "site": 1},
            "effect: found no group and an unknown gruop, site, expected fields of group, size",
        ),
        ("effects", {"one": {}}, "effects.one: found no group, expected fields of group, size"),
    ],
)
def test_a_wrong_value_is_told_with_its_place(name: str, value: Any, message: str) -> None:
    with pytest.raises(ClipadError) as refused:
        validate(Example, {name: value}, "params.yaml", "winclip")
    assert str(refused.value).startswith(f"params.yaml: winclip.{message}")


@pytest.mark.parametrize("name", ["sede", 7])
def test_an_unknown_name_is_told_with_those_that_exist(name: object) -> None:
    expected = f"^params.yaml: found an unknown {name}, expected fields of title, seed, limit, "
    with pytest.raises(ClipadError, match=expected):
        validate(Example, {name: 1}, "params.yaml")


@pytest.mark.parametrize("value", [None, [1], "title"])
def test_what_holds_no_names_is_no_dataclass(value: object) -> None:
    with pytest.raises(ClipadError, match=r"^a\.yaml: found .*, expected names with values below"):
        validate(Example, value, "a.yaml")


def test_what_a_dataclass_refuses_itself_keeps_its_words() -> None:
    with pytest.raises(ClipadError) as refused:
        validate(Example, {"seed": -1}, "params.yaml", "winclip")
    assert str(refused.value) == "seed: found -1, expected 0 or more."


def test_a_long_value_is_cut() -> None:
    with pytest.raises(ClipadError) as refused:
        validate(Example, ["word"] * LONGEST, "a.json")
    assert len(str(refused.value)) < LONGEST + 80
