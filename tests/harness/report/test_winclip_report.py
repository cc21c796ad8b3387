from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image
from project import REPOSITORY, settings, variants_of, write_settings
from scipy.stats import ttest_1samp
from sklearn.metrics import precision_recall_curve, roc_curve

from clipad_core.clip.backbone import Backbone
from clipad_core.errors import ClipadError
from clipad_core.metrics.metrics import auroc, f1_max
from clipad_harness.base.settings import Profile, Weights, read_method
from clipad_harness.data.contact_sheet import contact_sheet
from clipad_harness.data.dataset_images import DatasetImages
from clipad_harness.experiments.pipeline import Run
from clipad_harness.experiments.scorer import Scorer
from clipad_harness.experiments.variants import question_group
from clipad_harness.papers.card import Departure, read_paper
from clipad_harness.papers.numbers import load_reported
from clipad_harness.report import (
    ablations,
    claims,
    departures,
    galleries,
    method,
    method_page,
)
from clipad_harness.report.map_grid import map_grid
from clipad_harness.report.steps import examples, winclip_data
from clipad_harness.report.summary import read_summary, summary_text

METRICS = ("image_auroc", "image_ap", "image_f1max", "pixel_auroc", "aupro", "pixel_f1max")


def cell(
    variant: str, values: dict[str, float], k_shot: int = 0, seed: int = 0, metric: str = ""
) -> list[dict[str, object]]:
    """Rows of the results table: one value a category, in one metric or in all."""
    head = {"method": "WinCLIP", "variant": variant, "backbone": "micro", "dataset": "mvtec"}
    return [
        {
            **head,
            "category": name,
            "k_shot": k_shot,
            "seed": seed,
            "metric": metric_name,
            "value": value,
        }
        for name, value in values.items()
        for metric_name in ([metric] if metric else METRICS)
    ]


def index_of(counts: dict[str, int]) -> pd.DataFrame:
    """An index of a normal and otherwise damaged test images a category."""
    rows = [
        ("mvtec", name, "test", "good" if i == 0 else "hole", int(i > 0), f"{name}/{i}", f"{i}")
        for name, count in counts.items()
        for i in range(count)
    ]
    columns = ["dataset", "category", "split", "defect", "label", "image", "mask"]
    return pd.DataFrame(rows, columns=columns)


@pytest.fixture
def make_scorer(micro: Backbone, monkeypatch: pytest.MonkeyPatch):
    def make(kind: str, counts: dict[str, int], dataset: str = "mvtec") -> Scorer:
        backbone = replace(micro, kind=kind, label="micro")
        monkeypatch.setattr(Scorer, "backbone", lambda self, config: backbone)
        weights = {"winclip": Weights("ViT-B-16-plus-240", "none", None, {})}
        profile = Profile("demo", dataset, None, (), None, "cpu", weights)
        datasets = {dataset: DatasetImages(index_of(counts), Path())}
        among = variants_of("winclip")
        return Scorer("winclip", profile, datasets, None, None, among)  # type: ignore[arg-type]

    return make


@pytest.fixture
def as_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes the run that a scorer is of."""

    def make(scorer: Scorer) -> Run:
        write_settings(tmp_path, settings())
        section = read_method(tmp_path, "winclip")
        monkeypatch.setattr(Run, "scorer", lambda self: scorer)
        return Run(
            tmp_path, "winclip", scorer.profile, section, [*scorer.variants], scorer.datasets
        )

    return make


def paper_results(offset: float) -> pd.DataFrame:
    """Results at the paper's own zero-shot numbers for bottle and cable, plus some points."""
    table = load_reported()
    selected = (table["method"] == "WinCLIP") & (table["variant"] == "zero-shot")
    selected &= (table["dataset"] == "MVTec AD") & (table["quality"] == "primary")
    rows = []
    for name in ("bottle", "cable"):
        for metric in METRICS:
            numbers = table[selected & (table["category"] == name) & (table["metric"] == metric)]
            value = float(numbers["mean"].iloc[0]) / 100
            rows += cell("main", {name: min(1.0, value + offset / 100)}, metric=metric)
    return pd.DataFrame(rows)


