"""Parameters of notebooks: which are set, by whom, and what is refused."""

import ast
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from project import REPOSITORY, change, make_project

from clipad_core.errors import ClipadError
from clipad_core.methods import rooms
from clipad_harness.base.parameters import (
    INJECTED_CELL,
    OF_PROFILE,
    notebook_parameters,
    parameter_kinds,
    parameters_of,
    read_parameterised,
)
from clipad_harness.base.settings import (
    read_essays,
    read_method,
    read_methods,
    read_pages,
    read_profile,
)

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
OWN = "# Parameters: None is what params.yaml says\npreset = None\nphotos = []  # paths\n"


def code_cells(notebook: Path) -> Iterator[tuple[list[str], str]]:
    """Tags and source of every code cell."""
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            yield cell["metadata"].get("tags", []), "".join(cell["source"])


def own_parameters(notebook: Path) -> list[str]:
    [source] = [source for tags, source in code_cells(notebook) if "parameters" in tags]
    names: dict[str, object] = {}
    exec(source, names)
    return list(notebook_parameters({**names, "In": [source]}))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_project(tmp_path)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_names_every_parameter_that_it_takes(notebook: Path) -> None:
    names = own_parameters(notebook)
    if notebook.stem in rooms():
        assert names == list(parameter_kinds(notebook.stem))
    elif notebook.stem != "your_images":  # of photos, not of results
        assert names == list(OF_PROFILE)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_parameter_has_a_comment(notebook: Path) -> None:
    [source] = [source for tags, source in code_cells(notebook) if "parameters" in tags]
    lines = source.splitlines()
    for place, line in enumerate(lines):
        assert "#" in line or lines[place - 1].startswith("#"), line


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_cell_gives_the_name_of_a_parameter_to_something_else(notebook: Path) -> None:
    """Else the cell that opens the run would read it, when it runs a second time."""
    parameters = set(own_parameters(notebook))
    for tags, source in code_cells(notebook):
        if "parameters" in tags or "notebook_parameters(globals())" in source:
            continue
        nodes = list(ast.walk(ast.parse(source)))
        imports = [n for n in nodes if isinstance(n, ast.Import | ast.ImportFrom)]
        bound = {alias.asname or alias.name for n in imports for alias in n.names}
        bound |= {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        assert not bound & parameters, source


def test_values_are_those_that_stand_now_whoever_set_them() -> None:
    assert notebook_parameters({"In": ["", OWN], "preset": "paper", "photos": ["a"]}) == {
        "preset": "paper",
        "photos": ["a"],
    }


def test_variables_of_later_cells_are_no_parameters() -> None:
    cells = ["", OWN, "about = 1", OWN, "run = open_run()"]
    namespace = {"In": cells, "preset": None, "photos": [], "about": 1}
    assert notebook_parameters(namespace) == {"preset": None, "photos": []}


def test_a_tool_without_history_has_just_started() -> None:
    namespace = {"In": [""], "Out": {}, "preset": None, "_i": "", "Path": Path}
    assert notebook_parameters(namespace) == {"preset": None}


def test_a_name_that_papermill_injects_and_no_cell_has_is_refused() -> None:
    cells = ["", OWN, f"{INJECTED_CELL}pre_set = 'paper'\n"]
    with pytest.raises(
        ClipadError, match="found pre_set, expected some of preset, photos; correct"
    ):
        notebook_parameters({"In": cells, "preset": None, "photos": [], "pre_set": "paper"})


@pytest.mark.parametrize(
    ("value", "message"),
    [("a.png", "photos: found 'a.png', expected a list"), ("[a", "photos: found '.a', .* YAML")],
)
def test_a_value_of_another_kind_than_its_default_is_refused(value: str, message: str) -> None:
    with pytest.raises(ClipadError, match=message):
        notebook_parameters({"In": [OWN], "preset": None, "photos": value})


@pytest.mark.parametrize("method", rooms())
def test_the_parameters_of_the_pipeline_are_what_params_yaml_says(
    project: Path, method: str
) -> None:
    values = parameters_of(project, method)
    assert list(values) == list(parameter_kinds(method))
    assert read_parameterised(project, method, values) == (
        read_profile(project),
        read_method(project, method),
    )


def test_a_parameter_stands_in_place_of_params_yaml_and_none_does_not(project: Path) -> None:
    change(project, "winclip", "seeds", value=[5])
    parameters = {"categories": '["hex_nut"]', "k_shots": "[0, 2]", "seeds": None, "fpr_limit": 0.1}
    profile, settings = read_parameterised(project, "winclip", parameters)
    assert profile.categories == ("hex_nut",)
    assert (settings.k_shots, settings.seeds, settings.fpr_limit) == ((0, 2), (5,), 0.1)


@pytest.mark.parametrize(
    ("method", "parameters", "message"),
    [
        ("winclip", {"k_shot": 4}, "found k_shot, expected some of profile, dataset"),
        ("winclip", {"auxiliary": {}}, "found auxiliary, expected some of"),
        ("vcpclip", {"k_shots": [0]}, "found k_shots, expected some of"),
        ("winclip", {"k_shots": 4}, "parameters: k_shots: found 4, expected a list of int"),
        ("winclip", {"k_shots": [-1]}, r"k_shots: found \[-1\], expected whole numbers from 0"),
        ("winclip", {"seeds": [1, 1]}, r"seeds: found \[1, 1\], expected each once"),
        ("winclip", {"preset": 3}, "parameters: preset: found 3, expected str"),
        (
            "winclip",
            {"changes": "{"},
            "parameters: changes: found '{', expected a list or a mapping",
        ),
        ("winclip", {"ablations": [1]}, r"parameters: ablations: found \[1\], expected names"),
        (
            "winclip",
            {"ablations": {"a": {"row": {}}}},
            "winclip.ablations.a: found .*an unknown row",
        ),
        ("winclip", {"fpr_limit": 2}, "fpr_limit: found 2, expected a share"),
        ("winclip", {"profile": "tiny"}, "profiles: found no 'tiny', only demo, paper"),
        (
            "anomalyclip",
            {"allow_tested": "all"},
            "allow_tested: found 'all', expected a list of str",
        ),
    ],
)
def test_what_is_wrong_is_one_message_that_names_the_parameter(
    project: Path, method: str, parameters: dict, message: str
) -> None:
    with pytest.raises(ClipadError, match=message):
        read_parameterised(project, method, parameters)


@pytest.mark.parametrize("method", rooms())
def test_one_line_leaves_the_headline_alone(project: Path, method: str) -> None:
    whole = read_method(project, method)
    headline = replace(whole, ablations={}, questions={}, walks=(), own_walks={})
    assert whole != headline
    given = read_parameterised(project, method, {"ablations": "none"})[1]
    assert given == headline
    change(project, "ablations", value="none")
    assert read_method(project, method) == headline
    # What the pipeline hands to a notebook says the same.
    assert read_parameterised(project, method, parameters_of(project, method))[1] == headline
    rows = {"own": {"rows": {"as it is": {}}}}
    again = read_parameterised(project, method, {"ablations": rows})[1]
    assert list(again.ablations) == ["own"] and again.walks == ()
    change(project, "ablations", value="all")
    change(project, method, "ablations", value="none")
    assert read_method(project, method) == headline


@pytest.mark.parametrize("value", [None, "some", {}, True])
def test_ablations_are_all_or_none(project: Path, value: object) -> None:
    change(project, "ablations", value=value)
    with pytest.raises(ClipadError, match="ablations: found .*, expected all, or none"):
        read_method(project, "winclip")


@pytest.mark.parametrize(
    ("pages", "message"),
    [
        (["winclip", "winclip"], "pages: found"),
        (["winclip", "coop"], "pages: found 'coop', expected some of `methods`, winclip"),
        (["vcpclip"], "pages: found 'vcpclip', but no notebooks/vcpclip.ipynb"),
    ],
)
def test_a_page_belongs_to_a_method_that_is_run_and_has_a_notebook(
    project: Path, pages: list[str], message: str
) -> None:
    (project / "notebooks" / "vcpclip.ipynb").unlink()
    change(project, "pages", value=pages)
    with pytest.raises(ClipadError, match=message):
        read_pages(project)


@pytest.mark.parametrize(
    ("essays", "message"),
    [
        (["comparison", "comparison"], "essays: found"),
        (["winclip"], "essays: found 'winclip', expected no name of a method"),
        (["anecdotes"], "essays: found 'anecdotes', but no notebooks/anecdotes.ipynb"),
    ],
)
def test_an_essay_is_no_methods_page_and_has_a_notebook(
    project: Path, essays: list[str], message: str
) -> None:
    change(project, "essays", value=essays)
    with pytest.raises(ClipadError, match=message):
        read_essays(project)


def test_a_method_without_a_page_is_measured_all_the_same(project: Path) -> None:
    change(project, "pages", value=["winclip"])
    assert read_pages(project) == ("winclip",) and len(read_methods(project)) > 1
