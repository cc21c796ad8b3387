"""How both sides were computed decides how far their numbers may be apart."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clipad_core.errors import ClipadError
from clipad_harness.cli.main import main
from clipad_harness.verify import tolerances
from clipad_harness.verify.conditions import Allowance, allowance_for, read_conditions
from clipad_harness.verify.differences import (
    CLOSE,
    DIFFERS,
    IDENTICAL,
    NOT_COMPARABLE,
    UNKNOWN,
    Comparison,
    as_text,
)
from clipad_harness.verify.result_files import compare_sides, open_side
from clipad_harness.verify.spread import results_spread

CATEGORIES = ("nut", "bolt", "cloth", "tile")
RNG = np.random.default_rng(0)
NOISE = {
    (c, s, m): RNG.normal(0, 0.02)
    for c in CATEGORIES for s in range(3) for m in ("aupro", "image_auroc")
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Results:
    """What a folder of reports says: how it was computed, and how far its values are moved."""

    method: str = "vcpclip"
    precision: str = "float64"
    device: str = "cpu"
    digest: str = "ab" * 32
    weights: str = "tiny (tiny.safetensors)"
    seeds: int = 3
    moved: float = 0.0


def folder(path: Path, *among: Results) -> Path:
    """A folder of reports: tables, metrics file, loss curves, a page a method, and one of all."""
    summaries = path / "summaries"
    summaries.mkdir(parents=True)
    for results in among:
        own = path / "results" / results.method
        own.mkdir(parents=True)
        table = frame(results)
        table.to_csv(own / "results.csv", index=False, float_format="%.6f")
        means = table.pivot_table(index=["category", "k_shot"], columns="metric", values="value")
        (100 * means).round(2).reset_index().to_csv(own / "by_category.csv", index=False)
        curve = [
            ("main", seed, epoch, "dice", 2 / epoch + 0.1 * seed + results.moved)
            for seed in range(results.seeds) for epoch in (1, 2)
        ]  # fmt: skip
        columns = ["variant", "seed", "epoch", "part", "value"]
        pd.DataFrame(curve, columns=columns).to_csv(own / "training.csv", index=False)
        (summaries / f"{results.method}.json").write_text(json.dumps(summary(results, table)))
        page = f"<main>AUPRO {70 + 100 * results.moved:.1f} in {results.method}</main>"
        (path / f"{results.method}.html").write_text(page)
    (path / "index.html").write_text(f"<main>{70 + 100 * among[0].moved:.1f}</main>")
    return path


def frame(results: Results) -> pd.DataFrame:
    head = {"method": results.method, "variant": "main", "backbone": results.weights}
    head |= {"precision": results.precision, "device": results.device, "dataset": "d"}
    rows = [
        {**head, "category": c, "k_shot": 0, "seed": s, "metric": m,
         "value": 0.7 + NOISE[c, s, m] + results.moved, "key": f"{results.precision}{c}{s}"}
        for c in CATEGORIES for s in range(results.seeds) for m in ("aupro", "image_auroc")
    ]  # fmt: skip
    return pd.DataFrame(rows)


def summary(results: Results, table: pd.DataFrame) -> dict[str, object]:
    lines = {}
    for metric, block in table.groupby("metric"):
        deviations = block.groupby("category")["value"].std()
        line = {"ours": 100 * block["value"].mean(), "ours_std": 100 * deviations.mean()}
        line = {name: None if math.isnan(v) else round(v, 4) for name, v in line.items()}
        lines[metric] = {**line, "paper": 87.3, "paper_std": None, "source": "Table 1"}
    return {
        "backbone": results.weights,
        "weights_hash": results.digest,
        "precision": results.precision,
        "device": results.device,
        "categories": len(CATEGORIES),
        "seeds": results.seeds,
        "headline": {"0-shot": lines},
    }


def compared(tmp_path: Path, expected: Results, actual: Results) -> Comparison:
    sides = [folder(tmp_path / name, results) for name, results in (("a", expected), ("b", actual))]
    return compare_sides(*map(open_side, sides))


def verdicts(comparison: Comparison) -> dict[str, str]:
    return {part.name: part.verdict for part in comparison.parts if "keys" not in part.name}


def test_float64_against_float64_allows_nothing(tmp_path: Path) -> None:
    same = compared(tmp_path / "same", Results(), Results())
    assert set(verdicts(same).values()) == {IDENTICAL} and not same.wrong
    assert same.notes == ["vcpclip: float64 on cpu on both sides: nothing may differ"]
    moved = compared(tmp_path / "moved", Results(), Results(moved=2e-6))
    assert verdicts(moved)["reports/results/vcpclip/results.csv"] == DIFFERS
    assert verdicts(moved)["reports/summaries/vcpclip.json"] == DIFFERS
    assert verdicts(moved)["reports/results/vcpclip/training.csv"] == DIFFERS


def test_a_trained_method_in_float32_may_move_as_far_as_another_seed(tmp_path: Path) -> None:
    expected, actual = Results(precision="float32"), Results(precision="float32", moved=0.01)
    near = compared(tmp_path / "near", expected, actual)
    assert set(verdicts(near).values()) == {CLOSE}, as_text(near)
    assert near.notes == [
        "vcpclip: float32 on cpu on both sides: tolerance from the spread over 3 seeds"
    ]
    far = compared(tmp_path / "far", expected, dataclasses.replace(actual, moved=0.3))
    assert verdicts(far)["reports/results/vcpclip/results.csv"] == DIFFERS
    assert verdicts(far)["reports/vcpclip.html"] == DIFFERS


def test_a_mean_over_categories_and_seeds_may_move_less_than_a_shard(tmp_path: Path) -> None:
    expected = Results(precision="float32")
    spread = results_spread(frame(expected))
    assert spread is not None
    by_hand = math.sqrt(
        np.mean(
            [np.var([NOISE[c, s, "aupro"] for s in range(3)], ddof=1) for c in CATEGORIES]
        )
    )  # fmt: skip
    assert spread.tolerance("aupro") == pytest.approx(3 * math.sqrt(2) * by_hand, abs=2e-6)
    means = [np.mean([NOISE[c, s, "aupro"] for c in CATEGORIES]) for s in range(3)]
    of_mean = max(by_hand / 2, float(np.std(means, ddof=1)))
    of_headline = 3 * math.sqrt(2 / 3) * of_mean
    assert spread.tolerance("aupro", 4, 3) == pytest.approx(of_headline, abs=2e-6)
    # Beyond that of the headline, within that of a shard.
    moved = 0.9 * min(spread.tolerance(metric) or 0.0 for metric in ("aupro", "image_auroc"))
    verdict_by_part = verdicts(
        compared(tmp_path, expected, Results(precision="float32", moved=moved))
    )
    assert verdict_by_part["reports/results/vcpclip/results.csv"] == CLOSE
    assert verdict_by_part["reports/summaries/vcpclip.json"] == DIFFERS


def test_without_two_seeds_nothing_is_said_of_a_number_that_moved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Results(precision="float32", seeds=1)
    actual = dataclasses.replace(expected, moved=0.01)
    comparison = compared(tmp_path, expected, actual)
    assert set(verdicts(comparison).values()) == {UNKNOWN}, as_text(comparison)
    assert "no spread measured, at least two seeds needed" in comparison.notes[0]
    monkeypatch.setenv("CLIPAD_ROOT", str(tmp_path))
    (tmp_path / "params.yaml").touch()
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 1
    output = capsys.readouterr()
    assert f"(not judged: {len(comparison.wrong)})" in output.err and "Traceback" not in output.err
    same = compared(tmp_path / "same", expected, expected)
    assert not same.wrong  # what is equal needs no tolerance


def test_the_spread_of_the_other_side_or_of_the_metrics_file_stands_in(tmp_path: Path) -> None:
    one_seed, three_seeds = Results(precision="float32", seeds=1), Results(precision="float32")
    sides = [
        folder(tmp_path / name, of) for name, of in (("one", one_seed), ("three", three_seeds))
    ]
    files = [open_side(side).files() for side in sides]
    spread = read_conditions(*files)["vcpclip"].spread
    assert spread is not None and spread.seeds == 3
    exact = spread.tolerance("aupro")
    for side in sides:
        (side / "results" / "vcpclip" / "results.csv").unlink()
    files = [open_side(side).files() for side in sides]
    conditions = read_conditions(*files)
    assert conditions["vcpclip"].expected.weights == one_seed.weights
    stand_in = conditions["vcpclip"].spread.tolerance("aupro")
    assert 0.5 * exact < stand_in <= exact  # a mean of deviations is below their root mean square


def test_other_weights_are_one_line_and_every_part_is_listed(tmp_path: Path) -> None:
    comparison = compared(tmp_path, Results(), Results(digest="cd" * 32, moved=0.2))
    assert comparison.notes == [
        "vcpclip: other weights, tiny (tiny.safetensors) abababab against tiny (tiny.safetensors) "
        "cdcdcdcd: not comparable"
    ]
    assert set(verdicts(comparison).values()) == {NOT_COMPARABLE} and len(comparison.wrong) == 6
    assert not any(part.where for part in comparison.parts)
    text = as_text(comparison)
    assert "First divergence" in text and "expected 0." not in text


@pytest.mark.parametrize(
    ("actual", "sentence"),
    [
        (
            Results("winclip", "float32"),
            "float64 on cpu against float32 on cpu: tolerance of float32",
        ),
        (
            Results("winclip", "bfloat16"),
            "float64 on cpu against bfloat16 on cpu: tolerance of bfloat16",
        ),
        (
            Results("winclip", device="cuda"),
            "float64 on cpu against float64 on cuda: tolerance of float32",
        ),
    ],
)
def test_the_lower_precision_and_the_other_device_say_which_tolerance_holds(
    tmp_path: Path, actual: Results, sentence: str
) -> None:
    expected = Results("winclip")
    near = compared(tmp_path / "near", expected, dataclasses.replace(actual, moved=0.0005))
    assert near.notes == [f"winclip: {sentence}"]
    assert verdicts(near)["reports/results/winclip/results.csv"] == CLOSE
    far = compared(tmp_path / "far", expected, dataclasses.replace(actual, moved=0.25))
    assert verdicts(far)["reports/results/winclip/results.csv"] == DIFFERS


def test_a_page_of_all_methods_follows_the_widest_of_them(tmp_path: Path) -> None:
    among = [Results("winclip"), Results("vcpclip", "float32")]
    files = open_side(folder(tmp_path / "a", *among)).files()
    conditions = read_conditions(files, files)
    assert allowance_for("reports/winclip.html", conditions).exact
    shared = allowance_for("reports/index.html", conditions)
    own = allowance_for("reports/vcpclip.html", conditions)
    assert not shared.exact and shared.of("pages", "number") == own.of("pages", "number") > 1
    assert allowance_for("data/index/contact_sheet.png", conditions) == Allowance("float64")


def test_every_tolerance_says_how_it_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pd.read_csv(tolerances.TOLERANCES, dtype=str, keep_default_na=False)
    assert (table["found_by"].str.len() > 10).all()
    measured = table[(table["measured"] != "") & (table["tolerance"] != "0")]
    assert (measured["measured"].astype(float) <= measured["tolerance"].astype(float)).all()
    path = tmp_path / "tolerances.csv"
    table.assign(found_by="").to_csv(path, index=False)
    monkeypatch.setattr(tolerances, "TOLERANCES", path)
    with pytest.raises(ClipadError, match="in each row how its figure was found"):
        tolerances.declared("scores", "value", "float32")


def explorer(path: Path, winclip: float, vcpclip: float) -> None:
    record = {
        "methods": ["WinCLIP, 0-shot", "VCP-CLIP"],
        "categories": [{"methods": [{"normal": [winclip]}, {"normal": [vcpclip]}], "images": []}],
    }
    data = f'<script type="application/json" id="explorer-data">{json.dumps(record)}</script>'
    path.write_text(data)


def test_scores_of_a_trained_method_are_compared_in_float64_alone(tmp_path: Path) -> None:
    for precision, verdict in (("float64", DIFFERS), ("float32", IDENTICAL)):
        among = [Results("winclip", precision), Results("vcpclip", precision)]
        sides = [folder(tmp_path / f"{precision}{i}", *among) for i in range(2)]
        for side, value in zip(sides, (0.3, 0.6), strict=True):
            explorer(side / "explorer.html", 0.5, value)
        comparison = compare_sides(*map(open_side, sides))
        [part] = [part for part in comparison.parts if "explorer" in part.name]
        assert part.verdict == verdict
        assert part.name.endswith(", methods that learn nothing") == (precision == "float32")
        explorer(sides[1] / "explorer.html", 0.6, 0.3)
        comparison = compare_sides(*map(open_side, sides))
        [part] = [part for part in comparison.parts if "explorer" in part.name]
        assert part.verdict == DIFFERS and "expected 0.5, found 0.6" in part.where
