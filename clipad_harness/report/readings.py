"""Rows of papers of which nobody published code: what is printed of each, and which reading is nearest.

A reading is one setting of all that a paper leaves open. What was printed of a row are its anchors: the
mean over categories, and where there is one, the table by category, which tells readings apart that
means do not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import pandas as pd

from clipad_core.metrics import METRIC_LABELS
from clipad_harness.experiments.scorer import Scorer
from clipad_harness.papers.numbers import dataset_titles, load_reported, look_up, select
from clipad_harness.report.ablations import how_many_categories
from clipad_harness.report.method import incomplete, other_weights
from clipad_harness.report.tables import (
    DASH,
    Cell,
    Html,
    Row,
    callout,
    html_table,
    percent,
    source_list,
    table,
    with_spread,
)

# Of images: how a map is smoothed and how its AUPRO is counted cannot blur which prompts were asked.
ANCHORS = ("image_auroc", "image_ap")
# Points: a reading within both is the row's, not only the nearest of those that were tried.
SAME_CATEGORY, SAME_MEAN = 0.3, 0.1
PART = "a part of the categories"


@dataclass(frozen=True)
class PrintedRow:
    """A row of a paper's table.

    Attributes:
        method: its name there.
        backbone: that it was made with, by its published name.
        maps: whether it has any; what a run maps of one that has none is nobody's.
    """

    method: str
    backbone: str
    maps: bool = True

    def numbers(self, dataset: str) -> pd.DataFrame:
        """What is printed of it on a dataset: ``category`` is "" for the mean."""
        printed = load_reported()
        # Papers and weights write one backbone in two ways: with its pretraining, with its activation.
        name = self.backbone.removesuffix("-quickgelu")
        own = printed[printed["backbone"].str.startswith(name)]
        return select(own, self.method, dataset, reruns=True)


@dataclass(frozen=True)
class MeasuredRow:
    """A row of a paper's table and the results of a reading of it.

    Attributes:
        results: of a method's run.
        variant: of them.
        reason: why no difference can be taken, as `not_comparable` gives it; "" where one can.
    """

    printed: PrintedRow
    results: pd.DataFrame
    variant: str
    reason: str = ""

    @property
    def values(self) -> pd.DataFrame:
        """The results of the variant."""
        return self.results[self.results["variant"] == self.variant]

    def on(self, categories: set[str]) -> MeasuredRow:
        """The same on some categories."""
        return replace(self, results=self.results[self.results["category"].isin(categories)])

    def by_seed(self, metric: str) -> pd.Series:
        """Means over categories, a value a seed, per cent."""
        rows = self.values[self.values["metric"] == metric]
        grouped = rows.groupby("seed")["value"]
        return 100 * grouped.mean().where(grouped.count() == grouped.size())


def not_comparable(scorer: Scorer, row: PrintedRow) -> str:
    """Why a run's numbers cannot be held against a printed row; "" where they can."""
    if reason := other_weights(scorer, row.backbone):
        return reason
    if not len(row.numbers(scorer.profile.dataset)):
        return f"nothing is printed of this row for the dataset {scorer.profile.dataset}"
    return "; ".join(incomplete(scorer))


def rows_table(
    rows: Mapping[str, MeasuredRow], metrics: tuple[str, ...], dataset: str, caption: str
) -> Html:
    """Printed rows in the order of a table: ours, below it what is printed, and how far apart.

    All means are over the categories on which every row is measured, so that rows can be compared.

    Args:
        rows: by the name that a reader sees.
        metrics: of the columns.
        dataset: whose printed numbers stand beside ours.
    """
    measured = [set(row.values["category"]) for row in rows.values() if len(row.values)]
    common = set.intersection(*measured) if measured else set()
    body, sources = [], []
    for label, row in rows.items():
        printed = row.printed.numbers(dataset)
        shared = row.on(common)
        cells = [Cell(label, "row")]
        for metric in metrics:
            if not row.printed.maps and not metric.startswith("image_"):
                cells.append(Cell(DASH, kind="number"))
                continue
            number = look_up(printed, "", 0, metric)
            sources += [number.source] if number else []
            means = shared.by_seed(metric)
            ours = float(means.mean()) if len(means) else math.nan
            reason = row.reason or (PART if len(shared.values) < len(row.values) else "")
            cells.append(_cell(ours, means.std(), number.mean if number else None, reason))
        body.append(Row(cells))
    head = [Cell("row", "col"), *(Cell(METRIC_LABELS[name], "col", "number") for name in metrics)]
    about = (
        f"{caption}, mean over {_over(rows, common)}; below: printed, {dataset_titles(dataset)[0]}"
    )
    return html_table(about, [head], body) + source_list(sources)


