"""The sums of the effects of switches, their pictures in words, and their sources."""

import re
from collections.abc import Iterable
from dataclasses import replace
from html import unescape
from types import SimpleNamespace

import pandas as pd
import pytest
from matplotlib import pyplot as plt
from project import tracked_params, variants_of

from clipad_core.errors import ClipadError
from clipad_core.methods import find_method
from clipad_harness.experiments.switch_steps import own_steps, steps
from clipad_harness.papers.card import paper_names, read_paper
from clipad_harness.report import reported, switch_effects


def results(values: dict[str, list[float]], to: str = "malalab") -> pd.DataFrame:
    """A walk: by metric the value after every step, the same in two categories."""
    names = ["0 start", "1 text_average", "2 temperature", "3 patch_feature", "4 clamp_association"]
    rows = [
        ("WinCLIP", f"walk to {to}/{name}", "mvtec", category, 1, 0, metric, value)
        for metric, by_step in values.items()
        for name, value in zip(names, by_step)
        for category in ("a", "b")
    ]
    columns = ["method", "variant", "dataset", "category", "k_shot", "seed", "metric", "value"]
    return pd.DataFrame(rows, columns=columns)


STEPS = {"image_auroc": [0.9, 0.8, 0.85, 0.85, 0.7], "pixel_auroc": [0.8, 0.8, 0.9, 0.9, 0.9]}


def test_the_effects_add_up_to_end_minus_start() -> None:
    values = switch_effects.walk(results(STEPS), "malalab", 1)
    points = switch_effects.effects(values)
    assert list(points.index) == list(values.index[1:])
    assert points["image_auroc"].tolist() == pytest.approx([-10, 5, 0, -15])
    assert points["image_auroc"].sum() == pytest.approx(-20)
    assert values["aupro"].isna().all()  # not in the results: unknown, not zero


def test_the_waterfall_names_its_largest_step() -> None:
    walk = switch_effects.walk(results(STEPS, "zqhang"), "zqhang", 1)
    figure, alt = switch_effects.waterfall(walk, "To zqhang", "zqhang")
    plt.close(figure)
    assert alt == (
        "To zqhang: image AUROC from 90.0 to 70.0, largest step clamp association −15.0; "
        "pixel AUROC from 80.0 to 90.0, largest step temperature +10.0."
    )


@pytest.mark.parametrize(
    ("method", "k_shot", "title"),
    [
        ("winclip", 1, "WinCLIP, paper to malalab, 1-shot"),
        ("clip", 0, "CLIP, paper to malalab"),
        ("anomalyclip", 0, "AnomalyCLIP, paper to malalab"),
    ],
)
def test_a_walk_is_titled_by_where_it_leads_and_by_references_where_some_are_read(
    method: str, k_shot: int, title: str
) -> None:
    run = SimpleNamespace(method=find_method(method), settings=SimpleNamespace(preset="paper"))
    taken = results(STEPS).assign(k_shot=k_shot)
    [(found, (end, steps))] = switch_effects.titled_walks(run, taken).items()
    assert (found, end) == (title, "malalab")
    assert steps.equals(switch_effects.walk(taken, "malalab", k_shot))


def test_every_walk_of_a_method_is_shown_below_what_its_switches_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    [first, *_] = variants_of("winclip")
    among = [replace(first, name=name) for name in results(STEPS)["variant"].unique()]
    run = SimpleNamespace(
        method=find_method("winclip"),
        name="winclip",
        settings=SimpleNamespace(preset="paper"),
        variants=among,
    )
    switch_effects.walk_panels(run, results(STEPS))
    shown = capsys.readouterr().out
    assert shown.index("The switches") < shown.index("WinCLIP, paper to malalab, 1-shot")
    switch_effects.walk_panels(run, results(STEPS).iloc[:0])
    assert "WinCLIP: no walk is measured in this run." in capsys.readouterr().out
    switch_effects.walk_panels(None, results(STEPS).iloc[:0])
    assert "not part of this run" in capsys.readouterr().out


def test_a_walk_to_a_code_without_maps_moves_none() -> None:
    values = switch_effects.walk(results(STEPS), "malalab", 1)
    assert values["pixel_auroc"].isna().all() and values["image_auroc"].notna().all()
    figure, _ = switch_effects.waterfall(values, "To malalab", "malalab")
    assert len(figure.axes) == 1
    plt.close(figure)


def test_small_effects_do_not_fill_the_axis() -> None:
    small = {"image_auroc": [0.9, 0.9001, 0.9, 0.9, 0.9], "pixel_auroc": [0.8] * 5}
    figure, _ = switch_effects.waterfall(
        switch_effects.walk(results(small), "malalab", 1), "x", "malalab"
    )
    for axes in figure.axes:
        low, high = axes.get_xlim()
        assert high - low >= switch_effects.SHORTEST_AXIS
    plt.close(figure)


def test_the_first_screen_takes_the_largest_switches_of_all_walks() -> None:
    walks = {"one": switch_effects.walk(results(STEPS), "malalab", 1)}
    page = switch_effects.largest_switches(walks, 2)
    assert "one, clamp association: −15.0" in page and "image AUROC" in page
    assert page.index("clamp association") < page.index("text average")


def test_a_walk_that_was_not_measured_says_how_to_get_it() -> None:
    with pytest.raises(ClipadError, match=r"to 'zqhang' with 0 shots; add it to winclip\.walks"):
        switch_effects.walk(results(STEPS), "zqhang")


# It differs by a training, not by a choice of somebody's code: its switches are rows of a paper's table.
UNTRAINED = "untrained"


