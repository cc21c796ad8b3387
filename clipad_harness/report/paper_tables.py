"""Tables for a paper, chosen from results: what stands in rows, columns, caption and what made them.

Each says what competes for bold: methods with equally many references, rows of an ablation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

import clipad_core
from clipad_core.errors import ClipadError
from clipad_core.metrics import METRIC_LABELS, METRICS
from clipad_core.validation import listed
from clipad_harness.base.settings import read_methods, read_profile
from clipad_harness.data.cards import card_names, read_card
from clipad_harness.experiments.pipeline import measured_methods
from clipad_harness.experiments.shards import MAIN
from clipad_harness.papers.card import read_paper
from clipad_harness.papers.numbers import dataset_titles, load_reported, printed_dataset
from clipad_harness.papers.verdicts import MEAN, compare
from clipad_harness.report.ablations import ablation, how_many_categories, rows_of
from clipad_harness.report.results_file import STAND_IN, MethodResults, method_results, page_of
from clipad_harness.report.summary import Summary
from clipad_harness.report.table_texts import Cell, PaperTable

HEADLINE, CATEGORIES, ABLATION, RESULTS = "headline", "categories", "ablation", "results"
# What a table may be of, in words.
TABLES = {
    HEADLINE: "methods by number of references in rows, the mean over categories in columns",
    CATEGORIES: "categories in rows and their mean, methods in columns",
    ABLATION: "the rows of one group of params.yaml, --methods one and --group",
    RESULTS: "every number that was measured, a row each; csv, or json for all that is known",
}
_SPREAD = "± is the mean of the categories' standard deviations over seeds"


@dataclass(frozen=True)
class Selection:
    """What a table shall show; nothing named: all there is.

    Attributes:
        metrics: in this order; datasets, categories, shots: which of them.
        group: of an ablation.
        paper: the printed number beside ours.
        decimals: of numbers in per cent.
    """

    metrics: Sequence[str] = ()
    datasets: Sequence[str] = ()
    categories: Sequence[str] = ()
    shots: Sequence[int] = ()
    group: str = ""
    paper: bool = False
    decimals: int = 1


@dataclass(frozen=True)
class Source:
    """A method's results in one run, or where a run left none here, the metrics file of its page.

    Attributes:
        title: of the method; title_with_references: with normal images, "" where it reads none.
        kind: of the weights.
        results: None where the metrics file is all there is.
        page: that file; None where there are results.
    """

    name: str
    title: str
    title_with_references: str
    profile: str
    dataset: str
    kind: str
    results: MethodResults | None = None
    page: Summary | None = None

    def label(self, k_shot: int) -> str:
        """The method with so many references, as in ``WinCLIP+, 4-shot``."""
        title = self.title_with_references if k_shot else ""
        return f"{title or self.title}, {k_shot}-shot"

    def table(self) -> pd.DataFrame:
        """The results table.

        Raises:
            ClipadError: there is none.
        """
        if self.results is None:
            raise ClipadError(
                f"reports/results/{self.name}/results.csv: does not exist yet; run `./repro clipad measure "
                f"{self.name}` first."
            )
        return self.results.table()


def source_of(results: MethodResults) -> Source:
    """What a table needs to know of some results."""
    titles = results.title, results.title_with_references
    run = results.profile, results.dataset, results.weights.kind
    return Source(results.name, *titles, *run, results=results)


def run_sources(root: Path, names: Sequence[str], profile: str, pages: bool) -> list[Source]:
    """The methods of a run, in the order of params.yaml or as named.

    Args:
        root: the project's folder.
        names: of the methods; none: all that there are results of.
        profile: that made the results; "" for that of params.yaml.
        pages: whether of a method without results here the metrics file of its page does, which a clone
            has and a run makes anew.

    Raises:
        ClipadError: a method that params.yaml does not name, or without results.
    """
    chosen, known = read_profile(root, profile or None), read_methods(root)
    if unknown := [name for name in names if name not in known]:
        raise ClipadError(
            f"methods: found {listed(unknown)}, expected some of {listed(known)}, those of params.yaml."
        )
    measured = measured_methods(root)
    shown = {name: page_of(root, name, chosen.dataset) for name in known if pages}
    sources = []
    for name in names or known:
        page = shown.get(name)
        if name not in measured and page and page.headline:
            titles = page.method, page.method_with_references
            kind = STAND_IN if page.stand_in else "unknown"
            sources.append(Source(name, *titles, chosen.name, page.dataset, kind, page=page))
        elif name in measured or names:
            sources.append(source_of(method_results(root, name, chosen)))
    if not sources:
        method_results(root, known[0], chosen)  # says what is missing
    return sources


def headline(sources: Sequence[Source], selection: Selection) -> PaperTable:
    """Methods in rows, the mean over categories in columns, by dataset where there are several."""
    sources = _of_datasets(sources, selection.datasets)
    metrics = _metrics(selection, sources)
    several = len({source.dataset for source in sources}) > 1
    cells = []
    for source in sources:
        frame = _comparison(source, selection)
        for row in _rows(frame[frame["category"] == MEAN], metrics, selection.shots):
            k_shot, metric = row["k_shot"], row["metric"]
            place = (dataset_titles(source.dataset)[0],) if several else ()
            column = (*place, METRIC_LABELS[metric])
            cells.append(_cell(source.label(k_shot), column, (*column, k_shot), row))
    cells = _in_order(_filled(cells, selection), metrics if several else ())
    words = _over(sources, selection)
    datasets = " and ".join(dict.fromkeys(_title(source.dataset) for source in sources))
    profiles = " and ".join(dict.fromkeys(source.profile for source in sources))
    standing = f"{profiles}, {words} of {datasets}"
    standing += f", {STAND_IN} weights" if any(s.kind == STAND_IN for s in sources) else ""
    printed = dict.fromkeys(dataset_titles(printed_dataset(s.name, s.dataset))[0] for s in sources)
    beside = f"ours / paper on {' and '.join(printed)}"
    caption = _caption(f"Mean over {words} of {datasets}", cells, sources, selection.paper, beside)
    return PaperTable(
        corner="method",
        cells=cells,
        caption=caption,
        label="tab:headline",
        about=_about(HEADLINE, sources),
        decimals=selection.decimals,
        with_paper=selection.paper,
        standing=f"{standing}: {beside}" if selection.paper else standing,
    )


def categories(sources: Sequence[Source], selection: Selection) -> PaperTable:
    """Categories in rows and their mean last, in columns the methods by number of references."""
    sources = _of_datasets(sources, selection.datasets)
    datasets = dict.fromkeys(source.dataset for source in sources)
    if len(datasets) > 1:
        raise ClipadError(
            f"datasets: found {listed(datasets)}, expected one, since categories are rows; name it with "
            "--datasets."
        )
    metrics = _metrics(selection, sources)
    cells = []
    for source in sources:
        for row in _rows(_comparison(source, selection), metrics, selection.shots):
            k_shot, metric, name = row["k_shot"], row["metric"], str(row["category"])
            place = (METRIC_LABELS[metric],) if len(metrics) > 1 else ()
            column = (*place, source.label(k_shot))
            cells.append(_cell(name.replace("_", " "), column, (name, metric, k_shot), row))
    cells = sorted(_filled(cells, selection), key=lambda cell: cell.row == MEAN)
    if len(metrics) > 1:
        cells = _by_head(cells, [METRIC_LABELS[metric] for metric in metrics])
    what = METRIC_LABELS[metrics[0]] if len(metrics) == 1 else "Results"
    title = f"{what} by category of {_title(sources[0].dataset)}"
    printed = dict.fromkeys(dataset_titles(printed_dataset(s.name, s.dataset))[0] for s in sources)
    beside = f"ours / paper on {' and '.join(printed)}"
    return PaperTable(
        corner="category",
        cells=cells,
        caption=_caption(title, cells, sources, selection.paper, beside),
        label="tab:categories",
        about=_about(CATEGORIES, sources),
        decimals=selection.decimals,
        total=MEAN,
        with_paper=selection.paper,
    )


def ablation_rows(sources: Sequence[Source], selection: Selection) -> PaperTable:
    """One ablation: its rows, in columns the metrics of its table by number of references."""
    sources = _of_datasets(sources, selection.datasets)
    if len(sources) != 1:
        names = listed(dict.fromkeys(source.name for source in sources))
        raise ClipadError(f"methods: found {names}, expected one; name it with --methods.")
    [source] = sources
    results, name = source.table(), selection.group
    if selection.categories:
        results = _of_categories(source, results, selection.categories)
    if not name:
        raise ClipadError(
            f"group: found none, expected one of {listed(groups(results))}; name it with --group."
        )
    long = ablation(results, name)
    if unknown := [metric for metric in selection.metrics if metric not in set(long["metric"])]:
        raise ClipadError(
            f"metrics: found {listed(unknown)}, expected some of {listed(long['metric'].unique())}, which "
            f"the card of {source.name} names for {name}."
        )
    metrics = list(selection.metrics or long["metric"].unique())
    several = long["k_shot"].nunique() > 1
    cells = []
    for row in _rows(long, metrics, selection.shots):
        shots = (f"{row['k_shot']}-shot",) if several else ()
        column = (METRIC_LABELS[row["metric"]], *shots)
        values = {"ours_mean": row["ours"], "ours_std": row["std"], "paper_mean": row["paper"]}
        cells.append(_cell(str(row["row"]), column, column, {**row, **values}))
    cells = _by_head(_filled(cells, selection), [METRIC_LABELS[metric] for metric in metrics])
    measured = rows_of(results, name)
    seeds = sorted({int(seed) for seed in measured["seed"]})
    title = f"{source.title}, {name}: mean over {how_many_categories(results, measured)}"
    title += f" of {_title(str(measured['dataset'].iloc[0]))}"
    title += ", one seed" if len(seeds) == 1 else ""
    return PaperTable(
        corner=name,
        cells=cells,
        caption=_caption(
            title,
            cells,
            sources,
            selection.paper,
            "ours / paper",
            f"± is the standard deviation of the means of {len(seeds)} seeds",
        ),
        label=f"tab:{source.name}-{name.replace(' ', '-')}",
        about=_about(f"{ABLATION}, group {name}", sources, seeds),
        decimals=selection.decimals,
        with_paper=selection.paper,
    )


def result_rows(sources: Sequence[Source], selection: Selection) -> tuple[Sequence[str], str]:
    """Every number that was measured, as in `results.csv`: what made it, and the CSV."""
    sources = _of_datasets(sources, selection.datasets)
    tables = []
    for source in sources:
        table = source.table()
        if selection.categories:
            table = _of_categories(source, table, selection.categories)
        for column, chosen in (("metric", selection.metrics), ("k_shot", selection.shots)):
            table = table[table[column].isin(chosen)] if chosen else table
        if selection.group:
            table = rows_of(table, selection.group)
        tables.append(table)
    table = pd.concat(tables)
    if table.empty:
        raise ClipadError("export: found no result with all that is asked for; name less.")
    return _about(RESULTS, sources), table.to_csv(
        index=False, lineterminator="\n", float_format="%.6f"
    )


def contents(sources: Sequence[Source]) -> str:
    """What can be exported: the tables, and the names that there are results of."""
    width = max(map(len, TABLES))
    lines = ["tables:", *(f"  {name:{width}}  {about}" for name, about in TABLES.items())]
    lines += ["metrics:", f"  {listed(METRICS)}", "methods:"]
    for source in sources:
        lines.append(f"  {source.name}: profile {source.profile}, dataset {source.dataset}")
        if source.results is None:
            lines.append("    the means of its page alone, for headline")
            continue
        results = source.table()
        main = results[results["variant"] == MAIN]
        lines += [
            f"    categories: {listed(main['category'].unique())}",
            f"    shots: {listed(main['k_shot'].unique())}",
            f"    groups: {listed(groups(results))}",
        ]
    return "\n".join(lines) + "\n"


def groups(results: pd.DataFrame) -> list[str]:
    """The groups of variants that some results hold."""
    return list(dict.fromkeys(name.split("/")[0] for name in results["variant"] if "/" in name))


def _title(dataset: str) -> str:
    return read_card(dataset).title if dataset in card_names() else dataset


def _of_datasets(sources: Sequence[Source], names: Sequence[str]) -> list[Source]:
    """The sources of some datasets, each method once on each."""
    known = dict.fromkeys(source.dataset for source in sources)
    if unknown := [name for name in names if name not in known]:
        raise ClipadError(
            f"datasets: found {listed(unknown)}, expected some of {listed(known)}, which there are "
            "results of."
        )
    chosen = [source for source in sources if not names or source.dataset in names]
    pairs = [(source.name, source.dataset) for source in chosen]
    if twice := [pair for pair in dict.fromkeys(pairs) if pairs.count(pair) > 1]:
        name, dataset = twice[0]
        raise ClipadError(
            f"from: found results of {name} on {dataset} twice, expected each once; leave a file out."
        )
    return chosen


def _of_categories(source: Source, results: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    known = dict.fromkeys(results.loc[results["variant"] == MAIN, "category"])
    if unknown := [name for name in names if name not in known]:
        raise ClipadError(
            f"categories: found {listed(unknown)}, expected some of {listed(known)}, which {source.name} "
            "has results of."
        )
    return results[results["category"].isin(names)]


def _comparison(source: Source, selection: Selection) -> pd.DataFrame:
    """Ours beside the paper's by category and on the mean, as `compare` gives it.

    A mean over some of the categories has no printed number beside it.
    """
    if source.page and not selection.categories:
        return _of_page(source.page)
    table = source.table()
    results = table[table["variant"] == MAIN]
    if selection.categories:
        results = _of_categories(source, results, selection.categories)
    about = source.results
    beside = printed_dataset(source.name, source.dataset)
    frame = compare(results, load_reported(), bool(about and about.comparable), beside)
    if selection.categories:
        frame.loc[frame["category"] == MEAN, "paper_mean"] = math.nan
    return frame


def _of_page(summary: Summary) -> pd.DataFrame:
    """The means of a page's metrics file."""
    rows = [
        {
            "category": MEAN,
            "k_shot": int(shots.removesuffix("-shot")),
            "metric": metric,
            "ours_mean": line.ours,
            "ours_std": line.ours_std,
            "paper_mean": line.paper,
        }
        for shots, lines in summary.headline.items()
        for metric, line in lines.items()
    ]
    return pd.DataFrame(rows).astype(dict.fromkeys(("ours_mean", "ours_std", "paper_mean"), float))


