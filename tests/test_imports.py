"""The house stands as it is drawn: imports run downward only, and no method imports another."""

import ast
from pathlib import Path

import pytest
from importlinter import cli
from project import REPOSITORY

MODULES = sorted(
    path
    for package in ("clipad_core", "clipad_harness")
    for path in REPOSITORY.glob(f"{package}/**/*.py")
)
# The only places that import what a name says: a method by its room, its drawings by its name.
BY_NAME = {"clipad_core/methods/__init__.py", "clipad_harness/report/steps/__init__.py"}


def test_every_contract_of_pyproject_is_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(REPOSITORY)
    code = cli.lint_imports(no_cache=True)
    assert code == 0, capsys.readouterr().out


def test_no_other_module_imports_by_a_string() -> None:
    calls = {
        path.relative_to(REPOSITORY).as_posix()
        for path in MODULES
        if any(_imports_by_string(node) for node in ast.walk(ast.parse(path.read_text())))
    }
    assert calls <= BY_NAME


def _imports_by_string(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return name in ("import_module", "__import__")


TABLES = ("meta_path", "path_hooks", "modules")


def import_tables(tree: ast.AST) -> list[ast.AST]:
    """Uses of the import system's tables but the question whether a module is loaded: `x in sys.modules`."""
    membership_tests = {
        id(side)
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare)
        for side, operator in zip(node.comparators, node.ops, strict=True)
        if isinstance(operator, ast.In | ast.NotIn)
    }
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr in TABLES
        and getattr(node.value, "id", "") == "sys"
        and id(node) not in membership_tests
    ]


def test_no_module_turns_the_import_system() -> None:
    assert not [path.name for path in MODULES if import_tables(ast.parse(path.read_text()))]


@pytest.mark.parametrize(
    ("line", "uses"),
    [
        ("'torchvision' in sys.modules", 0),
        ("sys.modules['torchvision'] = None", 1),
        ("sys.modules.setdefault('torchvision', None)", 1),
        ("sys.meta_path.insert(0, finder)", 1),
        ("1 in (sys.modules.pop('torch'),)", 1),
    ],
)
def test_only_the_question_is_allowed(line: str, uses: int) -> None:
    assert len(import_tables(ast.parse(line))) == uses


def test_no_module_of_the_harness_names_a_method() -> None:
    rooms = {path.parent.name for path in REPOSITORY.glob("clipad_core/methods/*/__init__.py")}
    named = {}
    for path in sorted(Path(REPOSITORY / "clipad_harness").rglob("*.py")):
        if path.parent.name == "steps":  # the drawings of a method, found by its name
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            text = node.value if isinstance(node, ast.Constant) else ""
            if isinstance(text, str) and text.strip() in rooms:
                named.setdefault(path.relative_to(REPOSITORY).as_posix(), set()).add(text)
    assert not named
