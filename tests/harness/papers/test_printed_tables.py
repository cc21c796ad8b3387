"""Printed tables as data: every cell has its number, every row runs or says why not."""

import shutil
from pathlib import Path

import pytest
import yaml
from project import tracked_params

from clipad_core.errors import ClipadError
from clipad_core.methods import find_method
from clipad_harness.papers.card import PAPERS
from clipad_harness.papers.printed_tables import all_tables, printed_in, read_tables

TABLES = all_tables()


def test_every_cell_of_every_table_has_its_printed_number() -> None:
    sizes = {(table.paper, table.table): len(printed_in(table)) for table in TABLES}
    assert sizes == {
        ("anomalyclip", "Table 1"): 6 * 7 * 4 - 4,  # CoOp's cells of DTD-Synthetic are dashes
        ("anomalyclip", "Table 2"): 6 * 10 * 2,
        ("vcpclip", "Table 1"): 7 * 10 * 3,
        ("winclip", "Table 1"): 15 * 2 * 3,
        ("winclip", "Table 4"): 15 * 2 * 3,
    }


@pytest.mark.parametrize(
    ("paper", "cell", "mean"),
    [
        ("anomalyclip", ("CLIP-AC", 0, "BTAD", "pixel_auroc"), 32.8),
        ("anomalyclip", ("CoOp", 0, "ISIC", "pixel_auroc"), 51.7),
        ("vcpclip", ("APRIL-GAN", 0, "BTech (BTAD)", "pixel_auroc"), 90.8),
        ("winclip", ("CLIP-AC + prompt ensemble", 0, "VisA", "image_ap"), 66.4),
        ("winclip", ("PatchCore", 4, "MVTec AD", "image_auroc"), 88.8),
        ("winclip", ("WinCLIP+", 1, "VisA", "pixel_f1max"), 41.3),
    ],
)
def test_a_cell_is_the_one_in_the_paper(
    paper: str, cell: tuple[str, int, str, str], mean: float
) -> None:
    numbers = [printed_in(table)[cell] for table in read_tables(paper) if cell in printed_in(table)]
    assert [number.mean for number in numbers] == [mean]


def test_a_number_of_the_table_that_is_quoted_elsewhere_does_not_stand_for_it() -> None:
    first = read_tables("winclip")[0]
    number = printed_in(first)["WinCLIP", 0, "MVTec AD", "image_auroc"]
    assert (number.quality, number.source[:6]) == ("primary", "arXiv:")


def test_presets_and_variants_of_rows_exist() -> None:
    params = tracked_params()
    rows = [row for table in TABLES for row in table.rows if row.method]
    assert {row.preset for row in rows if row.preset} >= {"clip_ac_winclip", "clip_ac_anomalyclip"}
    for row in rows:
        assert not row.preset or row.preset in find_method(row.method).presets
        if row.variant:
            group, _, name = row.variant.partition("/")
            assert name in params[row.method]["ablations"][group]["rows"]


def test_two_rows_of_one_name_are_two_presets() -> None:
    presets = {
        table.paper: row.preset for table in TABLES for row in table.rows if row.row == "CLIP-AC"
    }
    assert presets == {"anomalyclip": "clip_ac_anomalyclip", "winclip": "clip_ac_winclip"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metrics": ["image_auroc", "auc"]}, r"\[0\]\.metrics: found 'auc'"),
        ({"datasets": {"MVTec AD": "mvtek"}}, r"\[0\]\.datasets\.MVTec AD: found 'mvtek'"),
        ({"datasets": {"MVTec AD": None}}, r"\[0\]\.unavailable: found ''"),
        ({"pixel_alone": ["ISIC"]}, r"\[0\]\.pixel_alone: found 'ISIC'"),
        ({"dashes": [{"row": "X", "dataset": "VisA"}]}, r"\[0\]\.dashes\[0\]: found 'X, VisA'"),
        ({"rows": [{"row": "WinCLIP"}]}, r"\[0\]\.rows\[0\]: found 'WinCLIP', expected a method"),
        (
            {"rows": [{"row": "WinCLIP", "method": "winklip"}]},
            r"rows\[0\]\.method: found 'winklip'",
        ),
        ({"rows": [{"row": "SPADE", "quoted": "old"}]}, r"rows\[0\]\.quoted: found 'old'"),
        (
            {"rows": 2 * [{"row": "WinCLIP", "method": "winclip"}]},
            r"rows\[1\]\.row: found 'WinCLIP'",
        ),
        ({"rows": [{"row": "SPADE", "quoted": "spade"}]}, "SPADE, 0-shot, MVTec AD, image_auroc"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    shutil.copytree(PAPERS, tmp_path / "papers")
    path = tmp_path / "papers" / "winclip" / "tables.yaml"
    tables = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump([{**tables[0], **change}]), encoding="utf-8")
    with pytest.raises(ClipadError, match=message):
        read_tables("winclip", tmp_path / "papers")
