"""The adapter for Segment Anything, on a pretend package: no weights, no network."""

import importlib.util
import pickle
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from clipad_core.errors import ClipadError
from clipad_core.refinement import SegmentAnything
from clipad_core.refinement.sam import prompts_of, refine_by_segments

IMAGE = np.zeros((6, 8, 3), np.uint8)


@pytest.fixture
def peaks() -> np.ndarray:
    """Two peaks: 0.9 in a square, 0.6 in a corner."""
    anomaly_map = np.full((6, 8), 0.1)
    anomaly_map[1:3, 1:4] = [[0.7, 0.8, 0.9], [0.7, 0.7, 0.7]]
    anomaly_map[5, 7] = 0.6
    return anomaly_map


class Predictor:
    """Answers every prompt with a mask that was written down; keeps what it was asked."""

    def __init__(self, masks: list[np.ndarray], trust: list[float]) -> None:
        self.answers = list(zip(masks, trust, strict=True))
        self.images: list[np.ndarray] = []
        self.asked: list[dict[str, Any]] = []

    def set_image(self, image: np.ndarray) -> None:
        self.images.append(image)

    def predict(self, **prompts: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        mask, trust = self.answers[len(self.asked)]
        self.asked.append(prompts)
        return mask[None], np.array([trust]), np.zeros((1, 2, 2))


def mask(rows: slice, columns: slice) -> np.ndarray:
    empty = np.zeros((6, 8), bool)
    empty[rows, columns] = True
    return empty


def test_a_prompt_is_the_box_and_the_highest_point_of_a_peak_the_highest_first(
    peaks: np.ndarray,
) -> None:
    first, second = prompts_of(peaks, most=5)
    assert first == ((1, 1, 3, 2), (3, 1)) and second == ((7, 5, 7, 5), (7, 5))
    assert prompts_of(peaks, most=1) == [first]
    assert prompts_of(np.full((3, 3), 0.5), most=5) == []


def test_segments_take_the_mean_of_the_map_and_all_else_stays(peaks: np.ndarray) -> None:
    square, corner = mask(slice(0, 4), slice(0, 4)), mask(slice(4, 6), slice(6, 8))
    predictor = Predictor([square, corner], [0.9, 0.8])
    refined = refine_by_segments(predictor, IMAGE, peaks)
    expected = peaks.copy()
    expected[square], expected[corner] = peaks[square].mean(), peaks[corner].mean()
    np.testing.assert_allclose(refined, expected)
    assert len(predictor.images) == 1  # encoded once for all its prompts


def test_where_segments_overlap_the_one_that_is_trusted_most_counts(peaks: np.ndarray) -> None:
    left, right = mask(slice(0, 6), slice(0, 5)), mask(slice(0, 6), slice(3, 8))
    for trust, winner in (([0.9, 0.8], left), ([0.8, 0.9], right)):
        refined = refine_by_segments(Predictor([left, right], trust), IMAGE, peaks)
        assert np.allclose(refined[winner], peaks[winner].mean())


@pytest.mark.parametrize(
    "prompts, names",
    [
        ("box and point", {"box", "point_coords", "point_labels"}),
        ("box", {"box"}),
        ("point", {"point_coords", "point_labels"}),
    ],
)
def test_a_peak_is_asked_by_box_by_point_or_by_both(
    peaks: np.ndarray, prompts: Any, names: set[str]
) -> None:
    predictor = Predictor([mask(slice(0, 2), slice(0, 2))], [1.0])
    refine_by_segments(predictor, IMAGE, peaks, prompts, most=1)
    [asked] = predictor.asked
    assert asked.pop("multimask_output") is False
    assert set(asked) == names
    if "box" in names:
        assert_array_equal(asked["box"], [1, 1, 3, 2])
    if "point_coords" in names:
        assert_array_equal(asked["point_coords"], [[3, 1]])
        assert_array_equal(asked["point_labels"], [1])


def test_no_segment_leaves_the_very_map(peaks: np.ndarray) -> None:
    nothing = np.zeros((6, 8), bool)
    assert refine_by_segments(Predictor([nothing] * 2, [0.5, 0.5]), IMAGE, peaks) is peaks
    flat = np.full((6, 8), 0.5)
    assert refine_by_segments(Predictor([], []), IMAGE, flat) is flat


def test_an_image_of_another_size_than_its_map_is_refused(peaks: np.ndarray) -> None:
    with pytest.raises(ClipadError, match="found 6 x 7 pixels beside a map of 6 x 8"):
        refine_by_segments(Predictor([], []), IMAGE[:, 1:], peaks)


def pretend_package(load: Any) -> SimpleNamespace:
    """What is used of segment_anything: models by name, and a predictor around one of them."""

    def predictor(model: Any) -> Predictor:
        made = Predictor([], [])
        made.model = model
        return made

    return SimpleNamespace(sam_model_registry={"vit_b": load}, SamPredictor=predictor)


def test_the_package_is_given_the_checkpoint_and_the_device() -> None:
    paths = []

    def load(checkpoint: str) -> SimpleNamespace:
        paths.append(checkpoint)
        return SimpleNamespace(to=lambda device: f"model on {device}")

    settings = SegmentAnything(checkpoint="sam.pth", device="cpu")
    predictor = settings.open(pretend_package(load))
    assert predictor.model == "model on cpu"
    assert paths == ["sam.pth"]
    with pytest.raises(ClipadError, match="cannot be read as vit_l"):
        SegmentAnything(checkpoint="sam.pth", model="vit_l").open(pretend_package(load))


@pytest.mark.parametrize("error", [RuntimeError("sizes"), pickle.UnpicklingError("x"), EOFError()])
def test_a_checkpoint_that_cannot_be_read_is_one_message(error: Exception) -> None:
    def load(checkpoint: str) -> None:
        raise error

    settings = SegmentAnything(checkpoint="sam.pth", device="cpu")
    with pytest.raises(ClipadError, match=r"sam\.pth cannot be read as vit_b"):
        settings.open(pretend_package(load))


def test_without_the_package_one_message_says_what_to_install(peaks: np.ndarray) -> None:
    if importlib.util.find_spec("segment_anything") is not None:
        pytest.skip("segment_anything is installed here")
    settings = SegmentAnything(checkpoint="sam.pth")
    for call in (settings.check, lambda: settings(IMAGE, peaks)):
        with pytest.raises(ClipadError, match="sam needs segment_anything, which is not installed"):
            call()


def test_the_key_holds_the_content_of_the_checkpoint_and_not_its_name(tmp_path) -> None:
    keys = []
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(content)
        keys.append(SegmentAnything(checkpoint=str(tmp_path / name)).key())
    assert keys[0] == keys[1] != keys[2]


def test_a_missing_checkpoint_is_one_message_that_names_it() -> None:
    with pytest.raises(ClipadError, match=r"sam.checkpoint: found no file gone\.pth"):
        SegmentAnything(checkpoint="gone.pth").key()
