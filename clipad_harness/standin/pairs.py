"""Drawn pairs on disk: shards of memory-mapped bytes, drawn once, ahead of need or when first asked for."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np

from clipad_harness.standin.captions import Subject
from clipad_harness.standin.drawing import draw_pair


class PairStore:
    """Pairs by number; pair i shows category ``i % len(categories)``, drawn from ``seed + i``.

    Args:
        folder: where shards lie; one folder for one choice of the other arguments.
        categories: what is drawn.
        size: side of the drawings in pixels.
        seed: of the first pair.
        shard: pairs in a shard; 2000 are some ten seconds of drawing. A shard holds two files open.
    """

    def __init__(
        self, folder: Path, categories: tuple[str, ...], size: int, seed: int, shard: int = 2000
    ) -> None:
        self._folder, self._categories = folder, categories
        self._size, self._seed, self.shard = size, seed, shard
        self._shards: dict[int, tuple[np.ndarray, np.ndarray, list[Subject]]] = {}

    def __getitem__(self, numbers: list[int]) -> tuple[np.ndarray, np.ndarray, list[Subject]]:
        """Images (b, 2, size, size, 3): sound then damaged; masks (b, size, size); subjects."""
        places = [(self._shard(number // self.shard), number % self.shard) for number in numbers]
        images = np.stack([shard[0][row] for shard, row in places])
        masks = np.unpackbits(np.stack([shard[1][row] for shard, row in places]), axis=-1)
        return images, masks[..., : self._size].astype(bool), [s[2][row] for s, row in places]

    def draw(self, index: int) -> Path:
        """The folder of a shard; drawn here, or awaited where another process is drawing it."""
        path = self._folder / f"{index:05d}"
        draft = path.with_name(f".{path.name}.tmp")
        while not path.exists():
            try:
                draft.mkdir(parents=True)
            except FileExistsError:
                time.sleep(0.05)
                continue
            try:
                self._write(index, draft)
                os.replace(draft, path)
            finally:  # whoever waits tries for itself, and meets the same error
                shutil.rmtree(draft, ignore_errors=True)
        return path

    def clean(self) -> None:
        """Remove what a killed process left half drawn."""
        for draft in self._folder.glob(".*.tmp"):
            shutil.rmtree(draft)

    def _shard(self, index: int) -> tuple[np.ndarray, np.ndarray, list[Subject]]:
        if index not in self._shards:
            path = self.draw(index)
            self._shards[index] = (
                np.load(path / "images.npy", mmap_mode="r"),
                np.load(path / "masks.npy", mmap_mode="r"),
                [Subject(**row) for row in json.loads((path / "subjects.json").read_text())],
            )
        return self._shards[index]

    def _write(self, index: int, folder: Path) -> None:
        images = np.empty((self.shard, 2, self._size, self._size, 3), np.uint8)
        masks = np.empty((self.shard, self._size, self._size), bool)
        subjects = []
        for row, number in enumerate(range(index * self.shard, (index + 1) * self.shard)):
            category = self._categories[number % len(self._categories)]
            pair = draw_pair(category, self._seed + number, self._size)
            images[row, 0], images[row, 1], masks[row] = pair.sound, pair.damaged, pair.mask
            subjects.append(Subject(pair.name, pair.colour, pair.material, pair.defect))
        np.save(folder / "images.npy", images)
        np.save(folder / "masks.npy", np.packbits(masks, axis=-1))
        rows = [asdict(subject) for subject in subjects]
        (folder / "subjects.json").write_text(json.dumps(rows))


@contextmanager
def drawn_ahead(pairs: PairStore, count: int, processes: int) -> Iterator[None]:
    """While inside, ``processes`` of their own draw the first ``count`` pairs, in order."""
    if not processes:
        yield
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        pool.map_async(pairs.draw, range(-(-count // pairs.shard)), chunksize=1)
        yield
