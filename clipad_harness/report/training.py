"""What a page says about training: what was trained on, and the loss curves."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import seaborn
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from clipad_core.errors import ClipadError
from clipad_harness.experiments.pipeline import Run
from clipad_harness.experiments.shards import MAIN
from clipad_harness.report.tables import Html, facts


def training_facts(run: Run) -> Html:
    """What the main variant was trained on, how long, and how much is learned."""
    main, trainer = run.variants[0], run.trainer()
    training = main.training(main.seeds[0])
    if training is None or run.method.training is None:
        raise ClipadError(f"training: found {run.name}, which learns nothing, expected another.")
    learner = trainer.learner(training)
    images, epochs = len(trainer.rows(training)), trainer.epochs(training)
    backbone = trainer.encodings.backbone(training.config)
    # A method may leave out what fills no batch.
    orders = run.method.training.sample_order(training.config, backbone, images, epochs)
    learned = sum(
        parameter.numel() for parameter in learner.parameters() if parameter.requires_grad
    )
    return facts(
        {
            "trained on": main.trained_on,
            "images": images,
            "epochs": epochs,
            "steps": sum(-(-len(order) // training.config.batch_size) for order in orders),
            "learned": f"{learned:,} numbers",
        }
    )


def curves_figure(curves: pd.DataFrame, variant: str = MAIN) -> tuple[Figure, str]:
    """Every part of the loss by epoch, a panel a part, a line a seed; the alt text."""
    rows = curves[curves["variant"] == variant]
    if rows.empty:
        raise ClipadError(f"training: found no curve of {variant!r}; train again.")
    parts = list(dict.fromkeys(rows["part"]))
    figure, axes = plt.subplots(1, len(parts), figsize=(2.6 * len(parts), 2.6), squeeze=False)
    for panel, part in zip(axes[0], parts, strict=True):
        losses = rows[rows["part"] == part].assign(seed=lambda frame: frame["seed"].astype(str))
        seaborn.lineplot(
            data=losses,
            x="epoch",
            y="value",
            hue="seed",
            marker="o",
            legend=part == parts[-1],
            ax=panel,
        )
        panel.set(xlabel="epoch", ylabel="")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.set_title(part.replace("_", " "), fontsize=9.5)
    axes[0, -1].legend(title="seed", frameon=False, fontsize=8, title_fontsize=8)
    ends = rows.groupby(["part", "epoch"], sort=False)["value"].mean()
    words = [_course(part.replace("_", " "), ends[part]) for part in parts]
    return figure, f"Loss by epoch, mean over the seeds: {'; '.join(words)}."


def _course(part: str, means: pd.Series) -> str:
    """Whether a part of the loss falls or rises between its first and its last epoch, and how far."""
    first, last = (f"{float(means.iloc[place]):.3g}" for place in (0, -1))
    if first == last:
        return f"{part} stays at {first}"
    return f"{part} {'falls' if means.iloc[-1] < means.iloc[0] else 'rises'} from {first} to {last}"
