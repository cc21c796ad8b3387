"""The declared tolerances of a re-run, `data/tolerances_rerun.csv`: by level, metric and precision.

A metric of a learned method has none there: below float64 its tolerance follows from the spread over
the seeds of its own training, see `spread`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pandas as pd

from clipad_core.clip.backbone import PRECISIONS as BACKBONE_PRECISIONS
from clipad_core.errors import ClipadError
from clipad_harness.papers.card import PAPERS

# From the highest down.
PRECISIONS = tuple(BACKBONE_PRECISIONS)
TOLERANCES = PAPERS.parent / "tolerances_rerun.csv"
_COLUMNS = ["level", "metric", "precision", "tolerance", "measured", "found_by"]
_ANY = "any"


def declared(level: str, metric: str, precision: str) -> float:
    """The tolerance of a level's metric; `value` holds where a metric has none of its own.

    Raises:
        ClipadError: nothing is declared.

    >>> declared("metrics", "aupro", "float64")
    0.0
    >>> declared("metrics", "aupro", "float32") > declared("metrics", "pixel_auroc", "float32") > 0
    True
    """
    table = _read(TOLERANCES)
    for key in ((level, metric), (level, "value")):
        for kind in (precision, _ANY):
            if (*key, kind) in table:
                return table[*key, kind]
    raise ClipadError(
        f"{TOLERANCES}: found no tolerance for {level} {metric} in {precision}; declare one."
    )


@cache
def _read(path: Path) -> dict[tuple[str, str, str], float]:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise ClipadError(f"{path}: cannot be read ({error}); restore it.") from error
    if list(table.columns) != _COLUMNS or (table["found_by"] == "").any():
        raise ClipadError(
            f"{path}: expected the columns {', '.join(_COLUMNS)}, and in each row how its figure was "
            "found."
        )
    keys = zip(table["level"], table["metric"], table["precision"], strict=True)
    return dict(zip(keys, table["tolerance"].astype(float), strict=True))
