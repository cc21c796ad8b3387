"""The cards of the papers: what they name exists, and a faulty one is refused with file and field."""

import re
from pathlib import Path

import pandas as pd
import pytest
from project import tracked_params

from clipad_core.config import choices
from clipad_core.errors import ClipadError
from clipad_core.methods import find_method, rooms
from clipad_harness.base.settings import MethodSettings
from clipad_harness.experiments.switch_steps import own_steps, walk_group
from clipad_harness.experiments.variants import question_group
from clipad_harness.papers.card import (
    CARD,
    PAPERS,
    AblationFacts,
    find_paper,
    paper_names,
    read_paper,
)
from clipad_harness.papers.numbers import load_reported

PRINTED = load_reported()
every_paper = pytest.mark.parametrize("method", paper_names())


def measured_rows(method: str, group: str) -> set[str]:
    """The rows of a group of the tracked params.yaml, or the steps of a walk."""
    section = tracked_params()[method]
    if group.startswith(question_group("")):
        return set(section["questions"][group.removeprefix(question_group(""))]["rows"])
    if group.startswith(walk_group("")):
        changes = section["own_walks"][group.removeprefix(walk_group(""))]
        return {name for name, _ in own_steps(changes)}
    return set(section["ablations"][group]["rows"])


def printed_of(method: str) -> pd.DataFrame:
    return PRINTED[PRINTED["method"].isin(read_paper(method).reported_as)]


def test_every_method_of_params_has_a_card() -> None:
    # A method that is not run has its card and its section all the same.
    assert set(tracked_params()["methods"]) <= set(paper_names()) <= set(rooms())


@every_paper
def test_every_row_and_claim_of_a_known_group_is_measured_with_the_tracked_settings(
    method: str,
) -> None:
    ablations = read_paper(method).ablations
    asked = {name for name in ablations if name.startswith(question_group(""))}
    assert set(ablations) - asked == set(tracked_params()[method]["ablations"])
    for name, group in ablations.items():
        rows = measured_rows(method, name)
        assert set(group.rows) <= rows, name
        assert {row for claim in group.claims for row in claim} <= rows, name


@every_paper
def test_every_printed_variant_stands_in_the_numbers(method: str) -> None:
    for name, group in read_paper(method).ablations.items():
        for variant in group.rows.values():
            numbers = printed_of(method).query("variant == @variant")
            assert len(numbers), variant
            tables = " ".join(numbers["table"])
            # A figure has no numbers of its own in numbers.csv; its bars are rows of some table.
            named = any(
                re.search(rf"Table {number}\b", tables)
                for number in re.findall(r"\d+", group.table)
            )
            assert named or group.table.startswith("Figure"), (name, variant)


@every_paper
def test_a_departure_names_fields_and_rows_that_exist(method: str) -> None:
    names = {*choices(find_method(method).config), "preset", "aupro", "fpr_limit", "seeds"}
    for departure in read_paper(method).departures:
        assert {*departure.asks()} <= names, departure.what
        assert departure.what and departure.why
        if departure.effect:
            rows = measured_rows(method, departure.effect.group)
            assert {departure.effect.row, departure.effect.base} <= rows, departure.what


@every_paper
def test_open_choices_are_fields_and_published_codes_are_presets(method: str) -> None:
    paper = read_paper(method)
    assert set(paper.open_choices) <= set(choices(find_method(method).config))
    assert set(paper.codes) <= set(find_method(method).presets)
    reported = [code.reported for code in paper.codes.values() if code.reported]
    assert set(reported) <= set(printed_of(method)["variant"])


@every_paper
def test_the_paper_profile_runs_what_the_numbers_were_made_with(method: str) -> None:
    paper = read_paper(method)
    own = tracked_params()["profiles"]["paper"][method]
    assert own["backbone"] == paper.backbone
    assert own["weights"].startswith(paper.weights)


@every_paper
def test_a_paper_is_found_by_each_of_its_names(method: str) -> None:
    paper = read_paper(method)
    assert paper.title == find_method(method).title
    for name in (method, paper.title, paper.title.lower(), *paper.reported_as):
        assert find_paper(name) is paper
    assert find_paper("SPADE") is None


