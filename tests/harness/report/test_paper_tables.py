"""Tables for a paper: the numbers of the pages, what is in bold, and what stands around them."""

import io
import math
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up_results import CATEGORIES, make_measured, value, write_page, write_results

from clipad_core.errors import ClipadError
from clipad_harness.base.settings import read_profile
from clipad_harness.papers.numbers import reported
from clipad_harness.report.ablations import ablation
from clipad_harness.report.paper_tables import (
    Selection,
    Source,
    ablation_rows,
    categories,
    headline,
    result_rows,
    run_sources,
    source_of,
)
from clipad_harness.report.results_file import method_results
from clipad_harness.report.table_texts import Cell, PaperTable, csv, latex, markdown

DECIMALS = 4


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_measured(tmp_path_factory.mktemp("measured"))


@pytest.fixture(scope="module")
def sources(project: Path) -> list[Source]:
    return run_sources(project, [], "", pages=False)


@pytest.fixture(scope="module")
def of_paper(tmp_path_factory: pytest.TempPathFactory) -> list[Source]:
    """The same methods, measured with the papers' profile on MVTec AD."""
    project = make_measured(tmp_path_factory.mktemp("paper"))
    for name in ("winclip", "anomalyclip"):
        write_results(project, name, "paper", "mvtec")
    return run_sources(project, [], "paper", pages=False)


def cell(table: PaperTable, row: str, *column: str) -> Cell:
    [found] = [cell for cell in table.cells if (cell.row, cell.column) == (row, column)]
    return found


def test_a_headline_number_is_the_mean_over_categories_and_its_spread_the_mean_of_their_deviations(
    sources: list[Source],
) -> None:
    table = headline(sources, Selection())
    assert table.rows == ["WinCLIP, 0-shot", "WinCLIP+, 1-shot", "AnomalyCLIP, 0-shot"]
    assert table.columns == [("image AUROC",), ("pixel AUROC",), ("pixel AUPRO",)]
    values = [
        [100 * value("winclipmain", category, 1, seed, "aupro") for seed in (0, 1)]
        for category in CATEGORIES["synthetic_target"]
    ]
    shown = cell(table, "WinCLIP+, 1-shot", "pixel AUPRO")
    assert shown.mean == pytest.approx(np.mean(values))
    assert shown.std == pytest.approx(np.mean([np.std(part, ddof=1) for part in values]))
    assert math.isnan(cell(table, "WinCLIP, 0-shot", "pixel AUPRO").std)
    text = f"{np.mean(values):.1f} ± {np.mean(np.std(values, axis=1, ddof=1)):.1f}"
    assert f"| {text} |" in markdown(table)


def test_a_printed_number_stands_beside_a_mean_over_all_categories_alone(
    sources: list[Source],
) -> None:
    printed = reported("winclip", "mvtec", 0, "image_auroc")
    assert printed is not None
    whole = headline(sources, Selection(paper=True))
    assert cell(whole, "WinCLIP, 0-shot", "image AUROC").paper == printed.mean
    assert f" / {printed.mean} |" in markdown(whole)
    head = "demo, 2 categories of Synthetic target, stand-in weights: ours / paper on MVTec AD"
    assert f"\n| {head} |" in markdown(whole) and head not in latex(whole)
    best = headline(sources, Selection(paper=True, shots=[0], metrics=["image_auroc"]))
    assert re.search(r"\\textbf\{\d\d\.\d( \$\\pm\$ \d\.\d)?\} / \d\d\.\d ", latex(best))
    part = headline(sources, Selection(paper=True, categories=["hex_nut"]))
    own = cell(part, "WinCLIP, 0-shot", "image AUROC")
    assert math.isnan(own.paper)
    assert own.mean == pytest.approx(100 * value("winclipmain", "hex_nut", 0, 0, "image_auroc"))
    assert part.caption.startswith("Mean over 1 of 2 categories of Synthetic target")


def test_the_best_of_equally_many_references_is_in_bold_by_the_digits_that_are_printed() -> None:
    def table(*cells: tuple[str, object, float], higher: bool = True) -> str:
        made = [Cell(row, ("m",), (contest,), higher, mean) for row, contest, mean in cells]
        return latex(PaperTable("", made, "", "tab:x", [], 1))

    both = table(("a", 0, 91.82), ("b", 0, 91.79), ("c", 0, 90.0), ("d", 4, 80.0))
    assert re.findall(r"(\w) & (\S+) \\\\", both) == [
        *(("a", r"\textbf{91.8}"), ("b", r"\textbf{91.8}"), ("c", "90.0"), ("d", "80.0"))
    ]
    assert r"b & \textbf{1.0}" in table(("a", 0, 2.0), ("b", 0, 1.0), higher=False)
    unknown = table(("a", 0, math.nan), ("b", 0, 1.0))
    assert "a & -- " in unknown and "textbf" not in unknown