def test_an_ablation_averages_categories_and_spreads_over_seeds() -> None:
    rows = cell("memories/M^P", {"a": 0.8, "b": 0.6}, 1, 0)
    rows += cell("memories/M^P", {"a": 0.9, "b": 0.7}, 1, 1)
    row = ablations.ablation(pd.DataFrame(rows), "memories").iloc[0]
    assert row["ours"] == pytest.approx(75.0)
    assert row["std"] == pytest.approx(np.std([70, 80], ddof=1))
    assert row["paper"] == 94.5


def test_an_unknown_ablation_is_refused_with_the_known_ones() -> None:
    results = pd.DataFrame(cell("memories/M^P", {"a": 0.5}))
    with pytest.raises(ClipadError, match="'prompts', expected one of memories"):
        ablations.ablation(results, "prompts")


def test_a_mean_over_categories_is_unknown_where_one_of_them_or_the_metric_is() -> None:
    rows = cell("prompts/one class", {"a": 0.3, "b": np.nan}, metric="image_auroc")
    rows += cell("prompts/two class", {"a": 0.3, "b": 0.5}, metric="image_auroc")
    means = ablations.ablation(pd.DataFrame(rows), "prompts").set_index(["row", "metric"])["ours"]
    assert np.isnan(means["one class", "image_auroc"])
    assert means["two class", "image_auroc"] == pytest.approx(40)
    assert np.isnan(means["two class", "image_ap"])  # no row has it


def test_a_direction_is_read_from_the_sign_of_our_difference() -> None:
    values = {"one class": 0.3, "two class": 0.5, "states": 0.4, "states and templates": 0.4}
    rows = [
        row
        for name, value in values.items()
        for row in cell(f"prompts/{name}", dict.fromkeys("abc", value))
    ]
    directions = claims.directions(pd.DataFrame(rows), "prompts")
    assert list(directions["direction"]) == [
        "as in the paper",
        "not as in the paper",
        "no difference",
    ]
    assert list(directions["this run"]) == ["+20.0 ± 0.0", "−10.0 ± 0.0", "0.0 ± 0.0"]
    assert directions["paper"].iloc[0] == "+39.8"
    page = claims.direction_table(pd.DataFrame(rows), "prompts")
    assert "over 3 categories; what another seed would change is not in it" in page
    assert "Of 3: 1 as in the paper; 1 not as in the paper." in page


def two_classes(*points: Sequence[float]) -> pd.DataFrame:
    """Two rows whose differences are these, in points: a seed a sequence, a number a category."""
    rows: list[dict[str, object]] = []
    for seed, differences in enumerate(points):
        names = [f"c{place}" for place in range(len(differences))]
        better = [0.4 + difference / 100 for difference in differences]
        rows += cell("prompts/one class", dict.fromkeys(names, 0.4), seed=seed)
        rows += cell("prompts/two class", dict(zip(names, better)), seed=seed)
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("points", "text", "verdict"),
    [
        # One category, and two however clear: nothing is known of how categories scatter.
        ([[30.0]], "+30.0", "undecided"),
        ([[0.0]], "0.0", "undecided"),
        ([[20.0, 21.0]], "+20.5 ± 6.4", "undecided"),
        # Three: the quantile of two degrees of freedom is 4.30, not 2.
        ([[10.0, 20.0, 15.0]], "+15.0 ± 12.4", "as in the paper"),
        ([[5.0, 20.0, 15.0]], "+13.3 ± 19.0", "undecided"),  # three standard errors
        ([[-10.0, -20.0, -15.0]], "−15.0 ± 12.4", "not as in the paper"),
        # Differences within a twentieth of a point are none; a mean that happens to be is not.
        ([[0.01, 0.0, 0.01]], "0.0 ± 0.0", "no difference"),
        ([[5.0, -5.0, 0.0]], "0.0 ± 12.4", "undecided"),
        # Seeds that disagree leave undecided what the categories alone would decide.
        ([[15.0, 16.0, 17.0], [15.0, 16.0, 17.0]], "+16.0 ± 2.5", "as in the paper"),
        ([[15.0, 16.0, 17.0], [5.0, 6.0, 7.0]], "+11.0 ± 63.5", "undecided"),
        ([[15.0, np.nan, 17.0]], "–", "undefined for this data"),
    ],
)
def test_a_difference_is_one_by_student_s_t_over_categories_and_over_seeds(
    points: list[list[float]], text: str, verdict: str
) -> None:
    row = claims.directions(two_classes(*points), "prompts").iloc[0]
    assert (row["this run"], row["direction"]) == (text, verdict)


