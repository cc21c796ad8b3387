"""What notebooks and stages use to report: tables, figures, numbers beside the paper's.

A notebook needs one import, `from clipad_harness import report`: figures through `report.show`,
boxes and tables as the last line of a cell.
"""

from clipad_core.metrics import METRIC_LABELS
from clipad_harness.report.figures import (
    PALETTE,
    GalleryItem,
    gallery,
    overlay,
    show,
    use_house_style,
)
from clipad_harness.report.summary import Headline, Summary, read_summary, summary_text
from clipad_harness.report.tables import (
    Html,
    badge,
    callout,
    comparison_table,
    facts,
    percent,
    table,
)

__all__ = [
    "METRIC_LABELS",
    "PALETTE",
    "GalleryItem",
    "Headline",
    "Html",
    "Summary",
    "badge",
    "callout",
    "comparison_table",
    "facts",
    "gallery",
    "overlay",
    "percent",
    "read_summary",
    "show",
    "summary_text",
    "table",
    "use_house_style",
]
