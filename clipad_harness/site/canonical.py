"""The canonical form of an executed notebook: bytes that depend on code, data and parameters alone.

Papermill's own output never settles: it holds times, a random id for the cell it injects, streams
cut wherever a message ended, memory addresses and the version of what drew a PNG.
"""

import ast
import base64
import re
from collections.abc import Mapping
from pathlib import Path
from pprint import pformat
from typing import Any

import nbformat
from nbformat import NotebookNode

from clipad_core.errors import ClipadError

WIDTH = 100
INJECTED = "injected-parameters"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
_PNG_TEXT_CHUNKS = {b"tEXt", b"zTXt", b"iTXt", b"tIME", b"eXIf"}
_MEMORY_ADDRESS = re.compile(r" at 0x[0-9a-f]{6,}")


def tags(cell: NotebookNode) -> list[str]:
    """Tags of a cell, [] where it has none."""
    return list(cell.metadata.get("tags", []))


def canonical_notebook(executed: NotebookNode, original: NotebookNode) -> NotebookNode:
    """Keep cells, tags, alt texts, execution counts and outputs; drop times, stderr and widgets.

    Args:
        executed: what Papermill returned.
        original: the notebook it was made from; its cell ids are kept.
    """
    names = iter(cell.get("id", "") for cell in original.cells)
    minor = original.get("nbformat_minor", 0)
    cells = []
    for index, cell in enumerate(executed.cells):
        injected = INJECTED in tags(cell)
        name = INJECTED if injected else next(names)
        source = _laid_out(cell.source) if injected else cell.source
        clean = NotebookNode(cell_type=cell.cell_type, source=source)
        clean["id"] = name if name and (injected or minor >= 5) else f"cell-{index}"
        clean["metadata"] = {k: cell.metadata[k] for k in ("alt", "tags") if cell.metadata.get(k)}
        if cell.cell_type == "code":
            clean["execution_count"] = cell.execution_count
            clean["outputs"] = _canonical_outputs(cell.outputs)
        if cell.get("attachments"):
            clean["attachments"] = cell.attachments
        cells.append(clean)
    metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    return nbformat.from_dict(
        {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    )


def _laid_out(source: str) -> str:
    """The cell that Papermill injects, one long line a parameter, broken for the eye."""
    lines = ["# Parameters"]
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Assign):
            head = f"{ast.unparse(statement.targets[0])} = "
            value = ast.literal_eval(statement.value)
            text = pformat(value, width=WIDTH - len(head), sort_dicts=False)
            lines.append(head + text.replace("\n", "\n" + " " * len(head)))
    return "\n".join(lines)


def _canonical_outputs(outputs: list[NotebookNode]) -> list[dict[str, Any]]:
    canonical: list[dict[str, Any]] = []
    for output in outputs:
        if output.output_type == "stream":
            if output.name == "stderr":
                continue
            # How a stream is cut into messages depends on timing: join what is adjacent.
            if canonical and canonical[-1]["output_type"] == "stream":
                canonical[-1]["text"] += output.text
                continue
            canonical.append({"output_type": "stream", "name": "stdout", "text": output.text})
        elif output.output_type == "error":
            canonical.append(dict(output))
        elif not any("widget-view" in kind for kind in output.get("data", {})):
            canonical.append({**output, "data": _canonical_data(output.get("data", {}))})
    return canonical


def _canonical_data(data: Mapping[str, Any]) -> dict[str, Any]:
    clean = dict(data)
    if "image/png" in clean:
        clean["image/png"] = _png_without_text(clean["image/png"])
    for kind in {"text/plain", "text/html"} & set(clean):
        clean[kind] = _MEMORY_ADDRESS.sub("", clean[kind])
    return clean


def _png_without_text(encoded: str) -> str:
    """Drop what a PNG says about when and by what it was written; the pixels stay."""
    data = base64.b64decode(encoded)
    chunks, position = [data[:8]], 8
    while position < len(data):
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        if data[position + 4 : position + 8] not in _PNG_TEXT_CHUNKS:
            chunks.append(data[position:end])
        position = end
    return base64.b64encode(b"".join(chunks)).decode("ascii")


def check_no_absolute_path(source: Path, notebook: NotebookNode, root: Path) -> None:
    """Raise a ClipadError where an output holds the absolute path of `root`."""
    folder = str(root.resolve())
    for number, cell in enumerate(notebook.cells, start=1):
        for output in cell.get("outputs", []):
            texts = [output.get("text", ""), *output.get("data", {}).values()]
            if any(isinstance(text, str) and folder in text for text in texts):
                raise ClipadError(
                    f"{source}: the output of cell {number} (`{cell.source.splitlines()[0]}`) "
                    "holds the absolute path of the repository, expected paths relative to it; "
                    "print `path.relative_to(ROOT)`."
                )