@pytest.mark.parametrize("count", [3, 5, 13])
def test_the_verdict_is_that_of_the_one_sample_t_test(count: int) -> None:
    random = np.random.default_rng(count)
    for scale in (1.0, 4.0, 16.0):
        points = 10 + scale * random.standard_normal(count)
        expected = ttest_1samp(points, 0).confidence_interval(1 - claims.LEVEL)
        width = claims.half_width(pd.DataFrame([points]))
        assert width == pytest.approx((expected.high - expected.low) / 2)


def test_the_readme_says_by_which_rule_claims_are_judged() -> None:
    text = " ".join((REPOSITORY / "README.md").read_text(encoding="utf-8").split())
    numbers = {2: "two", 3: "three", 4: "four", 5: "five"}
    assert f"Student's t at {100 * claims.LEVEL:g} %" in text
    assert f"on fewer than {numbers[claims.LEAST_CATEGORIES]} categories nothing is decided" in text


def test_the_papers_own_numbers_count_where_they_contradict_its_words() -> None:
    """Table 6 at four shots: the full method is 0.1 below the row before it."""
    less, more = (dict.fromkeys("abc", value) for value in (0.5, 0.6))
    rows = cell("memories/M^P and mid windows", less, 4, metric="pixel_auroc")
    rows += cell("memories/full, with the language map", more, 4, metric="pixel_auroc")
    directions = claims.directions(pd.DataFrame(rows), "memories")
    assert directions[["paper", "this run"]].iloc[0].tolist() == ["−0.1", "+10.0 ± 0.0"]
    assert list(directions["direction"]) == ["not as in the paper"]


def test_what_a_choice_is_worth_is_read_where_it_moves_something() -> None:
    rows = [
        row
        for name, by in (("exact", 0.0), ("mvtec", 0.1))
        for metric in ("image_auroc", "pixel_auroc", "aupro")
        for row in cell(f"preset/{name}", {"a": 0.5 + by * (metric == "aupro")}, metric=metric)
    ]
    text = claims.worth(pd.DataFrame(rows), "preset", "mvtec", "exact")
    assert text == "mvtec against exact: +10.0 points of 0-shot pixel AUPRO"


def test_a_code_without_maps_gets_no_number_for_them() -> None:
    rows = cell("preset/malalab", {"a": 0.5}) + cell("preset/anomalib", {"a": 0.5})
    means = ablations.ablation(pd.DataFrame(rows), "preset").set_index(["row", "metric"])["ours"]
    assert means["malalab", "image_auroc"] == means["anomalib", "pixel_auroc"] == 50
    assert np.isnan(means["malalab", "pixel_auroc"]) and np.isnan(means["malalab", "aupro"])


def test_gains_leave_out_categories_that_neither_row_was_measured_on() -> None:
    rows = cell("components/full", {"a": 0.6}) + cell("components/DTP only", {"a": 0.5})
    rows += cell("training set/target to auxiliary", {"b": 0.5})
    gains = ablations.gains(pd.DataFrame(rows), "components", "full", "DTP only", "pixel_auroc")
    assert gains.index.tolist() == ["a"] and gains.iloc[0, 0] == pytest.approx(10)


def test_a_group_that_only_params_knows_still_gets_a_table() -> None:
    results = pd.DataFrame(cell("mine/<b>", {"a": 0.5}))
    assert ablations.further(results) == ["mine"]
    assert "&lt;b&gt;" in ablations.ablation_table(results, "mine")


