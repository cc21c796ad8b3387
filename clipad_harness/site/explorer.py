"""The explorer: for any test image the maps of all methods side by side, under one threshold.

`reports/explorer.html` is one file without a network: pictures, small maps, and the script of
`templates/explorer.js`. A further method is one more column.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from jinja2.utils import htmlsafe_json_dumps
from tqdm.auto import tqdm

from clipad_core.errors import ClipadError
from clipad_harness.base.files import write_text
from clipad_harness.base.settings import Explorer, read_explorer
from clipad_harness.data.datasets import index_hash
from clipad_harness.experiments.contenders import contenders
from clipad_harness.papers.citations import citations
from clipad_harness.report.provenance import about_page
from clipad_harness.report.tables import Html, callout
from clipad_harness.site.explorer_data import RATES, CategoryMaps, Sizes, category_record
from clipad_harness.site.page import TEMPLATES, page
from clipad_harness.site.readme_figure import write_readme_figure

TITLE = "Explorer"


def explore(root: Path) -> Path:
    """Stage `explore`: score every category with every method once more; write page and picture."""
    # The number of threads of a matrix product would change bits of the maps.
    torch.set_num_threads(1)
    settings, among = read_explorer(root), contenders(root)
    run = among[0].run
    backbones = [contender.scorer.backbone(contender.variant.config) for contender in among]
    kinds = sorted({backbone.kind for backbone in backbones} - {"published"})
    names = list(dict.fromkeys(contender.run.name for contender in among))
    cited = [entry for name in names for entry in citations(name, run.profile.dataset)]
    methods = {contender.label: contender.first for contender in among}
    written = write_explorer(
        methods,
        run.categories,
        run.data,
        root / "reports" / "explorer.html",
        settings,
        provenance=about_page(
            dataset=run.profile.dataset,
            images=len(run.index),
            data_hash=index_hash(run.index, run.data),
            backbones=backbones,
            methods=names,
            parameters={
                "profile": asdict(run.profile),
                "methods": names,
                "explorer": asdict(settings),
            },
        ),
        citations=list(dict.fromkeys(cited)),
        warning=f"{kinds[0].capitalize()} weights: the maps show how the methods work, not how good they "
        "are with the published ones."
        if kinds
        else "",
    )
    write_readme_figure(root, among)
    return written


def write_explorer(
    methods: Mapping[str, Callable[[str], CategoryMaps]],
    categories: Sequence[str],
    data: Path,
    output: Path,
    settings: Explorer,
    *,
    provenance: Mapping[str, str],
    citations: Sequence[tuple[str, str]] = (),
    warning: str = "",
) -> Path:
    """Write the page.

    Args:
        methods: label of a column -> what its method says of a category's test images, in the order of
            the reader's interest.
        categories: what to show, in order.
        data: the dataset's folder.
        output: the HTML file.
        settings: how many images, how large.
        provenance: what made the maps.
        citations: label and BibTeX.
        warning: what stands above everything, as that the weights are no published ones.

    Raises:
        ClipadError: no method, methods of different images, or a page above the declared size.
    """
    if not methods or not categories:
        raise ClipadError("explorer: found no method or no category, expected at least one.")
    sizes = Sizes(settings.images_per_category, settings.picture_size, settings.map_size)
    records = [
        category_record(
            name, {label: detect(name) for label, detect in methods.items()}, data, sizes
        )
        for name in tqdm(categories, "explore", unit="category", delay=2)
    ]
    record = {
        "rates": [float(f"{rate:.4g}") for rate in RATES],
        "methods": list(methods),
        "categories": records,
    }
    above = callout(warning, "warning") if warning else Html("")
    html = page(
        TITLE,
        above + _body(record),
        provenance=provenance,
        citations=citations,
        command="./repro",
        script=(TEMPLATES / "explorer.js").read_text(encoding="utf-8"),
    )
    megabytes = len(html.encode()) / 1e6
    if megabytes > settings.max_megabytes:
        raise ClipadError(
            f"explorer: found a page of {megabytes:.1f} MB, expected at most "
            f"{settings.max_megabytes}; lower explorer.images_per_category, picture_size or "
            "map_size in params.yaml."
        )
    return write_text(output, html)


def _body(record: Mapping[str, object]) -> Html:
    """The page's own part; a name from the data cannot end the element that holds it."""
    css, html = (
        Html((TEMPLATES / f"explorer.{kind}").read_text(encoding="utf-8"))
        for kind in ("css", "html")
    )
    data = htmlsafe_json_dumps(record, separators=(",", ":"))
    return Html(
        '<style>\n{}</style>\n{}<script type="application/json" id="explorer-data">{}</script>\n'
    ).format(css, html, data)
