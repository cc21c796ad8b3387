"""Rows without published code: which numbers are theirs, how far readings are, and what is not compared."""

from types import SimpleNamespace

import pandas as pd
import pytest
from bs4 import BeautifulSoup

from clipad_harness.report import readings
from clipad_harness.report.readings import MeasuredRow, PrintedRow

LARGE, SMALL = "ViT-L-14-336-quickgelu", "ViT-B-16-plus-240"
METRICS = ("image_auroc", "image_ap", "pixel_auroc")


def printed_again(row: PrintedRow, variant: str, points: float = 0.0) -> pd.DataFrame:
    """Results that are the printed values by category, all of them so many points off."""
    numbers = row.numbers("mvtec")
    numbers = numbers[(numbers["category"] != "") & numbers["metric"].isin(METRICS)]
    values = (numbers["mean"] + points).clip(0, 100) / 100
    about = {"method": "CLIP", "variant": variant, "dataset": "mvtec", "k_shot": 0, "seed": 0}
    return numbers[["category", "metric"]].assign(value=values, **about)


def texts(html: str) -> list[list[str]]:
    rows = BeautifulSoup(html, "html.parser").find_all("tr")
    return [[cell.get_text(" ", strip=True) for cell in row.find_all(["th", "td"])] for row in rows]


def test_two_rows_of_one_name_are_told_apart_by_their_backbone() -> None:
    means = {}
    for backbone in (LARGE, SMALL):
        numbers = PrintedRow("CLIP-AC", backbone).numbers("mvtec")
        mean = numbers[(numbers["category"] == "") & (numbers["metric"] == "image_auroc")]
        means[backbone] = mean["mean"].tolist()
    assert means == {LARGE: [71.5], SMALL: [74.0]}
    page = readings.one_name("CLIP-AC", ("image_auroc", "image_ap"))
    assert ["MVTec AD", "image AUROC", "71.5", "74.0", "2.5"] in texts(page)


def test_a_user_s_run_that_repeats_the_printed_images_favours_its_reading() -> None:
    page = readings.run_again(PrintedRow("CLIP", LARGE), "mvtec")
    assert ["image AUROC", "74.1", "74.1", "0.0"] in texts(page)
    assert ["pixel AUROC", "38.4", "37.8", "−0.6"] in texts(page)
    assert "favours the reading" in page and "with a period" in page
    assert "no run by others" in readings.run_again(PrintedRow("CoOp", LARGE), "mvtec")


def test_the_reading_with_the_printed_values_is_confirmed_and_stands_first() -> None:
    row = PrintedRow("CLIP", LARGE)
    results = pd.concat([printed_again(row, "far", -2.0), printed_again(row, "same")])
    variants = {"far away": "far", "as printed": "same"}
    frame = readings.distances(row, results, variants, "mvtec")
    assert frame.index.tolist() == ["as printed", "far away"]
    assert frame["categories"].tolist() == [15, 15]
    assert frame.loc["as printed", "largest"] == pytest.approx(0)
    assert frame.loc["far away", "distance"] == pytest.approx(2)
    assert readings.nearest(frame).startswith("as printed: confirmed")
    assert readings.nearest(frame.iloc[1:]).startswith("far away: the nearest, 2.0 points")


def test_one_category_that_is_off_is_no_confirmation() -> None:
    row = PrintedRow("CLIP", LARGE)
    results = printed_again(row, "same")
    zipper = (results["category"] == "zipper") & (results["metric"] == "image_auroc")
    results.loc[zipper, "value"] += 0.01
    frame = readings.distances(row, results, {"nearly": "same"}, "mvtec")
    assert frame.loc["nearly", "of_means"] <= readings.SAME_MEAN
    assert readings.nearest(frame).startswith("nearly: the nearest")


