import base64
import io
import os
import re
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import nbformat
import numpy as np
import pytest
from bs4 import BeautifulSoup
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from project import REPOSITORY

from clipad_core.errors import ClipadError
from clipad_harness.site.canonical import canonical_notebook
from clipad_harness.site.essays import Description
from clipad_harness.site.mathml import to_mathml
from clipad_harness.site.notebook import describe, read_parameters, run_notebook
from clipad_harness.site.notebook_page import notebook_page
from clipad_harness.site.page import network_loads, page, tidy_tables

DEFAULTS = 'name = "bottle"\nk_shot = 4\ntemperature = 0.07\nscales = [2, 3]\nlimit = None\n'
STORY = """# Windows
Every patch $F_{ij}$ scores $$M = \\min_{r \\in R} \\tfrac12 (1 - \\langle F, r \\rangle)$$
See [the results](#Results-2).
## Results
first
## Results
second
"""
ABOUT = """from IPython.display import JSON, display
display(JSON({"provenance": {"weights": "<stand-in>"}, "further": [k_shot // k_shot]}))"""
DRAWING = """# Draw one line
import sys
import matplotlib.pyplot as plt
print("to stdout", k_shot)
print("noise" * 2, file=sys.stderr)
figure, axes = plt.subplots()
axes.plot([1, 2, k_shot])
plt.show()
object()"""


def cell(source: str, *, tag: str | None = None, name: str = "") -> nbformat.NotebookNode:
    code_cell = nbformat.v4.new_code_cell(source)
    if tag:
        code_cell.metadata["tags"] = [tag]
    if name:
        code_cell["id"] = name
    return code_cell


@pytest.fixture
def notebook(tmp_path: Path) -> Callable[..., Path]:
    def write(*cells: nbformat.NotebookNode) -> Path:
        path = tmp_path / "notebooks" / "toy.ipynb"
        path.parent.mkdir(exist_ok=True)
        nbformat.write(nbformat.v4.new_notebook(cells=list(cells)), path)
        return path

    return write


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("MPLBACKEND", "agg")

    def start(source: Path, **parameters: object) -> Path:
        output = tmp_path / "reports" / "toy.ipynb"
        page = run_notebook(
            source,
            output,
            parameters,
            root=tmp_path,
            about=ABOUT,
            command="./repro --only toy",
        )
        assert page.about == {"provenance": {"weights": "<stand-in>"}, "further": [1]}
        return page.html

    return start


def test_two_runs_give_the_same_bytes_and_nothing_of_the_moment(notebook, run, tmp_path):
    source = notebook(
        nbformat.v4.new_markdown_cell(STORY),
        cell(DEFAULTS, tag="parameters"),
        cell(DRAWING, name="drawing"),
        cell('{"b", "a", "c", "d", "e"}, sum(scales), hash("x")'),
    )
    html_path = run(source, k_shot=2)
    output = html_path.with_suffix(".ipynb")
    first = output.read_bytes(), html_path.read_bytes()
    run(source, k_shot=2)
    assert (output.read_bytes(), html_path.read_bytes()) == first

    text = output.read_text(encoding="utf-8")
    assert "to stdout 2" in text
    assert "noisenoise" not in text
    assert not re.search(r"0x[0-9a-f]{6}|papermill|start_time|duration|Software", text)
    assert str(tmp_path) not in text
    done = nbformat.reads(text, as_version=4)
    nbformat.validate(done)
    assert [c.id for c in done.cells][2:4] == ["injected-parameters", "drawing"]
    assert [c.execution_count for c in done.cells if c.cell_type == "code"] == [1, 2, 3, 4]
    assert os.environ["MPLBACKEND"] == "agg"

    soup = BeautifulSoup(html_path.read_text(encoding="utf-8"), "html.parser")
    assert [h.get_text() for h in soup.find_all("h1")] == ["Windows"]
    assert soup.find("img")["src"].startswith("data:image/png;base64,")
    assert "<stand-in>" in soup.find(id="provenance").get_text()
    assert "./repro --only toy" in soup.find(id="provenance").get_text()
    assert [s.get_text(" ", strip=True) for s in soup.select("details.code summary")] == [
        "code parameters and their defaults",
        "code parameters of this run",
        "code Draw one line",
        "code 1 line",
    ]


def test_long_parameters_are_broken_into_lines_and_are_still_the_same(notebook, run):
    limit = {"rows": {f"row {number}": {"field": [number, None]} for number in range(9)}}
    page = run(notebook(cell(DEFAULTS, tag="parameters")), limit=limit, name="it's")
    [injected] = [
        cell.source
        for cell in nbformat.read(page.with_suffix(".ipynb"), as_version=4).cells
        if cell.id == "injected-parameters"
    ]
    values: dict[str, object] = {}
    exec(injected, values)
    assert (values["limit"], values["name"]) == (limit, "it's")
    assert len(injected.splitlines()) > 9 and max(map(len, injected.splitlines())) <= 100


