"""A stage's process goes without what open_clip draws in for others; nobody else's does."""

import os
import runpy
import subprocess
import sys

import pytest
import recordings

from clipad_core.clip.backbone import Backbone
from clipad_harness.base import quick_start
from clipad_harness.base.quick_start import VARIABLE

STAGE = """
import os
import sys
from clipad_harness.base.quick_start import VARIABLE, start_quickly
start_quickly()
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from micro import MICRO, add_config
from clipad_core.clip.backbone import load_backbone
add_config(Path(sys.argv[2]), "clipad-micro", MICRO)
print(load_backbone("clipad-micro", "random:0").digest)
print("timm.layers" in sys.modules, "torch._dynamo" in sys.modules, VARIABLE in os.environ)
import torch
from torchvision.ops.roi_align import is_compile_supported
print(is_compile_supported("cpu"))
print(torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)).tolist())
"""
CHILD = "import clipad_harness, sys; print('timm' in sys.modules)"


def python(code: str, *words: object, environ: dict[str, str] | None = None) -> list[str]:
    plain = {name: value for name, value in os.environ.items() if name != VARIABLE}
    command = [sys.executable, "-c", code, *map(str, words)]
    done = subprocess.run(
        command, env=plain | (environ or {}), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_stage_has_the_same_backbone_without_timm_and_the_compiler(
    micro: Backbone, tmp_path
) -> None:
    found = python(STAGE, recordings.GOLDENS.parent, tmp_path)
    assert found[:2] == [micro.digest, "False False True"]
    # Who wants the compiler after all gets it.
    assert found[2:] == ["True", "[2.0]"]


def test_kernels_and_workers_of_a_stage_start_as_it_does_and_others_do_not() -> None:
    assert python(CHILD, environ={VARIABLE: "1"}) == ["True"]
    assert python(CHILD) == ["False"]


def test_the_command_of_dvc_yaml_starts_as_a_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[bool] = []
    monkeypatch.setattr(quick_start, "start_quickly", lambda: started.append(True))
    monkeypatch.setattr(sys, "argv", ["clipad", "--help"])
    with pytest.raises(SystemExit):
        runpy.run_module("clipad_harness", run_name="__main__")
    assert started == [True]