def test_without_categories_in_print_the_means_decide() -> None:
    row = PrintedRow("CLIP-AC", SMALL)
    about = {"method": "CLIP", "variant": "bare", "dataset": "mvtec", "k_shot": 0, "seed": 0}
    values = [("a", "image_auroc", 0.74), ("a", "image_ap", 0.886)]
    results = pd.DataFrame(values, columns=["category", "metric", "value"]).assign(**about)
    words = readings.nearest(readings.distances(row, results, {"bare": "bare"}, "mvtec"))
    assert words == "bare: is the nearest by means, 0.5 points away; no category is printed"


def test_no_distance_is_taken_where_nothing_can_be_compared(monkeypatch) -> None:
    row, scorer = (
        PrintedRow("CLIP", LARGE),
        SimpleNamespace(profile=SimpleNamespace(dataset="mvtec")),
    )
    results = printed_again(row, "same")
    rows = {"CLIP": (row, {"as printed": "same"}), "other": (row, {"b": "not there"})}
    monkeypatch.setattr(readings, "not_comparable", lambda scorer, row: "of other weights")
    page = readings.readings_table(rows, results, scorer, "mvtec")  # type: ignore[arg-type]
    assert ["CLIP", "as printed", "74.1", "87.6", "–", "–", "–"] in texts(page)
    assert "CLIP: no distance, since of other weights." in page
    assert "other: no reading is measured in this run." in page
    monkeypatch.setattr(readings, "not_comparable", lambda scorer, row: "")
    page = readings.readings_table(rows, results, scorer, "mvtec")  # type: ignore[arg-type]
    assert "as printed: confirmed" in page and "since" not in page


def test_a_row_of_another_backbone_dataset_or_of_a_part_is_not_compared(monkeypatch) -> None:
    weights = {"clip": SimpleNamespace(backbone=LARGE)}
    scorer = SimpleNamespace(
        name="clip",
        variants=[SimpleNamespace(config=None)],
        backbone=lambda config: SimpleNamespace(kind="published"),
        profile=SimpleNamespace(dataset="mvtec", weights=weights),
    )
    clip, winclip_s = PrintedRow("CLIP", LARGE), PrintedRow("CLIP-AC", SMALL)
    monkeypatch.setattr(readings, "incomplete", lambda scorer: [])
    assert readings.not_comparable(scorer, clip) == ""  # type: ignore[arg-type]
    assert SMALL in readings.not_comparable(scorer, winclip_s)  # type: ignore[arg-type]
    monkeypatch.setattr(readings, "incomplete", lambda scorer: ["14 categories are not run"])
    assert "not run" in readings.not_comparable(scorer, clip)  # type: ignore[arg-type]
    scorer.profile.dataset = "hazelnut_toy"
    assert "nothing is printed" in readings.not_comparable(scorer, clip)  # type: ignore[arg-type]


def test_rows_are_compared_on_the_categories_that_all_of_them_have() -> None:
    clip, several = PrintedRow("CLIP", LARGE), PrintedRow("CLIP-AC", SMALL, maps=False)
    main = printed_again(clip, "main")
    part = main[main["category"].isin(["zipper", "screw"])].assign(variant="part")
    results = pd.concat([main, part])
    rows = {
        "whole": MeasuredRow(clip, results, "main"),
        "of a part": MeasuredRow(several, results, "part", "of other weights"),
    }
    page = readings.rows_table(rows, METRICS, "mvtec", "The rows")
    assert "2 of 15 categories (screw, zipper)" in page
    values = {row[0]: row[1:] for row in texts(page)[1:]}
    mean = 100 * part.loc[part["metric"] == "image_auroc", "value"].mean()
    assert values["whole"][0] == f"{mean:.1f} paper 74.1"  # no difference over a part
    assert values["of a part"] == [f"{mean:.1f} paper 74.0", values["of a part"][1], "–"]
    alone = readings.rows_table({"whole": rows["whole"]}, METRICS, "mvtec", "The rows")
    assert texts(alone)[1][:2] == ["whole", "74.1 paper 74.1, 0.0"]