def _metrics(selection: Selection, sources: Sequence[Source]) -> list[str]:
    """The metrics of a table: those that are asked for, else what all methods' first screens show."""
    if unknown := [metric for metric in selection.metrics if metric not in METRICS]:
        raise ClipadError(f"metrics: found {listed(unknown)}, expected some of {listed(METRICS)}.")
    first_screens = [read_paper(source.name).metrics for source in sources]
    shared = [metric for metric in METRICS if all(metric in shown for shown in first_screens)]
    return list(selection.metrics) or shared or list(METRICS)


def _rows(
    frame: pd.DataFrame, metrics: Sequence[str], shots: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """The rows of some metrics and numbers of references, in the order that is asked for."""
    part = frame[frame["metric"].isin(metrics)]
    order = {metric: place for place, metric in enumerate(metrics)}
    for row in sorted(part.to_dict("records"), key=lambda row: order[row["metric"]]):
        if not shots or row["k_shot"] in shots:
            yield {str(name): value for name, value in row.items()}


def _cell(
    row: str, column: tuple[str, ...], contest: tuple[object, ...], values: Mapping[str, Any]
) -> Cell:
    higher = METRICS[values["metric"]].higher_is_better
    numbers = [float(values[name]) for name in ("ours_mean", "ours_std", "paper_mean")]
    return Cell(row, column, contest, higher, *numbers)


def _filled(cells: list[Cell], selection: Selection) -> list[Cell]:
    if not cells:
        raise ClipadError(
            f"shots: found no result of {listed(selection.shots) if selection.shots else 'these metrics'}; "
            "name others."
        )
    return cells


def _by_head(cells: Sequence[Cell], heads: Sequence[str]) -> list[Cell]:
    """Cells so that columns below one head stand together, heads in order."""
    return sorted(cells, key=lambda cell: heads.index(cell.column[0]))


def _in_order(cells: list[Cell], metrics: Sequence[str]) -> list[Cell]:
    """Of several datasets: one after the other, in each the metrics in order."""
    heads = list(dict.fromkeys(cell.column[0] for cell in cells))
    labels = [METRIC_LABELS[metric] for metric in metrics]
    return (
        sorted(cells, key=lambda c: (heads.index(c.column[0]), labels.index(c.column[1])))
        if metrics
        else cells
    )


def _over(sources: Sequence[Source], selection: Selection) -> str:
    """What a mean is over, as in "13 categories" or "2 of 13 categories"; plain where runs differ."""
    counts = set()
    for source in sources:
        table = None if source.page else source.table()
        names = set() if table is None else set(table.loc[table["variant"] == MAIN, "category"])
        total = source.page.categories if source.page else len(names)
        counts.add((len(set(selection.categories)) or total, total))
    if len(counts) > 1:
        return "categories"
    [(count, total)] = counts
    part = f"{count} of {total}" if count < total else f"{count}"
    return f"{part} {'category' if total == 1 else 'categories'}"


def _caption(
    title: str,
    cells: Sequence[Cell],
    sources: Sequence[Source],
    paper: bool,
    beside: str,
    spread: str = _SPREAD,
) -> str:
    parts = [f"{title}, per cent"]
    parts += [beside] if paper else []
    if METRIC_LABELS["aupro"] in {head for cell in cells for head in cell.column}:
        parts += _aupro(sources)
    parts += [spread] if any(not math.isnan(cell.std) for cell in cells) else []
    text = "; ".join(parts) + "."
    bundled = dict.fromkeys(s.kind for s in sources if s.kind in (STAND_IN, "random"))
    if bundled:
        text += f" Made with {' and '.join(bundled)} weights: no number here is comparable with a paper's."
    return text


def _aupro(sources: Sequence[Source]) -> list[str]:
    """Which AUPRO stands below one head, where methods count it in different ways; else nothing."""
    titles: dict[str, list[str]] = {}
    for source in sources:
        if source.results:
            run = source.results.protocol
            definition = f"{run.aupro} up to FPR {run.fpr_limit:g}"
            titles.setdefault(definition, []).append(source.title)
    words = [f"{how} of {', '.join(dict.fromkeys(names))}" for how, names in titles.items()]
    return [f"AUPRO is counted in different ways: {', '.join(words)}"] if len(words) > 1 else []


def _about(table: str, sources: Sequence[Source], seeds: Sequence[int] = ()) -> list[str]:
    """What made a table, a line a method and run; ``seeds`` where they are not the main variant's."""
    lines = [f"clipad {clipad_core.__version__}, clipad export {table}"]
    for source in sources:
        start = f"{source.title}: profile {source.profile}, dataset {source.dataset}"
        if page := source.page:
            lines.append(
                f"{start}, weights {page.backbone}, {source.kind}, {page.weights_hash[:16]}; seeds: "
                f"{page.seeds}; read from reports/summaries/{source.name}.json"
            )
        if source.results is None:
            continue
        about, run = source.results, source.results.protocol
        changed = f" with {dict(run.changes)}" if run.changes else ""
        trained = f", trained on {run.trained_on}" if run.trained_on else ""
        digest = f", {about.weights.sha256[:16]}" if about.weights.sha256 else ""
        lines.append(
            f"{start}, weights {about.weights.label}, {about.weights.kind}{digest}; preset {run.preset}"
            f"{changed}{trained}; AUPRO {run.aupro} up to FPR {run.fpr_limit:g}; seeds "
            f"{', '.join(map(str, seeds or run.seeds))}; results SHA-256 {about.results_sha256[:16]}, code "
            f"{about.code_sha256[:16]}"
        )
    return lines
