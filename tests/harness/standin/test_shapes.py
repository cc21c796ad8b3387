"""Shapes that turn about a middle: by products, equal to their formulas with angles."""

from __future__ import annotations

import numpy as np
import pytest

from clipad_harness.standin.drawing.canvas import grid
from clipad_harness.standin.drawing.shapes import polygon, rays, ripple, wave_disc

U, V = (plane.astype(float) for plane in grid(40))
ANGLE, RADIUS = np.arctan2(V, U), np.sqrt(U * U + V * V)


def folded(n: int) -> np.ndarray:
    """The angle from the nearest of n directions."""
    sector = 2 * np.pi / n
    return ANGLE - sector * np.floor(ANGLE / sector + 0.5)


@pytest.mark.parametrize("n", [3, 4, 5, 6, 8])
def test_a_polygon_is_as_far_as_its_nearest_side(n):
    expected = np.cos(folded(n)) * RADIUS - 0.4
    np.testing.assert_allclose(polygon(U, V, n, 0.4), expected, atol=1e-14)


@pytest.mark.parametrize("n", [3, 4, 5, 8])
def test_rays_are_as_far_as_the_line_of_the_nearest(n):
    expected = np.abs(np.sin(folded(n))) * RADIUS
    between = np.abs(np.abs(folded(n)) - np.pi / n) < 1e-9  # both neighbours are the nearest
    np.testing.assert_allclose(rays(U, V, n)[~between], expected[~between], atol=1e-14)


@pytest.mark.parametrize("lobes", [0, 3, 4, 24])
def test_a_wave_disc_waves_as_often_as_it_should(lobes):
    depth = 0.03 if lobes else 0.0
    expected = (RADIUS - 0.8 - depth * np.cos(lobes * ANGLE)) * 0.9
    np.testing.assert_allclose(wave_disc(U, V, 0.8, lobes, depth), expected, atol=1e-14)


def test_a_ripple_is_the_sum_of_its_waves():
    terms = {2: (0.3, -0.2), 3: (0.0, 1.0), 7: (-0.4, 0.1)}
    expected = sum(a * np.cos(k * ANGLE) + b * np.sin(k * ANGLE) for k, (a, b) in terms.items())
    np.testing.assert_allclose(ripple(U, V, terms), expected, atol=1e-13)
    short = ripple(U.astype(np.float32), V.astype(np.float32), terms)
    assert short.dtype == np.float32
    np.testing.assert_allclose(short, expected, atol=2e-6)
