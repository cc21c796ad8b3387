"""The training augmentation: recorded operations, every draw reproducible, masks go along."""

from pathlib import Path
from threading import Event, current_thread, main_thread
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from accelerator import accelerator
from PIL import Image
from recordings import GOLDENS
from vcpclip_cases import SMALL, square

from clipad_core.clip.backbone import Backbone
from clipad_core.errors import ClipadError
from clipad_core.methods.vcpclip import METHOD
from clipad_harness.data.dataset_images import DatasetImages
from clipad_harness.experiments.augment import (
    Sample,
    augment,
    augmented,
    brighten,
    change_colours,
    mosaic,
    rotate,
    rotate_mask,
)
from clipad_harness.experiments.training_data import TrainingData

__all__ = ["accelerator", "square"]  # the fixtures


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    """One image and what albumentations 1.4.0 (OpenCV 4.10) made of it."""
    with np.load(GOLDENS / "vcpclip" / "augment.npz") as opened:
        return dict(opened)


def outputs(recorded: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    return {k.split("/", 1)[1]: v for k, v in recorded.items() if k.startswith(f"{name}/")}


def numbers(text: str, separator: str = ",") -> list[float]:
    return [float(part) for part in text.split(separator)]


def test_rotation_equals_albumentations(recorded: dict[str, np.ndarray]) -> None:
    for angle, expected in outputs(recorded, "rotate").items():
        rotated = rotate(recorded["image"], float(angle)).astype(int)
        assert np.abs(rotated - expected).max() <= 2
    for angle, expected in outputs(recorded, "rotate_mask").items():
        rotated = rotate_mask(recorded["mask"] > 0, float(angle))
        assert np.array_equal(rotated, expected > 0)


def test_brightness_and_colours_equal_albumentations(recorded: dict[str, np.ndarray]) -> None:
    for setting, expected in outputs(recorded, "brighten").items():
        assert np.array_equal(brighten(recorded["image"], *numbers(setting, "/")), expected)
    for setting, expected in outputs(recorded, "colours").items():
        factors, order = (numbers(part) for part in setting.split("/"))
        changed = change_colours(recorded["image"], tuple(factors), [int(i) for i in order])
        assert np.array_equal(changed, expected)


class Draws:
    """A generator that answers from a list, to walk through one branch after the other."""

    def __init__(self, chances: list[float], **answers: object) -> None:
        self.chances, self.answers = iter(chances), answers

    def random(self) -> float:
        return next(self.chances)

    def __getattr__(self, name: str):
        return lambda *_, **__: self.answers[name]


def test_noise_and_blurs_equal_albumentations(recorded: dict[str, np.ndarray]) -> None:
    sample = Sample(recorded["image"], recorded["mask"] > 0)
    noisy = augment(sample, Draws([1, 1, 1, 0, 1], uniform=25.0, normal=recorded["noise"]))
    assert np.array_equal(noisy.image, recorded["gauss_noise"])
    boxed = augment(sample, Draws([1, 1, 1, 1, 0], integers=0))
    assert np.array_equal(boxed.image, recorded["blur"])
    for side, expected in outputs(recorded, "gaussian").items():
        blurred = augment(sample, Draws([1, 1, 1, 1, 0], integers=2, choice=int(side)))
        assert np.array_equal(blurred.image, expected)
    untouched = augment(sample, Draws([1, 1, 1, 1, 1]))
    assert np.array_equal(untouched.image, sample.image)


def blob(seed: int, shape: tuple[int, int] = (60, 80)) -> Sample:
    """A white disc on black, which is the anomaly: so the mask can be seen in the image."""
    drawn = np.random.default_rng(seed)
    centre = (int(drawn.integers(25, shape[1] - 25)), int(drawn.integers(25, shape[0] - 25)))
    grey = cv2.circle(np.zeros(shape, np.uint8), centre, 12, 255, -1)
    return Sample(np.repeat(grey[..., None], 3, axis=2), grey > 0)


def run(place: int, **changes: object) -> Sample:
    settings = {"name": "code", "mosaic_rate": 0.2, "seed": 1, "epoch": 0} | changes
    return augmented(blob, place, range(4), **settings)  # type: ignore[arg-type]


def same(first: Sample, second: Sample) -> bool:
    return np.array_equal(first.image, second.image) and np.array_equal(first.mask, second.mask)


def test_seed_epoch_and_place_decide_every_draw() -> None:
    for place in range(20):
        assert same(run(place), run(place))
    for change in ({"seed": 2}, {"epoch": 1}):
        assert not all(same(run(place), run(place, **change)) for place in range(5))


def test_the_mask_goes_where_the_image_goes() -> None:
    """Turned and rotated, the bright pixels stay the masked ones, but for a rim of blur."""
    for place in range(60):
        sample = run(place, mosaic_rate=0.0)
        assert sample.mask.any() and sample.image.dtype == np.uint8
        bright = sample.image.mean(axis=2) > 127
        assert (bright & sample.mask).sum() / (bright | sample.mask).sum() > 0.85


def test_every_step_comes_by_half_and_mosaics_by_their_rate() -> None:
    samples = [run(place) for place in range(400)]
    wide = [sample.mask.shape in ((120, 160), (160, 120)) for sample in samples]
    assert 0.14 < np.mean(wide) < 0.26
    turned = [sample.mask.shape[0] > sample.mask.shape[1] for sample in samples]
    assert 0.19 < np.mean(turned) < 0.31  # half are turned, half of those by an odd quarter
    assert not any(run(place, mosaic_rate=0.0).mask.size > 4800 for place in range(100))
    alone = [augmented(blob, p, (), name="code", mosaic_rate=1.0, seed=1, epoch=0) for p in (1, 2)]
    assert all(sample.mask.size == 4800 for sample in alone)


def test_none_gives_the_image_as_it_is() -> None:
    assert same(run(3, name="none"), blob(3))


def test_a_mosaic_keeps_sizes_and_pairs() -> None:
    tiles = [blob(0), blob(1, (70, 60)), blob(2, (70, 90)), blob(3)]
    sample = mosaic(tiles)
    assert sample.mask.shape == (120, 160)
    assert np.array_equal(sample.image[..., 0] > 0, sample.mask)
    assert np.array_equal(sample.mask[:60, :80], tiles[0].mask)  # larger neighbours come later ...
    assert np.array_equal(sample.mask[60:, 80:], tiles[3].mask)  # ... and the last covers them
    assert np.array_equal(sample.mask[:60, 80:140], tiles[1].mask[:60])
    assert not sample.mask[:60, 140:].any()


def test_an_unknown_augmentation_is_refused() -> None:
    with pytest.raises(ClipadError, match="augmentation: found 'strong', expected one of code"):
        run(0, name="strong")


def training(folder: Path, square: Backbone, dataset: str, **changes: object) -> TrainingData:
    """Six images of two categories, the even ones anomalous, with augmentation."""
    rows = []
    for place in range(6):
        sample = blob(place)
        Image.fromarray(sample.image).save(folder / f"{place}.png")
        Image.fromarray(sample.mask).save(folder / f"{place}_mask.png")
        mask = "" if place % 2 else f"{place}_mask.png"
        rows.append((dataset, "ab"[place // 3], 1 - place % 2, f"{place}.png", mask))
    index = pd.DataFrame(rows, columns=["dataset", "category", "label", "image", "mask"])
    config = SMALL.changed(changes)
    prepared = METHOD.prepare(square, config)
    encodings = SimpleNamespace(name="vcpclip", memory=0, backbone=lambda _: prepared)
    augmentation = METHOD.training.augmentation(config)
    return TrainingData(DatasetImages(index, folder), index, encodings, config, augmentation)


def test_training_sees_new_images_every_epoch_and_the_same_after_a_kill(
    square: Backbone, tmp_path: Path
) -> None:
    data = training(tmp_path, square, "visa")
    features, labels, masks, names = data.batch(0, [4, 1])
    assert names == ["b", "a"] and labels.tolist() == [1, 0]
    assert masks.shape == (2, 48, 48) and masks[0].any() and not masks[1].any()
    again = training(tmp_path, square, "visa").batch(0, [4, 1])
    assert torch.equal(again[0].image_embedding, features.image_embedding)
    assert torch.equal(again[2], masks)
    later = data.batch(1, [4, 1])
    assert not torch.equal(later[0].image_embedding, features.image_embedding)


def test_threads_augment_for_the_next_steps_of_an_accelerator_and_change_no_batch(
    square: Backbone, tmp_path: Path, accelerator: torch.device
) -> None:
    steps = [(epoch, [place, 5 - place]) for epoch in range(2) for place in range(3)]
    here = training(tmp_path, square, "mvtec", mosaic_rate=0.5)
    there = training(tmp_path, square.to(accelerator), "mvtec", mosaic_rate=0.5)
    read, threads, third = there._read, [], Event()

    def watched(step: tuple[int, list[int]]) -> object:
        threads.append(current_thread())
        if step == steps[2]:
            third.set()
        return read(step)

    there._read = watched  # type: ignore[method-assign]
    for expected, batch in zip(here.batches(steps), there.batches(steps), strict=True):
        assert third.wait(10)  # it is read while the first one is worked on
        torch.testing.assert_close(
            batch[0].image_embedding.cpu(), expected[0].image_embedding, rtol=0, atol=1e-5
        )
        assert torch.equal(batch[2].cpu(), expected[2]) and batch[3] == expected[3]
    assert len(threads) == len(steps) and main_thread() not in threads


def test_only_mvtec_is_tiled_with_anomalous_images_of_the_same_category(
    square: Backbone, tmp_path: Path
) -> None:
    tiled = training(tmp_path, square, "mvtec", mosaic_rate=1.0)
    assert tiled._partners == {"a": [0, 2], "b": [4]}
    assert tiled.batch(0, [1])[2].any()  # a normal image became a mosaic of anomalous ones
    assert training(tmp_path, square, "visa", mosaic_rate=1.0)._partners == {}
