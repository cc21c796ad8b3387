"""Run one notebook with checked parameters and keep a canonical copy of it and its page.

Papermill executes into an untracked raw file under `.cache/notebooks`. What is tracked is made from
it: a canonical notebook, whose bytes depend on code, data and parameters alone, and the HTML page
beside it (`clipad_harness.site.page`).
"""

import ast
import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import papermill
from jupyter_client.kernelspec import NoSuchKernel
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

from clipad_core.errors import ClipadError
from clipad_core.validation import validate
from clipad_harness.base.files import write_text
from clipad_harness.report.glossary import Term
from clipad_harness.site.canonical import KERNEL, canonical_notebook, check_no_absolute_path, tags
from clipad_harness.site.essays import Description
from clipad_harness.site.kernel import SavingAtTheEnd, kernel_environment, kernel_transport
from clipad_harness.site.notebook_page import notebook_page


@dataclass(frozen=True)
class Page:
    """What `run_notebook` has made: the HTML page, and what the cell `about` said."""

    html: Path
    about: Mapping[str, Any]


def run_notebook(
    source: Path,
    output: Path,
    parameters: Mapping[str, object],
    *,
    root: Path,
    title: str | None = None,
    about: str = "",
    citations: Sequence[tuple[str, str]] = (),
    command: str | None = None,
    glossary: Sequence[Term] = (),
) -> Page:
    """Execute `source` and write `output` (canonical notebook) and its HTML page beside it.

    The kernel starts in `root`. Two runs of the same code, data and parameters give the same bytes.
    When a cell fails, nothing is written to `output`; the raw notebook with the traceback stays in
    `.cache/notebooks`.

    Args:
        source: notebook with exactly one cell tagged `parameters`.
        output: the `.ipynb` to write; missing folders are made.
        parameters: values by name; names and types are checked against the parameters cell.
        root: the repository's folder; no output may contain its absolute path.
        title: page title; None takes the first heading of the notebook.
        about: code of a last cell, which the page does not show; it displays JSON: `provenance`, what
            made the page, as label and value; `origins`, where each number comes from, as HTML; and
            what else the caller wants to know. The first two stand at the page's end.
        citations: label and BibTeX of what to cite.
        command: the exact command that makes the page again; shown at its end.
        glossary: what heads of its tables mean; shown at its end.

    Raises:
        ClipadError: unusable notebook or parameters, a failed cell (a ClipadError raised in the
            notebook keeps its own message), an absolute path or a network address in the output,
            or an ``about`` that displays no JSON.
    """
    if output.suffix != ".ipynb":
        raise ClipadError(f"output: found {output.name!r}, expected a name that ends in .ipynb.")
    original = _read_notebook(source)
    _check_parameters(source, _parameter_defaults(source, original), parameters)
    notebook = copy.deepcopy(original)
    if about:
        notebook.cells.append(nbformat.v4.new_code_cell(about))
    executed = _execute(notebook, source, output, parameters, root)
    facts = _json_of(executed.cells.pop(), source) if about else {}
    canonical = canonical_notebook(executed, original)
    check_no_absolute_path(source, canonical, root)
    canonical.metadata["clipad"] = {
        "title": title,
        "provenance": facts.get("provenance", {}),
        "origins": facts.get("origins", ""),
        "citations": [list(citation) for citation in citations],
        "command": command,
        "glossary": [[term.name, term.meaning, list(term.heads)] for term in glossary],
    }
    return Page(write_page(canonical, output), facts)


def write_page(canonical: NotebookNode, output: Path) -> Path:
    """Write a canonical notebook as ``output`` and its HTML page beside it; return the page."""
    html = notebook_page(canonical, fallback_title=output.stem)
    write_text(output, nbformat.writes(canonical) + "\n")
    return write_text(output.with_suffix(".html"), html)


