"""What made a page: hashes of data, weights, code and settings; how it was computed; each number's origin.

Nothing here depends on time, host, folder, processor or packages; what does is kept by `run_record`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from clipad_harness.data.cards import read_card
from clipad_harness.experiments.digests import PACKAGES, core_files
from clipad_harness.report.tables import Cell, Html, Row, html_table

if TYPE_CHECKING:
    from clipad_core.clip.backbone import Backbone

# What a page is made with.
WINGS = ("base", "data", "experiments", "papers", "report", "site")


def about_page(
    *,
    dataset: str,
    images: int,
    data_hash: str,
    backbones: Sequence[Backbone],
    methods: Sequence[str],
    parameters: Mapping[str, object],
) -> dict[str, str]:
    """What made a page, as label and value.

    Args:
        dataset: its name.
        images: how many of it were read.
        data_hash: as from `datasets.index_hash`.
        backbones: the frozen CLIP of each method; one that several share stands there once.
        methods: the rooms that the page is about.
        parameters: the sections of params.yaml that the page depends on.
    """
    return {
        "dataset": f"{dataset}, {images} images",
        "data hash": data_hash,
        "licence of the data": read_card(dataset).licence or "not stated by its publisher",
        "weights": "; ".join(dict.fromkeys(backbone.label for backbone in backbones)),
        "weights hash": "; ".join(dict.fromkeys(backbone.digest for backbone in backbones)),
        "precision": _each([backbone.precision for backbone in backbones]),
        "device": _each([backbone.device.type for backbone in backbones]),
        "code hash": code_hash(methods),
        "parameters hash": parameters_hash(parameters),
    }


def _each(values: Sequence[str]) -> str:
    """What all have in common, else one after the other.

    >>> _each(["float64", "float64"]), _each(["float64", "float32", "float32"])
    ('float64', 'float64; float32; float32')
    """
    return "; ".join(values if len(set(values)) > 1 else values[:1])


def code_hash(methods: Sequence[str], packages: Path = PACKAGES) -> str:
    """SHA-256 over names and contents of all that a page is made with.

    Of the core everything but the rooms of other methods, of the harness the wings from settings to
    pages: the same that the page's stage in dvc.yaml depends on.
    """
    core = {path for name in methods for path in core_files(name, packages)}
    harness = {
        path
        for wing in WINGS
        for path in (packages / "clipad_harness" / wing).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    digest = hashlib.sha256()
    for path in sorted(core | harness):
        digest.update(f"{path.relative_to(packages).as_posix()}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def parameters_hash(parameters: Mapping[str, object]) -> str:
    """SHA-256 over settings, whatever order they were written in.

    >>> parameters_hash({"a": 1, "b": [2]}) == parameters_hash({"b": [2], "a": 1})
    True
    """
    text = json.dumps(parameters, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def origin_anchor(shots: str) -> str:
    """The anchor of one number of shots on its page.

    >>> origin_anchor("0-shot")
    'origin-0-shot'
    """
    return f"origin-{shots}"


def origins(
    results: pd.DataFrame,
    config: Mapping[str, object],
    facts: Mapping[str, str],
    code: Sequence[str],
) -> Html:
    """Where the headline numbers come from: one row a number of shots, with an anchor for each.

    Args:
        results: rows of the results table that the headline is the mean of.
        config: the fields of the variant's config.
        facts: as from `about_page`.
        code: the files that say how it is scored, relative to the project.
    """
    names = ("shots", "seeds", "shards", "data hash", "licence", "code", "settings")
    link = Html('<a href="../{}">{}</a>')
    links = Html(", ").join(link.format(path, path) for path in code)
    settings = link.format("params.yaml", "params.yaml")
    settings += Html(', <a href="#origin-config">all fields</a>')
    rows, keys = [], []
    for k_shot, block in results.groupby("k_shot"):
        shots = f"{k_shot}-shot"
        shards = block.drop_duplicates(["category", "seed"])
        seeds = ", ".join(map(str, sorted(shards["seed"].unique())))
        count = Html('<a href="#keys-{}">{}</a>').format(shots, len(shards))
        cells = [seeds, count, facts["data hash"][:16], facts["licence of the data"]]
        cells += [links, settings]
        values = [Cell(shots, "row"), *map(Cell, cells)]
        rows.append(Row(values, anchor=origin_anchor(shots)))
        keys.append(_keys(shots, shards))
    head = [[Cell(name, "col") for name in names]]
    caption = "The means over categories above, by number of shots"
    fields = [Row([Cell(name, "row"), Cell(str(value))]) for name, value in config.items()]
    return Html(
        "<h3>Where the headline numbers come from</h3>{}"
        '<details id="origin-config"><summary>All fields of the config, weights as the preset names '
        "them</summary>{}</details>{}"
    ).format(html_table(caption, head, rows), html_table("", [], fields), Html("").join(keys))


def _keys(shots: str, shards: pd.DataFrame) -> Html:
    """The keys of the shards: each is the hash of all that a shard depends on."""
    key = Html("{}, seed {}: <code>{}</code>")
    texts = [
        key.format(row["category"], row["seed"], row["key"]) for row in shards.to_dict("records")
    ]
    return Html(
        '<details id="keys-{}"><summary>Keys of the {} shards, {}</summary><p class="keys">{}.</p>'
        "</details>"
    ).format(shots, len(shards), shots, Html("; ").join(texts))
