"""The printed numbers against the papers' text, and the verdicts that are drawn from them."""

import math
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from project import REPOSITORY

from clipad_core.errors import ClipadError
from clipad_core.metrics import METRIC_LABELS
from clipad_harness.data.cards import card_names, read_card
from clipad_harness.papers import verdicts
from clipad_harness.papers.card import PAPERS, paper_names
from clipad_harness.papers.numbers import (
    dataset_titles,
    load_reported,
    look_up,
    printed_methods,
    reported,
    select,
)
from clipad_harness.papers.verdicts import MEAN, compare, tolerance
from clipad_harness.report.tables import COMPARISON_COLUMNS, comparison_table

PRINTED = load_reported()
MVTEC = read_card("mvtec").categories
CHOSEN = select(PRINTED, "winclip", "mvtec")


def test_all_files_are_read_and_every_row_names_its_source():
    assert len(PRINTED) == 6923
    assert PRINTED["source"].str.len().min() > 10
    assert PRINTED["mean"].notna().all()
    assert set(METRIC_LABELS) <= set(PRINTED["metric"])


def test_no_file_of_printed_numbers_is_large():
    assert all(path.stat().st_size < 600_000 for path in PAPERS.rglob("*.*"))


@pytest.mark.parametrize(
    ("method", "dataset", "k_shot", "metric", "category", "mean", "std"),
    [
        ("winclip", "mvtec", 0, "image_auroc", None, 91.8, 0.0),
        ("winclip", "mvtec", 0, "image_ap", None, 96.5, 0.0),
        ("winclip", "mvtec", 0, "image_f1max", None, 92.9, 0.0),
        ("winclip", "mvtec", 0, "pixel_auroc", None, 85.1, 0.0),
        ("winclip", "mvtec", 0, "aupro", None, 64.6, 0.0),
        ("winclip", "mvtec", 0, "pixel_f1max", None, 31.7, 0.0),
        ("winclip", "mvtec", 1, "image_auroc", None, 93.1, 2.0),
        ("winclip", "mvtec", 2, "image_f1max", None, 94.4, 0.8),
        ("winclip", "mvtec", 4, "image_auroc", None, 95.2, 1.3),
        ("winclip", "mvtec", 4, "aupro", None, 89.0, 0.8),
        ("winclip", "visa", 0, "image_auroc", None, 78.1, 0.0),
        ("winclip", "visa", 1, "pixel_f1max", None, 41.3, 2.3),
        ("winclip", "mvtec", 0, "image_auroc", "bottle", 99.2, 0.0),
        ("winclip", "mvtec", 1, "image_auroc", "bottle", 98.2, 0.9),
        ("anomalyclip", "mvtec", 0, "image_auroc", None, 91.5, None),
        ("vcpclip", "visa", 0, "aupro", None, 90.7, None),
    ],
)
def test_a_number_is_the_one_in_the_paper(method, dataset, k_shot, metric, category, mean, std):
    number = reported(method, dataset, k_shot, metric, category)
    assert number is not None
    assert number.mean == mean
    assert std is None or number.std == std
    assert number.quality == "primary"
    assert number.source.startswith("arXiv:")


@pytest.mark.parametrize(
    ("variant", "mean"),
    [
        ("AC ablation: one-class (normal prompt only)", 34.2),
        ("AC ablation: two-class prompts", 74.0),
        ("AC ablation: + state ensemble", 89.8),
        ("AC ablation: + prompt (template) ensemble", 90.8),
        ("AC ablation: + multi-crop (= full WinCLIP)", 91.8),
    ],
)
def test_the_prompt_ablation_is_the_one_of_table_3(variant, mean):
    number = reported("winclip", "mvtec", 0, "image_auroc", variant=variant)
    assert number is not None
    assert (number.mean, number.table) == (mean, "Table 3")


def test_the_main_text_wins_over_the_supplement():
    rows = PRINTED[
        (PRINTED["method"] == "WinCLIP+")
        & (PRINTED["variant"] == "1-shot")
        & (PRINTED["dataset"] == "MVTec AD")
        & (PRINTED["category"] == "")
        & (PRINTED["metric"] == "image_auroc")
    ]
    assert {92.7, 93.1} <= set(rows["mean"])
    selected = select(rows.iloc[::-1], "winclip", "mvtec")
    assert selected[["mean", "table"]].to_numpy().tolist() == [[93.1, "Table 1"]]


