"""Ranking metrics and AUPRO: what scores and maps are measured by."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """One number that results hold.

    Attributes:
        name: the key under which `metrics.image_metrics` or `metrics.pixel_metrics` gives it.
        label: how tables and figures call it.
        higher_is_better: its direction.
    """

    name: str
    label: str
    higher_is_better: bool = True


# All metrics of a result, by name, in the order of tables. `pixel_iou` is none of them: no paper reports
# it, and it is there for the official test log of VCP-CLIP alone.
METRICS = {
    metric.name: metric
    for metric in (
        Metric("image_auroc", "image AUROC"),
        Metric("image_ap", "image AP"),
        Metric("image_f1max", "image F1-max"),
        Metric("pixel_auroc", "pixel AUROC"),
        Metric("pixel_ap", "pixel AP"),
        Metric("pixel_f1max", "pixel F1-max"),
        Metric("aupro", "pixel AUPRO"),
    )
}
METRIC_LABELS = {name: metric.label for name, metric in METRICS.items()}
