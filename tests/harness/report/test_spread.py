"""How much rows differ among each other: against a naive loop, and the verdicts of known spreads."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from numpy.typing import NDArray

from clipad_core.metrics.metrics import auroc
from clipad_harness.report import questions, spread
from clipad_harness.report.questions import Asked
from clipad_harness.report.side_by_side import RESAMPLES, Drawn, SideBySide, resampled

LABELS = np.array([0] * 12 + [1] * 12)


def asked(group: str, strengths: dict[str, float], labels: NDArray[np.int64] = LABELS) -> Asked:
    """Rows whose images a test knows: the higher the strength, the clearer the damage."""
    drawn, rows, noise = {}, [], np.random.default_rng(0).random((2, len(labels)))
    for label, strength in strengths.items():
        for name, own in zip(("nut", "bolt"), noise, strict=True):
            scores = own + strength * labels
            drawn[label, name] = Drawn(labels, scores[None], [None])
            rows.append((label, name, 0, "image_auroc", auroc(labels, scores)))
            rows.append((label, name, 0, "pixel_auroc", np.nan))
    columns = ["contender", "category", "seed", "metric", "value"]
    among = [SimpleNamespace(label=label) for label in strengths]
    own = Asked("winclip", group, among, ["nut", "bolt"])
    own.measured = SideBySide(pd.DataFrame(rows, columns=columns), pd.DataFrame(), drawn, {})
    return own


APART = {"damaged": 1.5, "flaw": 0.4, "dax": 0.0}
ALIKE = {"damaged": 0.8, "flaw": 0.8, "dax": 0.81}


def test_the_deviation_is_that_of_the_rows_in_every_resample() -> None:
    question = asked("before", APART)
    found = spread.deviations(question, "image")
    by_row = []
    for label in APART:
        differences = []
        for place, name in enumerate(("nut", "bolt")):
            drawn = question.measured.drawn
            pair = drawn[label, name], drawn["damaged", name]
            differences.append(resampled(*pair, "image", place))
        by_row.append([100 * (a + b) / 2 for a, b in zip(*differences)])
    for place in (0, 7, RESAMPLES - 1):
        values = [row[place] for row in by_row]
        middle = sum(values) / 3
        naive = (sum((value - middle) ** 2 for value in values) / 3) ** 0.5
        assert found[place] == pytest.approx(naive)
    whole = np.std(question.values("image_auroc"))
    assert np.quantile(found, 0.025) < whole < np.quantile(found, 0.975)


def test_rows_that_come_closer_are_told_from_those_that_do_not() -> None:
    before, after = asked("before", APART), asked("after", ALIKE)
    closer = spread.shrinks(before, after, "image", share=0.5)
    assert closer is not None and closer.word == "yes"
    observed = questions.percent(float(np.std(before.values("image_auroc"))))
    assert f"by image AUROC is {observed} [" in closer.sentence
    assert "points in before and" in closer.sentence and "points in after" in closer.sentence
    assert spread.shrinks(after, before, "image", share=0.5).word == "no"
    # The same rows on the same images: exactly as much, so more than half of it.
    assert spread.shrinks(before, before, "image", share=1).word == "undecided"
    assert spread.shrinks(before, before, "image", share=0.5).word == "no"


def test_where_nothing_is_defined_nothing_is_decided() -> None:
    few = np.array([0] * 2 + [1] * 2)
    pair = asked("before", APART, few), asked("after", ALIKE, few)
    said = spread.shrinks(*pair, "image", share=0.5)
    assert said is not None and said.word == "undecided" and "[–, –]" in said.sentence
    assert spread.shrinks(asked("before", APART), Asked("winclip", "x", (), ()), "image", 1) is None


def test_every_row_is_a_line_in_the_colour_of_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    monkeypatch.setattr(spread, "show", lambda figure, alt, caption: shown.append((figure, alt)))
    kinds = {"damaged": "read", "flaw": "read", "dax": "never read"}
    before, after = asked("before", APART), asked("after", ALIKE)
    spread.slopes(before, after, kinds)
    ((figure, alt),) = shown
    lines = figure.axes[0].lines
    assert [line.get_color() == lines[0].get_color() for line in lines] == [True, True, False]
    for line, label in zip(lines, APART, strict=True):
        ends = [question.values("image_auroc")[label] for question in (before, after)]
        assert list(line.get_ydata()) == pytest.approx(ends)
    low, high = before.values("image_auroc").min(), before.values("image_auroc").max()
    assert f"image AUROC before {low:.1f} (dax) to {high:.1f} (damaged), after" in alt
    assert "pixel AUROC before – to –, after – to –" in alt
    plt.close(figure)
    spread.slopes(before, Asked("winclip", "x", (), ()), kinds)
    assert len(shown) == 1