def test_the_paper_wins_over_quotations_and_runs_by_others_stand_for_nothing():
    table = PRINTED[PRINTED["method"].isin(["WinCLIP", "WinCLIP+"])]
    quoted = table[table["quality"] == "secondary"]
    rerun = table[table["quality"] == "rerun"]
    assert reported("winclip", "mvtec", 0, "image_auroc").quality == "primary"
    assert set(select(quoted, "winclip", "mvtec")["quality"]) == {"secondary"}
    assert select(rerun, "winclip", "mpdd").empty
    assert not select(rerun, "winclip", "mpdd", reruns=True).empty


def test_a_baseline_is_read_from_the_paper_that_ran_it():
    papers = {"2303.14814": 74.0, "2310.18961": 71.5}
    for paper, mean in papers.items():
        table = PRINTED[PRINTED["source"].str.contains(paper, regex=False)]
        rows = select(table, "CLIP-AC", "mvtec", reruns=True)
        number = look_up(rows, "", 0, "image_auroc")
        assert number is not None
        assert (number.mean, number.quality) == (mean, "rerun")


def test_a_category_and_metric_is_selected_once_for_all_methods_and_datasets():
    for method in paper_names():
        for dataset in ("mvtec", "visa", "btad"):
            rows = select(PRINTED, method, dataset)
            assert not rows.duplicated(["category", "k_shot", "metric"]).any()


def test_the_class_tables_average_to_the_printed_means():
    rows = select(PRINTED, "winclip", "mvtec")
    for k_shot in ("0", "1", "2", "4"):
        for metric in ("image_auroc", "pixel_auroc", "aupro", "pixel_f1max"):
            part = rows[(rows["k_shot"] == k_shot) & (rows["metric"] == metric)]
            classes = part[part["category"] != ""]
            assert set(classes["category"]) == set(MVTEC)
            printed = part.loc[part["category"] == "", "mean"].item()
            assert abs(classes["mean"].mean() - printed) < 0.11


def test_what_no_paper_prints_is_none():
    assert reported("winclip", "mvtec", 16, "image_auroc") is None
    assert reported("winclip", "synthetic_target", 0, "image_auroc") is None
    assert reported("winclip", "mvtec", 0, "image_auroc", "banana") is None


def test_datasets_carry_the_same_title_on_their_card_and_in_the_papers():
    assert dataset_titles("mvtec") == (read_card("mvtec").title,)
    for name in card_names():
        printed = read_card(name).printed_as
        assert dataset_titles(name) == (printed or (name,))
        assert set(printed) <= set(PRINTED["dataset"])


def test_numbers_of_crops_never_stand_beside_the_dataset_they_were_cut_from():
    """VCP-CLIP calls its own crops DAGM and BTech."""
    for dataset, crops, mean in (("dagm", "dagm_vcpclip", 99.4), ("btad", "btad_vcpclip", 94.1)):
        for reruns in (False, True):
            assert select(PRINTED, "vcpclip", dataset, reruns=reruns).empty
        number = reported("vcpclip", crops, 0, "pixel_auroc")
        assert number is not None and number.source.startswith("arXiv:2407.12276")
        assert reported("anomalyclip", dataset, 0, "pixel_auroc") is not None
        assert reported("anomalyclip", crops, 0, "pixel_auroc") is None
        assert number.mean == mean
    assert set(select(PRINTED, "vcpclip", "BSD")["dataset"]) == {"BSD"}


def test_every_dataset_of_vcpclips_table_has_a_card():
    rows = PRINTED[PRINTED["source"].str.startswith("arXiv:2407.12276")]
    names = {title for name in card_names() for title in read_card(name).printed_as}
    assert set(rows["dataset"]) <= names


HEADER = ",".join(PRINTED.columns)


def write_numbers(folder, text):
    (folder / "method").mkdir()
    (folder / "method" / "numbers.csv").write_text(text)


