"""All results as one JSON file: out, by its schema, and back to the byte."""

import json
from collections.abc import Callable
from dataclasses import fields
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from made_up_results import CATEGORIES, make_measured, results, write_page, write_results
from project import REPOSITORY, change
from safetensors.numpy import save_file

from clipad_core.errors import ClipadError
from clipad_core.metrics import METRICS
from clipad_harness.base.settings import read_profile
from clipad_harness.experiments.pipeline import results_csv, results_path
from clipad_harness.report import results_file
from clipad_harness.report.results_file import (
    MethodResults,
    method_results,
    read_results_file,
    results_text,
)

SCHEMA = json.loads((REPOSITORY / "docs" / "results.schema.json").read_text(encoding="utf-8"))
CLASSES = ("MetricFacts", "MethodResults", "WeightsFacts", "Protocol", "ShardResult")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_measured(tmp_path_factory.mktemp("measured"))


def of(project: Path, name: str, profile: str = "demo") -> MethodResults:
    return method_results(project, name, read_profile(project, profile))


@pytest.fixture(scope="module")
def written(measured: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("written") / "all.json"
    methods = [of(measured, name) for name in ("winclip", "anomalyclip")]
    path.write_text(results_text(results_file.results_file(methods)), encoding="utf-8")
    return path


def test_the_file_gives_back_the_tables_of_results_csv_to_the_byte(
    measured: Path, written: Path
) -> None:
    methods = read_results_file(written).methods
    assert [method.name for method in methods] == ["winclip", "anomalyclip"]
    for method in methods:
        expected = results_path(measured, method.name).read_bytes()
        assert results_csv(method.table()).encode() == expected
        assert method.results_sha256 == sha256(expected).hexdigest()


def test_what_is_undefined_and_categories_called_by_numbers_come_back_as_they_were(
    tmp_path: Path,
) -> None:
    project = make_measured(tmp_path)
    table = results("anomalyclip", "demo", "synthetic_target")
    numbered = dict(zip(CATEGORIES["synthetic_target"], ("01", "02"), strict=True))
    table["category"] = table["category"].map(numbered)
    table.loc[table["metric"] == "aupro", "value"] = np.nan
    text = write_results(project, "anomalyclip", table=table).read_text()
    method = of(project, "anomalyclip")
    assert {shard.category for shard in method.shards} == {"01", "02"}
    assert {shard.metrics["aupro"] for shard in method.shards} == {None}
    path = tmp_path / "one.json"
    path.write_text(results_text(results_file.results_file([method])))
    [back] = read_results_file(path).methods
    assert results_csv(back.table()) == text


def test_the_file_is_valid_by_its_schema(written: Path) -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert list(Draft202012Validator(SCHEMA).iter_errors(json.loads(written.read_text()))) == []


def test_the_schema_names_the_fields_of_the_classes_and_the_metrics() -> None:
    schemas = {name: SCHEMA["$defs"][name] for name in CLASSES} | {"ResultsFile": SCHEMA}
    for name, schema in schemas.items():
        own = [field.name for field in fields(getattr(results_file, name))]
        assert list(schema["properties"]) == own == schema["required"], name
        assert schema["additionalProperties"] is False
    names = SCHEMA["$defs"]["ShardResult"]["properties"]["metrics"]["propertyNames"]["enum"]
    assert names == list(METRICS)
    assert results_file.SCHEMA_VERSION.startswith("1.")


def shard(record: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = record["methods"][0]["shards"][0]
    return found


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda r: r.update(more=1), "an unknown more"),
        (lambda r: r.pop("metrics"), "no metrics"),
        (lambda r: r["methods"][0]["weights"].update(kind="mine"), "weights.kind: found 'mine'"),
        (lambda r: r["methods"][0]["protocol"].pop("preset"), "protocol: found no preset"),
        (lambda r: r["methods"][0]["protocol"].update(seeds="0"), "protocol.seeds: found '0'"),
        (lambda r: shard(r).update(k_shot="0"), "shards[0].k_shot: found '0', expected int"),
        (lambda r: shard(r)["metrics"].update(aupro=1.5), "aupro: found 1.5, expected a value"),
        (lambda r: shard(r)["metrics"].update(iou=0.5), "metrics: found 'iou'"),
        (lambda r: r.update(schema_version="2.0"), "schema_version '2.0', expected 1."),
        (lambda r: r.update(schema_version=1), "schema_version 1, expected"),
    ],
)
def test_what_the_schema_refuses_the_reader_refuses_with_its_place(
    written: Path, tmp_path: Path, spoil: Callable[[dict[str, Any]], object], told: str
) -> None:
    record = json.loads(written.read_text())
    spoil(record)
    assert not Draft202012Validator(SCHEMA).is_valid(record)
    path = tmp_path / "spoilt.json"
    path.write_text(json.dumps(record))
    with pytest.raises(ClipadError) as error:
        read_results_file(path)
    assert told in str(error.value) and str(path) in str(error.value)


