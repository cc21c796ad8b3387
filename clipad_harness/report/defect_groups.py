"""Maps of a question's rows by size and by kind of defect: pixel metrics, and intervals of their AP.

A refinement moves edges, which AUROC hardly sees: nearly all pixels are far from any. Average precision,
the best F1 and its overlap do. A group is the damaged images of one size or kind beside all normal images
of their category.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from clipad_core.metrics import METRIC_LABELS
from clipad_core.metrics.metrics import UNDEFINED, pixel_metrics
from clipad_harness.experiments.by_image import pixel_counts
from clipad_harness.experiments.contenders import Contender
from clipad_harness.experiments.shards import CategoryScores
from clipad_harness.report.figures import draw_intervals, show
from clipad_harness.report.questions import Asked, Effect, Verdict, judged
from clipad_harness.report.side_by_side import image_weights, percentile_interval
from clipad_harness.report.tables import DASH, Cell, Html, Row, callout, html_table, percent

ALL = "all defects"
# By area, of the damaged images of each category.
QUARTERS = ("smallest quarter", "second quarter", "third quarter", "largest quarter")
# Of the one threshold with the best F1; IoU = F1 / (2 − F1) there.
METRICS = {name: METRIC_LABELS[name] for name in ("pixel_ap", "pixel_f1max", "aupro")}
METRICS["iou"] = "IoU"
# Of the scores of damaged pixels, equally filled: average precision of bins is near that of the scores.
BINS = 256


@dataclass(frozen=True)
class _Category:
    """One category under all rows.

    Attributes:
        labels: of the test images (b,).
        groups: name -> which test images it holds, the normal ones too (b,).
        metrics: by row and group.
        counts: by row, normal and damaged pixels of every image by bin of their score (2, b, BINS).
    """

    labels: NDArray[np.int64]
    groups: Mapping[str, NDArray[np.bool_]]
    metrics: Mapping[tuple[str, str], Mapping[str, float]]
    counts: Mapping[str, NDArray[np.float64]]


class DefectGroups:
    """The rows of a question by size and by kind of defect; with several seeds, of the first.

    Args:
        asked: the rows; categories without masks have no part.
    """

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self._resampled: dict[str, dict[str, NDArray[np.float64]]] = {}

    @cached_property
    def _categories(self) -> list[_Category]:
        categories = (_measured(self.asked.among, name) for name in self.asked.categories)
        return [category for category in categories if category is not None]

    @property
    def groups(self) -> list[str]:
        """All defects, their sizes, their kinds."""
        names = {name for category in self._categories for name in category.groups}
        sizes = [name for name in QUARTERS if name in names]
        return [ALL, *sizes, *sorted(names - {ALL, *sizes})]

    def images(self, group: str) -> int:
        """How many damaged images a group has."""
        members = [
            (one.groups[group], one.labels) for one in self._categories if group in one.groups
        ]
        return sum(int((chosen & (labels == 1)).sum()) for chosen, labels in members)

    def value(self, label: str, group: str, metric: str) -> float:
        """A metric of a row, per cent, mean over the categories that have the group."""
        values = [
            one.metrics[label, group][metric] for one in self._categories if group in one.groups
        ]
        return 100 * float(np.mean(values)) if values else UNDEFINED

    def effect(self, label: str, base: str, group: str = ALL) -> Effect:
        """A row minus another by pixel AP, in points, with the 95 per cent interval over images."""
        members = [one for one in self._categories if group in one.groups]
        samples = self._samples(group)
        images = sum(np.bincount(one.labels[one.groups[group]], minlength=2) for one in members)
        spread = np.mean(samples[label] - samples[base], axis=0)
        low, high = percentile_interval(spread, np.asarray(images))
        difference = self.value(label, group, "pixel_ap") - self.value(base, group, "pixel_ap")
        return Effect(difference, 100 * low, 100 * high)

    def _samples(self, group: str) -> dict[str, NDArray[np.float64]]:
        """Pixel AP of every row in the same resamples of each category (categories, resamples)."""
        if group not in self._resampled:
            samples: dict[str, list[NDArray[np.float64]]] = {row: [] for row in self.asked.labels}
            members = [one for one in self._categories if group in one.groups]
            for place, one in enumerate(members):
                chosen = one.groups[group]
                weights = image_weights(one.labels[chosen], place)
                for row, counts in one.counts.items():
                    samples[row].append(_precisions(counts[:, chosen], weights))
            self._resampled[group] = {row: np.stack(parts) for row, parts in samples.items()}
        return self._resampled[group]

    def verdict(self, label: str, base: str, points: float = 0.0) -> Verdict | None:
        """Whether a row exceeds another by more than so many points of pixel AP; None without maps.

        Its sentence also says for which sizes and kinds of defect the interval leaves zero out.
        """
        if not self._categories:
            return None
        verdict = judged(self.effect(label, base), points, f"{label} minus {base} by pixel AP")
        return replace(verdict, sentence=f"{verdict.sentence}; {self._where(label, base)}")

    def _where(self, label: str, base: str) -> str:
        effects = {group: self.effect(label, base, group) for group in self.groups[1:]}
        parts = []
        for word, is_so in (("better", lambda e: e.low > 0), ("worse", lambda e: e.high < 0)):
            names = [f"{group} {effect}" for group, effect in effects.items() if is_so(effect)]
            parts.append(f"clearly {word} for {', '.join(names) or 'no size or kind'}")
        return ", ".join(parts)

    def table(self) -> Html:
        """Every metric of every row, a line a group."""
        if not self._categories:
            return callout(f"{self.asked.title}, {self.asked.group}: {DASH} (no maps with masks).")
        labels = self.asked.labels
        heads = [Cell("defects", "col", rows=2), Cell("images", "col", "number", rows=2)]
        heads += [Cell(name, "colgroup", columns=len(labels)) for name in METRICS.values()]
        body = []
        for group in self.groups:
            cells = [Cell(group, "row"), Cell(self.images(group), kind="number")]
            for metric in METRICS:
                values = (self.value(label, group, metric) for label in labels)
                cells += [Cell(percent(value), kind="number") for value in values]
            body.append(Row(cells))
        caption = (
            f"{self.asked.title}: maps by size and kind of defect, beside all normal images; per cent, mean "
            "over categories. Quarters by area are those of each category; AUPRO at every distinct "
            "threshold; IoU at that of the best F1"
        )
        rows = [Cell(label, "col", "number") for _ in METRICS for label in labels]
        return html_table(caption, [heads, rows], body)

    def figure(self, base: str) -> None:
        """Display what every row changes by pixel AP against its base, a line a group, with intervals."""
        if not self._categories:
            return
        names = [label for label in self.asked.labels if label != base]
        groups, said = self.groups, []
        size = (9.0, 0.9 + 0.24 * len(groups))
        figure, panels = plt.subplots(1, len(names), figsize=size, sharey=True, squeeze=False)
        for panel, name in zip(panels[0], names, strict=True):
            draw_intervals(panel, groups, (self.effect(name, base, g).interval for g in groups))
            said.append(f"{name} {self.effect(name, base)}")
            panel.set_title(name, fontsize=9.5)
            panel.set_xlabel("points of pixel AP", fontsize=8.5)
        about = (
            f"{self.asked.title}: pixel AP of each row minus {base}, by size and kind of defect; 95 % "
            "intervals over images, none for fewer than five."
        )
        show(figure, f"{about} Of all defects: {'; '.join(said)}.", caption=about)


def _measured(among: Sequence[Contender], name: str) -> _Category | None:
    """A category under all rows; None without masks, or without damaged or normal images."""
    metrics, counts, labels, groups = {}, {}, np.zeros(0, dtype=np.int64), {}
    for row in among:
        scored = row.first(name)
        labels = scored.images["label"].to_numpy()
        if len(set(labels)) < 2 or (scored.images["mask"][labels == 1] == "").any():
            return None
        groups = _groups(scored)
        counts[row.label] = _counts(scored)
        for group, chosen in groups.items():
            metrics[row.label, group] = _pixel_metrics(scored, chosen, row.variant.fpr_limit)
    return _Category(labels, groups, metrics, counts) if among else None


def _groups(scored: CategoryScores) -> dict[str, NDArray[np.bool_]]:
    """Which images are in a group: by quarters of the damaged area, by kind, and all."""
    labels = scored.images["label"].to_numpy()
    kinds = scored.images["defect"].to_numpy()
    normal = labels == 0
    damaged = np.flatnonzero(labels == 1)
    areas = np.array([scored.masks[place].mean() for place in damaged])
    parts = np.array_split(damaged[np.argsort(areas, kind="stable")], len(QUARTERS))
    members = {ALL: damaged, **dict(zip(QUARTERS, parts, strict=True))}
    for kind in dict.fromkeys(kinds[damaged]):
        members[str(kind).replace("_", " ")] = damaged[kinds[damaged] == kind]
    groups = {}
    for group, places in members.items():
        if len(places):
            groups[group] = normal.copy()
            groups[group][places] = True
    return groups


def _pixel_metrics(
    scored: CategoryScores, chosen: NDArray[np.bool_], fpr_limit: float
) -> dict[str, float]:
    places = np.flatnonzero(chosen)
    maps, masks = ([part[place] for place in places] for part in (scored.maps, scored.masks))
    values = pixel_metrics(maps, masks, fpr_limit=fpr_limit)
    # A pixel at the threshold is marked, as F1 has it: maps of regions have many pixels of one value.
    best = values["pixel_f1max"]
    return values | {"iou": best / (2 - best)}


def _counts(scored: CategoryScores) -> NDArray[np.float64]:
    """Normal and damaged pixels of every image by bin of their score, the highest bin first."""
    damaged = np.concatenate([m[mask] for m, mask in zip(scored.maps, scored.masks, strict=True)])
    edges = np.unique(np.quantile(damaged, np.linspace(0, 1, BINS + 1)[:-1], method="lower"))
    counts = pixel_counts(scored.maps, scored.masks, edges, len(edges) + 1)
    return counts[:, :, ::-1].astype(np.float64)


def _precisions(counts: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pixel AP of every resample.

    Args:
        counts: normal and damaged pixels by image and bin, the highest bin first (2, b, bins).
        weights: how often a resample holds an image (resamples, b).
    """
    normal, damaged = (weights @ kind for kind in counts)
    hits = damaged.cumsum(axis=1)
    marked = hits + normal.cumsum(axis=1)
    precision = np.divide(hits, marked, out=np.zeros_like(hits), where=marked > 0)
    return np.asarray((damaged * precision).sum(axis=1) / hits[:, -1])
