"""The training loop of the stand-in CLIP: batches by (seed, step), two contrasts, exact resume."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm import tqdm

from clipad_core.clip.transformer import has_avx512
from clipad_core.errors import ClipadError
from clipad_harness.base.sealed import read_state, write_state
from clipad_harness.standin.batch import Batch, Plan, PretrainConfig, Round, loader
from clipad_harness.standin.captions import CompactTokenizer
from clipad_harness.standin.model import (
    Model,
    batch_contrast,
    embed_captions,
    embed_view,
    pair_contrast,
    patch_tokens,
    sound_contrast,
)
from clipad_harness.standin.pairs import PairStore
from clipad_harness.standin.views import (
    any_blocks,
    damaged_blocks,
    keep_tokens,
    place,
    relight,
    visible,
)

LOG_EVERY = 25


@dataclass
class Run:
    """All that a step changes."""

    model: Model
    matrices: Optimizer
    others: Optimizer
    step: int
    log: list[dict[str, float]]
    scores: list[dict[str, float]]


def begin(config: PretrainConfig, model: Model) -> Run:
    """A run at step 0."""
    return Run(model, *optimisers(config, model), 0, [], [])


def optimisers(config: PretrainConfig, model: Model) -> tuple[Optimizer, Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for all else; `train_step` sets their rates."""
    inside = [
        (name, value)
        for name, value in model.named_parameters()
        if "resblocks" in name and value.ndim == 2
    ]
    names = {name for name, _ in inside}
    outside = [value for name, value in model.named_parameters() if name not in names]
    matrices = torch.optim.Muon(
        [value for _, value in inside],
        weight_decay=config.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    adamw = torch.optim.AdamW(outside, weight_decay=0.0, betas=(0.9, 0.98))
    return matrices, adamw


def find_round(config: PretrainConfig, step: int) -> tuple[Round, int]:
    """The round that a step belongs to, and the step's number in it."""
    for cycle in config.rounds[:-1]:
        if step < cycle.steps:
            return cycle, step
        step -= cycle.steps
    return config.rounds[-1], step


def rate(config: PretrainConfig, step: int) -> float:
    """The learning rate at a step: in every round linear warm-up, constant, linear decay to zero."""
    cycle, number = find_round(config, step)
    decay = (cycle.steps - number) / cycle.decay_steps
    return cycle.learning_rate * min(1.0, (number + 1) / config.warmup_steps, decay)


def past(config: PretrainConfig, step: int) -> list[tuple[float, int, int]]:
    """What `rounds` and the plans said of the steps before this one."""
    keep, least = config.keep, config.least_pixels
    return [(rate(config, at), planned(keep, at), planned(least, at)) for at in range(step)]


def planned(plan: Plan, step: int) -> int:
    """What a plan says at a step: its last entry that has begun."""
    return [value for first, value in plan if first <= step][-1]


def device_of(model: Model) -> torch.device:
    """Where a model is."""
    return model.logit_scale.device


def step_losses(
    config: PretrainConfig, model: Model, step: int, batch: Batch
) -> tuple[dict[str, Tensor], Tensor]:
    """Losses of one batch of pairs, and the share of images that prefer their own state's caption."""
    device, side, patch = device_of(model), model.visual.image_size[0], model.visual.patch_size[0]
    noise = torch.Generator(device).manual_seed(batch.noise)
    views, seen_pixels = place(batch.images, batch.masks, batch.places, side)
    views = relight(views, batch.channels, noise)
    seen = visible(views, seen_pixels, patch)
    scale = model.logit_scale.exp().clamp(max=config.largest_scale)
    tokens = patch_tokens(model, views.flatten(0, 1))

    def look(numbers: Tensor) -> Tensor:
        repeated = numbers.repeat_interleave(2, dim=0)
        return embed_view(model, tokens, repeated).unflatten(0, (-1, 2))

    texts, close_up = embed_captions(model, batch.ids, batch.ends).unflatten(0, (2, -1, 2))
    whole = look(keep_tokens(seen, planned(config.keep, step), noise))
    counted = seen.sum(dim=(1, 2)) >= planned(config.least_pixels, step)
    named = batch.specific & counted
    strings = batch.strings[named].flatten()
    same = strings[:, None] == strings
    losses = {
        "batch": config.batch_weight
        * batch_contrast(whole[named].flatten(0, 1), texts[named].flatten(0, 1), same, scale),
        "pair": pair_contrast(whole, texts, counted, scale, config.smoothing),
    }
    parts = []
    for block in batch.sides:
        numbers, has_block = damaged_blocks(seen, block, patch, noise)
        parts.append(pair_contrast(look(numbers), close_up, has_block, scale, config.smoothing))
        numbers = any_blocks(len(views), side // patch, block, noise)
        sound = embed_view(model, tokens[::2], numbers)
        parts.append(sound_contrast(sound, close_up, scale, config.smoothing) / 2)
    losses["blocks"] = torch.stack(parts).sum() / len(batch.sides)
    chosen = torch.einsum("bid,bjd->bij", whole, texts).argmax(dim=2)
    right = (chosen == torch.arange(2, device=device)).float().mean(dim=1)
    return losses, (right * counted).sum() / counted.sum().clamp(min=1)


def train_step(config: PretrainConfig, run: Run, batch: Batch) -> dict[str, Tensor]:
    """Take one step of both optimisers; what to log, still on the device."""
    device = device_of(run.model)
    is_fast = device.type != "cpu" or has_avx512()
    with torch.autocast(device.type, torch.bfloat16, enabled=is_fast):
        losses, right = step_losses(config, run.model, run.step, batch.to(device))
    torch.stack(list(losses.values())).sum().backward()
    nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
    if run.step and find_round(config, run.step)[1] == 0:
        run.matrices, run.others = optimisers(config, run.model)
    for optimiser in (run.matrices, run.others):
        for group in optimiser.param_groups:
            group["lr"] = rate(config, run.step)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    run.step += 1
    quantities = losses | {"right": right, "scale": run.model.logit_scale.exp()}
    return {key: value.detach() for key, value in quantities.items()}


def train(
    config: PretrainConfig,
    run: Run,
    tokenizer: CompactTokenizer,
    pairs: PairStore,
    checkpoint: Path,
) -> Iterator[int]:
    """Train to the last step; every so often yield the step, then write the checkpoint.

    What the caller adds to the run at a yield (validation scores) is part of the checkpoint.
    """
    records: list[dict[str, Tensor]] = []
    bar = tqdm(total=config.steps, initial=run.step, desc="pretrain", mininterval=10)
    for batch in loader(config, tokenizer, pairs, run.step):
        records.append(train_step(config, run, batch))
        bar.update()
        if run.step % LOG_EVERY == 0:
            means = average(records, run.step)
            run.log.append({"step": run.step} | means)
            bar.set_postfix({key: f"{value:.3f}" for key, value in means.items()}, refresh=False)
            records = []
        if run.step % config.checkpoint_every == 0 or run.step == config.steps:
            yield run.step
            save_checkpoint(config, run, checkpoint)
    bar.close()


def average(records: list[dict[str, Tensor]], step: int) -> dict[str, float]:
    """Mean of each quantity over the steps since the last look.

    Raises:
        ClipadError: one of them is not finite.
    """
    means = {
        key: float(torch.stack([record[key] for record in records]).mean()) for key in records[0]
    }
    if wrong := [key for key, value in means.items() if not math.isfinite(value)]:
        raise ClipadError(
            f"pretrain: {', '.join(wrong)} was not finite before step {step}; lower learning_rate."
        )
    return means


def save_checkpoint(config: PretrainConfig, run: Run, path: Path) -> None:
    """Write everything that the next step needs, in one rename."""
    parts = {name: getattr(run, name).state_dict() for name in ("model", "matrices", "others")}
    state = parts | {"past": past(config, run.step), "step": run.step}
    write_state(path, path.parent.name, state | {"log": run.log, "scores": run.scores})


def load_checkpoint(config: PretrainConfig, run: Run, path: Path) -> None:
    """Continue from a checkpoint; rounds may have been appended since.

    Raises:
        ClipadError: it is damaged, or its steps are not those that the settings ask for.
    """
    state = read_state(path, path.parent.name)
    if state is None:
        raise ClipadError(
            f"{path}: damaged, or of another folder, and hours would be lost by starting over unasked; "
            "put a copy in its place, or delete it to train from the start."
        )
    if state["past"] != past(config, state["step"]):
        raise ClipadError(
            f"{path}: found {state['step']} steps of other pretrain.rounds, keep or least_pixels, "
            "expected theirs and perhaps more after them; restore them, or move that folder away."
        )
    for name in ("model", "matrices", "others"):
        getattr(run, name).load_state_dict(state[name])
    run.step, run.log, run.scores = state["step"], state["log"], state["scores"]