def test_the_figure_of_an_ablation_says_highest_and_lowest_in_words() -> None:
    rows = cell("AUPRO/exact", {"a": 0.5}) + cell("AUPRO/mvtec", {"a": 0.4})
    figure, alt = ablations.ablation_figure(pd.DataFrame(rows), "AUPRO")
    plt.close(figure)
    assert alt == "AUPRO: pixel AUPRO in per cent, 0-shot from 40.0 (mvtec) to 50.0 (exact)."


def test_other_backbones_stand_above_this_run() -> None:
    backbones = ablations.backbones(
        pd.DataFrame(cell("main", {"a": 0.5, "b": 0.7})), "supplement Table 9"
    )
    assert backbones.loc["paper: ViT-B/16+", "image AUROC"] == 90.8
    assert backbones.iloc[-1].tolist() == ["mvtec", pytest.approx(60.0), pytest.approx(60.0)]


def test_a_mean_beside_other_backbones_is_unknown_where_a_category_is() -> None:
    rows = pd.DataFrame(cell("main", {"a": 0.5, "b": np.nan}))
    assert np.isnan(ablations.backbones(rows, "supplement Table 9").iloc[-1, 1])


@pytest.mark.parametrize(
    ("label", "change"),
    [
        ("dataset", {"dataset": "visa"}),
        ("categories", {"category": "grid"}),
        ("weights", {"backbone": "other"}),
    ],
)
def test_results_of_another_run_are_refused(make_scorer, label: str, change: dict) -> None:
    scorer = make_scorer("stand-in", {"bottle": 2})
    results = pd.DataFrame(cell("main", {"bottle": 0.5}))
    assert method.matching(scorer, results) is results
    with pytest.raises(ClipadError, match=f"its {label} are .*clipad measure winclip"):
        method.matching(scorer, results.assign(**change))


def test_the_banner_says_reproduced_within_the_tolerance_and_not_beyond(make_scorer) -> None:
    scorer = make_scorer("published", {"bottle": 83, "cable": 150})
    for offset, word in ((-0.2, "Reproduced: 12 of 12"), (-15.0, "Not reproduced: 0 of 12")):
        frame = method.comparison(scorer, paper_results(offset))
        assert word in method_page.banner(scorer, frame)
    assert "No verdict" in method_page.banner(scorer, frame.assign(verdict=""))


