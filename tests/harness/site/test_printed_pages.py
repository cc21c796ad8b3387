"""The pages of the papers' tables and of contradictions, made from results alone."""

import re
from pathlib import Path

import pytest
from browser import Browser, find_chromium
from bs4 import BeautifulSoup
from printed_project import results_of, write_project, write_results

from clipad_core.errors import ClipadError
from clipad_harness.base.files import write_text
from clipad_harness.cli.main import main
from clipad_harness.papers.conflicts import causes
from clipad_harness.site.essays import Description, description_path, write_description
from clipad_harness.site.index import write_home
from clipad_harness.site.page import network_loads
from clipad_harness.site.printed_pages import conflicts_page, tables


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_project(tmp_path_factory.mktemp("printed"), ["winclip"], "paper")
    values = {"image_auroc": 90.0, "pixel_auroc": 85.0, "aupro": 64.0}
    write_results(folder, "winclip", results_of("winclip", "mvtec", values))
    tables(folder)
    conflicts_page(folder)
    return folder


def soup_of(project: Path, name: str) -> BeautifulSoup:
    html = (project / "reports" / f"{name}.html").read_text(encoding="utf-8")
    assert not network_loads(html)
    return BeautifulSoup(html, "html.parser")


@pytest.mark.parametrize("name", ["tables", "conflicts"])
def test_a_page_is_the_same_bytes_twice_and_all_its_links_lead_somewhere(
    project: Path, name: str
) -> None:
    path = project / "reports" / f"{name}.html"
    before = path.read_bytes()
    (tables if name == "tables" else conflicts_page)(project)
    assert path.read_bytes() == before
    soup = soup_of(project, name)
    anchors = [link["href"][1:] for link in soup.find_all("a", href=re.compile("^#."))]
    assert len(anchors) > 20 and not [one for one in anchors if soup.find(id=one) is None]
    ids = [tag["id"] for tag in soup.find_all(id=True)]
    assert len(ids) == len(set(ids))
    assert str(project) not in before.decode()


def test_every_table_of_the_papers_has_its_section(project: Path) -> None:
    soup = soup_of(project, "tables")
    titles = [heading.get_text() for heading in soup.find_all("h2", id=re.compile("-table-"))]
    assert titles == [
        "AnomalyCLIP, Table 1: zero-shot, industrial images",
        "AnomalyCLIP, Table 2: zero-shot, medical images",
        "VCP-CLIP, Table 1: zero-shot segmentation",
        "WinCLIP, Table 1: classification, zero-shot and with references",
        "WinCLIP, Table 4: segmentation, zero-shot and with references",
    ]
    facts = {box.dt.get_text(): box.dd.get_text() for box in soup.select(".facts > div")}
    # image AUROC, pixel AUROC and AUPRO, in AnomalyCLIP's table, in VCP-CLIP's and in WinCLIP's own
    assert facts["compared"] == "8" and facts["printed numbers"] == "674"
    assert facts["pass, fail"] == "2, 1"


def test_contradictions_list_what_was_measured_among_what_is_printed(project: Path) -> None:
    soup = soup_of(project, "conflicts")
    body = soup.find(id="list").find_next("table").tbody
    rows = [[cell.get_text(" ", strip=True) for cell in row.find_all(["th", "td"])] for row in body]
    spans = [float(row[4]) for row in rows]
    assert len(rows) > 100 and spans == sorted(spans, reverse=True)
    assert rows[0][:3] == ["APRIL-GAN", "DAGM", "pixel AUPRO"]
    own = next(row for row in rows if row[:3] == ["WinCLIP", "MVTec AD", "image AUROC"])
    assert "90.0 measured here" in re.sub(r"(\d+\.\d+) ", r"\1 ", own[3])
    listed = soup.find(id="causes").find_next("table").tbody.find_all("tr")
    assert {row.th.contents[0] for row in listed} == set(causes())
    assert len(soup.find_all("img", alt=re.compile("."))) == 2


def test_the_index_leads_to_both_pages(project: Path) -> None:
    soup = BeautifulSoup(
        write_home(project, ["winclip"]).read_text(encoding="utf-8"), "html.parser"
    )
    links = {link["href"] for link in soup.find_all("a")}
    assert {"tables.html", "conflicts.html"} <= links
    (project / "reports" / "tables.html").rename(project / "reports" / "moved.html")
    assert "tables.html: has not been made yet" in write_home(project, ["winclip"]).read_text()
    (project / "reports" / "moved.html").rename(project / "reports" / "tables.html")


def test_the_index_leads_to_an_essay_in_its_own_words_once_its_page_is_made(project: Path) -> None:
    missing = "toys.html: has not been made yet"
    page = write_text(project / "reports" / "toys.html", "page")
    assert missing in write_home(project, ["winclip"], ["toys"]).read_text(encoding="utf-8")
    path = description_path(project, "toys")
    write_description(path, Description("Toys", "what they are worth, < 1 point."))
    soup = BeautifulSoup(write_home(project, ["winclip"], ["toys"]).read_text(), "html.parser")
    link = soup.find("a", href="toys.html")
    assert link.parent.get_text() == "Toys: what they are worth, < 1 point."
    page.unlink()
    assert missing in write_home(project, ["winclip"], ["toys"]).read_text(encoding="utf-8")
    write_text(path, "{}")
    with pytest.raises(
        ClipadError, match=r"toys\.json: found no title.*run the stage of the essay"
    ):
        write_home(project, ["winclip"], ["toys"])


@pytest.mark.parametrize("command", ["tables", "conflicts"])
def test_without_an_index_one_message_says_what_to_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    write_project(tmp_path, ["winclip"])
    (tmp_path / "data" / "index" / "index.csv").unlink()
    monkeypatch.setenv("CLIPAD_ROOT", str(tmp_path))
    assert main([command]) == 1
    error = capsys.readouterr().err
    assert error.startswith("clipad: data/index/index.csv: does not exist yet; run `./repro clipad")


def test_the_search_leaves_rows_that_hold_every_word(project: Path) -> None:
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    browser = Browser(program)
    try:
        browser.open(project / "reports" / "conflicts.html")
        shown = (
            "document.querySelector('#list ~ .scroll tbody').querySelectorAll('tr:not([hidden])')"
        )
        every = browser.run(f"{shown}.length")
        typed = (
            "(() => {{ const box = document.getElementById('conflict-search'); box.value = '{}';"
            " box.dispatchEvent(new Event('input')); }})()"
        )
        browser.run(typed.format("btad winclip"))
        texts = browser.run(f"[...{shown}].map((row) => row.textContent.toLowerCase())")
        assert 0 < len(texts) < every
        assert all("btad" in text and "winclip" in text for text in texts)
        browser.run(typed.format(""))
        browser.run("document.getElementById('conflict-left').click()")
        left = browser.run(f"[...{shown}].map((row) => row.className)")
        assert 0 < len(left) < every and set(left) == {"left"}
    finally:
        browser.close()