ROW = "A,v,T,b,240,none,MVTec AD,,0,image_auroc,90.0,1.0,somewhere,primary,"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([ROW.replace("somewhere", " ")], "line 2: source: expected one, found ' '"),
        ([ROW, ROW.replace("90.0", "")], "line 3: mean: expected a number, found ''"),
        ([ROW.replace("90.0", "nan")], "line 2: mean: expected a number, found 'nan'"),
        ([ROW.replace("90.0", "inf")], "line 2: mean: expected a number, found 'inf'"),
        ([ROW.replace("90.0", "900")], "line 2: mean: expected per cent, 0 to 100"),
        ([ROW.replace("1.0", "x")], "line 2: std: expected a number, found 'x'"),
        ([ROW.replace("1.0", "-1")], "line 2: std: expected 0 or more"),
        ([ROW.replace("primary", "rumour")], "line 2: quality: expected one of primary"),
        ([ROW, ROW.replace("90.0", "91.0")], "found A v MVTec AD mean image_auroc twice"),
        (["A,B"], "found method, .*, expected"),
    ],
)
def test_a_faulty_row_is_refused_with_its_line(tmp_path, lines, message):
    header = HEADER if len(lines[0]) > 5 else HEADER.replace("note", "remark")
    write_numbers(tmp_path, "\n".join([header, *lines]) + "\n")
    with pytest.raises(ClipadError, match=message):
        load_reported(tmp_path)


def test_a_whole_row_is_accepted_and_a_missing_std_is_unknown(tmp_path):
    write_numbers(tmp_path, f"{HEADER}\n{ROW.replace('1.0', '')}\n")
    rows = load_reported(tmp_path)
    assert rows["mean"].tolist() == [90.0]
    assert rows["std"].isna().all()


def test_a_folder_without_numbers_is_refused(tmp_path):
    with pytest.raises(ClipadError, match="found no numbers.csv"):
        load_reported(tmp_path)


def test_every_tolerance_has_a_reason_and_the_class_rows_are_no_tighter_than_the_mean():
    rows = pd.read_csv(PAPERS / "tolerances.csv")
    assert rows["reason"].str.len().min() > 20
    assert not rows.duplicated(["method", "row", "metric"]).any()
    wide = rows.pivot(index=["method", "metric"], columns="row", values="points").dropna()
    assert (wide["category"] >= wide["mean"]).all()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("WinCLIP,mean,image_auroc,9.0,0.3,why", "expected every method, row and metric once"),
        ("WinCLIP,mean,image_auc,1.0,0.3,why", "metric: expected one of .* found 'image_auc'"),
        ("WinCLIP,bottle,aupro,1.0,0.3,why", "row: expected one of mean, category, found 'bottle'"),
        ("WinCLIP+,mean,aupro,1.0,0.3,why", "method: expected one of .* found 'WinCLIP\\+'"),
        ("NoCLIP,mean,aupro,1.0,0.3,why", "method: expected one of .* found 'NoCLIP'"),
        ("VCP-CLIP,mean,pixel_f1max,-1.0,0.0,why", "points: expected 0 or more, found .*-1.0"),
        ("VCP-CLIP,mean,pixel_f1max,1.0,0.0, ", "reason: expected one"),
    ],
)
def test_a_tolerance_that_no_verdict_would_use_as_it_stands_is_refused(
    tmp_path, monkeypatch, row, message
):
    cards_alone = shutil.ignore_patterns("*.csv", "*.md")
    shutil.copytree(PAPERS, tmp_path / "papers", ignore=cards_alone)
    text = (PAPERS / "tolerances.csv").read_text(encoding="utf-8").rstrip("\n")
    (tmp_path / "papers" / "tolerances.csv").write_text(f"{text}\n{row}\n", encoding="utf-8")
    monkeypatch.setattr(verdicts, "PAPERS", tmp_path / "papers")
    line = text.count("\n") + 2
    with pytest.raises(ClipadError, match=rf"tolerances\.csv, line {line}: {message}"):
        tolerance("winclip", "image_auroc", "mean", 0.0)


def test_every_printed_number_that_could_be_compared_has_a_tolerance():
    for method in paper_names():
        for dataset in ("mvtec", "visa", "mpdd", "btad"):
            rows = select(PRINTED, method, dataset)
            rows = rows[(rows["quality"] == "primary") & rows["metric"].isin(METRIC_LABELS)]
            for row in rows.to_dict("records"):
                assert tolerance(method, row["metric"], row["category"] or "mean", row["std"]) > 0