def text_notebook(text: str, title: str, command: str) -> NotebookNode:
    """A canonical notebook of one text, in Markdown, for a page on which nothing is computed."""
    cell = nbformat.v4.new_markdown_cell(text, id="text")
    original = nbformat.v4.new_notebook(cells=[cell])
    notebook = canonical_notebook(original, original)
    notebook.metadata["clipad"] = {"title": title, "command": command}
    return notebook


def _json_of(cell: NotebookNode, source: Path) -> dict[str, Any]:
    displays = [
        output.data for output in cell.outputs if "application/json" in output.get("data", {})
    ]
    if len(displays) != 1:
        raise ClipadError(
            f"{source}: found {len(displays)} JSON outputs of the code {cell.source!r}, expected one that "
            "tells what made the page."
        )
    return dict(displays[0]["application/json"])


def read_parameters(source: Path) -> dict[str, object]:
    """Names and default values of the notebook's parameters cell.

    Raises:
        ClipadError: no notebook, not exactly one parameters cell, or a cell that does more than
            assign literals to names.
    """
    return _parameter_defaults(source, _read_notebook(source))


def describe(source: Path) -> Description:
    """What the notebook of an essay says of itself: its metadata `"clipad": {"title": ..., "purpose": ...}`.

    Raises:
        ClipadError: no notebook, or metadata without a title and a purpose.
    """
    metadata = _read_notebook(source).metadata
    try:
        description: Description = validate(
            Description, metadata.get("clipad", {}), source, "metadata.clipad"
        )
    except ClipadError as error:
        raise ClipadError(
            f"{error} The index shows them; write them into the notebook's metadata, as "
            "notebooks/comparison.ipynb has them."
        ) from error
    return description


def _read_notebook(source: Path) -> NotebookNode:
    try:
        text = source.read_text(encoding="utf-8")
    except OSError as error:
        raise ClipadError(
            f"{source}: found no readable notebook ({error.strerror}), expected an .ipynb file; "
            "check the path."
        ) from error
    try:
        return nbformat.reads(text, as_version=4)
    except Exception as error:  # nbformat raises several unrelated types
        raise ClipadError(
            f"{source}: found a file that is no notebook ({error}), expected nbformat 4; "
            "restore it from version control."
        ) from error


def _parameter_defaults(source: Path, notebook: NotebookNode) -> dict[str, object]:
    cells = [cell for cell in notebook.cells if "parameters" in tags(cell)]
    if len(cells) != 1 or cells[0].cell_type != "code":
        raise ClipadError(
            f"{source}: found {len(cells)} cells tagged 'parameters', expected exactly one code "
            "cell; tag the cell that assigns the defaults."
        )
    defaults: dict[str, object] = {}
    for statement in ast.parse(cells[0].source).body:
        target, value = _assignment(statement)
        try:
            if target is None or value is None:
                raise ValueError("not an assignment to one name")
            defaults[target] = ast.literal_eval(value)
        except ValueError as error:
            raise ClipadError(
                f"{source}: parameters cell: found `{ast.unparse(statement)}`, expected "
                "`name = literal` on every line; move other code into the next cell."
            ) from error
    return defaults


def _assignment(statement: ast.stmt) -> tuple[str | None, ast.expr | None]:
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target, value = statement.targets[0], statement.value
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        target, value = statement.target, statement.value
    else:
        return None, None
    return (target.id, value) if isinstance(target, ast.Name) else (None, None)


def _check_parameters(
    source: Path, defaults: Mapping[str, object], parameters: Mapping[str, object]
) -> None:
    for name, value in parameters.items():
        if name not in defaults:
            raise ClipadError(
                f"{source}: unknown parameter {name!r}; expected one of "
                f"{', '.join(sorted(defaults)) or 'none'}; correct the name or add it to the "
                "parameters cell."
            )
        if not _fits(defaults[name], value):
            raise ClipadError(
                f"{source}: parameter {name!r}: found {value!r} ({type(value).__name__}), expected "
                f"the type of its default {defaults[name]!r} ({type(defaults[name]).__name__})."
            )


