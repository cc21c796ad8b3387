"""Where tensors lie, how exactly a device computes there, and how much goes through it at once.

On a CPU nothing is set: its float64 is the reference of the demo, its float32 that of the published
codes. On a GPU the reference is float32 without TF32, by deterministic algorithms.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn

from clipad_core.errors import ClipadError

AUTO, CPU = "auto", torch.device("cpu")
EXPECTED = "auto, cpu, cuda, cuda:N or mps"
# What cuBLAS must be told before its first product, or products differ from run to run; torch looks once.
CUBLAS, WORKSPACES = "CUBLAS_WORKSPACE_CONFIG", (":4096:8", ":16:8")
os.environ.setdefault(CUBLAS, WORKSPACES[0])


@dataclass(frozen=True)
class ChunkSizes:
    """How much goes through a device at once; peak memory does not grow with more.

    Attributes:
        tokens: through the blocks of a tower.
        prompts: through the text tower.
        images: that are encoded together; 1: one by one, so that no image's numbers depend on others.
        pixels: of maps that are scored together.
    """

    tokens: int
    prompts: int
    images: int
    pixels: int


# Of a CPU: GELU and the matrix products stay in cache (measured: 0.5 ns an element instead of 2.3 ns); maps
# of eight images as AnomalyCLIP publishes them, or of many small ones.
OF_A_CPU = ChunkSizes(tokens=1024, prompts=64, images=1, pixels=8 * 518**2)
# Of a GPU: the activations of so many tokens of a ViT-L are about 3 GB in float32.
OF_A_GPU = ChunkSizes(tokens=2**16, prompts=1024, images=32, pixels=64 * 518**2)


def chunk_sizes(device: torch.device) -> ChunkSizes:
    """How much goes through a device at once.

    >>> chunk_sizes(torch.device("cpu")).tokens
    1024
    """
    return OF_A_CPU if device.type == "cpu" else OF_A_GPU


def find_device(name: str | torch.device) -> torch.device:
    """The device of a name, which this machine must have.

    Args:
        name: "auto" for the accelerator of this machine, else its CPU; "cpu"; "cuda" or "cuda:N"; "mps";
            or whatever torch calls the accelerator that it is built for.

    Raises:
        ClipadError: no such name, or no such device here.

    >>> find_device("cpu")
    device(type='cpu')
    """
    accelerator = _accelerator()
    if name == AUTO:
        return CPU if accelerator is None else torch.device(accelerator, 0)
    if isinstance(name, str) and not re.fullmatch(r"[a-z]+(:\d+)?", name):
        raise ClipadError(f"device: found {name[:80]!r}, expected {EXPECTED}.")
    kind, _, number = str(name).partition(":")
    if kind == "cpu" and not number:
        return CPU
    if kind not in ("cuda", "mps", accelerator):
        raise ClipadError(f"device: found {str(name)[:80]!r}, expected {EXPECTED}.")
    if kind != accelerator:
        present = "no accelerator" if accelerator is None else f"{accelerator} alone"
        raise ClipadError(
            f"device: found {str(name)!r}, while torch {torch.__version__} sees {present} on this machine; "
            "expected auto or cpu here. Where there is a GPU, install a build of torch for it, and look "
            "at its driver."
        )
    count = torch.accelerator.device_count()
    if int(number or 0) >= count:
        raise ClipadError(
            f"device: found {str(name)!r}, expected at most {kind}:{count - 1}, the last one that this "
            "process sees; CUDA_VISIBLE_DEVICES may hide others."
        )
    return torch.device(kind, int(number or 0))


def _accelerator() -> str | None:
    """The kind of accelerator that torch sees here; None: there is the CPU alone."""
    if not torch.accelerator.is_available():
        return None
    current = torch.accelerator.current_accelerator()
    return None if current is None else str(current.type)


def compute_exactly(device: torch.device) -> None:
    """Set what makes a device's float32 the reference: no TF32, the same algorithms in every run.

    The newer of torch's two ways is taken where it is there, and the older one then never touched: to
    read it afterwards is an error of torch.

    Raises:
        ClipadError: an environment in which products are not.
    """
    if device.type == "cpu":
        return
    if os.environ[CUBLAS] not in WORKSPACES:
        raise ClipadError(
            f"{CUBLAS}: found {os.environ[CUBLAS]!r}, expected {' or '.join(WORKSPACES)}, with which "
            "products are the same in every run; correct it or take it out of the environment."
        )
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    if hasattr(torch.backends, "fp32_precision"):
        of_cudnn = torch.backends.cudnn
        settings: list[Any] = [torch.backends, torch.backends.cuda.matmul, of_cudnn]
        settings += [getattr(of_cudnn, name) for name in ("conv", "rnn") if hasattr(of_cudnn, name)]
        for setting in settings:
            setting.fp32_precision = "ieee"  # each by itself: cudnn.conv is "tf32" from the start
    else:
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False


def attention_backend(device: torch.device, dtype: torch.dtype, autocast: bool) -> str:
    """The kernels that may compute attention, the first that can; part of every cache key.

    Flash attention knows half precision alone; a mask, as the text tower has it, goes to the others.

    >>> attention_backend(torch.device("cpu"), torch.float32, autocast=False)
    'cpu'
    """
    if device.type != "cuda":
        return device.type
    if dtype == torch.float64:
        return "math"
    is_half = autocast or dtype != torch.float32
    return "flash, efficient, math" if is_half else "efficient, math"


# Which kernels may compute attention is a setting of the process: threads that compute take turns.
_KERNELS = RLock()


@contextmanager
def computing(device: torch.device, dtype: torch.dtype, autocast: bool) -> Iterator[None]:
    """Compute with the attention kernels of `attention_backend`, in half precision where asked for.

    Args:
        dtype: of the matrix products.
        autocast: whether torch casts what it is given to float16, product by product.
    """
    with ExitStack() as stack:
        if autocast:
            stack.enter_context(torch.autocast(device.type, torch.float16))
        if device.type == "cuda":
            from torch.nn.attention import SDPBackend, sdpa_kernel

            kernels = {
                "flash": SDPBackend.FLASH_ATTENTION,
                "efficient": SDPBackend.EFFICIENT_ATTENTION,
                "math": SDPBackend.MATH,
            }
            names = attention_backend(device, dtype, autocast).split(", ")
            stack.enter_context(_KERNELS)
            stack.enter_context(sdpa_kernel([kernels[name] for name in names]))
        yield


def precise(values: Tensor) -> Tensor:
    """The same in float32 at least: scores are made of logits there, under autocast too.

    >>> precise(torch.ones(1, dtype=torch.float16)).dtype
    torch.float32
    """
    return values.to(torch.promote_types(values.dtype, torch.float32))


def moved(value: Any, device: torch.device) -> Any:
    """A copy on another device: of a tensor, a module, or whatever holds some of them.

    >>> moved(({"a": torch.ones(1)}, 3), torch.device("meta"))
    ({'a': tensor(..., device='meta', size=(1,))}, 3)
    """
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, nn.Module):
        return copy.deepcopy(value).to(device)  # a module is moved in place
    if isinstance(value, (tuple, list)):
        return type(value)(moved(part, device) for part in value)
    if isinstance(value, dict):
        return {name: moved(part, device) for name, part in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        parts = {part.name: getattr(value, part.name) for part in fields(value) if part.init}
        return replace(value, **moved(parts, device))
    return value