def test_a_number_that_somebody_changed_is_noticed(written: Path, tmp_path: Path) -> None:
    record = json.loads(written.read_text())
    shard(record)["metrics"]["image_auroc"] += 0.000001
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(record))
    with pytest.raises(ClipadError, match="the file was changed"):
        read_results_file(path)


@pytest.mark.parametrize("text", ["", "[1]", "{", "\x00", "[" * 100_000])
def test_what_is_no_such_file_is_one_message(tmp_path: Path, text: str) -> None:
    path = tmp_path / "no.json"
    path.write_text(text)
    with pytest.raises(ClipadError, match=r"no\.json: found"):
        read_results_file(path)
    with pytest.raises(ClipadError, match=r"none\.json: found no readable JSON"):
        read_results_file(tmp_path / "none.json")
    with pytest.raises(ClipadError, match="found a folder"):
        read_results_file(tmp_path)


def test_results_of_another_profile_are_refused_and_those_of_the_papers_profile_written(
    tmp_path: Path,
) -> None:
    project = make_measured(tmp_path)
    with pytest.raises(ClipadError, match="its dataset is synthetic_target, expected mvtec"):
        of(project, "winclip", "paper")
    write_results(project, "winclip", "paper", "mvtec")
    method = of(project, "winclip", "paper")
    assert (method.profile, method.dataset) == ("paper", "mvtec")
    assert method.weights.kind == "published" and method.weights.sha256 == ""
    change(project, "profiles", "paper", "winclip", "backbone", value="ViT-B-32")
    with pytest.raises(ClipadError, match="backbone is ViT-B-16-plus-240, expected ViT-B-32"):
        of(project, "winclip", "paper")


@pytest.mark.parametrize(
    ("weights", "kind"),
    [
        ("data/weights/stand-in.safetensors", "stand-in"),
        ("mine.safetensors", "file"),
        ("mine.pt", "file"),
        ("gone.pt", "unknown"),
        ("random:0", "random"),
        ("laion400m_e31", "published"),
    ],
)
def test_the_kind_of_weights_is_known_without_loading_them(
    tmp_path: Path, weights: str, kind: str
) -> None:
    project = make_measured(tmp_path)
    save_file({"a": np.zeros(1)}, project / "mine.safetensors")
    (project / "mine.pt").write_bytes(b"not read")
    change(project, "profiles", "demo", "winclip", "weights", value=weights)
    assert of(project, "winclip").weights.kind == kind


def test_what_the_methods_page_says_goes_along_where_it_is_of_the_same_run(tmp_path: Path) -> None:
    project = make_measured(tmp_path)
    assert of(project, "winclip").reason.startswith("no page of this run")
    path = write_page(project, "winclip")
    method = of(project, "winclip")
    assert method.weights.sha256 == "ab" * 32 and "stand-in weights" in method.reason
    path.write_text(path.read_text().replace("stand-in.safetensors", "other.safetensors"))
    assert of(project, "winclip").weights.sha256 == ""
