"""The procedural pictures: exact masks, fixed bytes, disjoint categories, honest difficulty."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipad_core.errors import ClipadError
from clipad_harness.data.contact_sheet import contact_sheet
from clipad_harness.standin import datasets
from clipad_harness.standin.datasets import DATASETS, content_hash, draw_dataset
from clipad_harness.standin.drawing import (
    AUXILIARY,
    PRETRAINING,
    PRETRAINING_DEFECTS,
    TARGET,
    TARGET_ONLY_DEFECTS,
    Pair,
    defects_of,
    draw_pair,
    draw_sound,
    is_texture,
)

SIZE = 64
SMALL = {"seed": 3, "image_size": SIZE, "train_good": 1, "test_good": 1, "test_damaged": 2}


@pytest.fixture(scope="module")
def pairs() -> dict[str, list[Pair]]:
    """Every defect of every category of the two datasets, and three pairs of every other."""
    drawn = {
        c: [draw_pair(c, 7 + n, SIZE, d) for n, d in enumerate(defects_of(c))]
        for c in AUXILIARY + TARGET
    }
    return drawn | {c: [draw_pair(c, s, SIZE) for s in range(3)] for c in PRETRAINING}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("synthetic")
    for name in DATASETS:
        draw_dataset(root, name, progress=False, **SMALL)
    return root


def test_the_same_seed_gives_the_same_pixels():
    for category in PRETRAINING[::9] + AUXILIARY[::3] + TARGET[::3]:
        first, again = draw_pair(category, 11, SIZE), draw_pair(category, 11, SIZE)
        assert first.defect == again.defect
        for a, b in ((first.sound, again.sound), (first.damaged, again.damaged)):
            np.testing.assert_array_equal(a, b)


def test_another_seed_gives_another_picture():
    for category in PRETRAINING + AUXILIARY + TARGET:
        first, second = draw_sound(category, 1, SIZE), draw_sound(category, 2, SIZE)
        assert np.abs(first.astype(int) - second).mean() > 3, category


def test_a_lone_sound_image_is_the_sound_half_of_the_pair(pairs):
    for category, several in pairs.items():
        seed = 7 if category in AUXILIARY + TARGET else 0
        np.testing.assert_array_equal(draw_sound(category, seed, SIZE), several[0].sound)


def test_sound_and_damaged_are_equal_outside_the_mask_and_differ_inside(pairs):
    shares = []
    for category, several in pairs.items():
        for pair in several:
            changed = (pair.sound != pair.damaged).any(-1)
            assert not (changed & ~pair.mask).any(), (category, pair.defect)
            # Gaps of a pixel between touched pixels belong to the defect.
            assert changed[pair.mask].mean() > 0.75, (category, pair.defect)
            shares.append(changed[pair.mask].mean())
    assert np.mean(shares) > 0.97


def test_every_defect_is_large_and_strong_enough_to_be_found(pairs):
    for category, several in pairs.items():
        for pair in several:
            change = np.abs(pair.sound.astype(int) - pair.damaged).max(-1)[pair.mask]
            assert pair.mask.sum() >= 4, (category, pair.defect)
            assert change.mean() > 10, (category, pair.defect)


def test_the_areas_of_defects_reach_from_below_one_to_above_five_per_cent(pairs):
    areas = np.array([p.mask.mean() for c in TARGET for p in pairs[c]])
    assert (areas < 0.01).mean() > 0.08
    assert (areas > 0.05).mean() > 0.08


def test_the_three_lists_share_no_category():
    names = PRETRAINING + AUXILIARY + TARGET
    assert len(set(names)) == len(names)


def test_the_target_is_drawn_by_builders_that_nothing_else_uses():
    from clipad_harness.standin.drawing.catalogue import CATALOGUE

    def builders(names: tuple[str, ...]) -> set[object]:
        return {CATALOGUE[name].build for name in names}

    assert not builders(TARGET) & builders(PRETRAINING + AUXILIARY)


@pytest.mark.parametrize("names", [AUXILIARY, TARGET])
def test_a_dataset_has_six_objects_and_six_textures(names):
    textures = sum(is_texture(name) for name in names)
    assert textures >= 6
    assert len(names) - textures >= 6


def test_two_defects_are_shown_by_the_target_alone():
    assert len(TARGET_ONLY_DEFECTS) >= 2
    elsewhere = {d for c in PRETRAINING + AUXILIARY for d in defects_of(c)}
    assert elsewhere == set(PRETRAINING_DEFECTS)
    assert not elsewhere & set(TARGET_ONLY_DEFECTS)
    target = {d for c in TARGET for d in defects_of(c)}
    assert set(TARGET_ONLY_DEFECTS) <= target
    assert len(target) >= 8


def test_pretraining_pairs_never_show_a_target_only_defect(pairs):
    defects = {p.defect.replace(" ", "_") for c in PRETRAINING for p in pairs[c]}
    assert len(defects) >= 8
    assert not defects & set(TARGET_ONLY_DEFECTS)


@pytest.mark.parametrize(
    ("category", "defect", "word"),
    [("teapot", None, "teapot"), (PRETRAINING[0], "tear", "tear"), (TARGET[0], "rust", "rust")],
)
def test_an_unknown_category_or_defect_is_refused_by_name(category, defect, word):
    with pytest.raises(ClipadError, match=f"found '{word}', expected one of"):
        draw_pair(category, 0, SIZE, defect)


def test_a_part_defect_is_refused_for_a_thing_without_parts():
    for seed in range(40):
        try:
            draw_pair("face_plate", seed, SIZE, "missing_part")
        except ClipadError as error:
            assert "missing_part" in str(error)
            return
    pytest.fail("forty face plates had screws")


@pytest.mark.parametrize("name", list(DATASETS))
def test_the_layout_is_that_of_mvtec_with_the_wanted_counts(drawn, name):
    for category in DATASETS[name]:
        folder = drawn / name / category
        assert len(list((folder / "train" / "good").iterdir())) == SMALL["train_good"]
        assert len(list((folder / "test" / "good").iterdir())) == SMALL["test_good"]
        damaged = [p for p in (folder / "test").rglob("*.png") if p.parent.name != "good"]
        assert len(damaged) == SMALL["test_damaged"]
        for path in damaged:
            mask = folder / "ground_truth" / path.parent.name / f"{path.stem}_mask.png"
            with Image.open(mask) as opened, Image.open(path) as image:
                assert (opened.mode, opened.size) == ("L", (SIZE, SIZE))
                assert (image.mode, image.size) == ("RGB", (SIZE, SIZE))
                assert set(np.unique(np.asarray(opened))) == {0, 255}


def test_damaged_images_are_spread_evenly_over_the_defects():
    parameters = datasets.Parameters("synthetic_target", 0, SIZE, 1, 1, 25, "")
    for category in TARGET:
        shots = [s for s in datasets.plan(parameters) if s.category == category]
        counts = [sum(s.defect == d for s in shots) for d in defects_of(category)]
        assert sum(counts) == 25
        assert max(counts) - min(counts) <= 1


def test_a_dataset_of_the_same_parameters_has_the_same_bytes(drawn, tmp_path):
    again = draw_dataset(tmp_path, "synthetic_target", progress=False, **SMALL)
    first = drawn / "synthetic_target"
    assert content_hash(again) == content_hash(first)
    assert (again / "manifest.json").read_bytes() == (first / "manifest.json").read_bytes()


def test_a_dataset_of_another_seed_has_other_bytes(drawn, tmp_path):
    reseeded = draw_dataset(tmp_path, "synthetic_target", progress=False, **{**SMALL, "seed": 4})
    assert content_hash(reseeded) != content_hash(drawn / "synthetic_target")


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The categories drawn since; the first run is interrupted at its twenty-first image."""
    calls: list[str] = []

    def watch(name: str) -> None:
        original = getattr(datasets, name)

        def wrapped(category: str, *arguments: object) -> object:
            if len(calls) == 20 and "interrupt" not in calls:
                calls.append("interrupt")
                raise KeyboardInterrupt
            calls.append(category)
            return original(category, *arguments)

        monkeypatch.setattr(datasets, name, wrapped)

    watch("draw_pair")
    watch("draw_sound")
    return calls


