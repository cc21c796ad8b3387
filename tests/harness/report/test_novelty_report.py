"""Tables of novelty: AUROC as the metric has it, intervals by images, paired differences."""

import numpy as np
import pytest

from clipad_core.metrics.metrics import auroc
from clipad_harness.experiments.novelty import Novelty, Task
from clipad_harness.report import novelty
from clipad_harness.report.novelty import NoveltyTable

LABELS = np.array([0] * 12 + [1] * 9)
RNG = np.random.default_rng(3)
CLEAR, NOISE = (RNG.random(21) + strength * LABELS for strength in (0.8, 0.0))


def one(title: str, **scores: np.ndarray) -> Novelty:
    named = {name.replace("_", " "): np.float32(values) for name, values in scores.items()}
    return Novelty(Task(title, ("nut",), (), ()), LABELS, named)


@pytest.fixture
def table() -> NoveltyTable:
    return NoveltyTable(
        {
            "WinCLIP": [one("OCC", image_score=CLEAR), one("OCC", image_score=NOISE)],
            "<b>": [one("OSR", image_score=CLEAR, prompt=NOISE), one("OCC", image_score=-CLEAR)],
        }
    )


def test_the_value_is_the_mean_of_the_aurocs_of_a_title(table: NoveltyTable) -> None:
    exact = [100 * auroc(LABELS, scores) for scores in (CLEAR, NOISE)]
    assert table.samples["OCC", "WinCLIP", "image score"][0] == pytest.approx(np.mean(exact))
    assert table.samples["OSR", "<b>", "prompt"][0] == pytest.approx(exact[1])


def test_the_interval_is_that_of_images_drawn_again_one_by_one(table: NoveltyTable) -> None:
    drawn = np.random.default_rng(1)
    values = []
    for _ in range(2000):
        places = np.concatenate([drawn.integers(12, size=12), 12 + drawn.integers(9, size=9)])
        values.append(100 * auroc(LABELS[places], NOISE[places]))
    found = np.quantile(table.samples["OSR", "<b>", "prompt"][1], [0.025, 0.975])
    assert found == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=3)
    again = NoveltyTable(table.found).samples
    assert all(np.array_equal(kept[1], again[row][1]) for row, kept in table.samples.items())


def test_a_verdict_is_read_off_the_interval(table: NoveltyTable) -> None:
    image, prompt = ("<b>", "image score"), ("<b>", "prompt")
    assert [table.verdict("OSR", row).word for row in (image, prompt)] == ["yes", "undecided"]
    assert table.verdict("OCC", image).word == "no"
    better = table.verdict("OSR", image, prompt)
    assert better.word == "yes" and "minus <b>, prompt, AUROC +" in better.sentence
    assert table.verdict("OSR", image, image).sentence.endswith("0.0 [0.0, 0.0] points")
    assert table.verdict("OSR", ("WinCLIP", "image score")) is None
    assert table.verdict("OSR", image, ("WinCLIP", "image score")) is None


def test_what_is_not_asked_is_a_dash_and_names_are_escaped(
    table: NoveltyTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = table.table()
    assert table.titles == ["OCC", "OSR"] and "&lt;b&gt;" in page and "<b>" not in page
    assert page.count("–</td>") == 2
    said: list[str] = []
    monkeypatch.setattr(novelty, "show", lambda _figure, alt, caption: said.append(alt))
    table.figure()
    assert "OSR, WinCLIP, image score –" in said[0] and "OCC, WinCLIP, image score " in said[0]
