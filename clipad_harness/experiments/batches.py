"""How many images a device encodes together, and threads that read them ahead of need."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from itertools import islice
from typing import TypeVar

import torch

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.device import chunk_sizes
from clipad_core.clip.features import Recipe
from clipad_core.errors import ClipadError
from clipad_harness.base.machine import cores

Item = TypeVar("Item")
Result = TypeVar("Result")
Encoded = TypeVar("Encoded")
# Of the memory that is free; the rest is for what libraries take beside.
USABLE = 0.8
# Batches that are read, decoded and resized before their turn comes.
BATCHES_AHEAD = 2


class BatchSize:
    """How many images of some recipes a device encodes together: measured once, then only halved.

    Attributes:
        images: how many; None: not measured yet.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.most = device, chunk_sizes(device).images
        self.images: int | None = 1 if self.most == 1 else None

    def measure(self, encode: Callable[[Sequence[Item]], object], item: Item) -> int:
        """How many: from the memory that one and that two images take, where the device says.

        Args:
            encode: encodes some images.
            item: one of them.
        """
        if self.images is None and self.device.type == "cuda":
            one = self._peak(encode, [item])
            try:
                two = self._peak(encode, [item] * 2)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                self.images = 1
                return self.images
            free, _ = torch.cuda.mem_get_info(self.device)
            fitting = (USABLE * free - one) // max(1, two - one)
            self.images = max(1, min(self.most, int(fitting)))
        elif self.images is None:
            self.images = self.most
        return self.images

    def _peak(self, encode: Callable[[Sequence[Item]], object], items: Sequence[Item]) -> int:
        """Bytes beyond those in use that encoding these images takes at most."""
        encode(items)  # the first call of a kernel takes memory of its own
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        encode(items)
        return torch.cuda.max_memory_allocated(self.device) - before

    def halve(self, images: int, reason: str) -> None:
        """Take half as many after memory ran out.

        Args:
            images: that were too many.
            reason: what torch says.

        Raises:
            ClipadError: it was one image.
        """
        if images == 1:
            raise ClipadError(
                f"device: the memory of {self.device} does not hold one image of this setting ({reason}), "
                "expected more; set `device: cpu`, or choose bfloat16 or a smaller image_size."
            )
        self.images = images // 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def out_of_memory(error: RuntimeError) -> str:
    """What torch says of a device whose memory ran out; "" of another error. Apple's has no class of its own.

    >>> out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    'CUDA out of memory. Tried to allocate 2 GiB'
    >>> out_of_memory(RuntimeError("shapes cannot be multiplied"))
    ''
    """
    lines = str(error).splitlines() or [""]
    is_full = isinstance(error, torch.OutOfMemoryError) or "out of memory" in lines[0].lower()
    return (lines[0] or "out of memory")[:160] if is_full else ""


@cache
def _size_of(key: tuple[str, ...], recipes: frozenset[Recipe], device: torch.device) -> BatchSize:
    return BatchSize(device)


def batch_size(backbone: Backbone, recipes: Iterable[Recipe]) -> BatchSize:
    """That of recipes that are encoded in one pass on a backbone, one a process."""
    return _size_of(backbone.key, frozenset(recipes), backbone.device)


def read_ahead(
    items: Sequence[Item], read: Callable[[Item], Result], ahead: int
) -> Iterator[Result]:
    """Read items in their order, some before their turn comes.

    Args:
        read: runs in threads, one a core: Pillow and torch let the others go on meanwhile.
        ahead: how many may lie ready; 0: each is read when its turn comes.

    >>> list(read_ahead([3, 1, 2], str, ahead=2))
    ['3', '1', '2']
    """
    if not ahead:
        yield from map(read, items)
        return
    with ThreadPoolExecutor(cores()) as pool:
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(pool.submit(read, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def in_batches(
    items: Sequence[Item],
    size: BatchSize,
    read: Callable[[Item], Result],
    encode: Callable[[Sequence[Result]], Encoded],
) -> Iterator[tuple[Sequence[Item], Encoded]]:
    """Read items ahead of need and encode as many together as the device takes.

    Args:
        read: turns an item into what is encoded.
        encode: encodes some of them together.

    Raises:
        ClipadError: an item that cannot be read, or memory that does not hold a single one.
    """
    results = read_ahead(items, read, 0 if size.most == 1 else size.most * BATCHES_AHEAD)
    ready: list[Result] = []
    done = 0
    while done < len(items):
        ready += islice(results, max(0, 1 - len(ready)))
        count, reason = 1, ""
        try:
            count = min(size.measure(encode, ready[0]), len(items) - done)
            ready += islice(results, max(0, count - len(ready)))
            encoded = encode(ready[:count])
        except RuntimeError as error:
            reason = out_of_memory(error)
            if not reason:
                raise
        if reason:  # outside of the exception, which holds what is to be freed
            size.halve(count, reason)
            continue
        yield items[done : done + count], encoded
        del ready[:count]
        done += count
