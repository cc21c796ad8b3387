"""The line *Copy as …* below every table: what is copied, by mouse and key, and without a clipboard."""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, find_chromium

from clipad_harness.report.tables import Cell, Html, Row, badge, callout, html_table
from clipad_harness.site import page as site

WRITTEN = "navigator.clipboard.writeText = async (text) => { window.copied = text; }"
REFUSED = "Object.defineProperty(navigator, 'clipboard', { value: undefined })"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    instance = Browser(program)
    yield instance
    instance.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table with all that tables have: heads over two columns, notes, verdicts, what is special."""
    below = Html('<span class="cell-paper">paper {}<sup><a href="#n">1</a></sup></span>')
    ours = Html('<span class="cell-ours">77.3 <span class="spread">± 0.4</span></span>')
    best = Html("<strong>−2.3</strong>")
    head = [
        [Cell("row", "col", rows=2), Cell("AUROC", "colgroup", columns=2), Cell("AP", rows=2)],
        [Cell("0-shot", "col"), Cell("1-shot", "col")],
    ]
    full = ours + below.format("91.8") + badge("not comparable")
    body = [
        Row([Cell("50% | a_b & c", "row"), Cell(full), Cell(best, kind="number"), Cell("–")]),
        Row([Cell("two", "row", rows=2), Cell("wide", columns=2), Cell("x, y")]),
        Row([Cell(badge("pass")), Cell(best, kind="number"), Cell('say "ah"')], "total"),
    ]
    table = html_table("Ours & theirs", head, body)
    plain = html_table("", [], [Row([Cell("a", "row"), Cell("b")])])
    html = callout("Stand-in weights.", "warning") + table + plain
    path = tmp_path_factory.mktemp("copy") / "page.html"
    text = site.page("title", site.tidy_tables(html), has_record=False, provenance={"weights": "w"})
    path.write_text(text, encoding="utf-8")
    return path


def copied(browser: Browser, name: str, table: int = 0) -> str:
    """What a button of a table's menu writes into the clipboard."""
    browser.run(WRITTEN)
    menu = f"document.querySelectorAll('details.copies')[{table}]"
    browser.run(
        f"[...{menu}.querySelectorAll('button')].find((one) => one.textContent === '{name}').click()"
    )
    text = browser.run("window.copied")
    assert browser.run(f"{menu}.textContent.includes('Copied')")
    assert isinstance(text, str)
    return text


def test_markdown_and_csv_hold_every_cell_under_one_head(browser: Browser, page: Path) -> None:
    browser.open(page)
    text = copied(browser, "Markdown")
    assert text.splitlines()[:2] == ["<!-- title · clipad; weights: w", "Stand-in weights. -->"]
    full = "77.3 ± 0.4; paper 91.8; not comparable"
    assert text.splitlines()[3:] == [
        "| row | AUROC, 0-shot | AUROC, 1-shot | AP |",
        "|---|---|---|---|",
        f"| 50% \\| a_b & c | {full} | −2.3 | – |",
        "| two | wide |  | x, y |",
        '| two | pass | −2.3 | say "ah" |',
        "",
        "Ours & theirs",
    ]
    read = list(csv.reader(io.StringIO(copied(browser, "CSV"))))
    assert read == [
        ["row", "AUROC, 0-shot", "AUROC, 1-shot", "AP"],
        ["50% | a_b & c", full, "-2.3", "–"],
        ["two", "wide", "", "x, y"],
        ["two", "pass", "-2.3", 'say "ah"'],
    ]
    assert browser.complaints() == []


def test_latex_is_escaped_bold_where_the_page_is_and_has_the_caption(
    browser: Browser, page: Path
) -> None:
    browser.open(page)
    text = copied(browser, "LaTeX")
    assert text.startswith("% title") and "\n% Stand-in weights.\n" in text
    assert "\\caption{Ours \\& theirs}" in text and "\\begin{tabular}{llrl}" in text
    first = "77.3 $\\pm$ 0.4; paper 91.8; not comparable"
    rows = [
        "row & AUROC, 0-shot & AUROC, 1-shot & AP \\\\",
        "\\midrule",
        f"50\\% \\textbar{{}} a\\_b \\& c & {first} & \\textbf{{$-$2.3}} & -- \\\\",
        "two & wide &  & x, y \\\\",
        "\\midrule",
        'two & pass & \\textbf{$-$2.3} & say "ah" \\\\',
        "\\bottomrule",
    ]
    assert text.partition("\\toprule\n")[2].startswith("\n".join(rows))
    assert re.findall(r"\\begin\{(\w+)\}", text) == re.findall(r"\\end\{(\w+)\}", text)[::-1]
    headless = copied(browser, "LaTeX", table=1)
    assert "\\toprule\na & b \\\\\n\\bottomrule" in headless and "caption" not in headless


def test_every_table_has_a_menu_that_the_keyboard_opens_and_names(
    browser: Browser, page: Path
) -> None:
    browser.open(page)
    counted = "document.querySelectorAll('{}').length"
    assert (
        browser.run(counted.format("details.copies")) == browser.run(counted.format("table")) == 3
    )
    summary = "document.querySelector('details.copies summary')"
    assert browser.run(f"{summary}.getAttribute('aria-label')") == "Copy as …: Ours & theirs"
    browser.run(f"{summary}.focus()")
    browser.press(" ", 32)
    assert browser.run("document.querySelector('details.copies').open") is True
    browser.run(WRITTEN)
    browser.press("Tab", 9)
    browser.press(" ", 32)
    assert browser.run("window.copied").startswith("% title")
    assert browser.run("document.activeElement.textContent") == "Copied"


@pytest.mark.parametrize("width", [400, 1280])
def test_without_a_clipboard_the_text_is_shown_and_selected(
    browser: Browser, page: Path, width: int
) -> None:
    browser.open(page, width=width)
    browser.run(REFUSED)
    browser.run("document.querySelector('details.copies').open = true")
    for _ in range(2):  # again: one box, not two
        browser.run("document.querySelector('details.copies button').click()")
        browser.wait(lambda: browser.run("String(getSelection())"))
    assert browser.run("String(getSelection())").startswith("% title")
    assert browser.run("document.querySelectorAll('details.copies pre').length") == 1
    button = browser.run("document.querySelector('details.copies button').textContent")
    assert button == "Selected: press Ctrl-C"
    too_wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert browser.run(too_wide) == 0
    assert browser.complaints() == []