def thrown(method: str, start: str, presets: Iterable[str]) -> set[str]:
    """The fields that are thrown on the way from one preset to others."""
    room = find_method(method)
    ends = [steps(room.preset(start), room.preset(end))[-1] for end in presets]
    return {field for _, fields in ends for field in fields}


@pytest.mark.parametrize(
    ("method", "start"), [("winclip", "paper"), ("anomalyclip", "published"), ("vcpclip", "code")]
)
def test_every_switch_on_the_way_to_a_published_setting_is_explained(
    method: str, start: str
) -> None:
    presets = find_method(method).presets.keys() - {UNTRAINED}
    used, explained = thrown(method, start, presets), switch_effects.switches(method)
    assert used and used <= set(explained)
    linked = re.compile(r"[\w-]+/[\w.-]+@(v\d|[0-9a-f]{7})")
    for name in used:
        assert explained[name].meaning and linked.search(explained[name].source), name


@pytest.mark.parametrize("method", paper_names())
def test_every_switch_has_a_meaning_and_a_source(method: str) -> None:
    linked = re.compile(r"[\w-]+/[\w.-]+@(v\d|[0-9a-f]{7})")
    for name, switch in switch_effects.switches(method).items():
        assert switch.meaning, name
        assert linked.search(switch.source) or re.match(r"P Tables? \d", switch.source), name
    assert all(
        cause.what and cause.why and cause.source for cause in read_paper(method).not_measured
    )


def test_a_field_that_no_code_decides_is_the_run_s_own() -> None:
    values = pd.DataFrame(50.0, ["0 start", "1 map_source"], switch_effects.METRICS)
    page = switch_effects.switch_table([values], "WinCLIP")
    assert "map source" in page and "this run's own setting" in unescape(page)


def test_the_tracked_walks_throw_every_switch_and_no_unexplained_one() -> None:
    params = tracked_params()
    for method in params["methods"]:
        section, presets = params[method], find_method(method).presets
        if not section["walks"]:  # a method without walks is not on that page
            continue
        used = thrown(method, section["preset"], section["walks"])
        for changes in section["own_walks"].values():
            used |= set(own_steps(changes)[-1][1])
        explained = set(switch_effects.switches(method))
        untrained = thrown(method, section["preset"], presets.keys() & {UNTRAINED})
        assert used <= explained and explained - used <= untrained, method


def test_the_table_says_from_what_to_what() -> None:
    among = variants_of("winclip")
    page = switch_effects.effect_table(
        switch_effects.walk(results(STEPS), "malalab", 1), among, "malalab", "To malalab"
    )
    assert "To malalab: what every switch" in page and "<td>mean_raw</td><td>norm_mean</td>" in page
    assert "0.07" in page and "0.01" in page and "−15.0" in page


def test_every_code_stands_beside_what_is_reported_of_it() -> None:
    rows = [
        ("WinCLIP", f"preset/{code}", "mvtec", "a", 0, 0, metric, 0.612)
        for code in ("paper", "anomalib", "zqhang", "caoyunkang", "malalab")
        for metric in reported.REPORTED
    ]
    page = reported.codes_table(pd.DataFrame(rows, columns=results(STEPS).columns))
    for code, number in [
        ("paper", 91.8),
        ("zqhang", 90.4),
        ("caoyunkang", 70.2),
        ("malalab", 90.4),
    ]:
        assert re.search(rf"{code}</th><td[^>]*>{number}</td><td[^>]*>61.2", page)
    assert page.count("61.2") == 3 * 4 + 1  # mala-lab gives no map
    assert re.search(r"anomalib</th><td[^>]*>–</td>", page)
    assert "caoyunkang: caoyunkang/WinClip@0818c9d" in page


def test_a_switch_of_the_measurement_says_its_positions_too() -> None:
    steps = [{"multi_crop": "five"}, {"aupro": "cflow200"}, {"aupro": "mvtec"}]
    among = variants_of("winclip", own_walks={"other reporting": steps})
    walk = [variant for variant in among if variant.name.startswith("walk to other reporting/")]
    assert [variant.aupro for variant in walk] == ["exact", "exact", "cflow200", "mvtec"]
    values = pd.DataFrame(
        50.0, [variant.name.partition("/")[2] for variant in walk], switch_effects.METRICS
    )
    page = switch_effects.effect_table(values, among, "other reporting", "As reported")
    assert "<td>none</td><td>five</td>" in page
    assert "<td>exact</td><td>cflow200</td>" in page and "<td>cflow200</td><td>mvtec</td>" in page


@pytest.mark.parametrize("method", ["WinCLIP", "AnomalyCLIP", "VCP-CLIP"])
def test_what_is_reported_has_its_sources(method: str) -> None:
    page = reported.reported_range(method)
    assert "image AUROC" in page and page.count("<li>") >= 2
    if method == "WinCLIP":
        assert "70.2" in page and "91.8" in page
        assert "91.8, zero-shot: arXiv:2303.14814" in page  # not somebody's quotation of it
    assert "not determined" not in page


def test_the_sources_of_the_switches_are_links() -> None:
    page = switch_effects.switch_table(
        [switch_effects.walk(results(STEPS), "malalab", 1)], "winclip"
    )
    assert '<a href="https://github.com/mala-lab/WinCLIP/tree/4880fc4">' in page
    assert (
        '<a href="https://github.com/mlfoundations/open_clip/issues/906">'
        in switch_effects.not_measured()
    )


def test_without_references_their_switches_are_left_out() -> None:
    zero = results(STEPS).assign(k_shot=0)
    steps = switch_effects.walk(zero, "malalab").index
    assert list(steps) == ["0 start", "1 text_average", "2 temperature"]


def test_backbones_of_an_ablation_are_no_report_of_the_method() -> None:
    assert "62.4" not in reported.reported_range("WinCLIP")
