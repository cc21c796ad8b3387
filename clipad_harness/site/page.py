"""HTML pages that open from disk: one file, no network, light and dark, screen and paper.

The shell in `templates/page.html.j2` puts header, contents, provenance and style around a fragment:
a notebook's (`notebook_page`), the explorer's or the index page's.
"""

import hashlib
import json
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from bs4 import BeautifulSoup, Tag
from bs4.element import NavigableString, PageElement
from markupsafe import Markup

from clipad_core.errors import ClipadError
from clipad_core.metrics import METRIC_LABELS
from clipad_harness.base.run_record import RUN_RECORD
from clipad_harness.report.glossary import Term

TEMPLATES = Path(__file__).parent / "templates"
_NUMBER = re.compile(r"[-+−±]?[0-9][0-9.,]*(e[-+][0-9]+)?( ?%)?|[–—-]|nan|NaN")
_SHOTS = re.compile(r"^\d+-shot$")
_CSS_LOAD = re.compile(r"@import|url\(\s*['\"]?(?!data:|#)", flags=re.IGNORECASE)


@dataclass(frozen=True)
class Heading:
    """One line of a page's contents: level 2 or 3, the anchor without `#`, the plain text."""

    level: int
    anchor: str
    text: str


def page(
    title: str,
    body: str,
    *,
    contents: Sequence[Heading] = (),
    provenance: Mapping[str, str] | None = None,
    origins: str = "",
    citations: Sequence[Sequence[str]] = (),
    command: str | None = None,
    is_home: bool = False,
    has_record: bool = True,
    script: str = "",
    glossary: Sequence[Term] = (),
) -> str:
    """Put header, contents, provenance and style around `body` (trusted HTML).

    Args:
        title: plain text.
        body: what stands between the title and the provenance.
        contents: its headings.
        provenance: what made the page, as label and value.
        origins: where each number comes from (trusted HTML, see `provenance.origins`).
        citations: label and BibTeX of what to cite.
        command: what makes the page again.
        is_home: whether this is the page that leads to all others.
        has_record: whether a stage made it, so that `run_record` tells of the run.
        script: JavaScript of this page besides that of all pages. No other inline script runs, wherever
            on the page it stands: the content policy names ours by their hashes.
        glossary: terms, which stand behind the body; heads and captions of its tables lead there.

    Raises:
        ClipadError: `body` would load something from the network.
    """
    provenance = dict(provenance or {})
    contents = [heading for heading in contents if heading.level <= 3]
    if contents and glossary:
        contents.append(Heading(2, "glossary", "Glossary"))
    if contents and (provenance or command):
        contents.append(Heading(2, "provenance", "What made this page"))
    if contents and citations:
        contents.append(Heading(2, "cite", "BibTeX"))
    terms = [(_anchor(number), term) for number, term in enumerate(glossary, 1)]
    inside = json.dumps([title, body, provenance, origins, citations, command])
    scripts = [(TEMPLATES / "page.js").read_text(encoding="utf-8"), *([script] if script else [])]
    html = _shell().render(
        title=title,
        body=Markup(link_terms(body, glossary)),
        terms=terms,
        contents=contents,
        provenance=provenance,
        origins=Markup(link_terms(tidy_tables(origins), glossary)),
        citations=citations,
        command=command,
        mark=hashlib.sha256(inside.encode()).hexdigest()[:16],
        run_record=RUN_RECORD,
        home="#main" if is_home else "index.html",
        is_home=is_home,
        has_record=has_record,
        has_code='<details class="code"' in body,
        css=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
        scripts=[Markup(text) for text in scripts],
        script_hashes=[_policy_hash(text) for text in scripts],
    )
    loads = network_loads(html)
    if loads:
        raise ClipadError(
            f"page {title!r}: found {loads[0]}, expected a page that loads nothing from outside "
            "itself; embed the image or drop the script."
        )
    return html + "\n"


def _policy_hash(script: str) -> str:
    """An inline script as a content policy names it.

    >>> _policy_hash("alert(1)")
    'sha256-bhHHL3z2vDgxUt0W3dWQOrprscmda2Y5pLsLg4GF+pI='
    """
    return f"sha256-{b64encode(hashlib.sha256(script.encode()).digest()).decode('ascii')}"


def _shell() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("page.html.j2")


