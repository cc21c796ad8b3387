"""The noise of the drawing: normal numbers and coloured tiles, by functions of our own."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest

from clipad_harness.standin.drawing.exact import cos, log, sin
from clipad_harness.standin.drawing.noise import TILE, Chance, fourier, noise_tile

SIZE = 64
KINDS = ("cloud", "mottle", "grain", "fibre")


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 12, 144, 150, 159, 288, 576])
def test_the_transform_is_that_of_numpy(n):
    real, imaginary = np.random.default_rng(n).normal(size=(2, n, 5))
    a, b = fourier(real, imaginary)
    expected = np.fft.fft(real + 1j * imaginary, axis=0)
    np.testing.assert_allclose(a + 1j * b, expected, rtol=0, atol=1e-12)


def test_the_transform_is_the_sum_of_its_definition():
    n = 6
    x = np.arange(1.0, n + 1)
    a, b = fourier(x[:, None], 0 * x[:, None])
    for k in range(n):
        by_hand = sum(x[j] * np.exp(-2j * np.pi * j * k / n) for j in range(n))
        assert a[k, 0] + 1j * b[k, 0] == pytest.approx(by_hand, abs=1e-13)


def gain(kind: str) -> np.ndarray:
    """How strong each frequency of a tile should be, as the drawing had it from the first."""
    side = SIZE * TILE
    fy, fx = np.fft.fftfreq(side, 1 / side)[:, None] / TILE, np.fft.fftfreq(side, 1 / side) / TILE
    f = np.hypot(fx, fy)
    return {
        "cloud": 1 / (f + 0.7) ** 2,
        "mottle": np.exp(-(((f - 10) / 6) ** 2)),
        "grain": np.exp(-((f / (0.38 * SIZE)) ** 2)),
        "fibre": np.exp(-((fx / 2.0) ** 2)) * np.exp(-((fy / (0.3 * SIZE)) ** 2)),
    }[kind] * (f > 0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tile_has_mean_zero_and_deviation_one(kind):
    tile = noise_tile(SIZE, kind)
    assert tile.dtype == np.float32
    assert tile.shape == (TILE * SIZE, TILE * SIZE)
    assert tile.mean(dtype=float) == pytest.approx(0, abs=1e-6)
    assert tile.std(dtype=float) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_spectrum_of_a_tile_is_that_of_its_kind(kind):
    gains = gain(kind)
    seen = gains > 1e-3 * gains.max()  # float32 holds no weaker wave
    power = np.abs(np.fft.fft2(noise_tile(SIZE, kind).astype(float)))[seen] ** 2
    # Of white noise the ratios are exponentially distributed with one mean; each stands twice.
    ratio = power / gains[seen] ** 2
    ratio /= ratio.mean()
    for share in np.array_split(ratio[np.argsort(-gains[seen])], 8):
        assert share.mean() == pytest.approx(1, abs=5 * np.sqrt(2 / share.size))
    assert (ratio > 2).mean() == pytest.approx(np.exp(-2), abs=5 * np.sqrt(0.25 / ratio.size))


def test_tiles_are_normally_distributed():
    tile = noise_tile(SIZE, "grain")
    for bound, beyond in ((1, 0.3173), (2, 0.0455), (3, 0.0027)):
        assert (np.abs(tile) > bound).mean() == pytest.approx(beyond, rel=0.15)


def test_no_two_kinds_are_filtered_from_the_same_numbers():
    white = {}
    for kind in KINDS:
        gains = gain(kind)
        white[kind] = np.fft.fft2(noise_tile(SIZE, kind)) / np.where(gains > 0, gains, 1)
    band = (gain("cloud") > 1e-4) & (gain("grain") > 1e-3)
    a, b = white["cloud"][band], white["grain"][band]
    assert abs(np.vdot(a, b)) / np.sqrt(np.vdot(a, a) * np.vdot(b, b)).real < 0.05


def test_normal_numbers_are_those_of_python_up_to_rounding():
    chance, reference = Chance("thing/3"), Random("thing/3")
    for _ in range(500):
        assert chance.gauss(0.5, 2.0) == pytest.approx(reference.gauss(0.5, 2.0), abs=1e-12)
        assert chance.random() == reference.random()


def test_normal_numbers_are_made_of_our_own_functions():
    chance, uniform = Chance(2), Random(2)
    for _ in range(500):
        turn = 2 * math.pi * uniform.random()
        radius = math.sqrt(-2 * log(1 - uniform.random()))
        assert chance.gauss() == cos(turn) * radius
        assert chance.gauss() == sin(turn) * radius


def test_a_state_holds_the_normal_number_that_waits():
    chance = Chance(1)
    chance.gauss()
    state = chance.getstate()
    waiting = chance.gauss()
    chance.setstate(state)
    assert chance.gauss() == waiting
