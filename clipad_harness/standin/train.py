"""Train the stand-in CLIP on drawn image-caption pairs: ``python -m clipad_harness.standin.train``.

CLIP's recipe (Radford et al., ICML 2021) with minimal pairs: every batch holds each drawn thing twice,
sound and damaged, with captions that differ in the state alone, and a second contrast inside each
pair. All settings are the ``pretrain`` section of params.yaml; the loop is `pretrain_loop`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from dataclasses import asdict
from itertools import accumulate
from pathlib import Path
from random import Random

import pandas as pd
import torch
from torch import Tensor

from clipad_core.errors import ClipadError
from clipad_core.validation import listed, validate, wrong
from clipad_harness.base.files import read_yaml, replacing, write_text
from clipad_harness.base.sections import mapping
from clipad_harness.standin.batch import PretrainConfig, pool_size
from clipad_harness.standin.captions import CompactTokenizer, vocabulary
from clipad_harness.standin.datasets import drawing_digest
from clipad_harness.standin.drawing import PRETRAINING
from clipad_harness.standin.loop import Run, begin, load_checkpoint, train
from clipad_harness.standin.model import Model, build, restore, store, whiten
from clipad_harness.standin.pairs import PairStore, drawn_ahead
from clipad_harness.standin.validation import Validation
from clipad_harness.standin.views import choose_places, place

OUTPUT = Path("data/weights/clipad-tiny")
WORK = Path(".cache/pretrain")
# Pairs looked at before the first step; enough to meet every name, colour, material and defect.
FIRST_LOOK = 1000


def read_config(path: Path) -> PretrainConfig:
    """Read the ``pretrain`` section of a params file.

    Raises:
        ClipadError: a name that is missing or unknown, a value of another type, no round, a plan that
            leaves a step open.
    """
    section = mapping(read_yaml(path), str(path)).get("pretrain") or {}
    config: PretrainConfig = validate(PretrainConfig, section, path, "pretrain")
    if not config.rounds:
        raise wrong(path, "pretrain.rounds", section["rounds"], "at least one round")
    for name in ("keep", "least_pixels"):
        steps = [step for step, _ in getattr(config, name)]
        if steps[:1] != [0] or steps != sorted(set(steps)):
            raise wrong(
                path,
                f"pretrain.{name}",
                section[name],
                "rows in the order of their steps, the first of step 0",
            )
    return config


def work_folder(config: PretrainConfig, root: Path) -> Path:
    """A folder for these settings and this drawing code; rounds can be appended to a training."""
    settings = asdict(config)
    for name in ("rounds", "keep", "least_pixels"):
        del settings[name]
    text = json.dumps([settings, drawing_digest()], sort_keys=True)
    return root / hashlib.sha256(text.encode()).hexdigest()[:16]


def pretrain(config: PretrainConfig, work: Path, output: Path, *, extend: bool = False) -> Run:
    """Train, or go on where a killed run stopped, and store weights, config and loss curve.

    Args:
        work: folder for drawn pairs and checkpoints.
        output: the stored files without their endings.
        extend: where there is no checkpoint, begin with the stored weights and the round after them.

    Raises:
        ClipadError: a held-out category that does not exist, a loss that is not finite, a checkpoint
            of other settings, or nothing stored that can be extended.
    """
    if unknown := set(config.held_out) - set(PRETRAINING):
        raise ClipadError(
            f"pretrain.held_out: found {listed(sorted(unknown))}, expected names out of "
            f"{', '.join(PRETRAINING)}."
        )
    torch.set_num_threads(config.threads)
    folder = work_folder(config, work)
    categories = tuple(name for name in PRETRAINING if name not in config.held_out)
    pairs = PairStore(folder / "pairs", categories, config.draw_size, config.seed * 10**8)
    pairs.clean()
    checkpoint = folder / "checkpoint.pt"
    first = stored_end(config, output) if extend and not checkpoint.exists() else 0
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with drawn_ahead(pairs, pool_size(config, config.steps - 1), config.drawers):
        rows = vocabulary(pairs[list(range(FIRST_LOOK))][2])
        tokenizer = CompactTokenizer(rows)
        run = begin(config, first_model(config, pairs, len(rows)).to(device))
        if checkpoint.exists():
            load_checkpoint(config, run, checkpoint)
        elif first:
            begin_after(run, first, rows, output)
        validation = Validation(config.held_out, config.draw_size, run.model.visual.image_size[0])
        for _ in train(config, run, tokenizer, pairs, checkpoint):
            run.scores.append({"step": run.step} | validation(run.model, tokenizer))
            store(run.model, rows, config.architecture, output)
            write_curve(config, run, output)
    return run


def stored_end(config: PretrainConfig, output: Path) -> int:
    """The step after which weights were stored: the end of a round that another one follows.

    Raises:
        ClipadError: nothing stored, or no round follows after it.
    """
    summary = output.with_name(f"{output.name}-training.json")
    if not summary.exists():
        raise ClipadError(f"{summary}: not found; train from the start, without --extend.")
    step = int(json.loads(summary.read_text())["steps"])
    ends = list(accumulate(cycle.steps for cycle in config.rounds))[:-1]
    if step not in ends:
        raise ClipadError(
            f"{summary}: found {step} steps, expected the end of a round of pretrain.rounds that "
            f"another follows ({', '.join(map(str, ends)) or 'none'}); append a round."
        )
    return step


def begin_after(run: Run, step: int, rows: Tensor, output: Path) -> None:
    """Put a run where weights were stored; the next round starts with new optimisers anyway.

    Raises:
        ClipadError: the weights are of another model.
    """
    restore(run.model, rows, output)
    run.step = step
    curve = pd.read_csv(output.with_name(f"{output.name}-training.csv"))
    for number, quantity, value in curve.to_numpy(dtype=object):
        run.log.append({"step": number, quantity: value})


def first_model(config: PretrainConfig, pairs: PairStore, rows: int) -> Model:
    """The model at step 0: open_clip's own start, and whitened patches."""
    torch.manual_seed(config.seed)
    model = build(config.architecture, rows)
    images, masks, _ = pairs[list(range(FIRST_LOOK))]
    places = choose_places(masks, Random(config.seed), config.smallest_crop)
    side = model.visual.image_size[0]
    views, _ = place(torch.from_numpy(images), torch.from_numpy(masks), places, side)
    whiten(model, views[:, 0])
    return model


