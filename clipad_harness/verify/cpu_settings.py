"""The same pipeline under other settings of the CPU libraries: one hash of all its outputs for each.

A CPU that lacks an instruction takes another code path of a library, and another number of cores another
order of additions. Both can be asked for here: the libraries read environment variables, which stages,
their workers and the kernels of notebooks inherit.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clipad_core.errors import ClipadError
from clipad_harness.verify.clean_clone import clean_clone, outputs, present_outputs, reproduce
from clipad_harness.verify.verify import find_targets


@dataclass(frozen=True)
class Setting:
    """One environment of the CPU libraries: its name, its variables, what they switch, in words."""

    name: str
    description: str
    environment: Mapping[str, str]


def all_settings() -> list[Setting]:
    """Every setting that `./repro verify --settings` runs; below AVX2 torch promises nothing."""
    return [
        Setting("as it is", "one thread", {"OMP_NUM_THREADS": "1"}),
        Setting(
            "AVX2",
            "no AVX-512; two threads, another hash order",
            {
                "ATEN_CPU_CAPABILITY": "avx2",  # torch's own loops
                "MKL_CBWR": "AVX2",  # matrix products of torch
                "ONEDNN_MAX_CPU_ISA": "AVX2",  # its convolutions
                "NPY_DISABLE_CPU_FEATURES": " ".join(_numpy_features("512", "X86_V4")),
                "OPENBLAS_CORETYPE": "Haswell",  # matrix products of numpy and scipy
                "OPENCV_CPU_DISABLE": "AVX512-SKX",  # of the augmentation
                "OMP_NUM_THREADS": "2",
                "MKL_DYNAMIC": "FALSE",  # so many also where there are fewer cores
                "PYTHONHASHSEED": "1",
            },
        ),
        Setting(
            "SSE2 products",
            "products, numpy, JPEG, C library without AVX; four threads",
            {
                "ATEN_CPU_CAPABILITY": "avx2",
                "MKL_CBWR": "COMPATIBLE",  # SSE2, without FMA
                "ONEDNN_MAX_CPU_ISA": "SSE41",
                "NPY_DISABLE_CPU_FEATURES": " ".join(_numpy_features("")),
                "OPENBLAS_CORETYPE": "Nehalem",
                # Below AVX2 OpenCV turns an augmented image with other roundings.
                "OPENCV_CPU_DISABLE": "AVX512-SKX",
                "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX2,-FMA",  # exp and log of C
                "JSIMD_FORCESSE2": "1",  # JPEG of Pillow
                "OMP_NUM_THREADS": "4",
                "OMP_WAIT_POLICY": "PASSIVE",  # threads without a core of their own do not spin
                "MKL_DYNAMIC": "FALSE",
                "PYTHONHASHSEED": "2",
            },
        ),
    ]


def _numpy_features(*parts: str) -> list[str]:
    """Groups of instructions that this numpy would use on this CPU and whose name has a part.

    Naming another one makes numpy warn, naming one that it needs makes it stop.
    """
    config: dict[str, Any] = np.show_config(mode="dicts")  # type: ignore[assignment]
    names = config.get("SIMD Extensions", {}).get("found", [])
    return [name for name in names if any(part in name for part in parts)]


@dataclass(frozen=True)
class Outcome:
    """What one setting gave: a hash over all outputs, and those that dvc.lock says otherwise."""

    setting: Setting
    digest: str
    count: int
    mismatches: Sequence[str]


def verify_settings(root: Path, part: str = "") -> list[Outcome]:
    """Run the clean clone once a setting; hold its outputs against this folder's dvc.lock.

    Args:
        root: the project.
        part: as of `verify`.

    Raises:
        ClipadError: an unknown part, no dvc.lock, or a stage that fails.
    """
    targets, expected = find_targets(root, part), outputs(root)
    if not expected:
        raise ClipadError(
            f"{root / 'dvc.lock'}: is missing or empty, expected the hashes to compare with; run "
            "`./repro` first."
        )
    settings, outcomes = all_settings(), []
    for number, setting in enumerate(settings, 1):
        print(f"verify: {setting.name}, {number} of {len(settings)}", file=sys.stderr, flush=True)
        with clean_clone(root) as folder:
            try:
                reproduce(folder, targets, setting.environment)
            except ClipadError as error:
                raise ClipadError(f"setting {setting.name!r}: {error}") from error
            outs = present_outputs(folder)
        mismatches = [place for place in sorted(outs) if outs[place] != expected.get(place)]
        outcomes.append(Outcome(setting, outputs_hash(outs), len(outs), mismatches))
    return outcomes


def outputs_hash(outs: Mapping[str, str]) -> str:
    """SHA-256 over the places and hashes of outputs, in the order of their places.

    >>> outputs_hash({"b": "2", "a": "1"}) == outputs_hash({"a": "1", "b": "2"})
    True
    """
    lines = "".join(f"{place} {outs[place]}\n" for place in sorted(outs))
    return hashlib.sha256(lines.encode()).hexdigest()


def settings_table(outcomes: Sequence[Outcome]) -> str:
    """A table in Markdown, and below it what differs from dvc.lock."""
    head = ("setting", "what it switches", "outputs", "hash of all", "as in dvc.lock")
    rows = [
        (
            outcome.setting.name,
            outcome.setting.description,
            str(outcome.count),
            f"`{outcome.digest[:12]}`",
            "no" if outcome.mismatches else "yes",
        )
        for outcome in outcomes
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, tuple("-" * width for width in widths), *rows]
    table = [
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |"
        for line in lines
    ]
    below = [
        f"{outcome.setting.name}: {len(outcome.mismatches)} of {outcome.count} outputs differ from "
        f"dvc.lock: {', '.join(outcome.mismatches)}"
        for outcome in outcomes
        if outcome.mismatches
    ]
    return "\n".join([*table, *([""] if below else []), *below])
