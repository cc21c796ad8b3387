"""What the drawing of local attention says in words, against reaches that are counted by hand."""

import re

import numpy as np
import pytest
from matplotlib import pyplot as plt

from clipad_harness.report.steps.winclip import reach_figure


@pytest.fixture(autouse=True)
def closed() -> None:
    yield
    plt.close("all")


def reaches(depth: int) -> list[int]:
    _, alt = reach_figure((9, 9), scale=3, depth=depth)
    return [int(count) for count in re.findall(r"(\d+) of 81 patches", alt)]


def test_local_attention_reaches_as_far_as_counted_by_hand() -> None:
    """The middle is row and column 4. One block: rows 3 to 5. Two: shifted rows 2 to 4, so 0 to 5."""
    assert reaches(depth=2) == [9, 9]
    assert reaches(depth=3) == [9, 36]


def test_a_patch_is_drawn_with_the_blocks_after_which_it_is_reached() -> None:
    figure, _ = reach_figure((9, 9), scale=3, depth=3)
    blocks = figure.axes[1].collections[0].get_array().filled(np.nan).reshape(9, 9)
    assert (blocks[2:5, 2:5] == 1).all()
    assert np.isnan(blocks[6]).all() and (blocks[0, :6] == 2).all() and np.isnan(blocks[0, 6])