def test_a_last_cell_that_tells_nothing_of_the_page_is_named(notebook, tmp_path):
    source = notebook(cell(DEFAULTS, tag="parameters"))
    with pytest.raises(ClipadError, match=r"toy\.ipynb: found 0 JSON outputs of the code '1 \+ 1'"):
        run_notebook(
            source, tmp_path / "reports" / "toy.ipynb", {"k_shot": 1}, root=tmp_path, about="1 + 1"
        )


def test_a_failed_cell_is_named_and_its_raw_notebook_stays(notebook, run, tmp_path):
    source = notebook(
        cell(DEFAULTS, tag="parameters"),
        cell("ratio = 1\nratio / 0"),
    )
    with pytest.raises(ClipadError) as failure:
        run(source, k_shot=1)
    message = str(failure.value)
    assert "toy.ipynb: cell 2 (`ratio = 1`) stopped at its line 2 (`ratio / 0`)" in message
    assert "ZeroDivisionError: division by zero" in message
    raw = tmp_path / ".cache" / "notebooks" / "toy.raw.ipynb"
    assert str(raw.relative_to(tmp_path)) in message
    assert "ZeroDivisionError" in raw.read_text(encoding="utf-8")
    assert not (tmp_path / "reports").exists()


LATER = "try:\n    {}['x']\nexcept KeyError as error:\n    cause = error"


@pytest.mark.parametrize(
    ("source", "place"),
    [
        (
            "x = 1\n\nraise ValueError('y') from cause",
            r"line 3 \(`raise ValueError\('y'\) from cause`\)",
        ),
        ("x = 1\ny = = 2", r"line 2 \(`y = = 2`\)"),
        ("x = 1\nf = lambda: 1 / 0\nf()", r"line 3 \(`f\(\)`\)"),
    ],
    ids=["caused elsewhere", "no Python", "in a function"],
)
def test_the_line_of_a_failed_cell_is_the_cells_own(notebook, run, source, place):
    book = notebook(cell(DEFAULTS, tag="parameters"), cell(LATER), cell(source))
    with pytest.raises(ClipadError, match=f"cell 3 .* stopped at its {place}"):
        run(book)


def test_what_a_kernel_logs_of_its_own_end_is_not_printed(notebook, run, capfd):
    log = "get_ipython().kernel.log.error('KeyboardInterrupt caught in kernel.')"
    run(notebook(cell(DEFAULTS, tag="parameters"), cell(log)))
    assert "KeyboardInterrupt" not in capfd.readouterr().err


def test_of_a_process_that_dies_the_cells_that_ran_are_kept(notebook, run, tmp_path):
    source = notebook(
        cell(DEFAULTS, tag="parameters"), cell('"kept", 6 * 7'), cell("import os\nos._exit(1)")
    )
    with pytest.raises(ClipadError, match=r"died, .* are in \.cache/notebooks/toy\.raw\.ipynb"):
        run(source)
    assert "('kept', 42)" in (tmp_path / ".cache" / "notebooks" / "toy.raw.ipynb").read_text()


def test_a_kernel_puts_no_socket_into_the_working_directory_where_runs_would_meet(
    notebook, run, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    source = notebook(
        cell(DEFAULTS, tag="parameters"),
        cell(
            "import glob, os\nfrom ipykernel.connect import get_connection_info as info\n"
            "connection = info(unpack=True)\n"
            "glob.glob('kernel*'), connection['transport'], os.path.dirname(connection['ip']) != ''"
        ),
    )
    text = run(source).with_suffix(".ipynb").read_text(encoding="utf-8")
    values = nbformat.reads(text, as_version=4).cells[-1].outputs[0].data["text/plain"]
    expected = "([], 'ipc', True)" if os.name == "posix" else "([], 'tcp', False)"
    assert values == expected


def test_an_error_meant_for_the_reader_keeps_its_own_words(notebook, run):
    words = "images: found none, expected at least one; check the folder."
    source = notebook(
        cell(DEFAULTS, tag="parameters"),
        cell(f"from clipad_core.errors import ClipadError\nraise ClipadError({words!r})"),
    )
    with pytest.raises(ClipadError) as failure:
        run(source)
    assert str(failure.value) == words


def test_an_absolute_path_in_an_output_is_refused(notebook, run, tmp_path):
    source = notebook(
        cell(DEFAULTS, tag="parameters"), cell("import os\nprint(os.path.abspath('data'))")
    )
    with pytest.raises(ClipadError, match="cell 2 .* absolute path"):
        run(source)
    assert not (tmp_path / "reports").exists()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"k_shots": 1}, "unknown parameter 'k_shots'"),
        ({"k_shot": 1.0}, r"'k_shot': found 1.0 \(float\)"),
        ({"k_shot": True}, "'k_shot': found True"),
        ({"k_shot": None}, "'k_shot': found None"),
        ({"temperature": "0.1"}, "'temperature': found '0.1'"),
        ({"temperature": np.float64(0.1)}, "'temperature'"),
        ({"scales": [2, "3"]}, "'scales'"),
        ({"scales": 2}, "'scales'"),
        ({"limit": Path("a")}, "'limit'"),
        ({"limit": {"a": object()}}, "'limit'"),
    ],
)
def test_a_parameter_of_another_name_or_type_stops_before_the_run(
    notebook, run, tmp_path, parameters, message
):
    source = notebook(cell(DEFAULTS, tag="parameters"))
    with pytest.raises(ClipadError, match=message):
        run(source, **parameters)
    assert not (tmp_path / ".cache").exists()


