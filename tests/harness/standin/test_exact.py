"""What decides a pixel is the same on every processor: our own functions, and nothing else."""

from __future__ import annotations

import ast
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from clipad_harness.standin import drawing
from clipad_harness.standin.drawing.exact import cos, exp, log, power, sin, total

DRAWING = sorted(Path(drawing.__file__).parent.glob("*.py"))
FUNCTIONS = [(sin, np.sin), (cos, np.cos), (exp, np.exp), (log, np.log)]


def arguments(function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Numbers over the whole range of a function, and close to where it is special."""
    chance = np.random.default_rng(0)
    if function is exp:
        near = np.arange(-20, 21) * math.log(2) / 2
        return np.concatenate([chance.uniform(-708, 709, 20000), near, near + 1e-9, [0.0]])
    if function is log:
        near = 1 + chance.uniform(-1e-6, 1e-6, 2000)
        wide = np.exp(chance.uniform(-708, 709, 20000))
        powers = 2.0 ** np.arange(-1022, 1024, 31)
        return np.concatenate([wide, near, powers, powers * math.sqrt(0.5), [0.5, 1.0]])
    near = np.arange(-40, 41) * (math.pi / 4)
    wide = [chance.uniform(-size, size, 20000) for size in (1.0, 100.0, 2.0**20)]
    return np.concatenate([*wide, near, near + 1e-9, [0.0, -0.0, 1e-300]])


@pytest.mark.parametrize(("function", "reference"), FUNCTIONS)
def test_our_functions_agree_with_those_of_numpy(function, reference):
    x = arguments(function)
    expected = reference(x)
    # A few last places where results are at most one, of the result itself where it is not.
    relative = function in (exp, log)
    scale = np.maximum(np.abs(expected), np.finfo(float).tiny) if relative else 1.0
    assert (np.abs(function(x) - expected) / scale).max() < 1e-15


@pytest.mark.parametrize(("function", "reference"), FUNCTIONS)
def test_float32_gives_float32_within_a_unit_in_the_last_place(function, reference):
    chance = np.random.default_rng(1)
    low = 1e-3 if function is log else -80.0
    x = chance.uniform(low, 80, (50, 200)).astype(np.float32)
    result = function(x)
    assert result.dtype == np.float32
    assert result.shape == x.shape
    expected = reference(x.astype(np.float64))
    unit = np.spacing(np.abs(expected).astype(np.float32))
    assert (np.abs(result - expected) <= 0.6 * unit + 5e-16).all()


@pytest.mark.parametrize(("function", "reference"), FUNCTIONS)
def test_a_number_gives_the_float_that_an_array_of_it_holds(function, reference):
    for x in (0.1, 1.0, 2.5, 77.0, np.float64(3.25), np.float32(0.5), 4):
        result = function(x)
        assert type(result) is float
        assert result == function(np.array([x], np.float64))[0]


def test_the_argument_is_left_as_it_was():
    for function, _ in FUNCTIONS:
        x = np.linspace(0.5, 9, 7)
        function(x)
        np.testing.assert_array_equal(x, np.linspace(0.5, 9, 7))


def test_the_exponential_ends_in_zero_and_infinity():
    np.testing.assert_array_equal(exp(np.array([-1e9, -709.0, 710.0, 1e9])), [0, 0, np.inf, np.inf])


@pytest.mark.parametrize("y", [0.25, 0.8, 1.0, 1.4, 3.0])
def test_powers_agree_with_those_of_numpy(y):
    x = np.concatenate([[0.0, 1.0], np.geomspace(1e-12, 1e6, 5000)])
    np.testing.assert_allclose(power(x, y), np.power(x, y), rtol=3e-14, atol=0)
    short = np.linspace(0, 1, 999, dtype=np.float32)
    assert power(short, y).dtype == np.float32
    np.testing.assert_allclose(power(short, y), np.power(short, np.float32(y)), rtol=3e-7, atol=0)


@pytest.mark.parametrize("size", [0, 1, 2, 63, 64, 65, 129, 36864])
def test_a_total_is_the_sum_however_the_array_lies_in_memory(size):
    x = np.random.default_rng(size).normal(size=(2, size)).T
    assert total(x) == pytest.approx(math.fsum(x.ravel().tolist()), abs=1e-12)
    assert total(x) == total(np.ascontiguousarray(x))


# Whatever NumPy computes by one rounding of IEEE 754, by comparing, by moving or by whole numbers.
NUMPY = {
    *("ndarray", "float32", "float64", "uint8", "int32", "int64", "newaxis", "random.default_rng"),
    *(
        "abs",
        "ceil",
        "clip",
        "floor",
        "maximum",
        "minimum",
        "sign",
        "sqrt",
        "square",
        "subtract",
        "multiply",
        "empty_like",
    ),
    *("arange", "asarray", "ascontiguousarray", "broadcast_to", "empty", "full", "full_like"),
    *("ones", "ones_like", "stack", "zeros", "zeros_like", "where", "flatnonzero", "frexp"),
}
MATH = {"pi", "sqrt", "floor", "ceil", "factorial", "fsum"}
METHODS = {
    *("sum", "mean", "std", "var", "prod", "cumsum", "dot", "trace", "normal", "standard_normal"),
    *("normalvariate", "lognormvariate", "expovariate", "exponential", "gammavariate"),
    *("betavariate", "vonmisesvariate", "paretovariate", "weibullvariate", "triangular"),
}
BUILTINS = {"sum", "pow", "complex", "Random"}


def attribute(node: ast.Attribute) -> str:
    """A name with dots, `np.random.default_rng`; empty where it does not begin with a name."""
    inner = node.value
    if isinstance(inner, ast.Name):
        return f"{inner.id}.{node.attr}"
    before = attribute(inner) if isinstance(inner, ast.Attribute) else ""
    return before and f"{before}.{node.attr}"


def unfixed(source: str) -> Iterator[str]:
    """What a module computes whose last bits IEEE 754 does not fix."""
    tree = ast.parse(source)
    inner = {n.value for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node not in inner:
            module, _, name = attribute(node).partition(".")
            if (module == "np" and name not in NUMPY) or (module == "math" and name not in MATH):
                yield f"{module}.{name}"
        if isinstance(node, ast.ImportFrom) and node.module in ("math", "cmath", "numpy", "scipy"):
            yield f"from {node.module}"
        if isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(
            node.op, ast.Pow | ast.MatMult
        ):
            yield "**" if isinstance(node.op, ast.Pow) else "@"
        if isinstance(node, ast.Constant) and isinstance(node.value, complex):
            yield "complex"
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
                yield f".{node.func.attr}()"
            if isinstance(node.func, ast.Name) and node.func.id in BUILTINS:
                yield f"{node.func.id}()"


@pytest.mark.parametrize("module", DRAWING, ids=lambda path: path.stem)
def test_the_drawing_uses_nothing_that_differs_between_processors(module):
    assert not set(unfixed(module.read_text()))


@pytest.mark.parametrize(
    "line",
    [
        *(
            "np.sin(x)",
            "np.fft.rfft2(x)",
            "np.hypot(x, y)",
            "np.linalg.norm(x)",
            "np.add.reduce(x)",
        ),
        *(
            "math.cos(x)",
            "math.hypot(x, y)",
            "x ** y",
            "x **= 2",
            "x @ y",
            "x.mean()",
            "(x + y).sum()",
        ),
        *(
            "x.std(axis=0)",
            "rng.normal(size=9)",
            "sum(x)",
            "1j * x",
            "Random(0)",
            "from math import sin",
        ),
    ],
)
def test_the_scan_sees_what_differs_between_processors(line):
    assert list(unfixed(line)), line


NUMBERS = "3c0aa5efd7c9b2d11b1574aef5f4ab0d7b1eaffd14211845bacb0060090c9a16"
SCRIPT = """
from hashlib import sha256
from clipad_harness.standin.drawing import PRETRAINING, TARGET, defects_of, draw_pair, draw_sound, pairs
from clipad_harness.standin.datasets import _png

numbers, files = sha256(), sha256()

def watched(surface, scene, render=pairs.render):  # before anything is rounded to eight bits
    light = render(surface, scene)
    for plane in (surface.height, surface.albedo, surface.alpha, scene.background, light):
        numbers.update(plane.tobytes())
    numbers.update(repr(scene.direction).encode())
    return light

pairs.render = watched
images = []
for category in PRETRAINING:  # every builder and every decoration
    pair = draw_pair(category, 0, 96)
    images += [pair.sound, pair.damaged]
for category in TARGET:  # every defect
    images += [draw_pair(category, 7, 96, defect).damaged for defect in defects_of(category)]
images += [draw_sound(category, 7, 192) for category in TARGET[::4]]
for image in images:
    numbers.update(image.tobytes())
for image in images[::7]:
    files.update(_png(image))
print(numbers.hexdigest(), files.hexdigest())
"""


def drawn_under(**switches: str) -> str:
    """What the script prints in a process with some processor features switched off."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=os.environ | switches,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.fixture(scope="module")
def drawn_here() -> str:
    return drawn_under()


# What this processor has beyond the least that NumPy is built for, the oldest first.
EXTENSIONS = np.show_config(mode="dicts")["SIMD Extensions"]["found"]


@pytest.mark.parametrize(
    "switches",
    [
        pytest.param({"NPY_DISABLE_CPU_FEATURES": " ".join(EXTENSIONS[1:])}, id="numpy-avx2"),
        pytest.param({"NPY_DISABLE_CPU_FEATURES": " ".join(EXTENSIONS)}, id="numpy-least"),
        pytest.param(
            {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4,-AVX512F"}, id="libm-least"
        ),
        pytest.param({"OPENBLAS_CORETYPE": "Prescott", "OMP_NUM_THREADS": "1"}, id="blas-least"),
    ],
)
def test_the_bytes_are_the_same_whatever_the_processor_offers(drawn_here, switches):
    assert len(drawn_here.split()) == 2
    assert drawn_under(**switches) == drawn_here


def test_the_numbers_are_those_of_every_machine(drawn_here):
    """Whoever changes the drawing changes this sum, and says so in CHANGELOG.md."""
    numbers, _ = drawn_here.split()  # the bytes of PNG files depend on the release of zlib
    assert numbers == NUMBERS