def test_a_part_of_the_test_images_is_not_comparable(
    make_scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert method.comparable(make_scorer("published", {"bottle": 83})) == (True, "")
    means, reason = method.comparable(make_scorer("published", {"bottle": 20}))
    assert (means, reason) == (False, "bottle has 20 of its 83 test images")
    part = make_scorer("published", {"brain": 20}, "head_ct")
    monkeypatch.setattr(method, "is_printed", lambda method, dataset: True)
    assert method.comparable(part) == (False, "head_ct has 20 of its 200 test images")


def test_the_first_screen_says_what_is_missing_with_stand_in_weights_too(make_scorer) -> None:
    scorer = make_scorer("stand-in", {"bottle": 83, "cable": 150})
    page = method_page.first_screen(scorer, paper_results(0.0))
    assert "13 of the 15 categories are not run: capsule" in page
    assert "233 of 1,725 test images are here" in page
    assert "What is missing" in page[: page.index("<table>")]


def test_what_the_publisher_measures_and_no_run_here_does_is_missing(make_scorer) -> None:
    words = method.incomplete(make_scorer("stand-in", {"pushpins": 3}, "mvtec_loco"))
    assert any(word.startswith("sPRO, the overlap that its publisher measures") for word in words)


def test_the_first_screen_leads_to_the_papers_tables_and_to_contradictions(make_scorer) -> None:
    page = method_page.first_screen(make_scorer("stand-in", {"bottle": 83}), paper_results(0.0))
    assert 'href="tables.html"' in page and 'href="conflicts.html"' in page


def test_what_one_category_does_not_define_is_missing_by_its_name(make_scorer) -> None:
    scorer = make_scorer("stand-in", {"bottle": 3, "cable": 3, "capsule": 1})
    index = scorer.tested.index
    index.loc[index["category"] == "cable", "mask"] = ""
    words = method.incomplete(scorer)
    assert "pixel metrics are undefined without masks: cable" in words
    assert "image metrics are undefined where no damaged images are tested: capsule" in words


@pytest.mark.parametrize(
    ("kind", "text"), [("stand-in", "not comparable"), ("random", "mean nothing")]
)
def test_weights_that_are_not_published_are_named_first(make_scorer, kind: str, text: str) -> None:
    scorer = make_scorer(kind, {"bottle": 83, "cable": 150})
    page = method_page.first_screen(scorer, paper_results(0.0))
    assert text in page[: page.index("<table>")]
    assert ">pass<" not in page and ">fail<" not in page
    frame = method.comparison(scorer, paper_results(0.0))
    assert frame["difference"].isna().all()


def test_a_dataset_without_printed_numbers_shows_mvtec_but_never_compares(make_scorer) -> None:
    scorer = make_scorer("published", {"bottle": 83, "cable": 150}, "hazelnut_toy")
    frame = method.comparison(scorer, paper_results(0.0).assign(dataset="hazelnut_toy"))
    mean = frame[(frame["category"] == "mean") & (frame["metric"] == "image_auroc")].iloc[0]
    assert mean["paper_mean"] == 91.8
    assert set(frame["verdict"]) == {"not comparable"}


def test_every_source_is_marked_and_listed_once(make_scorer) -> None:
    scorer = make_scorer("stand-in", {"bottle": 83, "cable": 150})
    frame = method.comparison(scorer, paper_results(0.0))
    page = method_page.category_tables(frame, ["image_auroc"])
    assert page.count("<li id=") == frame.loc[frame["metric"] == "image_auroc", "source"].nunique()
    assert 'href="#note-' in page and "<summary>" not in page


def test_the_metrics_file_can_be_written_and_read(make_scorer, tmp_path: Path) -> None:
    scorer = make_scorer("stand-in", {"bottle": 83, "cable": 150})
    summary = method.summarise(scorer, paper_results(0.0))
    path = tmp_path / "page.json"
    path.write_text(summary_text(summary, path))
    stored = read_summary(path)
    assert stored.headline["0-shot"]["image_auroc"].paper == 91.8
    assert stored.stand_in and stored.images == 233


def test_every_open_choice_is_told_with_what_the_paper_and_the_codes_say(
    make_scorer, as_run
) -> None:
    page = departures.open_choices(as_run(make_scorer("stand-in", {"bottle": 2})))
    assert "0.07 (anomalib, zqhang); 0.01 (caoyunkang, malalab)" in page
    assert "sum (zqhang); parallel (caoyunkang)<" in page  # mala-lab fuses no maps


def test_departures_measure_what_an_ablation_can(make_scorer, as_run) -> None:
    scorer = make_scorer("stand-in", {"bottle": 2})
    rows = cell("main", {"bottle": 0.5}) + cell("AUPRO/exact", {"bottle": 0.5}, 1)
    rows += cell("AUPRO/cflow200", {"bottle": 0.4}, 1)
    page = departures.departures(as_run(scorer), pd.DataFrame(rows))
    assert "cflow200 against exact: −10.0 points of 1-shot pixel AUPRO" in page
    assert "not measured in this run" in page
    assert "AUPRO: exact, FPR up to 0.3" in page and "references: seeded; seeds: 1" in page
    assert "no multi-crop in the image score" in page


def test_a_departure_is_told_where_its_condition_holds(make_scorer, as_run) -> None:
    run, rows = as_run(make_scorer("stand-in", {"bottle": 2})), pd.DataFrame(cell("main", {"a": 1}))
    main = run.variants[0]
    run.variants[0] = replace(main, config=main.config.changed({"multi_crop": "five"}))
    page = departures.departures(run, rows)
    assert "no multi-crop" not in page and "patch memory: ln_post" in page


@pytest.mark.parametrize(
    ("temperature", "reason"),
    [
        (0.07, "no value is printed; 0.07 is that of anomalib, zqhang"),
        (0.01, "no value is printed; 0.01 is that of caoyunkang, malalab"),
        (0.3, "no value is printed; no published code has 0.3"),
    ],
)
def test_a_reason_names_the_codes_that_share_this_run_s_value(
    make_scorer, as_run, temperature: float, reason: str
) -> None:
    run, rows = as_run(make_scorer("stand-in", {"bottle": 2})), pd.DataFrame(cell("main", {"a": 1}))
    changes = {"temperature": temperature}
    run.variants[0] = replace(run.variants[0], config=run.variants[0].config.changed(changes))
    run = replace(run, settings=replace(run.settings, changes=changes))
    page = departures.departures(run, rows)
    assert f"temperature {temperature}</th><td>{reason}</td>" in page
    assert f"temperature {temperature} for 0.07</th><td>changed in params.yaml</td>" in page


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        (
            {"main": "abc", "prompts/states": "ab"},
            "ablations are measured on 2 of 3 categories (a, b)",
        ),
        ({"main": "ab", "prompts/states": "ab"}, None),
        ({"main": "ab"}, None),
    ],
)
def test_on_how_many_categories_ablations_ran_is_counted(
    make_scorer, as_run, counts: dict[str, str], text: str | None
) -> None:
    rows = [row for name, c in counts.items() for row in cell(name, dict.fromkeys(c, 0.5))]
    page = departures.departures(as_run(make_scorer("stand-in", {"bottle": 2})), pd.DataFrame(rows))
    assert ("ablations are measured on" in page) is (text is not None)
    assert (text or "") in page


