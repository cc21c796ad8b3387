"""The machine and the environment that a stage ran in: for the run record, in no tracked file."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path

PROCESSOR = Path("/proc/cpuinfo")
_PACKAGES = ("torch", "open_clip_torch", "numpy", "scipy", "pillow", "pandas", "matplotlib")
# What the libraries choose their code by, from the widest down; the kernel's names.
_FEATURES = ("avx512f", "avx2", "fma", "sse4_2")
# Variables by which a person chooses another code or number of threads.
SWITCHES = (
    *("ATEN_CPU_CAPABILITY", "GLIBC_TUNABLES", "MKL_CBWR", "NPY_DISABLE_CPU_FEATURES"),
    *("JSIMD_FORCESSE2", "OMP_NUM_THREADS", "ONEDNN_MAX_CPU_ISA", "OPENBLAS_CORETYPE"),
    "OPENCV_CPU_DISABLE",
)


def machine_facts() -> dict[str, str]:
    """Interpreter, packages, processor and cores, as label and value; imports none of the packages.

    >>> sorted(machine_facts())
    ['CPU features', 'cores', 'packages', 'processor', 'python', 'switches']
    """
    name, features = _processor()
    return {
        "python": platform.python_version(),
        "packages": ", ".join(f"{name} {number}" for name, number in package_versions().items()),
        "processor": name,
        "CPU features": ", ".join(features) or "not known",
        "cores": str(cores()),
        "switches": ", ".join(f"{k}={os.environ[k]}" for k in SWITCHES if k in os.environ)
        or "none",
    }


def package_versions() -> dict[str, str]:
    """The versions of the packages that numbers and pages come from, by name."""
    return {name: version(name) for name in _PACKAGES}


def cores() -> int:
    """Cores that this process may use; macOS does not say, so all."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _processor() -> tuple[str, list[str]]:
    """Its name and those of `_FEATURES` that it has; only Linux says both."""
    try:
        text = PROCESSOR.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine(), []
    name = re.search(r"^model name\s*: (.+)$", text, flags=re.MULTILINE)
    flags = re.search(r"^flags\s*: (.+)$", text, flags=re.MULTILINE)
    flag_names = set(flags[1].split()) if flags else set()
    processor = name[1].strip() if name else platform.machine()
    return processor, [feature for feature in _FEATURES if feature in flag_names]
