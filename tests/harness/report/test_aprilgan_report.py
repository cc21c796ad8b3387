"""The page of APRIL-GAN: what its drawings say in words, on cases worked out by hand."""

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

from clipad_core.detection import Detection
from clipad_core.methods.aprilgan.detector import stretched
from clipad_core.metrics.metrics import aupro_curve
from clipad_harness.report.map_grid import Pictured
from clipad_harness.report.steps import aprilgan


def test_sentences_are_counted_on_the_side_that_their_state_says() -> None:
    lean = {
        "nut": torch.tensor([-0.1, -0.2, 0.1]),
        "damaged nut": torch.tensor([0.2, 0.3, 0.1]),
        "broken nut": torch.tensor([-0.1, 0.0, 0.1]),
    }
    figure, alt = aprilgan.sentences_figure(lean, 1)
    plt.close(figure)
    assert alt.endswith("2 of 3 normal, 4 of 6 anomalous.")


def test_patches_are_told_apart_by_the_auroc_of_their_logits() -> None:
    inside = torch.tensor([[False, False, True, True]])
    apart, reversed_ = torch.tensor([[0.0, 1.0, 2.0, 3.0]]), torch.tensor([[3.0, 2.0, 1.0, 0.0]])
    blocks = {"initial": {6: reversed_, 12: torch.zeros(1, 4)}, "trained": {6: apart, 12: apart}}
    figure, alt = aprilgan.patches_figure(blocks, inside)
    plt.close(figure)
    assert "initial: block 6 0, block 12 50; trained: block 6 100, block 12 100." in alt
    figure, alt = aprilgan.patches_figure(blocks, torch.zeros_like(inside))
    plt.close(figure)
    assert "block 6 undefined" in alt


def test_classes_are_compared_with_others_alone() -> None:
    cosines = torch.tensor([[1.0, 0.5, 0.25], [0.5, 1.0, 0.0], [0.25, 0.0, 1.0]])
    figure, alt = aprilgan.classes_figure(cosines, ["nut", "hex_bolt", "felt"])
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    plt.close(figure)
    assert names == ["nut", "hex bolt", "felt"]
    assert "3 classes: between different ones 0.00 to 0.50, mean 0.25" in alt
    figure, alt = aprilgan.classes_figure(torch.ones(1, 1), ["nut"])
    plt.close(figure)
    assert alt == "One class, nut: its own text is that of every batch."


def test_a_reference_that_was_drawn_twice_is_named_so() -> None:
    def pictured(value: int) -> Pictured:
        return Pictured("nut", "good", np.full((4, 4, 3), value, dtype=np.uint8), None)

    first, second = pictured(1), pictured(2)
    shots = [[first, second, pictured(1)]]
    figure, alt = aprilgan.references_figure([pictured(3)], shots)
    titles = [panel.get_title() for panel in figure.axes[1:]]
    plt.close(figure)
    assert titles == ["reference 1", "reference 2", "reference 3, again 1"]
    assert alt == "Test images and their 3 references: nut, good: 2 different images."


def test_an_image_s_score_moves_and_pairs_swap_when_others_are_left_out() -> None:
    """Maxima 0, 1 and 10: without the last the second is stretched from 0.1 to 1, above the first."""
    maps = torch.tensor([0.0, 1.0, 10.0])[:, None, None].expand(3, 1, 2)
    text = torch.tensor([0.4, 0.2, 0.9])
    scores = torch.full((2, 3), torch.nan)
    scores[0] = stretched(Detection(text, maps)).image_score
    scores[1, :2] = stretched(Detection(text[:2], maps[:2])).image_score
    figure, alt = aprilgan.left_out_figure(scores, [0, 0, 1])
    lines = [len(line.get_xdata()) for line in figure.axes[0].lines]
    plt.close(figure)
    assert lines == [2, 2, 2]
    assert "1 of 3 test images left out" in alt and "the 2 that stay" in alt
    assert "by up to 0.45, mean 0.23, and 1 of their 1 pairs change their order" in alt


@pytest.mark.parametrize(("sharp", "furthest"), [(True, 0.0), (False, 28.6)])
def test_even_steps_reach_less_far_on_a_map_that_is_nearly_0_nearly_everywhere(
    sharp: bool, furthest: float
) -> None:
    """Seven background pixels, spread from 0 to 0.6 or a thousandth of it, below a defect of 1."""
    background = np.arange(7) / (10_000 if sharp else 10)
    anomaly_map = np.array([[1.0, *background]])
    mask = np.array([[1, *[0] * 7]])
    curves = [aupro_curve([anomaly_map], [mask], kind) for kind in ("exact", "cflow200")]
    figure, alt = aprilgan.sweep_figure({"a": (curves[0], curves[1])}, 0.3)
    plt.close(figure)
    below = curves[1].fpr[curves[1].fpr < 0.3]
    assert f"{len(below)} of {len(curves[1])} are below 30 % false positives" in alt
    assert f"the furthest at {100 * below.max():.1f} %" in alt
    assert 100 * below.max() == pytest.approx(furthest, abs=0.05)


def test_maps_without_a_curve_are_undefined_and_no_error() -> None:
    maps, masks = [np.zeros((2, 2))], [np.array([[1, 0], [0, 0]])]
    exact, sweep = (aupro_curve(maps, masks, kind) for kind in ("exact", "cflow200"))
    figure, alt = aprilgan.sweep_figure({"a": (exact, sweep)}, 0.3)
    plt.close(figure)
    assert "a: undefined for this data" in alt
