import base64
import dataclasses
import io
import json
import math
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from PIL import Image

from clipad_core.errors import ClipadError
from clipad_harness import report
from clipad_harness.base.files import write_text
from clipad_harness.report import GalleryItem, Headline, Summary, figures
from clipad_harness.site.index import index_page
from clipad_harness.site.page import network_loads

SOURCES = ("Jeong et al. 2023, Table 1", "Jeong et al. 2023, <supplement>")


def comparison(categories: tuple[str, ...] = ("<b>", "mean")) -> pd.DataFrame:
    rows = [
        {
            "category": category,
            "k_shot": k_shot,
            "metric": "image_auroc",
            "ours_mean": 90.04,
            "ours_std": 0.36 if k_shot else math.nan,
            "paper_mean": 92.0 if k_shot else math.nan,
            "paper_std": math.nan,
            "difference": -1.96 if k_shot else math.nan,
            "verdict": "fail" if k_shot else "not comparable",
            "source": SOURCES[1] if category == "mean" else SOURCES[0],
        }
        for category in categories
        for k_shot in (0, 4)
    ]
    return pd.DataFrame(rows)


def parsed(html: str) -> BeautifulSoup:
    return BeautifulSoup(html, "html.parser")


def cells(soup: BeautifulSoup) -> list[list[str]]:
    rows = soup.find("tbody").find_all("tr")
    return [[c.get_text("", strip=True) for c in r.find_all(["th", "td"])] for r in rows]


def test_a_category_called_like_a_tag_is_shown_as_text():
    soup = parsed(report.comparison_table(comparison()))
    assert soup.find("b") is None
    assert cells(soup)[0][0] == "<b>"


def test_unknown_numbers_are_dashes_and_known_ones_have_one_decimal():
    first, second = cells(parsed(report.comparison_table(comparison())))[:2]
    assert first == ["<b>", "0", "90.0", "–1", "–", "–not comparable"]
    assert second == ["<b>", "4", "90.0± 0.4", "92.01", "−2.0", "✗fail"]
    assert report.percent(math.nan) == "–"


def test_every_source_is_listed_once_and_its_number_leads_to_it():
    soup = parsed(report.comparison_table(comparison()))
    assert [item.get_text() for item in soup.select("ol.sources li")] == list(SOURCES)
    links = soup.select("sup a")
    assert [link.get_text() for link in links] == ["1", "1", "2", "2"]
    for link in links:
        assert soup.find(id=link["href"][1:]).get_text() == link["title"]


def test_two_tables_on_a_page_have_sources_of_their_own():
    first, second = (parsed(report.comparison_table(comparison((name,)))) for name in ("a", "b"))
    assert first.li["id"] != second.li["id"]


def test_what_is_the_same_in_every_row_moves_into_the_caption():
    frame = comparison()
    soup = parsed(report.comparison_table(frame[frame.k_shot == 4], caption="Image & pixel"))
    assert soup.caption.get_text() == "Image & pixel, 4-shot, image AUROC, per cent"
    heads = [head.get_text() for head in soup.select("thead th")]
    assert heads == ["category", "ours", "paper", "difference", "verdict"]
    assert [row.get("class") for row in soup.select("tbody tr")] == [None, ["total"]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="verdict"), "no column verdict"),
        (lambda f: f.iloc[:0], "no rows"),
        (lambda f: f.assign(metric="accuracy"), "metric 'accuracy'"),
        (lambda f: f.assign(verdict="good"), "verdict: found 'good'"),
        (lambda f: f.assign(ours_mean=0.9), "expected both in per cent"),
    ],
)
def test_a_comparison_that_must_not_be_shown_is_refused(change, message):
    with pytest.raises(ClipadError, match=message):
        report.comparison_table(change(comparison()))


def test_a_verdict_is_said_in_words_and_a_missing_one_is_a_dash():
    assert parsed(report.badge("pass", count=3)).get_text() == "✓ 3 pass"
    assert report.badge("not comparable").count("none") == 1
    assert [report.badge(nothing) for nothing in (None, "", math.nan)] == ["–", "–", "–"]


def test_a_plain_table_rounds_floats_and_aligns_numbers():
    frame = pd.DataFrame(
        {"x": [-0.26, math.nan], "n": [12, 3], "t": ["<i>", "b"]}, index=["r", "s"]
    )
    soup = parsed(report.table(frame, "A & B", decimals=1))
    assert cells(soup) == [["r", "−0.3", "12", "<i>"], ["s", "–", "3", "b"]]
    assert [tag.get_text() for tag in soup.select("thead .number")] == ["x", "n"]
    assert soup.caption.get_text() == "A & B"


def test_boxes_show_text_from_data_as_text():
    assert parsed(report.callout("<script>", "warning")).get_text() == "<script>"
    assert parsed(report.facts({"<a>": "<b>"})).get_text() == "<a><b>"
    assert report.facts({"a": 1})._repr_html_() == str(report.facts({"a": 1}))