def test_weights_that_are_no_stand_in_are_not_told_as_one(make_scorer, as_run) -> None:
    rows = pd.DataFrame(cell("main", {"a": 1}))
    published = as_run(make_scorer("published", {"bottle": 2}))
    other = Weights("ViT-B-32", "openai", None, {})
    published = replace(published, profile=replace(published.profile, weights={"winclip": other}))
    page = departures.departures(published, rows)
    assert "the paper has ViT-B-16-plus-240</td>" in page and "bundled" not in page


def test_a_departure_that_no_rows_measure_says_so_or_what_is_noted(
    make_scorer, as_run, monkeypatch
) -> None:
    own = (Departure("one", "because"), Departure("other", "because", noted="see <there>"))
    paper = replace(read_paper("winclip"), departures=own)
    monkeypatch.setattr(departures, "read_paper", lambda method: paper)
    run = as_run(make_scorer("stand-in", {"bottle": 2}))
    page = departures.departures(run, pd.DataFrame(cell("main", {"a": 1})))
    assert "one</th><td>because</td><td>not measured in this run</td>" in page
    assert "other</th><td>because</td><td>see &lt;there&gt;</td>" in page


def test_a_departure_of_a_name_that_no_run_has_says_which_card(
    make_scorer, as_run, monkeypatch
) -> None:
    paper = replace(read_paper("winclip"), departures=(Departure("{colour}", "because"),))
    monkeypatch.setattr(departures, "read_paper", lambda method: paper)
    run = as_run(make_scorer("stand-in", {"bottle": 2}))
    with pytest.raises(
        ClipadError, match=r"winclip/card\.yaml, .*found the name 'colour', expected"
    ):
        departures.departures(run, pd.DataFrame(cell("main", {"a": 1})))


def test_the_code_of_a_number_is_the_method_s_room_and_its_scorer(make_scorer) -> None:
    code = method.code_of(make_scorer("stand-in", {"bottle": 2}))
    assert "clipad_core/methods/winclip/detector.py" in code
    assert code[-1] == "clipad_harness/experiments/scorer.py"
    assert all((REPOSITORY / path).is_file() for path in code)


def test_an_image_ranks_right_as_often_as_its_category_s_auroc_says() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 2
    scores = np.round(rng.random(30) + 0.2 * labels, 1)  # rounded: with ties
    shares = galleries.ranked_right(labels, scores)
    assert shares[labels == 1].mean() == pytest.approx(auroc(labels, scores))
    assert shares[labels == 0].mean() == pytest.approx(auroc(labels, scores))
    assert np.isnan(galleries.ranked_right(np.ones(3, dtype=int), scores[:3])).all()