def test_defaults_are_read_without_running_the_notebook(notebook):
    source = notebook(cell(DEFAULTS + "low: float = -1.5  # bound", tag="parameters"), cell("1/0"))
    assert read_parameters(source) == {
        "name": "bottle",
        "k_shot": 4,
        "temperature": 0.07,
        "scales": [2, 3],
        "limit": None,
        "low": -1.5,
    }


@pytest.mark.parametrize("count", [0, 2])
def test_a_notebook_needs_exactly_one_parameters_cell(notebook, count):
    source = notebook(cell("x = 1"), *[cell(DEFAULTS, tag="parameters") for _ in range(count)])
    with pytest.raises(ClipadError, match=f"found {count} cells tagged 'parameters'"):
        read_parameters(source)


@pytest.mark.parametrize("line", ["import os", "a = b = 1", "a = len([])", "a.b = 1", "print(1)"])
def test_the_parameters_cell_only_assigns_literals(notebook, line):
    with pytest.raises(ClipadError, match="expected `name = literal`"):
        read_parameters(notebook(cell(line, tag="parameters")))


def test_an_essay_says_in_its_metadata_what_it_is_called_and_is_for(notebook):
    source = notebook(cell("x = 1"))
    with pytest.raises(ClipadError, match=r"toy\.ipynb: metadata\.clipad: found no title, purpose"):
        describe(source)
    essay = nbformat.read(source, as_version=4)
    essay.metadata["clipad"] = {"title": "Toys", "purpose": "what they are worth."}
    nbformat.write(essay, source)
    assert describe(source) == Description("Toys", "what they are worth.")


def test_what_is_no_notebook_is_refused(tmp_path):
    with pytest.raises(ClipadError, match="no readable notebook"):
        read_parameters(tmp_path / "absent.ipynb")
    (tmp_path / "broken.ipynb").write_text('{"cells": [', encoding="utf-8")
    with pytest.raises(ClipadError, match="no notebook"):
        read_parameters(tmp_path / "broken.ipynb")


def test_a_picture_keeps_its_pixels_and_loses_its_history():
    buffer, about = io.BytesIO(), PngInfo()
    about.add_text("Software", "a drawing program 1.2")
    Image.new("RGB", (3, 2), "red").save(buffer, "png", pnginfo=about)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    output = nbformat.v4.new_output("display_data", data={"image/png": encoded})
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x", outputs=[output])])
    clean = canonical_notebook(book, book).cells[0].outputs[0].data["image/png"]
    picture = Image.open(io.BytesIO(base64.b64decode(clean)))
    assert picture.info == {}
    assert picture.getpixel((2, 1)) == (255, 0, 0)


def test_progress_widgets_and_cut_streams_do_not_reach_the_canonical_notebook():
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "1f"}, "text/plain": "0%"}
    outputs = [
        nbformat.v4.new_output("stream", name="stdout", text="one "),
        nbformat.v4.new_output("stream", name="stderr", text="noise"),
        nbformat.v4.new_output("stream", name="stdout", text="line"),
        nbformat.v4.new_output("display_data", data=widget),
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x", outputs=outputs)])
    canonical = canonical_notebook(book, book).cells[0].outputs
    assert [(o.output_type, o.text) for o in canonical] == [("stream", "one line")]


def story_page(text: str = STORY) -> BeautifulSoup:
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)])
    return BeautifulSoup(notebook_page(book, fallback_title="toy"), "html.parser")


def test_code_that_is_the_idea_is_open_and_all_other_code_is_folded():
    cells = [cell("1 + 1", tag="shown"), cell("2 + 2")]
    page = notebook_page(nbformat.v4.new_notebook(cells=cells), fallback_title="toy")
    folds = BeautifulSoup(page, "html.parser").select("details.code")
    assert [fold.has_attr("open") for fold in folds] == [True, False]


