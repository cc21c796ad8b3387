"""The WinCLIP page about its prompts."""

from __future__ import annotations

import pandas as pd

from clipad_core.clip.prompt_ensemble import PromptEnsemble
from clipad_harness.report.tables import Html, table


def prompt_table(ensemble: PromptEnsemble, words: str) -> Html:
    """States and templates side by side, and how many prompts they make."""
    normal, anomalous = ensemble.prompts(words)
    columns = {
        "normal states": [state.replace("{}", words) for state in ensemble.normal_states],
        "anomalous states": [state.replace("{}", words) for state in ensemble.anomalous_states],
    }
    templates = [template.replace("{}", "[state]") for template in ensemble.templates]
    half = -(-len(templates) // 2)
    columns |= {"templates": templates[:half], "more templates": templates[half:]}
    rows = max(len(cells) for cells in columns.values())
    padded = {name: [*cells, *[""] * (rows - len(cells))] for name, cells in columns.items()}
    frame = pd.DataFrame(padded, index=pd.Index(range(1, rows + 1), name=""))
    caption = (
        f"{len(ensemble.normal_states)} × {len(ensemble.templates)} = {len(normal)} normal and "
        f"{len(ensemble.anomalous_states)} × {len(ensemble.templates)} = {len(anomalous)} anomalous "
        f"prompts ({ensemble.source})"
    )
    return table(frame, caption)
