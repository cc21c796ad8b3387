"""Settings and batches of the stand-in's training: what (seed, step) chooses, ready when it is needed.

Everything here runs on CPUs, in processes of its own where asked; the step itself (`pretrain_loop`)
only computes. So a GPU need not wait, and a resumed run sees the batches that it would have seen.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from random import Random
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from clipad_harness.standin.captions import CaptionPair, CompactTokenizer, Subject, caption_pair
from clipad_harness.standin.pairs import PairStore
from clipad_harness.standin.views import choose_channels, choose_places


class Planned(NamedTuple):
    """The value holds from the step on."""

    step: int
    value: int


Plan = tuple[Planned, ...]


class Round(NamedTuple):
    """One rise and fall of the learning rate.

    Attributes:
        decay_steps: at its end the rate falls linearly to zero over so many steps.
    """

    steps: int
    learning_rate: float
    decay_steps: int


@dataclass(frozen=True)
class PretrainConfig:
    """The ``pretrain`` section of params.yaml.

    Attributes:
        architecture: open_clip's model config, stored beside the weights.
        rounds: one after the other; each starts with new optimisers, so that it can follow weights
            alone.
        first_pairs, pairs_per_step: the pool of drawn pairs starts with the one and grows by the other.
        keep: so many random patches of an image are kept.
        least_pixels: a whole image counts as damaged where so many pixels of it show the defect.
        block_sides: sides, in patches, of the close-up blocks; every step takes ``blocks_per_step``.
        batch_weight: of the contrast over the batch; those inside pairs weigh 1.
        threads: of the training itself, on a CPU.
        drawers, loaders: processes that draw pairs and that make batches ahead of need; 0: none.
    """

    seed: int
    rounds: tuple[Round, ...]
    batch_pairs: int
    first_pairs: int
    pairs_per_step: int
    draw_size: int
    smallest_crop: float
    least_pixels: Plan
    keep: Plan
    block_sides: tuple[int, ...]
    blocks_per_step: int
    weight_decay: float
    warmup_steps: int
    batch_weight: float
    smoothing: float
    largest_scale: float
    held_out: tuple[str, ...]
    threads: int
    drawers: int
    loaders: int
    checkpoint_every: int
    architecture: dict[str, Any]

    @property
    def steps(self) -> int:
        """Of all rounds together."""
        return sum(cycle.steps for cycle in self.rounds)


@dataclass
class Batch:
    """One step's pairs and captions.

    Attributes:
        images, masks, places, channels: of each pair, as `place` and `relight` take them.
        ids, ends: tokens of all captions, (2 sets, b pairs, sound and damaged) flattened; the first
            set is of whole images, the second of close-up blocks.
        specific: pairs whose first caption names the thing.
        strings: a number for every wording of the first set.
        sides: of this step's close-up blocks, in patches.
        noise: seed of what is drawn on the device.
    """

    images: Int[Tensor, "b 2 S S 3"]
    masks: Bool[Tensor, "b S S"]
    places: Float[Tensor, "b 2 3"]
    channels: Int[Tensor, "b 3"]
    ids: Int[Tensor, "n t"]
    ends: Int[Tensor, " n"]
    specific: Bool[Tensor, " b"]
    strings: Int[Tensor, "b 2"]
    sides: list[int]
    noise: int

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in values.items():
            if isinstance(value, Tensor):
                values[name] = value.to(device, non_blocking=True)
        return Batch(**values)

    def pin_memory(self) -> Batch:
        """Called by torch's loader: memory from which a GPU copies while it computes."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                setattr(self, field.name, value.pin_memory())
        return self


def pool_size(config: PretrainConfig, step: int) -> int:
    """Pairs out of which the batch of a step is drawn."""
    return config.first_pairs + step * config.pairs_per_step


def write_captions(
    subjects: list[Subject], recoloured: list[bool], chance: Random
) -> list[CaptionPair]:
    """One pair of captions for each drawn pair."""
    return [
        caption_pair(subject, chance, changed)
        for subject, changed in zip(subjects, recoloured, strict=True)
    ]


def choose_batch(
    config: PretrainConfig, tokenizer: CompactTokenizer, pairs: PairStore, step: int
) -> Batch:
    """Pairs out of the pool as it is at this step, with places, light and captions."""
    chance = Random(f"{config.seed}/{step}")
    pool = range(pool_size(config, step))
    images, masks, subjects = pairs[chance.sample(pool, config.batch_pairs)]
    places = choose_places(masks, chance, config.smallest_crop)
    channels = [choose_channels(chance) for _ in subjects]
    recoloured = [order != [0, 1, 2] for order in channels]
    whole, close_up = (write_captions(subjects, recoloured, chance) for _ in range(2))
    texts = [text for pair in whole + close_up for text in (pair.sound, pair.damaged)]
    ids, ends = tokenizer(texts)
    strings = np.unique(texts[: 2 * len(whole)], return_inverse=True)[1].reshape(-1, 2)
    return Batch(
        images=torch.from_numpy(images),
        masks=torch.from_numpy(masks),
        places=places,
        channels=torch.tensor(channels),
        ids=ids,
        ends=ends,
        specific=torch.tensor([pair.specific for pair in whole]),
        strings=torch.from_numpy(strings),
        sides=chance.sample(config.block_sides, config.blocks_per_step),
        noise=chance.getrandbits(60),
    )


class Batches(Dataset[Batch]):
    """Batches by step, as torch's loader wants them."""

    def __init__(
        self, config: PretrainConfig, tokenizer: CompactTokenizer, pairs: PairStore
    ) -> None:
        self._parts = config, tokenizer, pairs

    def __getitem__(self, step: int) -> Batch:
        return choose_batch(*self._parts, step)


def loader(
    config: PretrainConfig, tokenizer: CompactTokenizer, pairs: PairStore, first: int
) -> DataLoader[Batch]:
    """Batches from step ``first`` to the last, in order, made ahead by ``config.loaders`` processes."""
    return DataLoader(
        Batches(config, tokenizer, pairs),
        batch_size=None,
        sampler=range(first, config.steps),
        num_workers=config.loaders,
        multiprocessing_context="spawn" if config.loaders else None,
        prefetch_factor=4 if config.loaders else None,
        pin_memory=torch.cuda.is_available(),
    )