def test_an_interrupted_drawing_resumes_without_drawing_twice(drawn, tmp_path, counted):
    with pytest.raises(KeyboardInterrupt):
        draw_dataset(tmp_path, "synthetic_target", progress=False, **SMALL)
    assert not (tmp_path / "synthetic_target" / "manifest.json").exists()
    folder = draw_dataset(tmp_path, "synthetic_target", progress=False, **SMALL)
    per_category = SMALL["train_good"] + SMALL["test_good"] + SMALL["test_damaged"]
    assert len(counted) - 1 == per_category * len(TARGET)
    assert content_hash(folder) == content_hash(drawn / "synthetic_target")
    assert not list(folder.glob("unfinished*"))
    assert draw_dataset(tmp_path, "synthetic_target", progress=False, **SMALL) == folder
    assert len(counted) - 1 == per_category * len(TARGET)  # a finished one is left alone


def test_changed_parameters_and_changed_files_are_drawn_anew(drawn, tmp_path):
    small = {**SMALL, "train_good": 2}
    folder = draw_dataset(tmp_path, "synthetic_target", progress=False, **small)
    draw_dataset(tmp_path, "synthetic_target", progress=False, **SMALL)
    assert content_hash(folder) == content_hash(drawn / "synthetic_target")
    image = folder / TARGET[0] / "train" / "good" / "000.png"
    image.write_bytes((folder / TARGET[1] / "train" / "good" / "000.png").read_bytes())
    draw_dataset(tmp_path, "synthetic_target", progress=False, **SMALL)
    assert content_hash(folder) == content_hash(drawn / "synthetic_target")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["content_hash"] == content_hash(folder)


