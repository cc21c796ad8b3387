"""Toy work for processes and clusters: what it finishes lies in files, as that of the pipeline does."""

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from clipad_core.errors import ClipadError
from clipad_harness.base.files import write_text
from clipad_harness.base.work import Advance, Worker

SECONDS = 60


@dataclass(frozen=True)
class Products(Worker[int, str]):
    """Sums of matrix products, a file each; an item that is told to is slow, wrong or never done.

    Attributes:
        folder: of the files, and of a note of who did what.
        slow: notes its process and then waits, unless a file `go` is there.
        wrong: raises.
        deadly: ends its process.
    """

    folder: Path
    slow: int | None = None
    wrong: int | None = None
    deadly: int | None = None

    def finish(self, item: int, advance: Advance) -> str:
        path = self.folder / f"{item}.txt"
        if not path.is_file():
            with (self.folder / "did.log").open("a") as log:
                log.write(f"{item} {os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES')}\n")
            if item == self.wrong:
                raise ClipadError(f"item {item}: found it wrong.")
            if item == self.deadly:
                os._exit(9)
            end = time.monotonic() + SECONDS
            while item == self.slow and not (self.folder / "go").exists():
                time.sleep(0.02)
                if time.monotonic() > end:
                    raise ClipadError("nobody came")
            values = torch.rand(40, 40, generator=torch.Generator().manual_seed(item))
            write_text(path, f"{float((values @ values).sum()):.17g}")
        advance(1)
        return path.read_text()

    def done(self) -> list[list[str]]:
        """Item, process and GPU, in the order of beginning."""
        return [line.split() for line in (self.folder / "did.log").read_text().splitlines()]


class Backwards(Products):
    """Does a group by a way of its own: from its end."""

    def finish_all(self, group: Iterable[int], advance: Advance) -> list[str]:
        return super().finish_all(list(group)[::-1], advance)[::-1]


class Variables(Products):
    """Says what a variable of its process's environment holds."""

    def finish(self, item: int, advance: Advance) -> str:
        super().finish(item, advance)
        return os.environ.get("MALLOC_TRIM_THRESHOLD_", "not set")
