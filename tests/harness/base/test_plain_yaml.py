"""YAML as people write it by mistake, or to see what happens: one message, short, with the line."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from dvc.utils.serialize import parse_yaml as parse_as_dvc
from project import settings, write_settings

from clipad_core.errors import LONGEST_MESSAGE, ClipadError
from clipad_core.methods import find_method, rooms
from clipad_harness.base.files import parse_yaml, read_yaml, yaml_line
from clipad_harness.base.parameters import from_text
from clipad_harness.base.settings import (
    TOP_NAMES,
    find_root,
    read_cluster,
    read_essays,
    read_explorer,
    read_feature_disk,
    read_feature_memory,
    read_method,
    read_methods,
    read_pages,
    read_profile,
    read_synthetic,
    read_workers,
)
from clipad_harness.cli.main import main
from clipad_harness.data.cards import CARDS, read_card
from clipad_harness.experiments.translation import fit


def aliases(depth: int) -> str:
    """Nine times what stood before, again and again."""
    lines = ["a0: &a0 [x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, depth)]
    return "\n".join(lines)


REFUSED = {
    "a day that is none": ("a: 2020-02-30", "'2020-02-30', which YAML takes for !!timestamp"),
    "an hour that is none": ("a: 2020-01-01T25:00:00Z", "!!timestamp, is no value of this kind"),
    "a word as a number": ("a: !!int x", "'x', which YAML takes for !!int"),
    "nothing as a number": ("a: !!int ''", "'', which YAML takes for !!int"),
    "a word as a fraction": ("a: !!float x", "'x', which YAML takes for !!float"),
    "a word as a truth": ("a: !!bool x", "'x', which YAML takes for !!bool"),
    "a word as a date": ("a: !!timestamp x", "'x', which YAML takes for !!timestamp"),
    "bytes": ("a: !!binary aGk=", "is neither text, number, list nor names"),
    "a set": ("a: !!set {x}", "is neither text, number, list nor names"),
    "an object": ("a: !!python/object:os.system x", "could not determine a constructor"),
    "five thousand digits": (f"a: {'9' * 5000}", "999', which YAML takes for !!int"),
    "as many of base 16": (f"a: 0x{'f' * 5000}", "does not fit into 64 bits"),
    "four hundred digits": (f"a: 1{'0' * 400}", "does not fit into 64 bits"),
    "infinity": ("a: -.inf", "is no finite number"),
    "no number": ("a: .nan", "is no finite number"),
    "a fraction beyond all": ("a: 1.0e+999", "is no finite number"),
    "a truth as a name": ("no: x", "False is no name"),
    "nothing as a name": ("null: x", "None is no name"),
    "a date as a name": ("2020-01-01: x", "is no name"),
    "a list as a name": ("? [a]\n: b", "unhashable key"),
    "an alias as a name": ("a: &x no\nb: {? *x : 2}", "False is no name"),
    "a name twice": ("a: 1\nb: 2\na: 3", "line 3 (the name 'a' is there twice)"),
    "aliases of aliases": (aliases(12), "aliases stand for more than 10,000,000 characters"),
    "aliases of a long text": (
        f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 101)}]",
        "aliases stand for",
    ),
    "a list inside itself": ("a: &a [*a]", "the alias 'a' stands inside or before its anchor"),
    "an alias of nothing": ("a: *b", "the alias 'b' stands inside"),
    "brackets without end": (f"a: {'[' * 100_000}", "nested more than 50 deep"),
    "names without end": ("".join(f"{' ' * n}a:\n" for n in range(60)), "nested more than 50 deep"),
    "a merge of a text": ("<<: a", "expected a mapping"),
    "a control character": ("a: \x07", "control characters are not allowed"),
    "two documents": ("a: 1\n---\nb: 2", "another document"),
    "a text without its end": ("a: 'x", "unexpected end of stream"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_is_no_plain_data_is_one_short_message(fault: str) -> None:
    text, message = REFUSED[fault]
    with pytest.raises(ClipadError) as caught:
        parse_yaml(text, "some.yaml")
    error = str(caught.value)
    assert message in error and error.startswith("some.yaml: not valid YAML")
    assert len(error) < 300 and error.isprintable()


def test_plain_data_is_read_as_it_is(tmp_path: Path) -> None:
    text = "a: &a {b: [1, -2.5, no, null, text, '1']}\nc: {<<: *a, d: *a}\ne: {<<: *a, b: 2}"
    inner = {"b": [1, -2.5, False, None, "text", "1"]}
    assert parse_yaml(text, "") == {"a": inner, "c": {**inner, "d": inner}, "e": {"b": 2}}
    (tmp_path / "x.yaml").write_text("größe: 3", encoding="utf-8")
    assert read_yaml(tmp_path / "x.yaml") == {"größe": 3}
    (tmp_path / "x.yaml").write_text("größe: 3", encoding="latin-1")
    with pytest.raises(ClipadError, match="not in UTF-8"):
        read_yaml(tmp_path / "x.yaml")


@pytest.fixture
def params(tmp_path: Path) -> Path:
    write_settings(tmp_path, settings())
    return tmp_path / "params.yaml"


ODD = [
    *("2020-02-30", "!!int x", "9" * 5000, "1" + "0" * 400, "9223372036854775807", "-1", "yes"),
    *(".inf", "[[x]]", "{a: 1}", "{1: 2}", "2020-01-01", "x" * 100_000, f"[{'y, ' * 5000}]"),
]
PLACES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "workers": ("workers: {}", read_workers),
    "waiting": ("cluster: null\ncluster_wait: {}", read_cluster),
    "disk": ("feature_disk_gb: {}", read_feature_disk),
    "memory": ("feature_memory_mb: {}", read_feature_memory),
    "methods": ("methods: {}", read_methods),
    "essays": ("essays: {}", read_essays),
    "pages": ("methods: [winclip]\npages: {}", read_pages),
    "drawings": (
        "synthetic: {{seed: 1, image_size: {}, train_good: 2, test_good: 3, test_damaged: 4}}",
        read_synthetic,
    ),
    "explorer": (
        "explorer: {{images_per_category: 1, picture_size: 9, map_size: {}, max_megabytes: 9}}",
        read_explorer,
    ),
}


@pytest.mark.parametrize("value", ODD, ids=lambda value: value[:12])
@pytest.mark.parametrize("place", PLACES)
def test_an_odd_value_in_params_is_one_short_message(
    tmp_path: Path, place: str, value: str
) -> None:
    line, read = PLACES[place]
    (tmp_path / "params.yaml").write_text(line.format(value))
    with pytest.raises(ClipadError) as caught:
        read(tmp_path)
    assert str(caught.value).isprintable() and len(str(caught.value)) <= LONGEST_MESSAGE


@pytest.mark.parametrize("text", ["1:30", "-1:30", "1:30.5", f"1{':59' * 3000}"])
def test_numbers_to_the_base_60_are_texts_as_dvc_reads_them(tmp_path: Path, text: str) -> None:
    assert parse_yaml(f"a: {text}", "") == {"a": text}
    (tmp_path / "params.yaml").write_text(f"workers: {text}")
    with pytest.raises(ClipadError, match=f"workers: found '{text[:20]}.*, expected int"):
        read_workers(tmp_path)


def test_a_name_that_nobody_reads_is_refused_with_the_nearest(params: Path) -> None:
    text = params.read_text(encoding="utf-8")
    params.write_text(f"{text}\nworkes: 2\n", encoding="utf-8")
    with pytest.raises(ClipadError, match=r"found an unknown workes, .*; workers is the nearest"):
        read_profile(params.parent)


def test_the_settings_have_every_name_that_may_stand_at_the_top() -> None:
    assert {*settings()} - {*rooms()} == {*TOP_NAMES}


STANDING: dict[str, tuple[Callable[[Path], object], str]] = {
    "a folder": (lambda path: path.mkdir(), "a folder"),
    "a pipe": (os.mkfifo, "a pipe or a device"),
    "a dead link": (lambda path: path.symlink_to("nowhere"), "a link that leads nowhere"),
}


@pytest.mark.parametrize("standing", STANDING)
@pytest.mark.parametrize("read", [lambda path: find_root(path.parent), read_yaml])
def test_what_is_no_file_is_named_and_never_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, standing: str, read: Callable[[Path], object]
) -> None:
    monkeypatch.delenv("CLIPAD_ROOT", raising=False)
    make, words = STANDING[standing]
    make(tmp_path / "params.yaml")
    with pytest.raises(ClipadError, match=rf"params\.yaml: found {words}, expected a file"):
        read(tmp_path / "params.yaml")


def test_numbers_are_names_where_one_stands_for_another(params: Path) -> None:
    changes = read_profile(params.parent).weights["anomalyclip"].changes
    assert changes["image_size"] == {518: 96}
    assert parse_yaml("{0.5: 1, 3: {4: 2}}", "") == {0.5: 1, 3: {4: 2}}


def test_seeds_below_zero_are_refused(params: Path) -> None:
    for name in ("seeds", "ablation_seeds"):
        with pytest.raises(ClipadError, match=f"winclip.{name}: found .-1., expected whole"):
            read_method(params.parent, "winclip", {name: [-1]})


def test_a_field_that_a_profile_changes_and_no_config_has_is_named() -> None:
    config = find_method("winclip").preset("paper")
    for rule in (3, {3: 4}):
        with pytest.raises(ClipadError, match="an unknown sigmo"):
            fit(config, {"sigmo": rule})


def test_the_command_line_prints_one_line(params: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("CLIPAD_ROOT", str(params.parent))
    params.write_text(params.read_text() + aliases(12))
    assert main(["plan"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("clipad: ") and error.count("\n") == 1 and len(error) < 300


def test_cards_and_notebook_parameters_are_read_by_the_same_rules(tmp_path: Path) -> None:
    text = (CARDS / "mvtec.yaml").read_text().replace("title:", "null: 1\ntitle:", 1)
    (tmp_path / "mvtec.yaml").write_text(text)
    with pytest.raises(ClipadError, match=r"mvtec\.yaml: not valid YAML .*None is no name"):
        read_card("mvtec", tmp_path)
    with pytest.raises(
        ClipadError, match=r"parameters: seeds: found .\[2020-02-30\]., expected a list"
    ):
        from_text("seeds", "[2020-02-30]")


# Words that YAML 1.1, 1.2 or both take for something else, or that end before their end.
MISREAD = [
    *("01", "1e3", "1E3", "1.", ".5", "+1", "0x1f", "0o7", "1_000", "12:30", "2020-02-03"),
    *("null", "~", "yes", "No", "on", "y", "n", "=", "<<", "[x]", "{x}", "a,b", "!x", "&x", "*x"),
    *("%x", "@x", "`x", "-", "?", ":", "#", "|", ">", "'", '"', "a:", "a#b"),
]
SPACED = [
    "",
    " ",
    " a",
    "a ",
    "a: b",
    "a #b",
    "- a",
    "a\nb",
    "two words",
    "größer",
    "a\tb",
    "\u2028",
]


def test_a_line_that_is_offered_gives_the_same_texts_back_to_clipad_and_to_dvc() -> None:
    words = [*MISREAD, *SPACED, "hex_nut"]
    line = f"categories: {yaml_line(words)}"
    assert "\n" not in line and line.endswith(", hex_nut]")
    assert parse_yaml(line, "text") == {"categories": words}
    assert parse_as_dvc(line, "text") == {"categories": words}
    for word in words:
        assert parse_yaml(f"dataset: {yaml_line(word)}", "text") == {"dataset": word}


def test_what_is_done_to_values_stays_out_of_the_next_reading() -> None:
    text = "{names: [a, b], within: {deep: [1]}}"
    first = parse_yaml(text, "settings")
    first["names"].append("c")
    first["within"]["deep"][0] = 2
    assert parse_yaml(text, "settings") == {"names": ["a", "b"], "within": {"deep": [1]}}
