"""This run's rows in the papers' tables: compared where they may be, set apart with the reason elsewhere."""

from pathlib import Path

import pandas as pd
import pytest
from bs4 import BeautifulSoup
from printed_project import results_of, write_project, write_results
from project import change

from clipad_core.errors import ClipadError
from clipad_harness.experiments.results import COLUMNS
from clipad_harness.papers.printed_tables import CellName, read_tables
from clipad_harness.report.printed_conflicts import measured_values
from clipad_harness.report.tables_as_printed import (
    BASELINES,
    compared_cells,
    read_measurements,
    rows_here,
    table_section,
)

ANOMALYCLIP, WINCLIP = read_tables("anomalyclip")[0], read_tables("winclip")[0]
PRINTED = {"image_auroc": 91.7, "image_ap": 96.5, "image_f1max": 80.0}


def winclip_on_mvtec(folder: Path, methods: tuple[str, ...] = ("winclip",)) -> Path:
    """With the published weights on all of MVTec AD, zero-shot and with one reference."""
    project = write_project(folder, list(methods), "paper")
    shots = [results_of("winclip", "mvtec", PRINTED, k_shot=k_shot) for k_shot in (0, 1)]
    write_results(project, "winclip", *shots)
    return project


def why_not(project: Path, row: str = "WinCLIP") -> str:
    run = read_measurements(project)
    return next(here.why_not for here in rows_here(WINCLIP, run) if here.row.row == row)


def test_a_number_of_the_published_weights_on_the_whole_dataset_is_judged(tmp_path: Path) -> None:
    cells = compared_cells(read_measurements(winclip_on_mvtec(tmp_path)))
    own = cells["winclip", "Table 1"]
    near = own[CellName("WinCLIP", 0, "MVTec AD", "image_auroc")]
    far = own[CellName("WinCLIP", 0, "MVTec AD", "image_f1max")]
    assert near.ours == pytest.approx(91.75) and near.paper == 91.8
    assert near.difference == pytest.approx(-0.05)
    assert (near.verdict, far.verdict) == ("pass", "fail")
    one_shot = own[CellName("WinCLIP+", 1, "MVTec AD", "image_auroc")]
    assert one_shot.paper == 93.1
    # AnomalyCLIP's table quotes the same row: a difference, and no verdict on a quotation.
    quoted = cells["anomalyclip", "Table 1"][CellName("WinCLIP", 0, "MVTec AD", "image_ap")]
    assert quoted.difference == pytest.approx(0.05) and quoted.verdict == ""


def test_its_cell_shows_ours_and_the_printed_number(tmp_path: Path) -> None:
    run = read_measurements(winclip_on_mvtec(tmp_path))
    soup = BeautifulSoup(str(table_section(WINCLIP, run)), "html.parser")
    table = soup.find("table")
    row = next(r for r in table.tbody.find_all("tr") if r.th.get_text().startswith("WinCLIP"))
    texts = [cell.get_text(" ", strip=True) for cell in row.find_all("td")]
    assert texts[0].startswith("91.8") and "paper 91.8 ± 0.0 · 0.0" in texts[0]
    assert "pass" in texts[0] and "fail" in texts[2]
    assert texts[3] == "78.1 ± 0.0"  # VisA was not run: as printed


def test_what_is_compared_joins_the_values_in_print_once(tmp_path: Path) -> None:
    values = measured_values(compared_cells(read_measurements(winclip_on_mvtec(tmp_path))))
    assert [(value.row, value.metric, value.by) for value in values] == [
        ("WinCLIP", metric, "measured here") for metric in PRINTED
    ]


@pytest.mark.parametrize(
    ("keys", "setting", "message"),
    [
        (("weights",), "random:0", "random weights"),
        (("backbone",), "ViT-B-16", "made with ViT-B-16-plus-240, this run has ViT-B-16"),
    ],
)
def test_other_weights_are_not_compared(
    tmp_path: Path, keys: tuple[str, ...], setting: str, message: str
) -> None:
    project = winclip_on_mvtec(tmp_path)
    assert why_not(project) == ""
    change(project, "profiles", "paper", "winclip", *keys, value=setting)
    assert message in why_not(project)
    assert not any(compared_cells(read_measurements(project)).values())


