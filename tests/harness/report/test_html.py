"""What comes from data is text on every page: one way writes HTML, and it escapes."""

import ast
import re
from collections.abc import Callable

import pandas as pd
import pytest
from bs4 import BeautifulSoup
from project import REPOSITORY

from clipad_harness.papers.numbers import load_reported
from clipad_harness.papers.verdicts import compare
from clipad_harness.report import ablations, claims, method_page, provenance, tables
from clipad_harness.report.tables import Html

TAG = re.compile(r"</?[a-z]+[\s>\"/]|<[a-z0-9]+>")
NAME = "<svg onload=alert(1)>"


def results_of(category: str) -> pd.DataFrame:
    """A category's values in the main variant and in two rows of an ablation."""
    head = {"method": "WinCLIP", "backbone": "micro", "dataset": "mvtec", "k_shot": 0, "seed": 0}
    rows = [
        {**head, "variant": variant, "category": name, "metric": metric, "value": 0.5, "key": "k"}
        for variant in ("main", "prompts/one class", "prompts/two class")
        for name in (category, "b")
        for metric in ("image_auroc", "image_ap", "image_f1max")
        if variant == "main" or name != "b"  # an ablation on fewer categories names them
    ]
    return pd.DataFrame(rows)


def compared(category: str) -> pd.DataFrame:
    results = results_of(category)
    return compare(results[results["variant"] == "main"], load_reported(), False)


WRITTEN: dict[str, Callable[[], object]] = {
    "an ablation": lambda: ablations.ablation_table(results_of(NAME), "prompts"),
    "claims": lambda: claims.direction_table(results_of(NAME), "prompts"),
    "categories": lambda: method_page.category_tables(compared(NAME), ["image_auroc", "image_ap"]),
    "a comparison": lambda: tables.comparison_table(compared(NAME), caption=NAME),
    "a callout": lambda: tables.callout(NAME),
    "facts": lambda: tables.facts({NAME: NAME}),
    "sources": lambda: tables.source_list([NAME], "a"),
    "a plain table": lambda: tables.table(pd.DataFrame({NAME: [NAME]}, index=[NAME]), NAME),
    "origins": lambda: provenance.origins(
        results_of(NAME),
        {NAME: NAME},
        {"data hash": NAME, "licence of the data": NAME},
        [NAME],
    ),
}


@pytest.mark.parametrize("what", WRITTEN)
def test_a_category_called_like_an_element_is_text_wherever_it_stands(what: str) -> None:
    soup = BeautifulSoup(str(WRITTEN[what]()), "html.parser")
    assert soup.find("svg") is None
    assert NAME in soup.get_text() or what == "claims"


def test_no_string_of_python_puts_text_between_tags() -> None:
    wrong = [
        (path.name, node.lineno)
        for path in (REPOSITORY / "clipad_harness").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.expr) and writes(node)
    ]
    assert wrong == []


def writes(node: ast.expr) -> bool:
    """Whether an expression mixes a tag that is no `Html` with something else."""
    if isinstance(node, ast.JoinedStr):
        return any(holds_tag(part) for part in node.values)
    if isinstance(node, ast.BinOp):
        return holds_tag(node.left) or holds_tag(node.right)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.func.attr in ("format", "join", "replace") and holds_tag(node.func.value)
    return False


def holds_tag(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and TAG.search(node.value) is not None
    )


@pytest.mark.parametrize(
    ("source", "is_wrong"),
    [
        ('f"<b>{name}</b>"', True),
        ('"<b>" + name', True),
        ('"<b>{}</b>".format(name)', True),
        ('Html("<b>{}</b>").format(name)', False),
        ('f"{number} < {other}"', False),
    ],
)
def test_the_reader_of_strings_tells_them_apart(source: str, is_wrong: bool) -> None:
    assert writes(ast.parse(source, mode="eval").body) is is_wrong


def test_what_is_put_into_html_is_escaped_by_whatever_way() -> None:
    ways = (Html("{}").format(NAME), Html("").join([NAME]), Html("") + NAME, Html("%s") % NAME)
    assert {str(way) for way in ways} == {"&lt;svg onload=alert(1)&gt;"}