def _over(rows: Mapping[str, MeasuredRow], common: set[str]) -> str:
    """The categories that all rows share, in words."""
    results = next(iter(rows.values())).results
    return how_many_categories(results, results[results["category"].isin(common)])


def _cell(ours: float, std: float, printed: float | None, reason: str) -> Cell:
    """Ours, and below it the printed number with the difference where one can be taken."""
    text = with_spread(ours, std)
    if printed is not None:
        below = f"paper {percent(printed)}"
        if not reason:
            below += f", {percent(ours - printed, signed=True)}"
        text += Html('<span class="cell-paper">{}</span>').format(below)
    return Cell(text, kind="number")


def distances(
    row: PrintedRow, results: pd.DataFrame, variants: Mapping[str, str], dataset: str
) -> pd.DataFrame:
    """How far each reading is from what is printed of a row, nearest first.

    Args:
        results: of a method's run.
        variants: reading -> its variant in the results.
        dataset: that both are of.

    Returns:
        A row a reading: ``categories``: how many are printed and measured, ``distance``: mean absolute
        difference over them and `ANCHORS`, points, ``largest``: the largest of these, ``of_means``: the
        largest over the means of all categories. NaN for what is not printed. Readings are ordered by
        ``distance``, and where no category is printed by ``of_means``.
    """
    printed = row.numbers(dataset)
    printed = printed[printed["metric"].isin(ANCHORS)]
    expected = printed.set_index(["category", "metric"])["mean"]
    printed_means = printed[printed["category"] == ""].set_index("metric")["mean"]
    rows = {}
    for name, variant in variants.items():
        own = results[(results["variant"] == variant) & results["metric"].isin(ANCHORS)]
        values = 100 * own.groupby(["category", "metric"])["value"].mean()
        means = values.groupby("metric").mean()
        apart = (values - expected).dropna().abs()
        of_means = (means - printed_means).dropna().abs()
        count = apart.index.get_level_values("category").nunique()
        rows[name] = (count, apart.mean(), apart.max(), of_means.max())
    columns = ["categories", "distance", "largest", "of_means"]
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    return frame.sort_values(["distance", "of_means"], kind="stable")


def nearest(frame: pd.DataFrame) -> str:
    """What the anchors say of some readings, in words; see `distances`."""
    first = frame.iloc[0]
    name, by_category = str(frame.index[0]), not math.isnan(first["distance"])
    if math.isnan(first["of_means"]):
        return "nothing is printed that could tell these readings apart"
    same_mean = first["of_means"] <= SAME_MEAN
    if by_category and same_mean and first["largest"] <= SAME_CATEGORY:
        return (
            f"{name}: confirmed, all categories within {SAME_CATEGORY} and means within {SAME_MEAN}"
        )
    if by_category:
        return f"{name}: the nearest, {percent(first['distance'])} points away on average"
    how = "repeats the means" if same_mean else "is the nearest by means"
    return f"{name}: {how}, {percent(first['of_means'])} points away; no category is printed"