def _fits(default: object, value: object) -> bool:
    """Same plain type as the default: an int passes for a float, a list for a tuple, no subclass.

    >>> _fits(0.5, 1), _fits(1, 0.5), _fits(1, True), _fits([1], [2, 3]), _fits(["a"], [1])
    (True, False, False, True, False)
    """
    if isinstance(value, (list, tuple)):
        if default is not None and not isinstance(default, (list, tuple)):
            return False
        pattern = default[0] if default else None
        return all(_fits(pattern, item) for item in value)
    if type(value) is dict:
        return (default is None or isinstance(default, dict)) and all(
            type(key) is str and _fits(None, item) for key, item in value.items()
        )
    if default is None:
        return value is None or type(value) in (bool, int, float, str)
    return type(value) is type(default) or (type(default) is float and type(value) is int)


def _execute(
    notebook: NotebookNode, source: Path, output: Path, parameters: Mapping[str, object], root: Path
) -> NotebookNode:
    raw = root / ".cache" / "notebooks" / f"{output.stem}.raw.ipynb"
    write_text(raw, "")
    try:
        with kernel_environment(), kernel_transport() as transport:
            return papermill.execute_notebook(
                notebook,
                str(raw),
                engine_name=SavingAtTheEnd.__name__,
                parameters=dict(parameters),
                kernel_name=KERNEL["name"],
                language=KERNEL["language"],
                cwd=str(root),
                progress_bar={"desc": output.stem, "disable": None},
                record_timing=False,
                config=transport,
            )
    except PapermillExecutionError as error:
        raise _cell_error(error, source, raw.relative_to(root), bool(parameters)) from error
    except DeadKernelError as error:
        raise ClipadError(
            f"{source}: the Python process of the notebook died, most often for lack of memory; "
            f"the cells that ran are in {raw.relative_to(root)}. Lower the batch size or the "
            "number of images."
        ) from error
    except NoSuchKernel as error:
        raise ClipadError(
            f"{source}: found no Jupyter kernel {KERNEL['name']!r}; install ipykernel in this "
            "environment."
        ) from error


def _cell_error(
    error: PapermillExecutionError, source: Path, raw: Path, has_parameters: bool
) -> ClipadError:
    if error.ename == ClipadError.__name__:
        return ClipadError(error.evalue)
    # Papermill puts a cell of its own behind that of the parameters, where it is given some.
    injected = int(has_parameters and error.cell_index > _parameters_index(source))
    traceback = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback))
    line = _line_of(traceback, error.exec_count)
    code = error.source.splitlines()[line - 1 : line] if line else []
    at = f" at its line {line} (`{code[0].strip()}`)" if code else ""
    first_line = (error.source.strip().splitlines() or [""])[0]
    return ClipadError(
        f"{source}: cell {error.cell_index + 1 - injected} (`{first_line}`) stopped{at} with "
        f"{error.ename}: {error.evalue}; the whole traceback is in {raw}."
    )


def _line_of(traceback: str, number: int | None) -> int | None:
    r"""The line of a cell that its error came from, 1-based; None where the traceback names none.

    An error that another one caused has the cause's traceback first, and a function that an earlier cell
    or the same one defines has frames of its own: the cell's own frame is the first of the last traceback.

    >>> cause, error = "Cell In[2], line 9\n", "Cell In[3], line 4\nCell In[3], line 1, in f()"
    >>> _line_of(cause + error, 3)
    4
    """
    frames = re.findall(r"^ *(?:Cell|File) In\[(\d+)\], line (\d+)(, in)?", traceback, re.MULTILINE)
    lines = [int(line) for cell, line, inner in frames if cell == str(number) and not inner]
    return lines[-1] if lines else None


def _parameters_index(source: Path) -> int:
    cells = _read_notebook(source).cells
    return next(i for i, cell in enumerate(cells) if "parameters" in tags(cell))