def write_curve(config: PretrainConfig, run: Run, output: Path) -> None:
    """Beside the weights: losses and validation scores as one tidy table, and the data count."""
    table = pd.concat([pd.DataFrame(run.log), pd.DataFrame(run.scores)])
    table = table.melt("step", var_name="quantity", value_name="value").dropna()
    table = table.sort_values(["quantity", "step"], kind="stable")
    with replacing(output.with_name(f"{output.name}-training.csv")) as draft:
        table.to_csv(draft, index=False, float_format="%.5f", lineterminator="\n")
    views = 2 + 3 * config.blocks_per_step  # both whole images; a pair and one more block a side
    parameters = sum(value.numel() for value in run.model.parameters())
    summary = {
        "parameters": parameters - run.model.token_embedding.embedding_dim,  # without the unknown
        "steps": run.step,
        "pairs_seen": run.step * config.batch_pairs,
        "pairs_drawn": pool_size(config, run.step - 1),
        "views_seen": run.step * config.batch_pairs * views,
        "drawing": drawing_digest(),
        "validation": {key: round(value, 5) for key, value in run.scores[-1].items()},
    }
    write_text(
        output.with_name(f"{output.name}-training.json"), json.dumps(summary, indent=4) + "\n"
    )


def main() -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m clipad_harness.standin.train", description=__doc__
    )
    parser.add_argument("params", type=Path, nargs="?", default=Path("params.yaml"))
    parser.add_argument("--work", type=Path, default=WORK, help="drawn pairs and checkpoints")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="stored files, without ending")
    parser.add_argument(
        "--extend",
        action="store_true",
        help="begin with the stored weights, after their last round",
    )
    arguments = parser.parse_args()
    try:
        config = read_config(arguments.params)
        pretrain(config, arguments.work, arguments.output, extend=arguments.extend)
    except ClipadError as error:
        print(f"clipad: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("clipad: stopped; run again to go on from the last checkpoint.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
