"""What the drawings of CLIP and CoOp say in words, which must be what they show."""

import re

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from clipad_harness.report.readings import PrintedRow
from clipad_harness.report.steps import clip, coop

LARGE = "ViT-L-14-336-quickgelu"


@pytest.fixture(autouse=True)
def closed() -> None:
    yield
    plt.close("all")


def results(values: dict[str, float]) -> pd.DataFrame:
    rows = [(name, seed, "pixel_auroc", value) for name, value in values.items() for seed in (1, 2)]
    return pd.DataFrame(rows, columns=["category", "seed", "metric", "value"])


def test_categories_below_chance_are_counted_for_every_row() -> None:
    rows = {"CLIP": results({"a": 0.2, "b": 0.8}), "CoOp": results({"a": 0.4, "b": 0.45})}
    values = clip.by_category(rows, "pixel_auroc")
    assert values.loc["a"].tolist() == pytest.approx([20, 40])
    figure, alt = clip.chance_figure(values, "pixel_auroc")
    assert "CLIP 50.0 on average, below in 1; CoOp 42.5 on average, below in 2." in alt
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["a", "b"]


def test_without_masks_the_line_of_chance_says_that_nothing_is_defined() -> None:
    values = clip.by_category({"CLIP": results({"a": float("nan")})}, "pixel_auroc")
    _, alt = clip.chance_figure(values, "pixel_auroc")
    assert alt.endswith("undefined for this data.")


def test_single_templates_stand_beside_their_means() -> None:
    singles = {"a": np.array([60.0, 70.0]), "b": np.array([80.0, 81.0])}
    means = pd.DataFrame({"mean of 2": {"a": 68.0, "b": 82.0}})
    figure, alt = clip.templates_figure(singles, means)
    assert "a single template on average 72.8, mean of 2 75.0" in alt
    assert "1.0 to 10.0 points apart" in alt
    ticks = [line for line in figure.axes[0].lines if line.get_marker() == "|"]
    assert [list(line.get_xdata()) for line in ticks] == [[60, 70], [80, 81]]
    _, alt = clip.templates_figure({"a": np.array([np.nan, np.nan])}, means.loc[["a"]])
    assert "undefined" in alt


def test_what_templates_changed_in_print_is_drawn_by_category() -> None:
    rows = [PrintedRow(name, LARGE) for name in ("CLIP-AC", "CLIP")]
    frame = clip.printed_differences(*rows, "image_auroc", ("mvtec", "mpdd"))
    assert len(frame) == 15 + 6 and frame["points"].is_monotonic_increasing
    worst = frame.iloc[0]
    assert (worst["category"], round(worst["points"], 1)) == ("zipper", -24.0)
    _, alt = clip.differences_figure(frame, "CLIP-AC minus CLIP")
    assert "from zipper −24.0 to metal_plate +19.9" in alt and "MVTec AD −2.5" in alt


def test_the_cosine_of_a_pair_is_told_before_and_after() -> None:
    rows = [("a", 1, 0.9, 0.5), ("a", 2, 0.9, 0.7), ("b", 1, -0.1, -0.9), ("b", 2, -0.1, -0.9)]
    frame = pd.DataFrame(rows, columns=["category", "seed", "before", "after"])
    figure, alt = coop.cosine_figure(frame)
    assert "2 categories and 2 seeds: 0.400 before training, −0.150 after." in alt
    assert len(figure.axes[0].get_legend().get_texts()) == 2


def test_the_deviation_stands_below_the_seeds() -> None:
    rows = pd.concat([results({"a": 0.5}).assign(value=[0.5, 0.6])])
    page = coop.seed_table(rows, ("pixel_auroc",))
    assert re.findall(r">(\d+\.\d)<", page) == ["50.0", "60.0", "7.1"]
