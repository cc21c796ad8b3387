"""What the page draws of fewer templates: which points stand where, and likeness as a heat map."""

from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from project import variants_of

from clipad_harness.report.steps import winclip as steps

ROWS: dict[str, dict[str, Any]] = {
    "all": {},
    "four": {"templates_kept": 4},
    "drawn": {"templates_kept": 4, "kept_by": "random", "kept_seed": 2},
    "no sizes": {"templates_without": ["small", "large"]},
    "states": {"states_kept": 2},
    "both": {"templates_kept": 1, "states_kept": 1},
}


def asked() -> Any:
    """A question whose rows reach 70, 71, ... at the level of images, and one less at that of pixels."""
    fewer = {"fewer": {"k_shots": [0], "rows": ROWS}}
    variants = [
        variant
        for variant in variants_of("winclip", ablations={}, questions=fewer, walks=[])
        if variant.name != "main"
    ]
    values = pd.Series({label: 70.0 + place for place, label in enumerate(ROWS)})
    return SimpleNamespace(
        among=[SimpleNamespace(label=v.name.partition("/")[2], variant=v) for v in variants],
        values=lambda metric: values - (metric == "pixel_auroc"),
    )


def test_every_row_stands_on_the_line_of_what_it_keeps() -> None:
    table = steps.kept_table(asked())
    assert table.to_numpy().tolist() == [
        ["templates by coverage", 22, 70.0, 69.0],
        ["states by coverage", 7, 70.0, 69.0],
        ["templates by coverage", 4, 71.0, 70.0],
        ["templates at random", 4, 72.0, 71.0],
        ["without small, large", 18, 73.0, 72.0],
        ["states by coverage", 2, 74.0, 73.0],
        ["templates and states by coverage", 1, 75.0, 74.0],
    ]
    assert not len(steps.kept_table(SimpleNamespace(among=[], values=asked().values)))


def test_the_figure_joins_what_is_chosen_by_coverage_and_shows_draws_as_points() -> None:
    figure = steps.kept_figure(steps.kept_table(asked()))
    lines = {line.get_label(): line for line in figure.axes[1].lines}
    assert lines["templates by coverage"].get_xdata().tolist() == [4, 22]
    assert lines["templates by coverage"].get_ydata().tolist() == [70.0, 69.0]
    assert lines["templates by coverage"].get_linestyle() == "-"
    assert lines["templates at random"].get_linestyle() == "None"
    plt.close(figure)


def test_an_axis_shows_two_points_at_least() -> None:
    nearly = pd.DataFrame(
        {
            "line": ["templates by coverage"] * 2,
            "kept": [4, 22],
            "image_auroc": [75.0, 75.1],
            "pixel_auroc": [60.0, 94.0],
        }
    )
    figure = steps.kept_figure(nearly)
    image, pixel = (panel.get_ylim() for panel in figure.axes)
    assert image == pytest.approx((74.05, 76.05)) and pixel[1] - pixel[0] > 34
    plt.close(figure)


def test_alike_texts_stand_side_by_side_in_the_heat_map() -> None:
    units = torch.nn.functional.normalize(
        torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [0.1, 1.0]]), dim=-1
    )
    figure = steps.similarity_figure(units @ units.T, ["a", "b", "like a", "like b"])
    written = [label.get_text() for axes in figure.axes for label in axes.get_yticklabels()]
    labels = [text for text in written if text in ("a", "b", "like a", "like b")]
    assert sorted(map(sorted, (labels[:2], labels[2:]))) == [["a", "like a"], ["b", "like b"]]
    plt.close(figure)
