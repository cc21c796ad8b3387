"""Contradictions: the values found are those of the rule, causes explain what they set apart and no more."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from clipad_core.errors import ClipadError
from clipad_harness.papers.card import PAPERS
from clipad_harness.papers.conflicts import (
    SAME,
    Conflict,
    Value,
    causes,
    conflicts,
    counts,
    printed_values,
    progress,
)

VALUES = printed_values()
FOUND = {(c.row, c.dataset, c.metric): c for c in conflicts(VALUES)}


def value(mean: float, by: str, *known: str, row: str = "A") -> Value:
    return Value(row, "MVTec AD", "image_auroc", mean, by, "Table 1", "somewhere", known)


def is_later(value: Value) -> bool:
    """Rows that joined after the numbers below were counted by hand."""
    later = value.by in ("APRIL-GAN", "VisualAD") or "issue 76" in value.by
    return later or (value.by == "AdaCLIP" and value.row != "WinCLIP")


def test_values_found_are_those_that_were_counted_independently() -> None:
    values = [value for value in VALUES if not is_later(value)]
    assert len({value[:3] for value in values}) == 630
    found = conflicts(values)
    assert len(found) == 166
    assert counts(found, (SAME, 1, 5, 10)) == [118, 96, 51, 26]
    differing = pd.Series([conflict.row for conflict in found[:118]])
    assert dict(differing.value_counts()) == {
        "AnomalyCLIP": 55,
        "WinCLIP": 52,
        "CLIP-AC": 4,
        "APRIL-GAN": 4,
        "VCP-CLIP": 3,
    }


def test_later_rows_join_them() -> None:
    assert len({value[:3] for value in VALUES}) == 819
    assert len(FOUND) == 192
    assert counts(FOUND.values(), (SAME, 1, 5, 10)) == [143, 117, 58, 32]
    values = FOUND["APRIL-GAN", "BTAD", "pixel_auroc"].values
    assert [value.mean for value in values] == [60.8, 89.5, 90.8, 91.3]
    by_a_user = FOUND["CLIP", "MVTec AD", "pixel_auroc"].values
    assert [value.mean for value in by_a_user] == [37.8, 38.4]


@pytest.mark.parametrize(
    ("cell", "span", "known"),
    [
        (("WinCLIP", "ISIC", "aupro"), 49.6, {"misprinted AUPRO"}),
        (("WinCLIP", "BTAD", "pixel_auroc"), 39.9, {"wrong column", "own crops"}),
        (("WinCLIP", "Brain MRI (BMAD)", "image_auroc"), 21.4, set()),
        (("WinCLIP", "CVC-ClinicDB", "aupro"), 18.7, {"swapped datasets"}),
        (("AnomalyCLIP", "Kvasir", "aupro"), 14.3, {"trained on medical images"}),
        (("WinCLIP", "DAGM", "image_f1max"), 11.8, set()),
        (("WinCLIP", "MVTec AD", "image_auroc"), 6.7, {"public re-implementation", "misprint"}),
        (("CLIP-AC", "VisA", "image_auroc"), 5.7, {"two rows of one name"}),
    ],
)
def test_a_contradiction_has_its_span_and_causes(
    cell: tuple[str, str, str], span: float, known: set[str]
) -> None:
    assert FOUND[cell].span == pytest.approx(span)
    assert set(FOUND[cell].causes) == known
    assert FOUND[cell].explained == bool(known)


def test_a_cause_that_two_values_share_explains_nothing_between_them() -> None:
    btad = FOUND["APRIL-GAN", "BTAD", "pixel_auroc"]
    assert "trained on MVTec AD" in btad.causes
    assert btad.left == pytest.approx(89.5 - 60.8) and not btad.explained
    both = Conflict((value(70.8, "P", "t"), value(83.3, "Q", "t")))
    assert both.left == pytest.approx(12.5) and both.causes == ()


def test_a_cause_of_a_value_that_is_the_same_as_another_is_none() -> None:
    quoted = Conflict((value(68.2, "P"), value(68.2, "Q", "own run"), value(83.3, "R")))
    assert quoted.causes == () and quoted.left == pytest.approx(15.1)
    apart = Conflict((value(60.0, "Q", "own run"), value(68.2, "P")))
    assert apart.causes == ("own run",) and apart.explained


def test_what_one_source_prints_twice_is_no_contradiction() -> None:
    assert conflicts([value(1.0, "P"), value(2.0, "P")]) == []
    assert len(conflicts([value(1.0, "P"), value(1.0, "Q")])) == 1


def test_every_cause_says_where_it_is_known_from() -> None:
    assert len(causes()) == 17
    assert all(len(cause.says) > 30 and len(cause.source) > 10 for cause in causes().values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": ["WinKLIP"]}, r"causes\.wrong column\.cells\[0\]: found Affected.*WinKLIP"),
        ({"metrics": ["auc"]}, r"causes\.wrong column\.cells\[0\]\.metrics: found 'auc'"),
    ],
)
def test_a_cause_of_no_value_is_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    shutil.copytree(PAPERS, tmp_path / "papers")
    path = tmp_path / "papers" / "conflicts.yaml"
    known = yaml.safe_load(path.read_text(encoding="utf-8"))
    known["causes"]["wrong column"]["cells"][0] |= change
    path.write_text(yaml.safe_dump(known), encoding="utf-8")
    with pytest.raises(ClipadError, match=message):
        causes(tmp_path / "papers")


def naive_steps(values: list[Value]) -> dict[tuple[str, str, str], float]:
    """One paper, dataset and metric at a time: its own row minus the best row of others."""
    steps = {}
    for own in values:
        if own.row == own.by:
            others = [
                other.mean
                for other in values
                if (other.by, *other[1:3]) == (own.by, *own[1:3])
                and not other.row.startswith(own.row)
            ]
            if others:
                steps.setdefault((own.by, *own[1:3]), round(own.mean - max(others), 6))
    return steps


def test_steps_are_those_of_a_plain_loop() -> None:
    steps = progress(VALUES)
    keys = zip(steps["paper"], steps["dataset"], steps["metric"])
    assert dict(zip(keys, steps["step"])) == naive_steps(VALUES)
    assert set(steps["paper"]) == {"AnomalyCLIP", "VCP-CLIP", "WinCLIP", "AdaCLIP"}


def test_a_step_is_measured_from_every_printed_value_of_the_other_row() -> None:
    values = [
        value(90.0, "P", row="P"),
        value(89.0, "P", row="P baseline"),
        value(85.0, "P"),
        value(91.0, "Q"),
    ]
    step = progress(values).iloc[0]
    assert (step["best_row"], step["step"]) == ("A", 5.0)
    assert (step["span"], step["step_from_best"]) == (6.0, -1.0)
    assert progress(values[:3])[["span", "step_from_best"]].isna().all(axis=None)
