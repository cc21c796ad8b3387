"""The glossary of pages: every metric and every symbol has its meaning, and heads of tables lead there."""

from pathlib import Path

import pytest
import yaml
from bs4 import BeautifulSoup
from project import settings

from clipad_core.errors import ClipadError
from clipad_core.metrics import METRIC_LABELS
from clipad_harness.papers.card import read_paper
from clipad_harness.report import glossary as module
from clipad_harness.report.glossary import GLOSSARY, Term, glossary
from clipad_harness.site.page import link_terms, page

TERMS = [
    Term("image AUROC", "a chance"),
    Term("k-shot", "how many"),
    Term("ours", "here", ("this run",)),
]


def test_every_metric_and_every_symbol_of_a_method_is_explained_once() -> None:
    terms = glossary(settings()["methods"])
    names = [term.name for term in terms]
    assert names[: len(METRIC_LABELS)] == list(METRIC_LABELS.values())
    heads = [head for term in glossary() for head in (term.name, *term.heads)]
    assert len(heads) == len(set(heads))
    assert all(read_paper(method).symbols for method in settings()["methods"])
    assert "Post-VCP" in names and all(len(term.meaning) > 20 for term in terms)


def test_a_metric_without_a_meaning_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = yaml.safe_load(GLOSSARY.read_text(encoding="utf-8"))
    del content["metrics"]["aupro"]
    (tmp_path / "glossary.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setattr(module, "GLOSSARY", tmp_path / "glossary.yaml")
    with pytest.raises(ClipadError, match=r"glossary\.yaml: metrics: found .*, expected .*aupro"):
        module._read.__wrapped__()


def linked(caption: str, heads: list[str], rows: str = "") -> list[tuple[str, str]]:
    """Text and target of every link of a table."""
    cells = "".join(f"<th>{head}</th>" for head in heads)
    table = f"<table><caption><span>{caption}</span></caption><thead><tr>{cells}</tr></thead>{rows}"
    soup = BeautifulSoup(link_terms(f"{table}</table>", TERMS), "html.parser")
    return [(link.get_text(), str(link["href"])) for link in soup.find_all("a")]


@pytest.mark.parametrize(
    ("caption", "heads", "links"),
    [
        ("x", ["category", "4-shot"], [("4-shot", "#term-2")]),
        ("x", ["this run"], [("this run", "#term-3")]),
        ("image AUROC, per cent, image AUROC", ["x"], [("image AUROC", "#term-1")]),
        ("x", ["what", "why"], [("Glossary", "#glossary")]),
        ("x", ['<a href="#a">ours</a>'], [("Glossary", "#glossary"), ("ours", "#a")]),
    ],
)
def test_every_table_leads_to_what_its_words_mean(
    caption: str, heads: list[str], links: list[tuple[str, str]]
) -> None:
    assert linked(caption, heads) == links


def test_the_terms_stand_on_the_page_where_links_lead() -> None:
    html = page("t", "<table><thead><tr><th>ours</th></tr></thead></table>", glossary=glossary())
    soup = BeautifulSoup(html, "html.parser")
    target = soup.find(id=soup.table.a["href"][1:])
    assert target.dt.get_text() == "ours" and target.dd.get_text().startswith("Measured")
    without = BeautifulSoup(page("t", "<table><thead></thead></table>"), "html.parser")
    assert without.find(id="glossary") is None and without.select("main a") == []
