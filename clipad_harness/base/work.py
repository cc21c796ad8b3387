"""What is done anywhere: a worker's items, and the engine that has them done."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
# Called with the number of steps done since the last call.
Advance = Callable[[int], object]


class Worker(ABC, Generic[Item, Result]):
    """What can do an item of work; it is sent to every process once."""

    @abstractmethod
    def finish(self, item: Item, advance: Advance) -> Result:
        """Do an item, or read what an earlier run has done of it."""

    def finish_all(self, group: Iterable[Item], advance: Advance) -> list[Result]:
        """Do the items of a group, one after the other unless the worker knows better.

        Args:
            group: asked for the next item when there is time for it.
            advance: called by the thread that calls this.
        """
        return [self.finish(item, advance) for item in group]


class Engine(Protocol):
    """What finishes groups of items beside this process, each in one place from first to last."""

    def submit(self, group: Sequence[Any]) -> Future[list[Any]]:
        """Have a group finished."""

    def room(self) -> int:
        """How many groups may be under way now.

        Raises:
            ClipadError: nobody will finish any.
        """

    def steps(self) -> int:
        """Steps that the items under way and finished have reported."""
