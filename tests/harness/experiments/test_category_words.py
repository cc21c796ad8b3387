"""Words of a category from the dataset's card and its other categories: into prompts, keys and tables."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from project import variants_of

from clipad_core.methods import find_method
from clipad_harness.data.dataset_images import DatasetImages
from clipad_harness.experiments.scorer import Scorer
from clipad_harness.experiments.variants import Shard
from clipad_harness.report.dataset_tables import words_table

INDEX = pd.DataFrame(
    [("nut", "test", "burn"), ("nut", "test", "good"), ("wool", "test", "dye_stain")],
    columns=["category", "split", "defect"],
)


def key_of(
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    changes: dict[str, Any],
    index: pd.DataFrame = INDEX,
    **phrases: tuple[str, ...],
) -> str:
    """The key of the main variant's shard of `nut`, whose files and weights stay the same."""
    monkeypatch.setattr(DatasetImages, "content", lambda *_: "the same files")
    variants = variants_of(method, changes=changes, ablations={}, questions={}, walks=[])
    backbone = SimpleNamespace(key="the same weights")
    encodings = SimpleNamespace(backbone=lambda config: backbone)
    datasets = {"synthetic_target": DatasetImages(index, Path(), phrases)}
    profile = SimpleNamespace(dataset="synthetic_target")
    scorer = Scorer(method, profile, datasets, encodings, None, variants)  # type: ignore[arg-type]
    return scorer.key(Shard(variants[0], "nut", 0, 0))


def test_a_shard_is_made_again_when_words_that_it_reads_change_and_by_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    further = pd.concat(
        [pd.DataFrame([("wool", "test", "tear")], columns=INDEX.columns), INDEX[::-1]]
    )
    for method, named in (
        ("winclip", lambda kind: {"extra_anomalous_states": kind}),
        ("anomalyclip", lambda kind: {"anomalous_state": f"{{{kind}}}", "epochs": 0}),
    ):
        plain = key_of(monkeypatch, method, {}, nut=("rust",))
        assert plain == key_of(monkeypatch, method, {}, nut=("thread",), wool=("hole",))
        own = key_of(monkeypatch, method, named("phrases"), nut=("rust",))
        assert own != key_of(monkeypatch, method, named("phrases"), nut=("thread",))
        assert own == key_of(monkeypatch, method, named("phrases"), nut=("rust",), wool=("x",))
        other = key_of(monkeypatch, method, named("other_phrases"), wool=("hole",))
        assert other != key_of(monkeypatch, method, named("other_phrases"), wool=("moth",))
        foreign = key_of(monkeypatch, method, named("other_defects"))
        assert foreign != key_of(monkeypatch, method, named("other_defects"), further)


def test_the_words_that_prompts_find_are_a_table_with_dashes() -> None:
    images = DatasetImages(INDEX, Path(), {"nut": ("worn thread", "rust")})
    page = words_table(images, ["nut", "wool"])
    cells = [part.partition(">")[2].partition("<")[0] for part in page.split("<td")[1:]]
    assert cells == [
        *("burn", "dye stain", "rust, worn thread", "–"),
        *("dye stain", "burn", "–", "rust, worn thread"),
    ]


def test_a_method_that_names_no_words_asks_for_none() -> None:
    for name in ("vcpclip", "aprilgan", "clip", "coop"):
        method = find_method(name)
        assert method.category_words(method.config()) == ()
