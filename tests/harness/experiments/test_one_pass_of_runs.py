"""Test images pass a tower once for all variants and methods of a run whose towers agree."""

from dataclasses import asdict
from pathlib import Path

import pytest
from project import change, make_project

from clipad_core.errors import ClipadError
from clipad_core.methods.winclip.windows import WindowRecipe
from clipad_harness.base.weights import shared_backbone
from clipad_harness.data.stages import write_index
from clipad_harness.experiments import features
from clipad_harness.experiments.features import Encodings, FeatureStore
from clipad_harness.experiments.pipeline import Run, open_run, siblings_of
from clipad_harness.standin.datasets import draw

CATEGORY = "hex_nut"
METHODS = ["winclip", "anomalyclip", "vcpclip", "aprilgan", "clip", "coop"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_project(tmp_path_factory.mktemp("drawn"))
    change(root, "methods", value=METHODS)
    for dataset in ("synthetic_target", "synthetic_auxiliary"):
        draw(root, dataset)
    write_index(root)
    return root


def stores_of(run: Run) -> dict[str, FeatureStore]:
    """Where what a run reads of the test images of the category is, by the first image's key."""
    encodings, paths = run.encodings(), run.tested.paths(CATEGORY, "test")
    read = [asked for asked in encodings.asked[paths[0]] if not asked.trained]
    pairs = [(a.config, encodings.shared(a.config, a.recipe, paths)) for a in read]
    stores = [encodings.store(config, recipe) for config, recipe in pairs]
    return {store.key(paths[0]): store for store in stores}


def encode_main(run: Run, siblings: list[Encodings]) -> None:
    """Encode the test images of the category for the main variant of a run."""
    encodings, config = run.encodings(siblings), run.variants[0].config
    recipe = run.method.recipe(config, 0)
    encodings.images(config, recipe, run.tested.paths(CATEGORY, "test"), CATEGORY)


def move(root: Path, folder: Path) -> Path:
    return (root / ".cache" / "features").rename(folder)


def test_what_one_method_encodes_serves_all_whose_towers_agree(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = {name: open_run(drawn, name) for name in ("anomalyclip", "clip", "coop", "winclip")}
    paths = runs["clip"].tested.paths(CATEGORY, "test")
    for name in ("clip", "coop"):
        encode_main(runs[name], [])
    alone = move(drawn, tmp_path / "alone")

    passes = []
    together, one = features.encode_views_together, features.encode_views
    monkeypatch.setattr(
        features,
        "encode_views_together",
        lambda b, v, r: passes.append(len(r)) or together(b, v, r),
    )
    monkeypatch.setattr(
        features, "encode_views", lambda e, b, v, r: passes.append(1) or one(e, b, v, r)
    )
    encode_main(runs["anomalyclip"], siblings_of(runs["anomalyclip"]))
    assert len(passes) == len(paths)
    assert min(passes) > 2
    for name in ("anomalyclip", "clip", "coop"):
        stores = stores_of(runs[name])
        assert len(stores) > (2 if name == "anomalyclip" else 0)
        assert not any(store.lacks(paths) for store in stores.values()), name
    # WinCLIP's windows are not read of the pass.
    assert all(store.lacks(paths) for store in stores_of(runs["winclip"]).values())

    written = {file.name: file.read_bytes() for file in alone.rglob("*.safetensors")}
    assert len(written) >= len(paths)
    for file in (drawn / ".cache" / "features").rglob("*.safetensors"):
        assert file.read_bytes() == written.get(file.name, file.read_bytes())
    assert set(written) <= {f.name for f in (drawn / ".cache" / "features").rglob("*.safetensors")}
    move(drawn, tmp_path / "together")


def test_an_image_passes_once_whatever_its_windows_attend_to(drawn: Path, tmp_path: Path) -> None:
    before = (drawn / "params.yaml").read_text(encoding="utf-8")
    attentions = ["disjoint", "plain", "shifted", "neighbourhood", "global"]
    rows = {attention: {"window_attention": attention} for attention in attentions}
    change(drawn, "winclip", "ablations", value={"attention": {"k_shots": [0], "rows": rows}})
    run = open_run(drawn, "winclip")
    paths = run.tested.paths(CATEGORY, "test")
    encode_main(run, [])
    recipes = [store.recipe for store in stores_of(run).values() if not store.lacks(paths)]
    assert all(isinstance(recipe, WindowRecipe) and recipe.scales for recipe in recipes)
    assert {asdict(recipe)["window_attention"] for recipe in recipes} == {"alone", *attentions}
    (drawn / "params.yaml").write_text(before, encoding="utf-8")
    move(drawn, tmp_path / "windows")


def test_nothing_is_encoded_for_what_is_not_tested_on_these_images(
    drawn: Path, tmp_path: Path
) -> None:
    run = open_run(drawn, "anomalyclip")
    encodings = run.encodings(siblings_of(run))
    paths = run.tested.paths(CATEGORY, "train")
    config = run.variants[0].config
    images = encodings.images(config, run.method.recipe(config, 0), paths, CATEGORY)
    assert not any(images.store.beside(path) for path in paths)
    assert len([*(drawn / ".cache" / "features").rglob("*.safetensors")]) == len(paths)
    move(drawn, tmp_path / "train")


@pytest.mark.parametrize("disk", [10**9, 0])
def test_what_is_trained_on_is_encoded_once_for_all_as_far_as_the_disk_is_given(
    drawn: Path, tmp_path: Path, disk: int
) -> None:
    run = open_run(drawn, "coop")
    sibling = open_run(drawn, "anomalyclip").encodings()
    sibling.disk, encodings = disk, run.encodings([sibling])
    dataset = run.datasets["synthetic_auxiliary"]
    paths = [path for name in dataset.categories for path in dataset.paths(name, "test")]
    config = run.variants[0].config
    encodings.images(config, run.method.training_recipe(config), paths, "trained on")

    trained = [asked for asked in sibling.asked[paths[0]] if asked.trained]
    assert len({asked.recipe for asked in trained}) > 2
    for asked in trained:
        store = sibling.store(asked.config, sibling.shared(asked.config, asked.recipe, paths))
        assert store.lacks(paths[: asked.trained]) is (disk == 0)
    move(drawn, tmp_path / f"trained {disk}")


def test_an_image_that_is_new_in_every_epoch_is_encoded_for_nobody(drawn: Path) -> None:
    run = open_run(drawn, "vcpclip")
    assert run.method.training is not None
    augment, reads = run.method.training.augmentation, run.encodings().asked
    dataset = run.datasets["synthetic_auxiliary"]
    trained = [
        asked
        for name in dataset.categories
        for asked in reads.get(dataset.paths(name, "test")[0], ())
        if asked.trained
    ]
    assert trained
    assert all(augment(asked.config) is None for asked in trained)
    assert augment(run.variants[0].config) is not None


def test_a_sibling_of_other_weights_or_precision_is_neither_loaded_nor_encoded(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (drawn / "params.yaml").read_text(encoding="utf-8")
    change(drawn, "profiles", "demo", "clip", "changes", "precision", value="bfloat16")
    run = open_run(drawn, "anomalyclip")
    siblings = siblings_of(run)
    asked = []

    def loaded(weights, precision, device):
        asked.append(precision)
        return shared_backbone(weights, precision, device)

    monkeypatch.setattr(features, "shared_backbone", loaded)
    encode_main(run, siblings)
    assert "bfloat16" not in asked
    monkeypatch.undo()
    paths = run.tested.paths(CATEGORY, "test")
    stores = stores_of(open_run(drawn, "clip"))
    assert all(store.lacks(paths) for store in stores.values())
    (drawn / "params.yaml").write_text(before, encoding="utf-8")
    move(drawn, tmp_path / "other")


def test_a_sibling_that_cannot_be_run_stops_nobody(drawn: Path) -> None:
    before = (drawn / "params.yaml").read_text(encoding="utf-8")
    everybody = {sibling.name for sibling in siblings_of(open_run(drawn, "anomalyclip"))}
    assert "clip" in everybody
    change(drawn, "clip", "preset", value="nobody's")
    with pytest.raises(ClipadError):
        open_run(drawn, "clip")
    left = {sibling.name for sibling in siblings_of(open_run(drawn, "anomalyclip"))}
    assert left == everybody - {"clip"}
    (drawn / "params.yaml").write_text(before, encoding="utf-8")