def test_every_link_inside_a_page_leads_somewhere_and_every_id_is_unique():
    soup = story_page()
    ids = [tag["id"] for tag in soup.find_all(id=True)]
    assert len(ids) == len(set(ids))
    links = [a["href"][1:] for a in soup.select('a[href^="#"]')]
    assert {"main", "Results", "Results-2"} <= set(links) <= set(ids)
    assert [a.get_text() for a in soup.select("nav.contents a")] == ["Results", "Results"]


def test_a_page_has_landmarks_a_language_and_one_heading_of_the_first_level():
    soup = story_page()
    assert soup.html["lang"] == "en"
    assert [len(soup.find_all(name)) for name in ("main", "header", "nav", "h1")] == [1, 1, 1, 1]
    assert soup.body.find("a")["href"] == "#main"
    assert soup.title.get_text() == "Windows · clipad"


def test_equations_are_set_without_a_script():
    soup = story_page()
    inline, block = soup.find_all("math")
    assert (inline["display"], block["display"]) == ("inline", "block")
    assert block.munder.mo.get_text() == "min"
    assert inline["alttext"] == "F_{ij}"
    assert "$" not in soup.main.get_text()


def test_a_word_in_upright_type_stays_one_word_and_brackets_are_operators():
    soup = BeautifulSoup(
        to_mathml(r"\mathrm{softmax}\langle f \rangle", display=False), "html.parser"
    )
    assert soup.mi.get_text() == "softmax"
    assert [mo.get_text() for mo in soup.find_all("mo")] == ["⟨", "⟩"]


@pytest.mark.parametrize("tex", [r"\frac{1", r"\unknowncommand x", "a & b"])
def test_an_equation_that_cannot_be_set_stops_the_page(tex):
    with pytest.raises(ClipadError, match="equation"):
        to_mathml(tex, display=True)


@pytest.mark.parametrize(
    "body",
    [
        '<img src="https://example.org/a.png" alt="">',
        '<script src="plot.js"></script>',
        '<link rel="stylesheet" href="style.css">',
        "<style>@import 'x.css';</style>",
        '<p style="background: url(https://example.org/a.png)">a</p>',
    ],
)
def test_a_page_that_would_load_something_is_refused(body):
    with pytest.raises(ClipadError, match="loads nothing from outside"):
        page("title", body)


def test_a_page_loads_nothing_and_escapes_what_comes_from_data():
    html = page(
        "<b>title</b>", "<p>body</p>", provenance={"<i>": "<script>x</script>"}, command="a < b"
    )
    soup = BeautifulSoup(html, "html.parser")
    assert network_loads(html) == []
    assert soup.h1.get_text() == "<b>title</b>"
    # Our own, and the record of the run, a file beside the page.
    assert len(soup.find_all("script")) == 2
    assert soup.find("code").get_text() == "a < b"


def test_the_content_policy_allows_our_own_inline_scripts_by_hash_and_no_other():
    html = page("title", "<script>alert(1)</script><svg onload=alert(1)>", script="show();")
    soup = BeautifulSoup(html, "html.parser")
    content = soup.find("meta", attrs={"http-equiv": True})["content"]
    policy = dict(part.split(maxsplit=1) for part in content.split("; "))
    inline = [script.string for script in soup.select("script:not([src])")]
    hashes = [
        f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'" for text in inline
    ]
    assert inline[0] == "alert(1)" and inline[-1] == "show();"
    assert policy["script-src"].split() == ["'self'", *hashes[1:]]
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert "'self'" not in page("title", "", has_record=False).split("script-src")[1].split(">")[0]


def test_a_pandas_table_scrolls_and_aligns_only_its_numbers():
    head = '<thead><tr style="x"><th></th><th>auroc</th><th>name</th></tr></thead>'
    rows = "<tr><th>a</th><td>-0.5</td><td>1</td></tr><tr><th>b</th><td>–</td><td>1 part</td></tr>"
    soup = BeautifulSoup(tidy_tables(f'<table border="1">{head}{rows}</table>'), "html.parser")
    assert soup.table.parent["class"] == ["scroll"]
    assert soup.table.parent["tabindex"] == "0"
    marked = [tag.get_text() for tag in soup.select(".number")]
    assert marked == ["auroc", "-0.5", "–"]


def test_an_output_that_cannot_be_written_says_so(notebook, run, tmp_path):
    (tmp_path / "reports").write_text("a file where a folder is needed", encoding="utf-8")
    with pytest.raises(ClipadError, match="reports: found something that is no folder"):
        run(notebook(cell(DEFAULTS, tag="parameters")))
