"""Scores, upsampling and checks that all methods share."""

import gc
import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from clipad_core.errors import ClipadError
from clipad_core.maps import check_finite, check_maps, text_scores, upsample_by_matrices


@pytest.fixture
def unit() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2, 9, 5, generator=generator, dtype=torch.float64)
    return F.normalize(rows, dim=-1)


@pytest.mark.parametrize("temperature", [0.01, 0.07, 1.0])
def test_text_scores_are_the_softmax_of_equation_1(unit: torch.Tensor, temperature: float) -> None:
    text = unit[0, :2]
    expected = torch.softmax(unit @ text.T / temperature, dim=-1)[..., 1]
    assert_close(text_scores(unit, text, temperature), expected)


def test_temperature_never_changes_the_order_of_text_scores(unit: torch.Tensor) -> None:
    text, embeddings = unit[0, :2], unit[1]
    cold, warm = text_scores(embeddings, text, 0.05), text_scores(embeddings, text, 1.0)
    assert cold.argsort().equal(warm.argsort())


def test_a_single_prototype_scores_by_distance(unit: torch.Tensor) -> None:
    scores = text_scores(unit, unit[0, :1], 0.07)
    assert_close(scores[0, 0], torch.zeros((), dtype=torch.float64), atol=1e-12, rtol=0)
    assert (scores >= 0).all() and (scores <= 1).all()


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_that_is_not_positive_is_refused(temperature: float) -> None:
    with pytest.raises(ClipadError, match="temperature: found"):
        text_scores(torch.eye(2), torch.eye(2), temperature)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_stops_the_run(broken: float) -> None:
    with pytest.raises(ClipadError, match="NaN or infinite"):
        check_finite(torch.tensor([0.1, broken]), "anomaly map")


@pytest.mark.parametrize("value", [0.5, float("nan")])
def test_a_map_that_ranks_nothing_stops_the_run(value: float) -> None:
    check_maps([torch.tensor([[0.1, 0.2]])], "images")
    with pytest.raises(ClipadError, match=f"images: found a map with {value} everywhere"):
        check_maps([torch.tensor([[0.1, 0.2]]), torch.full((1, 2), value)], "images")


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(9, 9), (11, 4), (5, 7), (2, 3)])
def test_bilinear_by_matrices_is_that_of_torch_and_so_is_its_gradient(
    size: tuple[int, int], align_corners: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(2, 3, 5, 7, generator=generator, dtype=torch.float64)
    weight = torch.rand(2, 3, *size, generator=generator, dtype=torch.float64)
    matrix_input, torch_input = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    upsampled = upsample_by_matrices(matrix_input, size, align_corners)
    expected = F.interpolate(torch_input, size, mode="bilinear", align_corners=align_corners)
    assert_close(upsampled, expected, rtol=0, atol=1e-6)
    (upsampled * weight).sum().backward()
    (expected * weight).sum().backward()
    assert_close(matrix_input.grad, torch_input.grad, rtol=0, atol=1e-6)


def test_maps_of_any_number_of_sizes_leave_a_bounded_number_of_matrices() -> None:
    maps = torch.zeros(1, 3, 3)
    for side in range(1000, 1100):
        upsample_by_matrices(maps, (side, 5), align_corners=True)
    tensors = [thing for thing in gc.get_objects() if type(thing) is torch.Tensor]
    assert sum(1000 <= len(tensor) < 1100 for tensor in tensors if tensor.ndim == 2) <= 64
