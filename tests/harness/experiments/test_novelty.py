"""Other fields' tasks: which images they are made of, and every score written out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from project import draw_all, make_project

from clipad_core.clip.features import encode_all
from clipad_core.clip.joint import JointRecipe
from clipad_core.clip.one_pass import encode
from clipad_core.clip.text import encode_prompts
from clipad_core.methods.method import Detector
from clipad_harness.data.dataset_images import DatasetImages
from clipad_harness.data.images import read_image
from clipad_harness.experiments import novelty
from clipad_harness.experiments.novelty import (
    Extent,
    Task,
    measure_novelty,
    one_class,
    open_set,
    out_of_distribution,
    photographs,
)
from clipad_harness.experiments.pipeline import open_run
from clipad_harness.report.side_by_side import LEAST_IMAGES


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_project(tmp_path_factory.mktemp("novelty"))
    draw_all(root)
    return root


def dataset(*categories: str) -> DatasetImages:
    rows = [
        {
            "category": category,
            "split": split,
            "label": label,
            "image": f"{category}/{split}{label}{i}",
        }
        for category in categories
        for split, label in (("train", 0), ("test", 0), ("test", 1))
        for i in range(4)
    ]
    return DatasetImages(pd.DataFrame(rows), Path("data"))


def names(pictures: list) -> list[str]:
    return [picture.as_posix().removeprefix("data/") for picture in pictures]


def test_known_and_unknown_images_are_normal_test_images_and_no_others() -> None:
    seen, unseen, extent = dataset("a", "b"), dataset("c", "d", "e"), Extent(2, 2)
    task = open_set(seen, unseen, extent)
    assert task.known == ("a", "b")
    assert names(task.inside) == ["a/test00", "a/test02", "b/test00", "b/test02"]
    assert names(task.outside) == ["c/test00", "c/test02", "d/test00", "d/test02"]
    first, second = one_class(unseen, extent)
    assert (first.known, second.known) == (("c",), ("d",))
    assert names(first.inside) == ["c/test00", "c/test02"]
    assert [name[0] for name in names(first.outside)] == ["d", "d", "e", "e"]
    assert [name[0] for name in names(second.outside)] == ["c", "c", "e", "e"]
    other = out_of_distribution(unseen, [Path("photo")])
    assert other.known == ("c", "d", "e") and len(other.inside) == 12
    assert other.outside == [Path("photo")]


def test_photographs_are_different_pictures_in_colour_or_in_three_equal_channels() -> None:
    images = photographs()
    assert all(one.dtype == np.uint8 and one.shape[2:] == (3,) for one in images)
    assert len({one.tobytes() for one in images}) == len(images) >= LEAST_IMAGES
    grey = [bool((one == one[:, :, :1]).all()) for one in images]
    assert any(grey) and not all(grey)
    assert min(np.ptp(one) for one in images) > 100


def test_where_no_dataset_is_named_photographs_are_out_of_distribution(project: Path) -> None:
    others = novelty.other_images(open_run(project, "winclip"), "")
    assert [one.shape for one in others] == [one.shape for one in photographs()]


def test_every_score_is_that_of_its_definition(project: Path) -> None:
    run = open_run(project, "winclip")
    scorer, room, config = run.scorer(), run.method, run.variants[0].config
    known = ("metal_plate", "stone_wall")  # words that the stand-in has read
    made = [np.random.default_rng(0).integers(256, size=(40, 40, 3), dtype=np.uint8)]
    files = novelty.normal_images(run.tested, run.categories, Extent(images=1))
    [found] = measure_novelty([scorer], [Task("task", known, files, made)])["WinCLIP"]
    pixels = [*(np.asarray(read_image(path)) for path in files), *made]
    loaded = scorer.encodings.loaded(config)
    detectors = [Detector(room, loaded, config, name) for name in known]
    expected = torch.stack([detector(pixels).image_score for detector in detectors]).amin(dim=0)
    assert found.scores["image score"] == pytest.approx(expected.numpy(), abs=1e-6)
    prepared = detectors[0].backbone
    features = encode_all(room.encode, prepared, pixels, room.recipe(config, 0)).image_embedding
    prompts = [room.normal_prompt(detector.knowledge) for detector in detectors]
    cosines = [[F.cosine_similarity(f, p, dim=0) for p in prompts] for f in features]
    nearest = np.array([1 - max(map(float, row)) for row in cosines])
    assert found.scores["distance to the normal prompt"] == pytest.approx(nearest, abs=1e-6)
    plain = encode_all(encode, loaded, pixels, JointRecipe(class_alone=True)).image_embedding
    words = [f"a photo of a {name.replace('_', ' ')}" for name in known]
    text = F.normalize(encode_prompts(loaded.text, loaded.tokenizer, words), dim=-1)
    similar = (plain @ text.T).numpy()
    assert found.scores["maximum similarity"] == pytest.approx(1 - similar.max(axis=1), abs=1e-6)
    assert similar.argmin(axis=1).any() and not np.allclose(similar[:, 0], similar[:, 1])
    shares = np.exp(similar) / np.exp(similar).sum(axis=1, keepdims=True)
    assert found.scores["maximum concept matching"] == pytest.approx(
        1 - shares.max(axis=1), abs=1e-6
    )
    assert found.labels.tolist() == [0] * len(files) + [1]


def test_one_known_category_has_no_softmax_and_a_method_of_own_prompts_no_normal_one(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_run(project, "winclip")
    files = novelty.normal_images(run.tested, run.categories[:1], Extent(images=1))
    without = replace(run.method, normal_prompt=None)
    monkeypatch.setattr(novelty, "find_method", lambda _name: without)
    task = Task("t", (run.categories[0],), files, [])
    [found] = measure_novelty([run.scorer()], [task])["WinCLIP"]
    assert set(found.scores) == {"image score", "maximum similarity"}