def line(measured: float, paper: float | None, verdict: str) -> Headline:
    difference = None if paper is None else measured - paper
    return Headline(measured, 0.4, paper, None, difference, verdict, 'Table "1"')


@pytest.fixture
def summary() -> Summary:
    return Summary(
        title="WinCLIP <b>",
        method="WinCLIP",
        method_with_references="WinCLIP+",
        dataset="mvtec",
        backbone="ViT-B-16-plus-240",
        weights_hash="ab" * 32,
        precision="float64",
        device="cpu",
        stand_in=False,
        comparable=True,
        reason="",
        categories=15,
        images=1725,
        seeds=3,
        headline={
            "4-shot": {"aupro": line(60.21, 64.6, "fail"), "image_auroc": line(95.0, 95.2, "pass")},
            "0-shot": {"image_auroc": line(90.0, None, "not comparable")},
        },
        verdicts={"pass": 1, "fail": 1, "not comparable": 1},
        missing=["visa: no dataset folder was given"],
    )


def test_a_summary_is_read_as_it_was_written_in_the_same_bytes(summary, tmp_path):
    path = tmp_path / "reports/summaries/winclip.json"
    write_text(path, report.summary_text(summary, path))
    first = path.read_bytes()
    read = report.read_summary(path)
    assert read.headline["4-shot"]["aupro"].difference == pytest.approx(-4.39, abs=1e-9)
    assert dataclasses.replace(read, headline={}) == dataclasses.replace(summary, headline={})
    write_text(path, report.summary_text(read, path))
    assert path.read_bytes() == first


def test_an_undefined_number_is_written_as_null_not_as_nan(summary, tmp_path):
    undefined = dataclasses.replace(line(90.0, None, ""), ours=math.nan)
    path = tmp_path / "a.json"
    changed = dataclasses.replace(summary, headline={"0-shot": {"aupro": undefined}})
    assert (
        json.loads(report.summary_text(changed, path))["headline"]["0-shot"]["aupro"]["ours"]
        is None
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.pop("images"), "found no images, expected fields of title"),
        (lambda r: r.update(images="many"), "images: found 'many', expected int"),
        (lambda r: r.update(missing="all"), "missing: found 'all', expected a list of str"),
        (lambda r: r["verdicts"].update(good=1), "verdicts: found 'good'"),
        (lambda r: r["headline"]["0-shot"].update(accuracy={}), "0-shot.accuracy: found no ours"),
        (
            lambda r: r["headline"].update(
                {"1-shot": {"f1": r["headline"]["0-shot"]["image_auroc"]}}
            ),
            "headline.1-shot: found 'f1', expected one of image_auroc",
        ),
        (lambda r: r["headline"]["0-shot"]["image_auroc"].update(ours="x"), "float or null"),
        (lambda r: r["headline"]["0-shot"]["image_auroc"].update(verdict="x"), "verdict: found"),
        (
            lambda r: r["headline"]["0-shot"]["image_auroc"].pop("source"),
            "found no source, .*fields of ours",
        ),
    ],
)
def test_a_summary_of_another_layout_is_refused(summary, tmp_path, change, message):
    record = dataclasses.asdict(summary)
    change(record)
    path = tmp_path / "winclip.json"
    path.write_text(json.dumps(record))
    with pytest.raises(ClipadError, match=rf"winclip\.json: .*{message}"):
        report.read_summary(path)


def test_a_summary_that_is_no_json_is_refused(tmp_path):
    path = tmp_path / "winclip.json"
    path.write_text("{")
    with pytest.raises(ClipadError, match="no readable JSON"):
        report.read_summary(path)


def index(tmp_path: Path, *summaries: Summary) -> BeautifulSoup:
    paths = [tmp_path / "reports/summaries" / f"page{i}.json" for i in range(len(summaries))]
    for path, about in zip(paths, summaries, strict=True):
        write_text(path, report.summary_text(about, path))
        (tmp_path / "reports" / f"{path.stem}.html").write_text("page")
    output = index_page(
        [*paths, tmp_path / "reports/summaries/vcpclip.json"], tmp_path / "reports" / "index.html"
    )
    html = output.read_text(encoding="utf-8")
    assert network_loads(html) == []
    return parsed(html)


def test_the_index_leads_to_each_page_and_shows_ours_paper_and_difference(summary, tmp_path):
    soup = index(tmp_path, summary)
    assert {a["href"] for a in soup.select("main tbody a")} == {
        "page0.html",
        "page0.html#origin-0-shot",
        "page0.html#origin-4-shot",
    }
    zero, four = cells(soup)
    assert zero[:4] == ["WinCLIP", "mvtec", "0-shot", "90.0± 0.4no paper number"]
    assert four[0] == "WinCLIP+"
    assert four[2:] == [
        "4-shot",
        "95.0± 0.4paper 95.2· −0.2✓pass",
        "–",
        "–",
        "60.2± 0.4paper 64.6· −4.4✗fail",
    ]
    assert "WinCLIP <b>" in soup.main.get_text()
    assert soup.main.find("b") is None


