"""What an ablation of params.yaml is to the papers: where printed, what is said to be better."""

from __future__ import annotations

from dataclasses import dataclass


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