def test_the_tolerance_grows_with_the_spread_that_the_paper_prints():
    assert tolerance("winclip", "image_auroc", "pcb1", 23.0) == pytest.approx(26.0)
    assert tolerance("winclip", "image_auroc", "mean", 2.0) == pytest.approx(2.1)
    assert tolerance("winclip", "image_auroc", "pcb1", math.nan) == pytest.approx(3.0)


def test_a_missing_tolerance_is_an_error_and_not_a_pass():
    with pytest.raises(ClipadError, match="found no tolerance for SPADE mean image_auroc"):
        tolerance("SPADE", "image_auroc", "mean", 0.0)


def results(
    offsets: dict[int, float] | None = None,
    categories: tuple[str, ...] = MVTEC,
    dataset: str = "mvtec",
    k_shot: int = 1,
    metric: str = "image_auroc",
) -> pd.DataFrame:
    """The paper's class table as if measured, shifted by some points for every seed."""
    rows = []
    for seed, offset in (offsets or {0: 0.0}).items():
        for category in categories:
            paper = look_up(CHOSEN, category, k_shot, metric)
            value = ((paper.mean if paper else 80.0) + offset) / 100
            rows.append(
                {
                    "method": "winclip",
                    "variant": "paper",
                    "backbone": "ViT-B-16-plus-240",
                    "dataset": dataset,
                    "category": category,
                    "k_shot": k_shot,
                    "seed": seed,
                    "metric": metric,
                    "value": value,
                    "key": "0",
                }
            )
    return pd.DataFrame(rows)


def mean_row(table: pd.DataFrame) -> pd.Series:
    return table[table["category"] == "mean"].iloc[0]


def test_the_papers_own_numbers_pass():
    table = compare(results(), PRINTED, True)
    assert list(table.columns) == [*COMPARISON_COLUMNS, "ours_std_of_mean"]
    assert len(table) == 16
    assert set(table["verdict"]) == {"pass"}
    assert table["difference"].abs().max() < 0.11
    assert table["source"].str.startswith("arXiv:2303.14814").all()
    assert table["category"].tolist() == [*MVTEC, "mean"]


@pytest.mark.parametrize("offset", [-3.0, 3.0])
def test_a_mean_outside_the_tolerance_fails_in_both_directions(offset):
    table = compare(results({0: offset}, metric="pixel_f1max"), PRINTED, True)
    row = mean_row(table)
    assert row["verdict"] == "fail"
    assert row["difference"] == pytest.approx(offset, abs=0.11)
    assert row["paper_mean"] == 55.9
    bottle = table[table["category"] == "bottle"].iloc[0]
    assert bottle["verdict"] == "pass"


def test_the_mean_row_has_both_kinds_of_spread():
    measured = results({0: -1.0, 1: 0.0, 2: 1.0}, metric="pixel_f1max")
    measured.loc[measured["category"].isin(MVTEC[:7]) & (measured["seed"] == 0), "value"] += 0.02
    measured.loc[measured["category"].isin(MVTEC[:7]) & (measured["seed"] == 2), "value"] -= 0.02
    row = mean_row(compare(measured, PRINTED, True))
    per_seed = [100 * part["value"].mean() for _, part in measured.groupby("seed")]
    assert row["ours_mean"] == pytest.approx(np.mean(per_seed))
    assert row["ours_std"] == pytest.approx(1.0)
    assert row["ours_std_of_mean"] == pytest.approx(np.std(per_seed, ddof=1))
    assert row["ours_std_of_mean"] < 0.2


def test_one_seed_has_no_spread_rather_than_a_spread_of_zero():
    table = compare(results(), PRINTED, True)
    assert table[["ours_std", "ours_std_of_mean"]].isna().all(axis=None)


def test_what_is_not_comparable_gets_neither_difference_nor_verdict():
    table = compare(results({0: -50.0}), PRINTED, False)
    assert set(table["verdict"]) == {"not comparable"}
    assert table["difference"].isna().all()
    assert mean_row(table)["paper_mean"] == 93.1


def test_the_mean_over_some_of_the_categories_is_not_comparable():
    table = compare(results(categories=("bottle", "cable")), PRINTED, True)
    assert table["verdict"].tolist() == ["pass", "pass", "not comparable"]
    assert math.isnan(mean_row(table)["difference"])