def readings_table(
    rows: Mapping[str, tuple[PrintedRow, Mapping[str, str]]],
    results: pd.DataFrame,
    scorer: Scorer,
    dataset: str,
) -> Html:
    """All readings of some rows beside what is printed, and which one of each the anchors favour.

    Where nothing can be compared, the readings stand in their order and no distance is taken.

    Args:
        rows: by the name that a reader sees; of each its readings and their variants in the results.
        results: of a method's run.
        scorer: of that run.
        dataset: whose printed means stand above the readings.
    """
    body, places, said = [], [], []
    for label, (row, variants) in rows.items():
        known = results["variant"]
        measured = {name: own for name, own in variants.items() if (known == own).any()}
        if not measured:
            said.append(f"{label}: no reading is measured in this run.")
            continue
        frame = distances(row, results, measured, scorer.profile.dataset)
        reason = not_comparable(scorer, row)
        if reason:
            frame = frame.reindex(list(measured))
            frame[["distance", "largest", "of_means"]] = math.nan
        said.append(f"{label}: {f'no distance, since {reason}' if reason else nearest(frame)}.")
        printed = [look_up(row.numbers(dataset), "", 0, metric) for metric in ANCHORS]
        means = [percent(number.mean if number else None) for number in printed]
        body.append([*means, *[""] * 3])
        places.append((label, f"printed, {dataset_titles(dataset)[0]}"))
        for name, apart in frame.iterrows():
            own = MeasuredRow(row, results, measured[str(name)])
            values = [percent(float(own.by_seed(metric).mean())) for metric in ANCHORS]
            away = [percent(apart[key]) for key in ("distance", "largest", "of_means")]
            body.append([*values, *away])
            places.append((label, str(name)))
    columns = [METRIC_LABELS[metric] for metric in ANCHORS]
    columns += ["mean distance", "largest distance", "distance of means"]
    index = pd.MultiIndex.from_tuples(places, names=["row", "reading"]) if places else None
    shown = table(
        pd.DataFrame(body, columns=columns, index=index),
        "Readings, per cent; distances in points from the values printed by category, image AUROC and "
        "image AP together, nearest first",
    )
    return (shown if body else Html("")) + _list(said)


def _list(sentences: list[str]) -> Html:
    """Sentences as a list; those of several rows that end alike are one."""
    endings: dict[str, list[str]] = {}
    for sentence in sentences:
        label, _, ending = sentence.partition(": ")
        endings.setdefault(ending, []).append(label)
    items = [f"{'; '.join(labels)}: {ending}" for ending, labels in endings.items()]
    return Html("").join(callout(item) for item in items)


def run_again(row: PrintedRow, dataset: str) -> Html:
    """What others got who ran a printed row again, beside what is printed; with how they ran it."""
    reported = load_reported()
    titles = dataset_titles(dataset)
    own = reported[(reported["method"] == row.method) & reported["dataset"].isin(titles)]
    own = own[(own["category"] == "") & (own["quality"] == "rerun")]
    others = own[own["variant"].str.startswith("zero-shot, ")]
    if others.empty:
        return callout(f"{row.method}: no run by others on {titles[0]} is known.")
    printed = row.numbers(dataset)
    rows = []
    for other in others.to_dict("records"):
        number = look_up(printed, "", 0, str(other["metric"]))
        mean = number.mean if number else math.nan
        rows.append([mean, other["mean"], percent(other["mean"] - mean, signed=True)])
    index = pd.Index([METRIC_LABELS[str(name)] for name in others["metric"]], name="metric")
    frame = pd.DataFrame(rows, columns=["printed", "run again", "difference"], index=index)
    notes = [f"{note}: {source}" for note, source in zip(others["note"], others["source"])]
    anchors = frame[list(others["metric"].isin(ANCHORS))]
    largest = float((anchors["run again"] - anchors["printed"]).abs().max())
    words = (
        "its image values are the printed ones, which favours the reading that it was run with"
        if largest <= SAME_MEAN
        else f"its image values are up to {percent(largest)} points from the printed ones"
    )
    shown = table(frame, f"{row.method} on {titles[0]}, printed and run again")
    return shown + source_list(notes) + callout(f"The run by others: {words}.")


def one_name(method: str, metrics: tuple[str, ...]) -> Html:
    """Rows of one name in tables of several papers: what each prints, and how far they are apart."""
    printed = load_reported()
    own = printed[(printed["method"] == method) & (printed["category"] == "")]
    own = own[(own["variant"] == "zero-shot") & own["metric"].isin(metrics)]
    wide = own.pivot_table(
        index=["dataset", "metric"], columns="backbone", values="mean", sort=False
    ).dropna()
    wide = wide.assign(apart=wide.max(axis=1) - wide.min(axis=1))
    places = [(dataset, METRIC_LABELS[metric]) for dataset, metric in wide.index]
    wide.index = pd.MultiIndex.from_tuples(places, names=["dataset", "metric"])
    wide.columns = pd.Index([str(name) for name in wide.columns])
    caption = f"{method} in print, by backbone, per cent; only what is printed with all of them"
    return table(wide, caption) if len(wide) else callout(f"{method}: {DASH}")
