"""How the kernel of a notebook runs: its environment, its sockets, and when its notebook is saved."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from typing import Any

from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines
from traitlets.config import Config

# Before a kernel that was asked to end is killed, which leaks what it shares with other processes.
SECONDS_TO_END = 60.0


class SavingAtTheEnd(NBClientEngine):
    """Papermill's engine, but the raw notebook is written once, not twice a cell: a sixth of a page's time.

    It is written after a failed cell and a dead kernel as well.
    """

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: NotebookExecutionManager, kernel_name: str, **options: Any
    ) -> None:
        """Run all cells."""
        path, nb_man.output_path = nb_man.output_path, None
        try:
            super().execute_managed_notebook(nb_man, kernel_name, **options)
        finally:
            nb_man.output_path = path


papermill_engines.register(SavingAtTheEnd.__name__, SavingAtTheEnd)


@contextlib.contextmanager
def kernel_environment() -> Iterator[None]:
    """Fix what reaches outputs: set order, the threads of a matrix product; MPLBACKEND hides figures."""
    names = ("PYTHONHASHSEED", "MPLBACKEND", "OMP_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ |= {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
    os.environ.pop("MPLBACKEND", None)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextlib.contextmanager
def kernel_transport() -> Iterator[Config]:
    """Talk to the kernel through sockets in a private folder: no open port, no shared name.

    Left alone, Jupyter names them `kernel-ipc-1` in the working directory, where two runs collide.
    A socket's path must fit in 104 bytes (macOS); where it does not, as on Windows, TCP remains.
    """
    with tempfile.TemporaryDirectory(prefix="clipad-") as folder:
        prefix = os.path.join(folder, "kernel")
        fits = os.name == "posix" and len(os.fsencode(prefix)) < 100
        sockets = {"transport": "ipc", "ip": prefix} if fits else {}
        manager = {"shutdown_wait_time": SECONDS_TO_END, **sockets}
        # Jupyter interrupts a kernel before it asks it to end, and one that is slow calls that a Ctrl-C.
        client = {"extra_arguments": ["--log-level=CRITICAL"]}
        yield Config({"KernelManager": manager, "NotebookClient": client})
