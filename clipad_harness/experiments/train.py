"""One training loop for the methods that learn: resumable at any step, the same bytes every time.

A trained learner is a file named by the hash of everything it depends on, so it is trained once. A
run that is killed goes on from the last saved step; every random draw is a function of seed and
step, so that the result is the one of a run that was never stopped.
"""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from clipad_core.errors import ClipadError
from clipad_core.learned.checkpoint_files import UNREADABLE
from clipad_core.methods.method import Training
from clipad_core.validation import validate
from clipad_harness.base.sealed import read_state, tell_damage, write_state
from clipad_harness.base.work import Advance
from clipad_harness.experiments.training_data import Batch, TrainingData

SECONDS_BETWEEN_SAVES = 20.0


@dataclass
class Progress:
    """Where a training stands: everything that the rest of it depends on."""

    step: int
    curve: list[dict[str, float]]


def train(
    training: Training,
    learner: nn.Module,
    data: TrainingData,
    trained_on: str,
    saved: Path,
    advance: Advance,
) -> list[dict[str, float]]:
    """Train a learner in place; go on where an earlier run was killed.

    Args:
        training: how the method learns.
        learner: with its initial values.
        data: prepared; holds backbone and config.
        trained_on: name of the auxiliary dataset, which learning rate and epochs may depend on.
        saved: where the state is kept meanwhile, named by the training's key; removed at the end.
        advance: told every step.

    Returns:
        The mean of every part of the loss, an entry an epoch.

    Raises:
        ClipadError: a loss that is not finite.
    """
    config = data.config
    groups = training.parameter_groups(learner, config, trained_on)
    optimizer = training.make_optimizer(groups, config)
    rates = [group["lr"] for group in optimizer.param_groups]
    epochs = training.epochs(config, trained_on)
    order = training.sample_order(config, data.backbone, len(data), epochs)
    batches = [
        (epoch, places[start : start + config.batch_size])
        for epoch, places in enumerate(order)
        for start in range(0, len(places), config.batch_size)
    ]
    progress = _resume(saved, learner, optimizer, [epoch for epoch, _ in batches])
    advance(progress.step)
    last_save = time.monotonic()
    remaining = data.batches(batches[progress.step :])
    for step, batch in enumerate(remaining, progress.step):
        epoch, places = batches[step]
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * training.rate_factor(config, epoch)
        parts = _take_step(training, learner, optimizer, data, batch, step)
        _note(progress, epoch, len(places), parts)
        progress.step = step + 1
        advance(1)
        if time.monotonic() - last_save > SECONDS_BETWEEN_SAVES:
            _save(saved, learner, optimizer, progress)
            last_save = time.monotonic()
    saved.unlink(missing_ok=True)
    return [
        {k: v / row["images"] for k, v in row.items() if k != "images"} for row in progress.curve
    ]


def _take_step(
    training: Training,
    learner: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: TrainingData,
    batch: Batch,
    step: int,
) -> dict[str, float]:
    features, labels, masks, names = batch
    generator = torch.Generator().manual_seed(_seed_of(data.config.seed, step))
    with data.backbone.computing():
        parts = training.loss(
            learner, data.backbone, data.config, features, labels, masks, generator, names
        )
    total = parts["total"]
    if not torch.isfinite(total):
        raise ClipadError(
            f"training: the loss is {float(total.detach())} at step {step}, expected a finite number; lower "
            "learning_rate, or check the weights and the masks of the auxiliary dataset."
        )
    optimizer.zero_grad(set_to_none=True)
    total.backward()
    optimizer.step()
    return {name: float(value.detach()) for name, value in parts.items()}


def _seed_of(seed: int, step: int) -> int:
    """A seed a step, so that no state of a generator has to outlive a kill."""
    digest = hashlib.sha256(f"{seed}/{step}".encode()).digest()
    return int.from_bytes(digest[:7], "little")


def _note(progress: Progress, epoch: int, images: int, parts: dict[str, float]) -> None:
    if len(progress.curve) == epoch:
        progress.curve.append(dict.fromkeys(parts, 0.0) | {"images": 0.0})
    row = progress.curve[epoch]
    row["images"] += images
    for name, value in parts.items():
        row[name] += images * value


def _save(
    path: Path, learner: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    state = {
        "learner": learner.state_dict(),
        "optimizer": optimizer.state_dict(),
        "progress": asdict(progress),
    }
    write_state(path, path.stem, state)


def _resume(
    path: Path, learner: nn.Module, optimizer: torch.optim.Optimizer, epochs: Sequence[int]
) -> Progress:
    """Read a saved state; with one that is damaged or another training's, begin from the start.

    Args:
        path: of the state.
        learner, optimizer: as they begin; they are filled only with a state that is whole.
        epochs: of every step.
    """
    state = read_state(path, path.stem)
    # Tried on copies, since a state that is refused half-way would have filled the other half.
    progress = None
    if state is not None:
        progress = _restored(state, *copy.deepcopy((learner, optimizer)), epochs)
    if state is None or progress is None:
        tell_damage(path)
        return Progress(0, [])
    learner.load_state_dict(state["learner"])
    optimizer.load_state_dict(state["optimizer"])
    return progress


def _restored(
    state: Mapping[str, Any],
    learner: nn.Module,
    optimizer: torch.optim.Optimizer,
    epochs: Sequence[int],
) -> Progress | None:
    """Fill learner and optimizer; None where the state does not fit them or is not finite."""
    try:
        learner.load_state_dict(state["learner"])
        optimizer.load_state_dict(state["optimizer"])
        progress: Progress = validate(Progress, state["progress"], "resume point")
        tensors = list(learner.state_dict().values())
        for parameter, moments in optimizer.state.items():
            tensors += moments.values()
            if any(value.shape not in ((), parameter.shape) for value in moments.values()):
                return None
        finite = all(bool(tensor.isfinite().all()) for tensor in tensors)
    except (AttributeError, IndexError, *UNREADABLE):
        return None
    numbers = [value for row in progress.curve for value in row.values()]
    reached = 0 <= progress.step <= len(epochs) and (
        len(progress.curve) == len(set(epochs[: progress.step]))
    )
    return progress if finite and reached and all(map(math.isfinite, numbers)) else None
