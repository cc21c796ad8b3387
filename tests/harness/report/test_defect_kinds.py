"""Kinds of damage apart: a measurement by hand, and what a table shows of it."""

import numpy as np
import pandas as pd
import pytest

from clipad_harness.report.defect_kinds import of_kinds
from clipad_harness.report.questions import Asked
from clipad_harness.report.side_by_side import Drawn, SideBySide, differences

KINDS = {"nut": ["good", "good", "hole", "lost", "lost"], "key": ["good", "hole", "hole"]}
SCORES = {"nut": [0.1, 0.5, 0.9, 0.3, 0.7], "key": [0.5, 0.1, 0.9]}
# Two pixels an image: bin 0 and bin 1.
NORMAL = {"nut": [[2, 0], [1, 1], [1, 0], [1, 0], [0, 1]], "key": [[2, 0], [1, 0], [1, 0]]}
DAMAGED = {"nut": [[0, 0], [0, 0], [0, 1], [1, 0], [0, 1]], "key": [[0, 0], [0, 1], [0, 1]]}


def measured(masks: bool = True) -> SideBySide:
    frames, drawn, metrics = [], {}, []
    for category, kinds in KINDS.items():
        labels = np.array([int(kind != "good") for kind in kinds])
        names = [f"{place}.png" for place in range(len(kinds))]
        columns = {"category": category, "image": names, "defect": kinds, "label": labels}
        frames.append(pd.DataFrame(columns).assign(contender="row", ranked=0.0))
        counts = np.array([NORMAL[category], DAMAGED[category]], dtype=np.float64)
        scores = np.array([SCORES[category]] * 2, dtype=np.float32)
        drawn["row", category] = Drawn(labels, scores, [counts if masks else None] * 2)
        metrics += [("row", category, seed, "image_ap", 0.5) for seed in (7, 8)]
    columns = ["contender", "category", "seed", "metric", "value"]
    return SideBySide(
        pd.DataFrame(metrics, columns=columns), pd.concat(frames, ignore_index=True), drawn, {}
    )


def test_the_aurocs_are_of_normal_images_and_of_one_kind_alone() -> None:
    part = of_kinds(measured(), ["lost"])
    assert list(part.drawn) == [("row", "nut")] and set(part.images["category"]) == {"nut"}
    assert part.drawn["row", "nut"].labels.tolist() == [0, 0, 1, 1]
    assert set(part.images["defect"]) == {"good", "lost"}
    values = part.metrics.set_index(["metric", "seed"])["value"]
    # 0.3 exceeds one of two normal scores, 0.7 both.
    assert [values["image_auroc", seed] for seed in (7, 8)] == pytest.approx([0.75, 0.75])
    # Normal pixels 4 and 2 by bin, damaged 1 and 1: (2 + 4 + 1) right of 12 pairs.
    assert values["pixel_auroc", 7] == pytest.approx((0.5 * 4 + 4 + 0.5 * 2) / 12)


def test_all_kinds_together_are_all_images() -> None:
    whole, part = measured(), of_kinds(measured(), ["hole", "lost"])
    for key, drawn in whole.drawn.items():
        assert np.array_equal(part.drawn[key].scores, drawn.scores)
    assert len(part.images) == len(whole.images)


def test_without_masks_pixels_stay_unknown_and_a_kind_that_nobody_shows_leaves_nothing() -> None:
    part = of_kinds(measured(masks=False), ["lost"])
    values = part.metrics.set_index("metric")["value"]
    assert values["pixel_auroc"].isna().all() and values["image_auroc"].notna().all()
    assert differences(part, "row", "row", "image").loc["mean", "difference"] == 0
    assert of_kinds(measured(), ["torn"]).drawn == {}


def test_a_table_of_one_kind_has_dashes_for_what_is_not_kept_of_an_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from foreseen import Foreseen

    from clipad_harness.report import questions

    monkeypatch.setattr(questions, "measure_all", lambda *_: measured())
    rows = [Foreseen("row", 0.0)]
    asked = Asked("winclip", "group", rows, list(KINDS), ["lost"])  # type: ignore[arg-type]
    page = asked.table("row")
    assert "75.0" in page and page.count("–</td>") >= 3
    assert asked.values("image_ap").isna().all()