def test_a_stand_in_is_none_of_the_published_weights_whatever_its_architecture_is_called(
    tmp_path: Path,
) -> None:
    from safetensors.numpy import save_file

    project = winclip_on_mvtec(tmp_path)
    save_file({}, project / "renamed.safetensors", metadata={"clipad": "stand-in"})
    change(project, "profiles", "paper", "winclip", "weights", value="renamed.safetensors")
    assert why_not(project) == "this run uses stand-in weights, not the published ones"


def test_a_part_of_the_images_or_categories_is_not_compared(tmp_path: Path) -> None:
    project = winclip_on_mvtec(tmp_path)
    path = project / "data" / "index" / "index.csv"
    index = pd.read_csv(path, dtype=str, keep_default_na=False)
    index.iloc[1:].to_csv(path, index=False)
    assert why_not(project) == "bottle has 82 of its 83 test images"
    index.to_csv(path, index=False)
    results = project / "reports" / "results" / "winclip" / "results.csv"
    rows = pd.read_csv(results)
    rows[rows["category"] != "bottle"].to_csv(results, index=False)
    assert why_not(project) == "measured on 14 of 15 categories"


def test_results_of_another_dataset_are_refused(tmp_path: Path) -> None:
    project = write_project(tmp_path, ["winclip"], "paper")
    write_results(project, "winclip", results_of("winclip", "visa", PRINTED))
    with pytest.raises(
        ClipadError, match="its dataset is visa, expected mvtec; run `./repro clipad"
    ):
        read_measurements(project)


def clip_rows(project: Path) -> dict[str, tuple[str, str]]:
    """The variant of every row of AnomalyCLIP's and WinCLIP's first tables that CLIP runs, and why not."""
    run = read_measurements(project)
    return {
        f"{table.paper}: {here.row.row}": (here.variant, here.why_not)
        for table in (ANOMALYCLIP, WINCLIP)
        for here in rows_here(table, run)
        if here.row.method == "clip"
    }


def test_a_row_is_the_variant_of_its_preset(tmp_path: Path) -> None:
    project = write_project(tmp_path, ["clip"], "paper")
    variants = ("main", "preset/clip_ac_winclip")
    tables = [results_of("clip", "mvtec", PRINTED, variant) for variant in variants]
    write_results(project, "clip", *tables)
    rows = clip_rows(project)
    assert rows["anomalyclip: CLIP"] == ("main", "")
    # settings.yaml has no row of this preset
    assert rows["anomalyclip: CLIP-AC"] == (
        "",
        "preset clip_ac_anomalyclip is not measured in this run",
    )
    variant, why = rows["winclip: CLIP-AC"]
    assert variant == "preset/clip_ac_winclip"
    assert (
        why
        == "the printed row was made with ViT-B-16-plus-240, this run has ViT-L-14-336-quickgelu"
    )
    change(project, "clip", "preset", value="clip_ac_winclip")
    change(project, "profiles", "paper", "clip", "backbone", value="ViT-B-16-plus-240")
    rows = clip_rows(project)
    assert rows["winclip: CLIP-AC"] == ("main", "")
    assert rows["anomalyclip: CLIP"][0] == ""
    change(project, "clip", "changes", value={"sigma": 0.0})
    assert clip_rows(project)["winclip: CLIP-AC"][0] == "preset/clip_ac_winclip"


def stand_in(folder: Path) -> Path:
    project = write_project(folder, ["winclip", "clip", "coop"])
    weights = project / "data" / "weights"
    weights.mkdir(parents=True)
    dataset = "synthetic_target"
    write_results(project, "winclip", results_of("winclip", dataset, PRINTED))
    few = results_of("clip", dataset, {"image_auroc": 70.0}, "as WinCLIP asks/bare words")
    few = few[few["category"] == "hex_nut"]
    write_results(project, "clip", results_of("clip", dataset, PRINTED), few)
    return project


