"""The training loop of the stand-in CLIP: batches by (seed, step), two contrasts, exact resume."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from clipad_core.errors import ClipadError
from clipad_harness.captions import (
    CaptionPair,
    CompactTokenizer,
    Subject,
    caption_pair,
)
from clipad_harness.files import replacing
from clipad_harness.pretrain_model import (
    Model,
    batch_contrast,
    embed_captions,
    embed_view,
    pair_contrast,
    patch_tokens,
    sound_contrast,
)
from clipad_harness.pretrain_pairs import PairStore
from clipad_harness.pretrain_views import (
    any_blocks,
    damaged_blocks,
    keep_tokens,
    needed,
    place,
    relight,
    visible,
)

LOG_EVERY = 25


@dataclass(frozen=True)
class PretrainConfig:
    """The ``pretrain`` section of params.yaml.

    Attributes:
        architecture: open_clip's model config, stored beside the weights.
        first_pairs, pairs_per_step: the pool of drawn pairs starts with the one and grows by the other.
        keep: (step, patches): from that step on, so many random patches of an image are kept.
        block_sides: sides, in patches, of the close-up blocks; every step takes ``blocks_per_step``.
        batch_weight: of the contrast over the batch; those inside pairs weigh 1.
        decay_steps: at the end the learning rate falls linearly to zero over so many steps.
    """

    seed: int
    steps: int
    batch_pairs: int
    first_pairs: int
    pairs_per_step: int
    draw_size: int
    smallest_crop: float
    keep: tuple[tuple[int, int], ...]
    block_sides: tuple[int, ...]
    blocks_per_step: int
    learning_rate: float
    weight_decay: float
    warmup_steps: int
    decay_steps: int
    batch_weight: float
    smoothing: float
    largest_scale: float
    held_out: tuple[str, ...]
    threads: int
    checkpoint_every: int
    architecture: dict[str, Any]


@dataclass
class Run:
    """All that a step changes."""

    model: Model
    matrices: torch.optim.Optimizer
    others: torch.optim.Optimizer
    step: int
    log: list[dict[str, float]]
    scores: list[dict[str, float]]


def begin(config: PretrainConfig, model: Model) -> Run:
    """Optimisers: Muon for the matrices inside the blocks, AdamW for all else."""
    inside = [
        (name, value)
        for name, value in model.named_parameters()
        if "resblocks" in name and value.ndim == 2
    ]
    names = {name for name, _ in inside}
    outside = [value for name, value in model.named_parameters() if name not in names]
    matrices = torch.optim.Muon(
        [value for _, value in inside],
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    others = torch.optim.AdamW(
        outside, lr=config.learning_rate, weight_decay=0.0, betas=(0.9, 0.98)
    )
    return Run(model, matrices, others, 0, [], [])


def rate(config: PretrainConfig, step: int) -> float:
    """Share of the learning rate at a step: linear warm-up, constant, linear decay to zero."""
    left = (config.steps - step) / config.decay_steps
    return min(1.0, (step + 1) / config.warmup_steps, left)


def patches_kept(config: PretrainConfig, step: int) -> int:
    """Patches of an image kept at a step: the last entry of the plan that has begun."""
    return [count for first, count in config.keep if first <= step][-1]


def write_captions(
    subjects: list[Subject], recoloured: list[bool], chance: Random
) -> list[CaptionPair]:
    """One pair of captions for each drawn pair."""
    return [
        caption_pair(subject, chance, changed)
        for subject, changed in zip(subjects, recoloured, strict=True)
    ]


def encode_pairs(model: Model, tokenizer: CompactTokenizer, pairs: list[CaptionPair]) -> Tensor:
    """Caption embeddings (b, 2, d), sound first."""
    ids, ends = tokenizer([text for pair in pairs for text in (pair.sound, pair.damaged)])
    return embed_captions(model, ids, ends).unflatten(0, (-1, 2))


def step_losses(
    config: PretrainConfig,
    model: Model,
    tokenizer: CompactTokenizer,
    step: int,
    batch: tuple[Any, Any, list[Subject]],
) -> tuple[dict[str, Tensor], float]:
    """Losses of one batch of pairs, and the share of images that prefer their own state's caption."""
    chance, noise = Random(f"{config.seed}/{step}"), torch.Generator()
    noise.manual_seed(chance.getrandbits(60))
    images, masks, subjects = batch
    side, patch = model.visual.image_size[0], model.visual.patch_size[0]
    views, seen_pixels = place(images, masks, chance, side, config.smallest_crop)
    views, recoloured = relight(views, chance, noise)
    seen = visible(views, seen_pixels, patch)
    scale = model.logit_scale.exp().clamp(max=config.largest_scale)
    tokens = patch_tokens(model, views.flatten(0, 1))

    def look(kept: Tensor) -> Tensor:
        both = kept.repeat_interleave(2, dim=0)
        return embed_view(model, tokens, both).unflatten(0, (-1, 2))

    captions = write_captions(subjects, recoloured, chance)
    texts = encode_pairs(model, tokenizer, captions)
    whole = look(keep_tokens(seen, patches_kept(config, step), noise))
    counted = seen.sum(dim=(1, 2)) >= needed(side**2) * 0.3
    specific = torch.tensor([pair.specific for pair in captions]) & counted
    strings = np.array([[pair.sound, pair.damaged] for pair in captions])[specific].ravel()
    same = torch.from_numpy(strings[:, None] == strings)
    losses = {
        "batch": config.batch_weight
        * batch_contrast(whole[specific].flatten(0, 1), texts[specific].flatten(0, 1), same, scale),
        "pair": pair_contrast(whole, texts, counted, scale, config.smoothing),
    }
    close_up = encode_pairs(model, tokenizer, write_captions(subjects, recoloured, chance))
    sides = chance.sample(config.block_sides, config.blocks_per_step)
    parts = []
    for block in sides:
        kept, found = damaged_blocks(seen, block, patch, noise)
        parts.append(pair_contrast(look(kept), close_up, found, scale, config.smoothing))
        kept = any_blocks(len(images), side // patch, block, noise)
        sound = embed_view(model, tokens[::2], kept)
        parts.append(sound_contrast(sound, close_up, scale, config.smoothing) / 2)
    losses["blocks"] = torch.stack(parts).sum() / len(sides)
    right = torch.einsum("bid,bjd->bij", whole, texts).argmax(dim=2) == torch.arange(2)
    return losses, float(right[counted].float().mean())


def train_step(
    config: PretrainConfig, run: Run, tokenizer: CompactTokenizer, pairs: PairStore
) -> dict[str, float]:
    """Draw a batch by (seed, step), take one step of both optimisers, return what to log."""
    pool = config.first_pairs + run.step * config.pairs_per_step
    numbers = Random(f"{config.seed}/batch/{run.step}").sample(range(pool), config.batch_pairs)
    with torch.autocast("cpu", torch.bfloat16):
        losses, right = step_losses(config, run.model, tokenizer, run.step, pairs[numbers])
    total = torch.stack(list(losses.values())).sum()
    if not torch.isfinite(total):
        raise ClipadError(
            f"pretrain: the loss at step {run.step} is {float(total)}; lower learning_rate."
        )
    total.backward()
    nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
    for optimiser in (run.matrices, run.others):
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * rate(config, run.step)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    run.step += 1
    scale = float(run.model.logit_scale.detach().exp())
    return {key: float(value.detach()) for key, value in losses.items()} | {
        "right": right,
        "scale": scale,
    }


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
    sums: dict[str, float] = {}
    bar = tqdm(total=config.steps, initial=run.step, desc="pretrain", mininterval=10)
    while run.step < config.steps:
        found = train_step(config, run, tokenizer, pairs)
        sums = {key: sums.get(key, 0.0) + value for key, value in found.items()}
        bar.update()
        if run.step % LOG_EVERY == 0:
            means = {key: value / LOG_EVERY for key, value in sums.items()}
            run.log.append({"step": run.step} | means)
            bar.set_postfix({key: f"{value:.3f}" for key, value in means.items()}, refresh=False)
            sums = {}
        if run.step % config.checkpoint_every == 0 or run.step == config.steps:
            yield run.step
            save_checkpoint(run, checkpoint)
    bar.close()


def save_checkpoint(run: Run, path: Path) -> None:
    """Write everything that the next step needs, in one rename."""
    state = {
        "model": run.model.state_dict(),
        "matrices": run.matrices.state_dict(),
        "others": run.others.state_dict(),
        "step": run.step,
        "log": run.log,
        "scores": run.scores,
    }
    with replacing(path) as draft:
        torch.save(state, draft)


def load_checkpoint(run: Run, path: Path) -> None:
    """Continue from a checkpoint of the same settings."""
    state = torch.load(path, weights_only=True)
    run.model.load_state_dict(state["model"])
    run.matrices.load_state_dict(state["matrices"])
    run.others.load_state_dict(state["others"])
    run.step, run.log, run.scores = state["step"], state["log"], state["scores"]
