"""An accelerator without hardware: torch's own place for other backends, computing on the CPU.

Its tensors say that they lie on the device ``pretend``, hold real numbers, and can be trained. An
operation that meets a tensor of the CPU beside one of its own is an error, as on a GPU. So what runs here
runs on a GPU as far as it depends on where tensors lie, and its numbers can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils import _pytree as pytree
from torch.utils import backend_registration

NAME = "pretend"
# What copies between devices, where both kinds may meet.
COPIES = ("aten::_to_copy", "aten::copy_")


class Stray(RuntimeError):
    """A tensor of the CPU in an operation of the device."""


class OnDevice(torch.Tensor):
    """A tensor of the device; ``held`` is the one of the CPU that computes."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> OnDevice:
        with torch.inference_mode(False):  # a wrapper cannot be made there
            tensor = torch.Tensor._make_wrapper_subclass(
                cls,
                held.shape,
                strides=held.stride(),
                storage_offset=held.storage_offset(),
                dtype=held.dtype,
                device=torch.device(NAME, 0),
            )
        tensor.held = held.detach()
        return tensor

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None):
        return _run(operation, args, kwargs or {})

    def __repr__(self) -> str:
        return f"OnDevice({self.held})"

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        copied = self.detach().clone().requires_grad_(self.requires_grad)
        return torch.nn.Parameter(copied) if isinstance(self, torch.nn.Parameter) else copied


def _run(operation: Any, args: Any, kwargs: Any) -> Any:
    """Compute an operation with what the tensors hold; every tensor must be one of the device."""
    name, values = operation._schema.name, pytree.tree_leaves((args, kwargs))
    if name not in COPIES:
        for value in values:
            # torch takes a single number of the CPU on any device.
            if isinstance(value, torch.Tensor) and not isinstance(value, OnDevice) and value.ndim:
                raise Stray(f"{name}: {tuple(value.shape)} of the CPU")
    target = kwargs.get("device")
    stays = target is None or torch.device(target).type == NAME
    args, kwargs = pytree.tree_map(_held, (args, kwargs))
    result = operation(*args, **kwargs)
    if operation._schema.is_mutable and isinstance(values[0], OnDevice):
        return values[0] if operation._schema.returns else None
    return pytree.tree_map(_on_device, result) if stays else result


def _held(value: Any) -> Any:
    if isinstance(value, OnDevice):
        return value.held
    return torch.device("cpu") if isinstance(value, torch.device) else value


def _on_device(value: Any) -> Any:
    return OnDevice(value) if isinstance(value, torch.Tensor) else value


class _Module(backend_registration._DummyBackendModule):
    """What torch asks of a backend's own module."""

    def is_available(self) -> bool:
        return _Hook.is_here

    def device_count(self) -> int:
        return int(_Hook.is_here)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16]

    def get_rng_state(self, device: object = None) -> torch.Tensor:
        return torch.zeros(0, dtype=torch.uint8)  # nothing is drawn there

    def set_rng_state(self, state: torch.Tensor, device: object = None) -> None: ...


class _Hook(backend_registration._DummyPrivateUse1Hook):
    """Whether the machine has the device: only while a test asks for it."""

    is_here = False

    def is_available(self) -> bool:
        return _Hook.is_here


_library: list[torch.library.Library] = []


def _register() -> None:
    """Tell torch of the device; once a process, and for good."""
    if not _library:
        backend_registration._setup_privateuseone_for_python_backend(NAME, _Module(), _Hook())
        _library.append(torch.library.Library("_", "IMPL"))
        _library[0].fallback(lambda op, *args, **kwargs: _run(op, args, kwargs), "PrivateUse1")
        # torch counts devices at the first gradient of a process, and never again.
        _Hook.is_here = True
        torch.ones(1, requires_grad=True).sum().backward()
        _Hook.is_here = False


HAS_A_PLACE = hasattr(backend_registration, "_setup_privateuseone_for_python_backend")
if HAS_A_PLACE:  # before any test takes a gradient
    _register()


@pytest.fixture
def accelerator() -> Iterator[torch.device]:
    """A machine with one accelerator, which is gone after the test with all that it sets."""
    if not HAS_A_PLACE:
        pytest.skip("this torch has no place for a backend in Python; 2.13 has")
    exactness = torch.are_deterministic_algorithms_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory
    _Hook.is_here = True
    yield torch.device(NAME, 0)
    _Hook.is_here = False
    torch.use_deterministic_algorithms(exactness)
    torch.utils.deterministic.fill_uninitialized_memory = filled