def test_rows_on_the_drawn_dataset_stand_apart_and_are_compared_with_nothing(
    tmp_path: Path,
) -> None:
    run = read_measurements(stand_in(tmp_path))
    assert not any(compared_cells(run).values())
    soup = BeautifulSoup(str(table_section(WINCLIP, run)), "html.parser")
    printed, apart = soup.find_all("table")
    assert "pass" not in str(soup) and "paper " not in printed.get_text()
    rows = {row.th.contents[0]: row for row in apart.tbody.find_all("tr")}
    assert list(rows) == ["CLIP-AC", "CLIP-AC + prompt ensemble", "WinCLIP", *(
        f"WinCLIP+, {k_shot}-shot" for k_shot in (1, 2, 4)
    )]  # fmt: skip
    cells = [cell.get_text(" ", strip=True) for cell in rows["WinCLIP"].find_all("td")]
    assert cells[0] == "2" and cells[1].startswith("91.8 ± 0.1") and "on 1: 91.8" in cells[1]
    cells = [cell.get_text(" ", strip=True) for cell in rows["CLIP-AC"].find_all("td")]
    assert cells[:3] == ["1", "70.0 ± 0.1", "–"]
    assert "as WinCLIP asks/bare words, an ablation of clip" in soup.get_text()


def test_a_method_that_is_not_run_and_a_row_that_cannot_be_say_why(tmp_path: Path) -> None:
    run = read_measurements(stand_in(tmp_path))
    text = BeautifulSoup(str(table_section(ANOMALYCLIP, run)), "html.parser").get_text(" ")
    assert "VAND (APRIL-GAN): params.yaml does not name aprilgan" in text
    assert "CoOp: left out of this run" in text
    absent = read_measurements(write_project(tmp_path / "absent", ["coop"]))
    soup = BeautifulSoup(str(table_section(WINCLIP, absent)), "html.parser")
    assert len(soup.find_all("table")) == 1  # nothing stands apart, a list says why
    assert "WinCLIP+, 4-shot: params.yaml does not name winclip" in soup.get_text()
    soup = BeautifulSoup(str(table_section(WINCLIP, run)), "html.parser")
    row = next(row for row in soup.table.tbody.find_all("tr") if "SPADE, 2-shot" in row.get_text())
    reason = soup.find(id=row.th.a["href"][1:])
    assert reason is not None and "anomalib has no SPADE" in reason.get_text()
    assert [cell.get_text(" ") for cell in row.find_all("td")][0].startswith("82.9")


def test_what_another_library_measured_of_quoted_rows_stands_apart_without_a_verdict(
    tmp_path: Path,
) -> None:
    project = winclip_on_mvtec(tmp_path)
    without = str(table_section(WINCLIP, read_measurements(project)))
    assert "Quoted rows by another library" not in without
    values = {"image_auroc": 80.0, "image_ap": 90.0}
    rows = results_of("winclip", "mvtec", values, k_shot=1).assign(
        method="PatchCore",
        variant="1-shot",
        backbone="wide_resnet50_2 / imagenet (anomalib==2.7.0)",
    )
    other = rows.assign(dataset="visa", value=0.0)
    pd.concat([rows, other])[COLUMNS].to_csv(project / BASELINES, index=False)
    run = read_measurements(project)
    assert set(run.baselines["dataset"]) == {"mvtec"}
    soup = BeautifulSoup(str(table_section(WINCLIP, run)), "html.parser")
    table = soup.find_all("table")[-1]
    assert "without a verdict" in table.caption.get_text()
    [row] = table.tbody.find_all("tr")
    assert [cell.get_text() for cell in row.find_all(["th", "td"])][:4] == [
        "PatchCore, 1-shot",
        "15",
        "80.0 ± 0.1",
        "90.0 ± 0.1",
    ]
    assert "PatchCore: wide_resnet50_2 / imagenet" in soup.get_text()
    rows.rename(columns={"value": "score"}).to_csv(project / BASELINES, index=False)
    with pytest.raises(ClipadError, match=r"^reports/results/few_shot_baselines.csv: found the"):
        read_measurements(project)
