"""What an ablation of params.yaml is to the papers: where printed, what is said to be better."""

from __future__ import annotations

from dataclasses import dataclass

# The group whose rows are whole published codes.
PRESET = "preset"
# Published codes that score images and give no map: what their presets map is nobody's.
IMAGES_ALONE = ("malalab",)


def gives(preset: str, metric: str) -> bool:
    """Whether a published code gives what a metric measures.

    >>> gives("malalab", "image_ap"), gives("malalab", "aupro"), gives("anomalib", "aupro")
    (True, False, True)
    """
    return preset not in IMAGES_ALONE or metric.startswith("image_")


@dataclass(frozen=True)
class Group:
    """One ablation of params.yaml and what the paper says about it.

    Attributes:
        metrics: what its table shows; the first one is drawn.
        table, dataset: where its numbers are printed; "" where the paper has none.
        printed: our row -> the printed variant in data/paper/.
        claims: (better row, worse row) as the paper reports them, in the first metric.
    """

    metrics: tuple[str, ...]
    table: str = ""
    dataset: str = ""
    printed: tuple[tuple[str, str], ...] = ()
    claims: tuple[tuple[str, str], ...] = ()