def network_loads(html: str) -> list[str]:
    """What a browser would fetch to show the page; links a reader may follow do not count.

    Neither does the script `run.js` of the page's own folder, see `run_record`.

    >>> network_loads('<a href="https://a.org">a</a> <img src="data:,"> <img src="https://a.org/b">')
    ['img src="https://a.org/b"']
    """
    loads = []
    for tag in BeautifulSoup(html, "html.parser").find_all(True):
        for name in ("src", "srcset", "poster", "data", "href", "xlink:href"):
            value = str(tag.get(name) or "")
            followed = name == "href" and tag.name in ("a", "area")
            followed |= (tag.name, name, value) == ("script", "src", RUN_RECORD)
            if value and not followed and not value.startswith(("data:", "#")):
                loads.append(f'{tag.name} {name}="{value}"')
        style = tag.get_text() if tag.name == "style" else str(tag.get("style") or "")
        if _CSS_LOAD.search(style):
            loads.append(f"{tag.name} style that loads a file")
    return loads


def tidy_tables(fragment: str) -> str:
    """Let tables scroll sideways, right-align numbers, drop what pandas styles by itself."""
    soup = BeautifulSoup(fragment, "html.parser")
    for style in soup.find_all("style", attrs={"scoped": True}):
        style.decompose()
    for table in soup.find_all("table"):
        table.attrs.pop("border", None)
        for row in table.find_all("tr"):
            row.attrs.pop("style", None)
        _mark_numbers(table)
        if table.caption:
            inner = soup.new_tag("span")
            inner.extend(list(table.caption.contents))
            table.caption.append(inner)
        label = table.caption.get_text(" ", strip=True) if table.caption else "Table"
        attributes = {"class": "scroll", "tabindex": "0", "role": "region", "aria-label": label}
        table.wrap(soup.new_tag("div", attrs=attributes))
    return str(soup)


def _anchor(number: int) -> str:
    """The anchor of a term of the glossary, by its place."""
    return f"term-{number}"


def link_terms(fragment: str, glossary: Sequence[Term]) -> str:
    """Let heads and captions of tables lead to the glossary; a table without a term leads to all of it."""
    if not glossary or "<table" not in fragment:
        return fragment
    anchors = {
        head: _anchor(number)
        for number, term in enumerate(glossary, 1)
        for head in (term.name, *term.heads)
    }
    soup = BeautifulSoup(fragment, "html.parser")
    for table in soup.find_all("table"):
        if (head := table.thead) is None:
            continue
        for cell in table.find_all("th"):
            anchor = anchors.get(_SHOTS.sub("k-shot", cell.get_text(" ", strip=True)))
            if anchor and cell.find("a") is None:
                contents = list(cell.contents)
                cell.append(_link(soup, anchor, contents))
        for text in table.caption.find_all(string=True) if table.caption else ():
            _link_metric(soup, text, anchors)
        if table.find("a", class_="term") is None:
            about = table.caption or head
            (about.span or about.th or about).extend([" ", _link(soup, "glossary", ["Glossary"])])
    return str(soup)


def _link_metric(soup: BeautifulSoup, text: NavigableString, anchors: Mapping[str, str]) -> None:
    """Link the metric that a caption names first."""
    found = re.search("|".join(map(re.escape, METRIC_LABELS.values())), text)
    if found and found[0] in anchors and text.find_parent("a") is None:
        link = _link(soup, anchors[found[0]], [found[0]])
        text.replace_with(text[: found.start()], link, text[found.end() :])


def _link(soup: BeautifulSoup, anchor: str, contents: Sequence[PageElement | str]) -> Tag:
    link = soup.new_tag("a", attrs={"class": "term", "href": f"#{anchor}"})
    link.extend(contents)
    return link


def _mark_numbers(table: Tag) -> None:
    """A column whose body cells are all numbers or dashes is right-aligned, heading included."""
    body = [row.find_all(["th", "td"]) for row in table.find_all("tr") if row.find("td")]
    heads = [row.find_all("th") for row in table.find_all("tr") if not row.find("td")]
    if not body or any(len(row) != len(body[0]) for row in body):
        return  # spanning cells: the maker of the table has set its classes
    for column in range(len(body[0])):
        cells = [row[column] for row in body]
        if cells[0].name == "td" and all(_NUMBER.fullmatch(c.get_text(strip=True)) for c in cells):
            aligned = [row[column] for row in heads if len(row) == len(body[0])]
            for cell in [*cells, *aligned]:
                cell["class"] = "number"