def test_a_group_that_only_params_knows_gets_plain_columns() -> None:
    group = read_paper("winclip").ablation("one of my own")
    assert group == AblationFacts(("image_auroc", "pixel_auroc", "aupro"))


def test_the_measurement_says_of_its_own_switch_what_it_changes() -> None:
    assert [name for name, choice in choices(MethodSettings).items() if choice.meaning] == ["aupro"]


def test_an_unknown_method_is_told_with_the_known_ones() -> None:
    with pytest.raises(ClipadError, match="'april', expected one with a card .*winclip.*write"):
        read_paper("april")


@pytest.mark.parametrize(
    ("line", "instead", "message"),
    [
        ("title: WinCLIP\n", "", "found no title, expected fields of name, title"),
        ("title: WinCLIP\n", "titles: WinCLIP\ntitle: W\n", "found an unknown titles, expected"),
        ("title: WinCLIP\n", "title: 3\n", "title: found 3, expected str"),
        ("title: WinCLIP\n", "title: W\nname: other\n", "name: found 'other', expected none, or"),
        ("title: WinCLIP\n", "title: [\n", "not valid YAML"),
        ("dataset: mvtec\n", "dataset: mvtek\n", "dataset: found 'mvtek', expected a dataset with"),
        (
            "metrics: [image_auroc, pixel_auroc, aupro]\n",
            "metrics: aupro\n",
            "metrics: found 'aupro', expected a list of str",
        ),
        (
            "reported_as: [WinCLIP, WinCLIP+]\n",
            "reported_as: []\n",
            "reported_as: found .*one name",
        ),
        (
            "metrics: [image_auroc, image_ap, image_f1max]\n",
            "metrics: [image_accuracy]\n",
            r"ablations\.prompts\.metrics: found 'image_accuracy', expected one of image_auroc",
        ),
        (
            "- [two class, one class]\n",
            "- [two class]\n",
            r"ablations\.prompts\.claims: found \['two class'\], expected \[better, worse\]",
        ),
        (
            '"patch memory: {patch_feature}"\n',
            '"patch memory: {patch_feature"\n',
            r"departures\[1\]\.what: found 'patch memory: .*braces around names",
        ),
        (
            "row: residual stream, base",
            "rwo: residual stream, base",
            r"departures\[1\]\.effect: found no row and an unknown rwo, expected",
        ),
        (
            "  temperature: {metrics",
            "  7: {metrics",
            "ablations: found 7, expected a name; put quotes",
        ),
        ("    dataset: visa\n", "    dataset: 7\n", r"ablations\.task states\.dataset: found 7"),
        (
            "images_alone: true\n",
            "images_alone: yes!\n",
            r"codes\.malalab\.images_alone: found 'yes!'",
        ),
    ],
)
def test_a_faulty_card_is_one_message(
    tmp_path: Path, line: str, instead: str, message: str
) -> None:
    text = (PAPERS / "winclip" / CARD).read_text(encoding="utf-8")
    assert line in text
    folder = tmp_path / "winclip"
    folder.mkdir()
    (folder / CARD).write_text(text.replace(line, instead, 1), encoding="utf-8")
    with pytest.raises(ClipadError, match=message) as refused:
        read_paper("winclip", tmp_path)
    assert str(refused.value).startswith(str(folder / CARD))


def test_a_name_that_two_papers_claim_is_refused(tmp_path: Path) -> None:
    text = (PAPERS / "winclip" / CARD).read_text(encoding="utf-8")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / CARD).write_text(text.replace("title: WinCLIP", f"title: {name}", 1))
    with pytest.raises(
        ClipadError, match="two.*reported_as: found 'WinCLIP', expected a name that"
    ):
        read_paper("one", tmp_path)


def test_a_card_that_holds_no_names_is_refused(tmp_path: Path) -> None:
    (tmp_path / "winclip").mkdir()
    (tmp_path / "winclip" / CARD).write_text("- a list\n", encoding="utf-8")
    with pytest.raises(ClipadError, match=r"found \['a list'\], expected names with values below"):
        read_paper("winclip", tmp_path)