def test_the_index_says_what_is_missing(summary, tmp_path):
    missing = [item.get_text() for item in index(tmp_path, summary).select("main > ul li")]
    assert missing == [
        "WinCLIP <b>: visa: no dataset folder was given",
        "vcpclip: this report has not been made yet",
    ]


def test_only_stand_in_weights_raise_the_banner(summary, tmp_path):
    assert index(tmp_path, summary).select(".callout") == []
    stand_in = dataclasses.replace(
        summary, stand_in=True, comparable=False, reason="bundled weights <i>"
    )
    soup = index(tmp_path, summary, stand_in)
    banner = soup.select_one(".callout.warning").get_text()
    assert banner.startswith("Stand-in weights: paper columns are not comparable (WinCLIP)")
    assert "bundled weights <i>" in soup.get_text()


def test_an_index_without_reports_is_a_page_that_says_so(tmp_path):
    assert "No report has been made yet." in index(tmp_path).main.get_text()


def grey(height: int = 8, width: int = 12) -> np.ndarray:
    return np.full((height, width, 3), 100, dtype=np.uint8)


def test_an_overlay_leaves_what_scores_low_and_covers_more_as_scores_rise():
    anomaly_map = np.tile(np.linspace(0, 1, 12), (8, 1))
    change = np.abs(report.overlay(grey(), anomaly_map).astype(int) - 100).sum(axis=2)[0]
    assert change[0] == 0
    assert change[-1] > change[6] > change[3] > 0


def test_overlays_with_the_same_limits_are_comparable():
    low, high = np.full((8, 12), 0.1), np.full((8, 12), 0.9)
    limits = (0.0, 1.0)
    assert not np.array_equal(
        report.overlay(grey(), low, limits=limits), report.overlay(grey(), high, limits=limits)
    )
    assert np.array_equal(report.overlay(grey(), low), grey())


@pytest.mark.parametrize(
    ("image", "anomaly_map", "message"),
    [
        (grey().astype(float), np.zeros((8, 12)), "found float64"),
        (grey()[..., 0], np.zeros((8, 12)), r"shape \(8, 12\), expected uint8"),
        (grey(), np.zeros((12, 8)), r"found shape \(12, 8\)"),
        (grey(), np.full((8, 12), np.nan), "not finite"),
    ],
)
def test_an_overlay_of_what_does_not_fit_is_refused(image, anomaly_map, message):
    with pytest.raises(ClipadError, match=message):
        report.overlay(image, anomaly_map)


def item(mask: np.ndarray | None, caption: str = "nut/crack/004") -> GalleryItem:
    return GalleryItem(grey(), np.eye(8, 12), mask, caption, 0.51234)


def test_a_gallery_outlines_defects_and_prints_scores():
    defect = np.zeros((8, 12), dtype=np.uint8)
    defect[2:5, 3:7] = 1
    figure = report.gallery([item(defect), item(None), item(np.zeros((8, 12)))], columns=2)
    axes = figure.get_axes()
    assert [a.get_visible() for a in axes] == [True] * 6 + [False] * 2
    assert [len(a.collections) for a in axes[:6]] == [2, 2, 0, 0, 0, 0]
    assert axes[0].get_xlabel() == "score 0.512"
    plt.close(figure)


def test_a_caption_with_dollars_is_no_formula():
    figure = report.gallery([item(None, r"cost $5 and $\frac")])
    figure.canvas.draw()
    assert figure.get_axes()[0].get_title(loc="left") == r"cost $5 and $\frac"
    plt.close(figure)


def test_a_gallery_of_nothing_or_with_a_wrong_mask_is_refused():
    with pytest.raises(ClipadError, match="items: found none"):
        report.gallery([])
    with pytest.raises(ClipadError, match="mask of nut/crack/004"):
        report.gallery([item(np.ones((3, 3)))])
    plt.close("all")


@pytest.fixture
def displayed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict, dict]]:
    calls: list[tuple[dict, dict]] = []

    def record(data: dict, *, metadata: dict, raw: bool) -> None:
        assert raw
        calls.append((data, metadata))

    monkeypatch.setattr(figures, "display", record)
    return calls


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_a_shown_figure_has_its_alt_text_and_the_same_bytes_each_time(displayed, kind):
    report.use_house_style()
    for _ in range(2):
        figure, axes = plt.subplots(figsize=(2, 1))
        axes.plot([1, 2])
        report.show(figure, "A line rises.", caption="Rising", kind=kind)
    assert plt.get_fignums() == []
    (data, about), (again, _) = displayed
    assert data == again
    mime = f"image/{kind}"
    assert about == {mime: {"alt": "A line rises.", "width": 192, "caption": "Rising"}}
    picture = Image.open(io.BytesIO(base64.b64decode(data[mime])))
    assert picture.size == (288, 144)
    assert "Software" not in picture.info


def test_a_figure_without_an_alt_text_is_refused(displayed):
    figure, _ = plt.subplots()
    with pytest.raises(ClipadError, match="alt: found an empty text"):
        report.show(figure, " ")
    plt.close(figure)
    assert displayed == []