def test_another_dataset_shows_the_papers_numbers_only_as_not_comparable():
    drawn = results(categories=("door_key", "hex_nut"), dataset="synthetic_target")
    table = compare(drawn, PRINTED, False, dataset="mvtec")
    assert mean_row(table)["paper_mean"] == 93.1
    assert mean_row(table)["verdict"] == "not comparable"
    assert set(table["verdict"][table["paper_mean"].isna()]) == {""}  # there is nothing to compare
    with pytest.raises(ClipadError, match="found True for synthetic_target beside .* mvtec"):
        compare(drawn, PRINTED, True, dataset="mvtec")


def test_a_number_that_no_paper_prints_has_no_verdict():
    table = compare(results(metric="pixel_ap"), PRINTED, True)
    assert set(table["verdict"]) == {""}
    assert table["difference"].isna().all()
    assert set(table["source"]) == {""}


def test_a_number_that_others_only_quote_has_no_verdict():
    quoted = PRINTED.assign(quality="secondary")
    table = compare(results(), quoted, True)
    assert set(table["verdict"]) == {""}
    assert table["difference"].notna().all()


def test_an_undefined_metric_stays_undefined_in_the_mean():
    measured = results()
    measured.loc[0, "value"] = math.nan
    table = compare(measured, PRINTED, True)
    assert math.isnan(table.iloc[0]["ours_mean"])
    assert math.isnan(mean_row(table)["ours_mean"])
    assert table.iloc[0]["verdict"] == mean_row(table)["verdict"] == ""


def test_an_ablation_is_compared_with_its_own_row():
    measured = results({0: 0.0}, k_shot=0)
    variant = "AC ablation: two-class prompts"
    row = mean_row(compare(measured, PRINTED, True, variant=variant))
    assert (row["paper_mean"], row["verdict"]) == (74.0, "fail")


def test_shots_and_metrics_keep_their_order_and_the_report_renders_them():
    parts = [
        results(k_shot=k_shot, metric=metric)
        for k_shot in (4, 0)
        for metric in ("pixel_auroc", "image_auroc")
    ]
    table = compare(pd.concat(parts, ignore_index=True), PRINTED, True)
    blocks = table[["k_shot", "metric"]].drop_duplicates().to_numpy().tolist()
    expected = [[k, m] for k in (0, 4) for m in ("image_auroc", "pixel_auroc")]
    assert blocks == expected
    assert "pass" in comparison_table(table)


def changed(**columns: object) -> pd.DataFrame:
    measured = results({0: 0.0, 1: 0.0})
    for name, value in columns.items():
        measured[name] = measured[name].astype(object)
        measured.loc[3, name] = value
    return measured.infer_objects()


@pytest.mark.parametrize(
    ("measured", "message"),
    [
        (results().iloc[:0], "found no rows"),
        (results().drop(columns="seed"), "found no column seed"),
        (changed(dataset="visa"), "found dataset mvtec, visa, expected one"),
        (changed(variant="zqhang"), "found variant paper, zqhang, expected one"),
        (changed(metric="accuracy"), "accuracy.* expected a metric of image_auroc"),
        (changed(value=91.8), r"91\.8.* expected a value from 0 to 1"),
        (changed(category=MVTEC[0]), "expected every row once"),
        (results({0: 0.0, 1: 0.0}).drop(index=3), "29 rows, expected 2 seeds of 15 categories"),
    ],
)
def test_results_that_would_give_a_wrong_mean_are_refused(measured, message):
    with pytest.raises(ClipadError, match=re.compile(message, re.DOTALL)):
        compare(measured, PRINTED, True)


def test_the_readme_says_what_the_papers_print_and_how_far_a_run_may_be() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\w+-]+) (\d)-shot \| (.+) \|$", text, re.M)
    printed = {name: method for method in paper_names() for name in printed_methods(method)}
    assert {"winclip", "anomalyclip", "vcpclip", "aprilgan"} == {printed[name] for name, *_ in rows}
    places = [(d, m) for d in ("mvtec", "visa") for m in ("image_auroc", "pixel_auroc", "aupro")]
    for name, shots, cells in rows:
        expected = []
        for dataset, metric in places:
            number = reported(printed[name], dataset, int(shots), metric)
            std = math.nan if number.std is None else number.std
            points = tolerance(printed[name], metric, MEAN, std)
            expected.append(f"{number.mean:.1f} ({points:.1f})")
        assert cells.split(" | ") == expected, name