def test_several_runs_stand_side_by_side_by_dataset_and_none_twice(
    sources: list[Source], of_paper: list[Source]
) -> None:
    both = [*sources, *of_paper]
    table = headline(both, Selection(metrics=["aupro", "image_auroc"]))
    assert table.columns == [
        *(("synthetic_target", "pixel AUPRO"), ("synthetic_target", "image AUROC")),
        *(("MVTec AD", "pixel AUPRO"), ("MVTec AD", "image AUROC")),
    ]
    text = latex(table)
    assert r"\multicolumn{2}{c}{MVTec AD}" in text and r"\cmidrule(lr){4-5}" in text
    chosen = headline(both, Selection(datasets=["mvtec"], metrics=["aupro"]))
    assert chosen.columns == [("pixel AUPRO",)]
    with pytest.raises(
        ClipadError, match="datasets: found visa, expected some of synthetic_target"
    ):
        headline(both, Selection(datasets=["visa"]))
    with pytest.raises(ClipadError, match="winclip on synthetic_target twice"):
        headline([*sources, *sources], Selection())
    with pytest.raises(ClipadError, match="expected one, since categories are rows"):
        categories(both, Selection())


def test_categories_are_rows_in_order_and_their_mean_is_last_below_a_line(
    sources: list[Source],
) -> None:
    table = categories(sources, Selection(metrics=["image_auroc"], shots=[0]))
    assert table.rows == ["hex nut", "leather hide", "mean"]
    assert table.columns == [("WinCLIP, 0-shot",), ("AnomalyCLIP, 0-shot",)]
    lines = latex(table).splitlines()
    [mean] = [place for place, line in enumerate(lines) if line.startswith("mean &")]
    assert lines[mean - 1] == r"\midrule"
    first = cell(table, "hex nut", "WinCLIP, 0-shot").mean
    assert first == pytest.approx(100 * value("winclipmain", "hex_nut", 0, 0, "image_auroc"))


def test_an_ablation_is_that_of_the_page_and_a_wrong_name_is_told_with_those_there_are(
    sources: list[Source],
) -> None:
    [winclip] = sources[:1]
    assert winclip.results is not None
    long = ablation(winclip.results.table(), "prompts").set_index(["row", "metric"])
    table = ablation_rows([winclip], Selection(group="prompts", paper=True))
    assert table.rows == ["one class", "two class"]
    shown = cell(table, "one class", "image AUROC")
    expected = long.loc[("one class", "image_auroc")]
    assert (shown.mean, shown.paper) == (expected["ours"], expected["paper"])
    assert "1 of 2 categories (hex nut)" in table.caption and "one seed" in table.caption
    for selection, told in (
        (Selection(), "group: found none, expected one of prompts"),
        (Selection(group="nothing"), "found 'nothing', expected one of prompts"),
        (Selection(group="prompts", metrics=["aupro"]), "expected some of image_auroc, image_ap"),
        (Selection(group="prompts", shots=[7]), "shots: found no result of 7"),
    ):
        with pytest.raises(ClipadError, match=re.escape(told)):
            ablation_rows([winclip], selection)
    with pytest.raises(ClipadError, match="found winclip, anomalyclip, expected one"):
        ablation_rows(sources, Selection(group="prompts"))


def test_every_text_says_what_made_it_and_that_a_stand_in_is_one(
    sources: list[Source], of_paper: list[Source]
) -> None:
    table = headline(sources, Selection())
    assert sources[0].results is not None
    digest = sources[0].results.results_sha256[:16]
    for write, mark in ((latex, "% "), (markdown, "<!-- "), (csv, "# ")):
        text = write(table)
        assert text.startswith(f"{mark}clipad ")
        for part in ("profile demo", "dataset synthetic_target", "seeds 0, 1", digest, "code "):
            assert part in text, (write, part)
        assert "stand-in weights: no number here is comparable" in text
        assert "AUPRO is counted in different ways: exact up to FPR 0.3 of WinCLIP" in text
        assert "stand-in" not in write(headline(of_paper, Selection()))
    assert "AUPRO is counted" not in headline(sources, Selection(metrics=["image_ap"])).caption
    assert "AUPRO is counted" not in headline(sources[:1], Selection()).caption


