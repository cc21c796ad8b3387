"""Stage `index`: the chosen dataset's table, the hash of its content, and a look at its images."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from clipad_harness.base.files import replacing, write_text
from clipad_harness.base.settings import Profile, read_profile
from clipad_harness.data.datasets import find_dataset, index_hash, read_index

INDEX = Path("data/index/index.csv")
SHEET = Path("data/index/contact_sheet.png")
# Of the index and all bytes that it names: what DVC looks at, since a real dataset lies outside.
CONTENT = Path("data/index/content.txt")
# Where the stages `draw` put their datasets, which are found without `data_root`.
DRAWN = Path("data/synthetic")


def find_data(root: Path, profile: Profile) -> Path:
    """The folder of the dataset of a profile.

    Raises:
        MissingDataset: it is not here.
    """
    data_root = root / profile.data_root if profile.data_root else None
    if data_root is None and (root / DRAWN / profile.dataset).is_dir():
        data_root = root / DRAWN
    return find_dataset(profile.dataset, data_root)


def open_data(root: Path, profile: Profile) -> tuple[Path, pd.DataFrame]:
    """Find and index the dataset of a profile.

    Raises:
        MissingDataset: it is not here.
        ClipadError: a dataset that is empty or damaged.
    """
    data = find_data(root, profile)
    return data, read_index(data, profile.dataset, profile.categories)


def write_index(root: Path) -> Path:
    """Stage `index`: the chosen dataset's index table, the hash of its content, a contact sheet."""
    from clipad_harness.data.contact_sheet import contact_sheet

    profile = read_profile(root)
    data, index = open_data(root, profile)
    sheet = contact_sheet(data.parent, data.name, categories=profile.categories)
    with replacing(root / SHEET) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)
    write_text(root / CONTENT, f"{index_hash(index, data)}\n")
    return write_text(root / INDEX, index.to_csv(index=False, lineterminator="\n"))
