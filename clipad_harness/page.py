"""HTML pages that open from disk: one file, no network, light and dark, screen and paper.

A notebook becomes a fragment through nbconvert and the template in `templates/clipad`; the shell in
`templates/page.html.j2` puts header, contents, provenance and style around it. The index page uses
the same shell.
"""

import hashlib
import json
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import jinja2
from bs4 import BeautifulSoup, Tag
from markupsafe import Markup
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode

from clipad_core.errors import ClipadError
from clipad_harness.mathml import to_mathml
from clipad_harness.sidecar import SIDECAR

TEMPLATES = Path(__file__).parent / "templates"
_NUMBER = re.compile(r"[-+−±]?[0-9][0-9.,]*(e[-+][0-9]+)?( ?%)?|[–—-]|nan|NaN")
_CSS_LOAD = re.compile(r"@import|url\(\s*['\"]?(?!data:|#)", flags=re.IGNORECASE)


@dataclass(frozen=True)
class Heading:
    """One line of a page's contents: level 2 or 3, the anchor without `#`, the plain text."""

    level: int
    anchor: str
    text: str


def notebook_page(notebook: NotebookNode, *, fallback_title: str) -> str:
    """The page of a canonical notebook; a function of the notebook alone.

    Title, provenance, origins, citations and command are read from `notebook.metadata["clipad"]`;
    without a title there the first heading of level 1 is the title, without one `fallback_title`.

    Raises:
        ClipadError: an equation that cannot be set, or something loaded from the network.
    """
    settings = notebook.metadata.get("clipad", {})
    exporter = _FragmentExporter()
    fragment, _ = exporter.from_notebook_node(notebook)
    title = settings.get("title") or exporter.page_title or fallback_title
    return page(
        title,
        _reachable_code(tidy_tables(fragment)),
        contents=exporter.headings,
        provenance=settings.get("provenance") or {},
        origins=settings.get("origins") or "",
        citations=settings.get("citations") or (),
        command=settings.get("command"),
    )


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
        has_record: whether a stage made it, so that `sidecar` tells of the run.

    Raises:
        ClipadError: `body` would load something from the network.
    """
    provenance = dict(provenance or {})
    contents = [heading for heading in contents if heading.level <= 3]
    if contents and (provenance or command):
        contents.append(Heading(2, "provenance", "What made this page"))
    if contents and citations:
        contents.append(Heading(2, "cite", "BibTeX"))
    inside = json.dumps([title, body, provenance, origins, citations, command])
    html = _shell().render(
        title=title,
        body=Markup(body),
        contents=contents,
        provenance=provenance,
        origins=Markup(tidy_tables(origins)),
        citations=citations,
        command=command,
        mark=hashlib.sha256(inside.encode()).hexdigest()[:16],
        sidecar=SIDECAR,
        home="#main" if is_home else "index.html",
        is_home=is_home,
        has_record=has_record,
        has_code='<details class="code">' in body,
        css=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
        script=Markup((TEMPLATES / "page.js").read_text(encoding="utf-8")),
    )
    loads = network_loads(html)
    if loads:
        raise ClipadError(
            f"page {title!r}: found {loads[0]}, expected a page that loads nothing from outside "
            "itself; embed the image or drop the script."
        )
    return html + "\n"


def _shell() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("page.html.j2")


def network_loads(html: str) -> list[str]:
    """What a browser would fetch to show the page; links a reader may follow do not count.

    Neither does the script `run.js` of the page's own folder, see `sidecar`.

    >>> network_loads('<a href="https://a.org">a</a> <img src="data:,"> <img src="https://a.org/b">')
    ['img src="https://a.org/b"']
    """
    found = []
    for tag in BeautifulSoup(html, "html.parser").find_all(True):
        for name in ("src", "srcset", "poster", "data", "href", "xlink:href"):
            value = str(tag.get(name) or "")
            followed = name == "href" and tag.name in ("a", "area")
            followed |= (tag.name, name, value) == ("script", "src", SIDECAR)
            if value and not followed and not value.startswith(("data:", "#")):
                found.append(f'{tag.name} {name}="{value}"')
        style = tag.get_text() if tag.name == "style" else str(tag.get("style") or "")
        if _CSS_LOAD.search(style):
            found.append(f"{tag.name} style that loads a file")
    return found


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


def _reachable_code(fragment: str) -> str:
    """Let a keyboard reach code that scrolls sideways."""
    return fragment.replace("<pre><span></span>", '<pre tabindex="0"><span></span>')


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


class _Renderer(IPythonRenderer):
    """Markdown with MathML, unique anchors and a record of the headings."""

    def __init__(self, exporter: "_FragmentExporter", attachments: dict, path: str) -> None:
        super().__init__(escape=False, embed_images=True, attachments=attachments, path=path)
        self.exporter = exporter

    def heading(self, text: str, level: int, **attrs: object) -> str:
        plain = BeautifulSoup(text, "html.parser").get_text()
        if level == 1 and self.exporter.page_title is None:
            self.exporter.page_title = plain
            return ""
        level = max(level, 2)
        anchor = self.exporter.new_anchor(plain)
        self.exporter.headings.append(Heading(level, anchor, plain))
        name = escape(anchor, quote=True)
        link = f'<a class="anchor" href="#{name}" aria-label="Link to this section">#</a>'
        return f'<h{level} id="{name}">{text}{link}</h{level}>\n'

    def inline_math(self, body: str) -> str:
        return to_mathml(body, display=False)

    def block_math(self, body: str) -> str:
        return to_mathml(body, display=True)

    def latex_environment(self, name: str, body: str) -> str:
        return to_mathml(rf"\begin{{{name}}}{body}\end{{{name}}}", display=True)


class _FragmentExporter(HTMLExporter):
    """nbconvert's exporter with our cell template; good for one notebook."""

    def __init__(self) -> None:
        self.page_title: str | None = None
        self.headings: list[Heading] = []
        self._anchors = {"main", "provenance", "provenance-title", "cite", "all-code", "theme"}
        super().__init__(extra_template_basedirs=[str(TEMPLATES)], template_name="clipad")
        for name in ("code_label", "picture_alt", "picture_source"):
            self.register_filter(name, globals()[f"_{name}"])

    def new_anchor(self, text: str) -> str:
        """`Some heading` becomes `Some-heading`, as in JupyterLab; a repeated one gets a number."""
        base = re.sub(r"\s+", "-", text.strip()) or "section"
        anchor, number = base, 2
        while anchor in self._anchors:
            anchor, number = f"{base}-{number}", number + 1
        self._anchors.add(anchor)
        return anchor

    @jinja2.pass_context
    def markdown2html(self, context: jinja2.runtime.Context, source: str) -> str:
        cell = context.get("cell", {})
        path = context.get("resources", {}).get("metadata", {}).get("path", "")
        renderer = _Renderer(self, cell.get("attachments", {}), path)
        return str(MarkdownWithMath(renderer=renderer).render(source))


def _code_label(cell: NotebookNode) -> str:
    """What the closed cell says: its first comment, else its number of lines."""
    tags = cell.metadata.get("tags", [])
    if "injected-parameters" in tags:
        return "parameters of this run"
    if "parameters" in tags:
        return "parameters and their defaults"
    lines = cell.source.strip().splitlines()
    if lines[0].startswith("#"):
        return str(lines[0].lstrip("# "))
    return f"{len(lines)} line{'s' if len(lines) > 1 else ''}"


def _picture_alt(output: NotebookNode, cell: NotebookNode, kind: str) -> str:
    """Alt text of the output, else of the cell, else an honest sentence."""
    of_output = output.get("metadata", {}).get(kind, {}).get("alt")
    return str(of_output or cell.metadata.get("alt") or "Figure without a description")


def _picture_source(output: NotebookNode, kind: str) -> str:
    data = output.data[kind]
    if kind == "image/svg+xml":
        data = b64encode(data.encode()).decode("ascii")
    return f"data:{kind};base64,{''.join(data.split())}"