def scored() -> galleries.Scored:
    frame = pd.DataFrame(
        {
            "category": ["a", "a", "a", "b", "b"],
            "defect": ["good", "hole", "tear", "hole", "good"],
            "label": [0, 1, 1, 1, 0],
            "image": ["0", "1", "2", "3", "4"],
            "image_score": [0.5, 0.9, 0.1, 0.8, 0.2],
            "ranked": [0.5, 1.0, 0.0, 1.0, 1.0],
            "pixel_auroc": [np.nan, 0.9, 0.4, 0.8, np.nan],
            "area": [np.nan, 5.0, 0.5, 3.0, np.nan],
            "found": [False, True, False, True, True],
        }
    )
    return galleries.Scored(frame, [], [])


@pytest.mark.parametrize("seed", [0, 1])
def test_curves_are_those_of_scikit_learn_and_the_dot_is_f1_max(seed: int) -> None:
    random = np.random.default_rng(seed)
    labels, scores = random.integers(0, 2, 40), random.integers(0, 9, 40) / 10  # with ties
    false_positives, recall, precision, place = galleries.curves_of(labels, scores)
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    assert np.append(0, false_positives) == pytest.approx(false)
    assert np.append(0, recall) == pytest.approx(true)
    expected = precision_recall_curve(labels, scores)
    assert precision[::-1] == pytest.approx(expected[0][:-1])
    best = 2 * precision[place] * recall[place] / (precision[place] + recall[place])
    assert best == pytest.approx(f1_max(labels, scores))


@pytest.mark.parametrize(
    ("seed", "told"), [("", "Scores,"), ("seed 7, one of 3", "Scores (seed 7, one")]
)
def test_the_score_figures_say_whose_scores_they_show(seed: str, told: str) -> None:
    figure, alt = galleries.curves_figure(replace(scored(), seed=seed), "Scores")
    plt.close(figure)
    assert alt.startswith(told) and "highest F1 by category: " in alt
    assert bool(galleries.seed_note(replace(scored(), seed=seed))) is bool(seed)


def test_without_one_kind_of_image_there_are_no_curves() -> None:
    whole = scored()
    normal = replace(whole, images=whole.images[whole.images["label"] == 0])
    figure, alt = galleries.curves_figure(normal, "Scores")
    plt.close(figure)
    assert alt.endswith("undefined for this data.")


def test_best_and_worst_are_the_two_ends_and_take_each_category_once_first() -> None:
    assert galleries.best(scored(), 2) == [1, 3]
    assert galleries.worst(scored(), 3) == [2, 3, 1]
    assert galleries.median(scored(), 1) == [3]
    alike = scored()
    alike.images.loc[2, "category"] = "b"
    assert galleries.median(alike, 2) == [3, 1]
    assert galleries.false_alarms(scored(), 1) == [0]


def test_defects_are_listed_from_missed_to_found() -> None:
    defects = galleries.by_defect(scored())
    assert list(defects.index) == ["tear", "hole"]
    assert defects.loc["hole", "image AUROC"] == 100.0 and defects.loc["tear", "found"] == 0.0
    sentence = galleries.size_sentence(scored())
    assert sentence.startswith("1 of 3 damaged images are missed") and "0.50 %" in sentence


