"""The picture that `dvc plots` shows: drawn from the table by category, the same bytes every time."""

import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from clipad_core.metrics import METRIC_LABELS
from clipad_harness.experiments.pipeline import by_category, by_category_path
from clipad_harness.report.figures import UNDEFINED, save
from clipad_harness.site.plot_file import PLOTTED, category_figure, plot_path, write_plot


def table(aupro: float = 0.5) -> pd.DataFrame:
    rows = [
        (category, "main", k_shot, metric, aupro if metric == "aupro" else 0.5 + k_shot / 10)
        for category in ("nut", "bolt")
        for k_shot in (0, 1)
        for metric in METRIC_LABELS
    ]
    columns = ["category", "variant", "k_shot", "metric", "value"]
    return by_category(pd.DataFrame(rows, columns=columns))


def test_every_category_has_a_dot_a_number_of_references() -> None:
    figure = category_figure(table())
    left = figure.axes[0]
    assert [label.get_text() for label in left.get_yticklabels()] == ["bolt", "nut"]
    dots = np.concatenate([part.get_offsets() for part in left.collections])
    assert sorted(dots[:, 0].tolist()) == [50.0, 50.0, 60.0, 60.0]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["0-shot", "1-shot"]
    plt.close(figure)


@pytest.mark.parametrize("content", [table(aupro=np.nan), table().iloc[:0]], ids=["one", "all"])
def test_what_is_undefined_is_said_in_its_panel(content: pd.DataFrame) -> None:
    figure = category_figure(content)
    empty = [UNDEFINED in [text.get_text() for text in panel.texts] for panel in figure.axes]
    assert empty == [content.empty or metric == "aupro" for metric in PLOTTED]
    plt.close(figure)


def test_a_name_of_any_length_leaves_room_for_the_drawing(tmp_path: Path) -> None:
    names = ["x_" * 120, "nut", "x_" * 120 + "2"]
    content = pd.concat([table().iloc[:1].assign(category=name) for name in names])
    figure = category_figure(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib gives up a layout with a warning
        save(figure, tmp_path / "plot.png")
    long, short, other = (text.get_text() for text in figure.axes[0].get_yticklabels())
    assert (len(long), short, len(other)) == (50, "nut", 50)
    assert long.startswith("x_x_") and "…" in long and long.endswith("x_") and other[-1] == "2"


def test_a_picture_is_written_in_the_same_bytes(tmp_path: Path) -> None:
    path = by_category_path(tmp_path, "winclip")
    path.parent.mkdir(parents=True)
    table().to_csv(path, index=False)
    first = write_plot(tmp_path, "winclip").read_bytes()
    assert write_plot(tmp_path, "winclip").read_bytes() == first
    assert plot_path(tmp_path, "winclip").is_file() and first.startswith(b"\x89PNG")
