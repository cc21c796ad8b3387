"""Rows by size and kind of defect: which images are in a group, what is measured, and the intervals."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from clipad_core.metrics.metrics import average_precision, f1_max, f1_max_threshold
from clipad_harness.experiments.shards import CategoryScores
from clipad_harness.report import defect_groups
from clipad_harness.report.defect_groups import ALL, METRICS, QUARTERS, DefectGroups
from clipad_harness.report.questions import Asked
from clipad_harness.report.side_by_side import RESAMPLES, image_weights

# Of each test image the damaged rows of 8 x 8 pixels, and the kind.
SIZES = [0] * 6 + [1, 2, 3, 4, 5, 6, 7, 7]
KINDS = ["good"] * 6 + ["hole", "hole", "hole", "hole", "hole", "wrong_part", "hole", "hole"]


def scored(strength: float, seed: int, masks: bool = True) -> CategoryScores:
    generator = np.random.default_rng(seed)
    rows = [
        {"image": str(place), "defect": kind, "label": int(rows > 0), "mask": "m" * bool(rows)}
        for place, (rows, kind) in enumerate(zip(SIZES, KINDS, strict=True))
    ]
    truth = [np.zeros((8, 8), dtype=bool) for _ in SIZES]
    for mask, rows_of_mask in zip(truth, SIZES, strict=True):
        mask[:rows_of_mask] = True
    maps = [(generator.random((8, 8)) + strength * mask).astype(np.float32) for mask in truth]
    frame = pd.DataFrame(rows)
    if not masks:
        frame["mask"] = ""
    scores = generator.random(len(SIZES)).astype(np.float32)
    return CategoryScores(frame, scores, maps, truth, [])


class Row:
    """A row of a question whose maps a test knows."""

    def __init__(self, label: str, strength: float, masks: bool = True) -> None:
        self.label, self.strength, self.masks = label, strength, masks
        self.variant = SimpleNamespace(fpr_limit=0.3)

    def first(self, category: str) -> CategoryScores:
        return scored(self.strength, sum(map(ord, category)), self.masks)


def groups_of(*rows: Row, categories: Sequence[str] = ("nut", "bolt")) -> DefectGroups:
    return DefectGroups(Asked("winclip", "refinement", rows, categories))  # type: ignore[arg-type]


PLAIN, SHARP = Row("none", 0.4), Row("sharp", 0.9)


def test_a_group_is_the_damaged_images_of_a_size_or_kind_beside_all_normal_ones() -> None:
    question = groups_of(PLAIN)
    assert question.groups == [ALL, *QUARTERS, "hole", "wrong part"]
    assert [question.images(group) for group in question.groups] == [16, 4, 4, 4, 4, 14, 2]
    own = question._categories[0].groups
    places = {name: np.flatnonzero(chosen).tolist() for name, chosen in own.items()}
    normal = [0, 1, 2, 3, 4, 5]
    assert places["smallest quarter"] == [*normal, 6, 7]
    assert places["largest quarter"] == [*normal, 12, 13]
    assert places["wrong part"] == [*normal, 11]


def test_metrics_of_a_group_are_those_of_its_pixels_on_the_mean_over_categories() -> None:
    question = groups_of(PLAIN)
    values: dict[str, list[float]] = {name: [] for name in ("pixel_ap", "pixel_f1max", "iou")}
    for category in ("nut", "bolt"):
        one = PLAIN.first(category)
        places = [*range(6), 11]
        pixels = np.concatenate([one.maps[place].ravel() for place in places])
        truth = np.concatenate([one.masks[place].ravel() for place in places]).astype(int)
        marked = pixels >= f1_max_threshold(truth, pixels)
        values["pixel_ap"].append(average_precision(truth, pixels))
        values["pixel_f1max"].append(f1_max(truth, pixels))
        values["iou"].append((marked & (truth == 1)).sum() / (marked | (truth == 1)).sum())
    for metric, expected in values.items():
        value = question.value("none", "wrong part", metric)
        assert value == pytest.approx(100 * np.mean(expected))


def naive_ap(one: CategoryScores, chosen: np.ndarray, weights: np.ndarray) -> float:
    """Every image as often as the resample holds it, then average precision of all their pixels."""
    places = np.repeat(np.flatnonzero(chosen), weights.astype(int))
    pixels = np.concatenate([one.maps[place].ravel() for place in places])
    truth = np.concatenate([one.masks[place].ravel() for place in places]).astype(int)
    return average_precision(truth, pixels)


@pytest.mark.parametrize("group", [ALL, "hole"])
def test_the_interval_is_that_of_images_drawn_again_for_both_rows(
    group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(defect_groups, "BINS", 10_000)  # as many as there are scores
    question = groups_of(PLAIN, SHARP)
    samples = question._samples(group)
    assert samples["none"].shape == (2, RESAMPLES)
    for place, category in enumerate(("nut", "bolt")):
        chosen = question._categories[place].groups[group]
        weights = image_weights(np.minimum(SIZES, 1)[chosen], place)
        for row in (PLAIN, SHARP):
            for draw in (0, 1, 77):
                expected = naive_ap(row.first(category), chosen, weights[draw])
                assert samples[row.label][place, draw] == pytest.approx(expected)
    spread = 100 * (samples["sharp"] - samples["none"]).mean(axis=0)
    effect = question.effect("sharp", "none", group)
    assert (effect.low, effect.high) == pytest.approx(tuple(np.quantile(spread, [0.025, 0.975])))
    means = (question.value(row, group, "pixel_ap") for row in ("sharp", "none"))
    assert effect.difference == pytest.approx(next(means) - next(means))


def test_bins_of_the_damaged_scores_cost_no_tenth_of_a_point() -> None:
    question = groups_of(PLAIN, SHARP)
    for one in question._categories:
        for row, counts in one.counts.items():
            whole = np.ones((1, len(one.labels)))
            [binned] = defect_groups._precisions(counts, whole)
            assert binned == pytest.approx(one.metrics[row, ALL]["pixel_ap"], abs=1e-3)


def test_a_group_of_few_images_has_no_interval() -> None:
    effect = groups_of(PLAIN, SHARP).effect("sharp", "none", "wrong part")
    assert np.isnan(effect.low) and np.isnan(effect.high) and effect.difference > 0
    assert "[–, –]" in str(effect)


@pytest.mark.parametrize(
    ("label", "base", "word"),
    [("sharp", "none", "yes"), ("none", "sharp", "no"), ("none", "none", "undecided")],
)
def test_the_verdict_is_read_off_the_interval_of_pixel_ap(label: str, base: str, word: str) -> None:
    question = groups_of(PLAIN, SHARP)
    verdict = question.verdict(label, base)
    assert verdict is not None and verdict.word == word
    assert verdict.sentence.startswith(f"{label} minus {base} by pixel AP: ")
    assert str(question.effect(label, base)) in verdict.sentence


def test_the_table_has_a_line_a_group_and_a_column_a_metric_and_row() -> None:
    question = groups_of(PLAIN, SHARP)
    page = BeautifulSoup(str(question.table()), "html.parser")
    lines = page.select("tbody tr")
    assert [line.th.text for line in lines] == question.groups
    assert len(lines[0].select("td")) == 1 + 2 * len(METRICS)
    assert lines[0].select("td")[1].text == f"{question.value('none', ALL, 'pixel_ap'):.1f}"
    assert [head.text for head in page.select("thead tr")[0].select("th")][2:] == list(
        METRICS.values()
    )


def test_the_figure_says_every_row_s_effect_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = []

    def keep(figure: Any, alt: str, **words: Any) -> None:
        said.extend([figure, alt])

    monkeypatch.setattr(defect_groups, "show", keep)
    question = groups_of(PLAIN, SHARP)
    question.figure("none")
    [figure, alt] = said
    assert f"sharp {question.effect('sharp', 'none')}" in alt
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == question.groups
    plt.close(figure)


@pytest.mark.parametrize("rows", [[], [Row("none", 0.4, masks=False)]])
def test_without_maps_that_have_masks_a_dash_says_so(
    rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(defect_groups, "show", lambda *_, **__: pytest.fail("nothing to show"))
    question = groups_of(*rows)
    assert question.verdict("none", "none") is None
    question.figure("none")
    assert "– (no maps with masks)" in question.table()