def test_a_csv_holds_means_and_deviations_as_numbers(sources: list[Source]) -> None:
    table = headline(sources, Selection(metrics=["image_auroc"], decimals=DECIMALS, paper=True))
    read = pd.read_csv(io.StringIO(csv(table)), comment="#", index_col=0)
    assert list(read.columns) == ["image AUROC", "image AUROC, std", "image AUROC, paper"]
    shown = cell(table, "WinCLIP+, 1-shot", "image AUROC")
    numbers = [round(shown.mean, DECIMALS), round(shown.std, DECIMALS), shown.paper]
    assert list(read.loc["WinCLIP+, 1-shot"]) == numbers


def test_the_rows_of_results_can_be_chosen(sources: list[Source]) -> None:
    chosen = Selection(metrics=["aupro"], categories=["hex_nut"], shots=[1])
    about, text = result_rows(sources, chosen)
    read = pd.read_csv(io.StringIO(text))
    assert list(read["seed"]) == [0, 1] and set(read["metric"]) == {"aupro"}
    assert len(about) == 3
    with pytest.raises(ClipadError, match="no result with all that is asked for"):
        result_rows(sources, Selection(shots=[9]))
    with pytest.raises(ClipadError, match="categories: found bottle, expected some of hex_nut"):
        result_rows(sources, Selection(categories=["bottle"]))


def test_where_there_are_no_results_the_headline_is_that_of_the_page(tmp_path: Path) -> None:
    project = make_measured(tmp_path)
    shutil.rmtree(project / "reports" / "results")
    write_page(project, "winclip")
    [source] = run_sources(project, [], "", pages=True)
    table = headline([source], Selection(metrics=["image_auroc"], paper=True))
    assert [(c.row, c.mean, c.paper) for c in table.cells] == [("WinCLIP, 0-shot", 77.3, 91.8)]
    assert "reports/summaries/winclip.json" in markdown(table) and "stand-in" in table.caption
    told = r"results\.csv: does not exist yet; run `\./repro clipad measure winclip`"
    with pytest.raises(ClipadError, match=told):
        run_sources(project, [], "", pages=False)
    with pytest.raises(ClipadError, match=told):
        headline([source], Selection(categories=["hex_nut"]))


def awkward() -> PaperTable:
    """A table whose texts hold all that LaTeX reads as something else."""
    names = r"50% & $1 #2_{3} ~4^5 \end <6> |7| “é” ± − –"
    cells = [
        Cell(row, (head, names), (), True, 91.84, 0.2)
        for row in (names, "second")
        for head in ("A_1", "B&2")
    ]
    return PaperTable(names, cells, names, "tab:awkward", [names], 1, total="second")


def test_latex_has_as_many_cells_in_every_row_as_columns_and_closes_what_it_opens(
    sources: list[Source],
) -> None:
    for table in (
        awkward(),
        headline(sources, Selection(paper=True)),
        categories(sources, Selection()),
    ):
        text = latex(table)
        assert re.findall(r"\\begin\{(\w+)\}", text) == re.findall(r"\\end\{(\w+)\}", text)[::-1]
        [layout] = re.findall(r"\\begin\{tabular\}\{(\w+)\}", text)
        body = re.findall(r"^(.*) \\\\$", text, re.M)
        for line in body:
            spans = [int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d)\}", line)]
            assert len(re.findall(r"(?<!\\)&", line)) + sum(spans) == len(layout) - 1, line
        assert not re.search(r"(?<!\\)[#_]|[<>|~±−–]", text.partition("\\begin")[2].replace(
            "tab:", "")), text  # fmt: skip
        assert [text.count(f"\\{rule}") for rule in ("toprule", "bottomrule")] == [1, 1]


def test_latex_compiles(sources: list[Source], tmp_path: Path) -> None:
    program = shutil.which("tectonic") or shutil.which("pdflatex")
    if program is None:
        pytest.skip("neither tectonic nor pdflatex is installed")
    tables = [awkward(), headline(sources, Selection(paper=True)), categories(sources, Selection())]
    body = "\n".join(map(latex, tables))
    head = "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n"
    (tmp_path / "a.tex").write_text(f"{head}{body}\\end{{document}}\n", encoding="utf-8")
    words = [program, *(["-interaction=nonstopmode", "-halt-on-error"] if "pdf" in program else [])]
    done = subprocess.run(
        [*words, "a.tex"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:]


def test_a_source_is_what_its_results_say(project: Path) -> None:
    results = method_results(project, "winclip", read_profile(project))
    source = source_of(results)
    assert (source.label(0), source.label(4)) == ("WinCLIP, 0-shot", "WinCLIP+, 4-shot")
    assert (source.kind, source.dataset, source.profile) == (
        *("stand-in", "synthetic_target", "demo"),
    )