def test_of_a_long_image_the_tile_with_the_defect_is_shown(micro: Backbone, tmp_path: Path) -> None:
    pixels = np.zeros((32, 64, 3), dtype=np.uint8)
    mask = np.zeros((32, 64), dtype=np.uint8)
    pixels[8:16, 48:60], mask[8:16, 48:60] = 200, 255
    Image.fromarray(pixels).save(tmp_path / "image.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    row = {"category": "a_b", "defect": "hole", "image": "image.png", "mask": "mask.png"}
    main = variants_of("winclip")[0]
    assert main.config.resize == "tiles"
    scorer = SimpleNamespace(
        name="winclip",
        variants=[main],
        tested=SimpleNamespace(data=tmp_path),
        backbone=lambda config: micro,
    )
    [example] = examples.load_examples(scorer, pd.DataFrame([row]))  # type: ignore[arg-type]
    assert example.name == "a b, hole" and example.picture.shape == (32, 32, 3)
    assert example.mask is not None and example.mask.sum() == 8 * 12
    assert example.picture[example.mask].min() > 150 and example.picture[~example.mask].max() < 50


def test_a_map_s_own_auroc_stands_in_the_alt_text() -> None:
    mask = np.zeros((4, 4), dtype=bool)
    mask[:2, :2] = True
    picture = np.zeros((4, 4, 3), dtype=np.uint8)
    example = examples.Example("a", "hole", picture, mask, None, None)  # type: ignore[arg-type]
    right = torch.from_numpy(mask.astype(np.float32))
    columns = {"right": [right], "wrong": [1 - right], "no score": [right]}
    figure, alt = map_grid([example], columns, unrated=["no score"])
    plt.close(figure)
    assert alt.endswith("a, hole (right 100, wrong 0).")


def test_many_maps_side_by_side_have_their_words_in_two_lines() -> None:
    mask = np.zeros((4, 4), dtype=bool)
    mask[:2] = True
    example = examples.Example("a", "hole", np.zeros((4, 4, 3), np.uint8), mask, None, None)  # type: ignore[arg-type]
    for count, title in ((2, "own 0, 1-shot"), (8, "own 0,\n1-shot")):
        columns = {
            f"own {number}, 1-shot": [torch.arange(16.0).reshape(4, 4)] for number in range(count)
        }
        figure, _ = map_grid([example], columns)
        plt.close(figure)
        assert figure.axes[1].get_title() == title
        assert ("\n" in figure.axes[1].get_xlabel()) == (count == 8)


def test_a_question_about_a_claim_of_the_paper_stands_among_its_claims() -> None:
    group = question_group("fewer templates")
    rows = cell(f"{group}/22 templates", {"a": 0.5, "b": 0.5, "c": 0.5})
    rows += cell(f"{group}/1 by coverage", {"a": 0.6, "b": 0.6, "c": 0.6})
    rows += cell(f"{question_group('note 003')}/paper", {"a": 0.5, "b": 0.5, "c": 0.5})
    results = pd.DataFrame(rows)
    assert ablations.claimed_questions(results) == [group] and ablations.further(results) == []
    row = claims.directions(results, group).loc["22 templates against 1 by coverage"]
    assert (row["this run"], row["direction"]) == ("−10.0 ± 0.0", "not as in the paper")


def test_the_prompts_are_counted_and_a_class_name_is_text_not_html() -> None:
    from clipad_core.methods.winclip.prompts import find_ensemble

    page = winclip_data.prompt_table(find_ensemble("full22_dot"), "<nut>")
    assert "7 × 22 = 154 normal and 4 × 22 = 88 anomalous" in page
    assert "flawless &lt;nut&gt;" in page and "<nut>" not in page


def test_the_contact_sheet_reads_any_image_and_mask_that_the_index_does(tmp_path: Path) -> None:
    for category in ("nut", "bolt"):
        for place in ("train/good", "test/good", "test/hole", "ground_truth/hole"):
            folder = tmp_path / "data" / category / place
            folder.mkdir(parents=True)
            grey = np.full((8, 8), 0 if place.startswith("ground") else 200, dtype=np.uint8)
            grey[2:5, 2:5] = 255
            # anomalib's toy set: photos as JPEG, a mask under its image's own name
            suffix = "png" if place.startswith("ground") else "jpg"
            Image.fromarray(grey).save(folder / f"00.{suffix}")
    full_sheet = contact_sheet(tmp_path, "data", columns=3)
    nut_sheet = contact_sheet(tmp_path, "data", categories=["nut"], columns=3)
    assert nut_sheet.width == full_sheet.width and nut_sheet.height < full_sheet.height
    assert (np.asarray(nut_sheet) == (255, 0, 170)).all(axis=-1).any()  # the outline of the defect
