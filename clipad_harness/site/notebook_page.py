"""A notebook as a page: a fragment through nbconvert and the template in `templates/clipad`.

A module of its own, because nbconvert takes seconds to import and the other pages do without it.
"""

import re
from base64 import b64encode

import jinja2
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode

from clipad_harness.report.glossary import Term
from clipad_harness.report.tables import Html
from clipad_harness.site.mathml import to_mathml
from clipad_harness.site.page import TEMPLATES, Heading, page, tidy_tables


def notebook_page(notebook: NotebookNode, *, fallback_title: str) -> str:
    """The page of a canonical notebook; a function of the notebook alone.

    Title, provenance, origins, citations, command and glossary are read from `notebook.metadata["clipad"]`;
    without a title there the first heading of level 1 is the title, without one `fallback_title`.

    Raises:
        ClipadError: an equation that cannot be set, or something loaded from the network.
    """
    settings = notebook.metadata.get("clipad", {})
    terms = settings.get("glossary") or []
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
        glossary=[Term(name, meaning, tuple(heads)) for name, meaning, heads in terms],
    )


def _reachable_code(fragment: str) -> str:
    """Let a keyboard reach code that scrolls sideways."""
    return fragment.replace("<pre><span></span>", '<pre tabindex="0"><span></span>')


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
        line = Html(
            '<h{0} id="{1}">{2}<a class="anchor" href="#{1}" aria-label="Link to this section">#</a>'
            "</h{0}>\n"
        )
        return line.format(level, anchor, Html(text))

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
        self._anchors |= {"glossary", "glossary-title"}
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
