"""How a process computed on an accelerator, noted for the run record."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path

import torch

from clipad_core.clip.backbone import Backbone
from clipad_harness.base.run_record import leave_note


def note(folder: Path, backbone: Backbone, batch: int) -> None:
    """Leave a note, or replace this process's own.

    Args:
        folder: the cache.
        backbone: that encoded last, on an accelerator.
        batch: how many images it encoded together.
    """
    peak = "not known"
    if backbone.device.type == "cuda":
        peak = f"{torch.cuda.max_memory_allocated(backbone.device) / 2**20:.0f} MiB"
    facts = {
        "accelerator": _device_name(backbone.device),
        "driver": _driver(),
        "CUDA": str(torch.version.cuda or "none"),
        "cuDNN": str(torch.backends.cudnn.version() or "none"),
        "precision": f"{backbone.precision}; products of float32: {_product_precision()}",
        "attention": backbone.attention,
        "images encoded together": str(batch),
        "peak memory of the device": peak,
    }
    leave_note(folder, facts)


@cache
def _device_name(device: torch.device) -> str:
    if device.type != "cuda":
        return str(device)
    memory = torch.cuda.get_device_properties(device).total_memory / 2**30
    return f"{torch.cuda.get_device_name(device)}, {memory:.0f} GiB"


@cache
def _driver() -> str:
    """The version of the driver, which torch does not say."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return "not known"
    query = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, check=False, capture_output=True, text=True)
    return done.stdout.partition("\n")[0].strip() or "not known"


def _product_precision() -> str:
    """What torch makes of a product of float32 matrices on a GPU: "ieee", or TF32."""
    products = torch.backends.cuda.matmul
    if hasattr(products, "fp32_precision"):
        return str(products.fp32_precision)
    return "TF32 allowed" if products.allow_tf32 else "ieee"