def test_a_folder_of_somebody_else_is_never_emptied(tmp_path):
    notes = tmp_path / "synthetic_target" / "notes.txt"
    notes.parent.mkdir()
    notes.write_text("keep me")
    with pytest.raises(ClipadError, match="neither manifest.json"):
        draw_dataset(tmp_path, "synthetic_target", progress=False, **SMALL)
    assert notes.read_text() == "keep me"


@pytest.mark.parametrize(
    ("change", "message"),
    [({"image_size": 8}, "image_size: found 8"), ({"test_damaged": 0}, "test_damaged: found 0")],
)
def test_numbers_out_of_range_are_refused(tmp_path, change, message):
    with pytest.raises(ClipadError, match=message):
        draw_dataset(tmp_path, "synthetic_target", progress=False, **{**SMALL, **change})
    assert not list(tmp_path.iterdir())


def test_an_unknown_dataset_is_refused(tmp_path):
    with pytest.raises(ClipadError, match="synthetic_targets.*expected one of"):
        draw_dataset(tmp_path, "synthetic_targets", progress=False, **SMALL)


def test_the_distance_to_the_mean_training_image_does_not_solve_the_target():
    def auroc(good: np.ndarray, bad: np.ndarray) -> float:
        return float(((bad[:, None] > good) + 0.5 * (bad[:, None] == good)).mean())

    scores = []
    for category in TARGET:
        train = np.stack([draw_sound(category, s, SIZE) for s in range(16)]).astype(float)
        good = np.stack([draw_sound(category, 100 + s, SIZE) for s in range(16)])
        bad = np.stack([draw_pair(category, 200 + s, SIZE).damaged for s in range(16)])
        distances = [((x - train.mean(0)) ** 2).mean((1, 2, 3)) for x in (good, bad)]
        scores.append(auroc(*distances))
    assert np.mean(scores) < 0.7
    assert max(scores) < 0.9


def test_the_contact_sheet_shows_a_row_for_every_category(drawn):
    sheet = contact_sheet(drawn, "synthetic_target", columns=4)
    assert sheet.height >= len(TARGET) * 128
    pixels = np.asarray(sheet)
    rows = np.array_split(pixels, len(TARGET))
    outline = [(row == (255, 0, 170)).all(-1).sum() for row in rows]
    assert min(outline) > 20  # every row holds an outlined defect


def test_the_contact_sheet_of_nothing_is_refused(tmp_path):
    with pytest.raises(ClipadError, match="train/good"):
        contact_sheet(tmp_path, "synthetic_target")
