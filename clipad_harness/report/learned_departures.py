"""What the pages of both learned methods say about departures, and about training on what is tested."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from clipad_harness.experiments.pipeline import Run
from clipad_harness.experiments.translation import ANY_VALUE
from clipad_harness.report.ablations import FEWER
from clipad_harness.report.claims import worth
from clipad_harness.report.tables import Html, callout, table

# What, why, and the ablation rows whose difference is its effect; "" where none measures it.
Departure = tuple[str, str, str, str, str]
_COMMON: tuple[Departure, ...] = (
    (
        "a mask pixel counts from half brightness on",
        "the official code's rule, applied to JPEG masks too, whose borders are grey",
        *("", "", ""),
    ),
)
DEPARTURES: dict[str, tuple[Departure, ...]] = {
    "anomalyclip": (
        (
            "the published setting, not the code's default",
            "train.sh and test.sh give block 24 alone (zqhang/AnomalyCLIP, issue 18)",
            *("preset", "published", "code_default"),
        ),
        (
            "deeper vectors and their gradients rounded to half precision",
            "the released code does it, the paper does not say so",
            *("implementation", "published", "no rounding to fp16"),
        ),
        (
            "positions resized bilinearly",
            "the released code; open_clip itself uses bicubic with antialiasing",
            *("implementation", "published", "bicubic positions"),
        ),
        (
            "class token projected without ln_post",
            "the released code, confirmed by its authors; CLIP itself has it",
            *("walk to other choices", "3 class_ln_post", "2 positional"),
        ),
        *_COMMON,
    ),
    "vcpclip": (
        (
            "exact GELU in both towers",
            "the released code runs OpenAI's QuickGELU weights with the erf GELU",
            *("implementation", "code", "QuickGELU"),
        ),
        (
            "raw map weighs 0.2",
            "the released code; the paper prints 0.75 on the new map",
            *("alpha", "0.2", "0.25"),
        ),
        (
            "map smoothed",
            "the released code; the paper mentions no smoothing",
            *("implementation", "code", "no smoothing"),
        ),
        (
            "image score: means of the largest pixels of both maps",
            "the released code; the paper takes the map's maximum (B.4)",
            *("implementation", "code", "image score is the map's maximum"),
        ),
        (
            "Post-VCP 1024 wide, with biases, on unit tokens",
            "the released weights; the paper prints 768, none, and raw tokens",
            *("implementation", "code", "Post-VCP as printed"),
        ),
        (
            "training augmentation with the ranges of albumentations 1.4.0, by OpenCV",
            "the released code; every draw is a function of seed, epoch and place",
            *("implementation", "with augmentation", "code"),
        ),
        (
            "maps are not stretched to 0..1 over a category",
            "the official evaluation does; it moves a printed threshold and no metric here",
            *("", "", ""),
        ),
        *_COMMON,
    ),
}


# What the stand-in's card adds over all categories, where the rows of the page are over a few.
WORTH_OF_TRAINING = {
    "anomalyclip": "; what training is worth on them over all categories stands in their card, "
    "data/weights/clipad-tiny.md: the maps gain little, the image score loses"
}


def departures(run: Run, results: pd.DataFrame) -> Html:
    """Where this run differs from the paper or its code: what, why, and what it is worth here."""
    rows = list(DEPARTURES[run.name])
    scorer = run.scorer()
    backbone = scorer.backbone(run.variants[0].config)
    if backbone.kind != "published":
        why = f"the published weights cannot be bundled{WORTH_OF_TRAINING.get(run.name, '')}"
        rows.insert(0, (f"{backbone.kind} weights: {backbone.label}", why, "", "", ""))
    if stands := _stands_for(run):
        why = "the backbone has other blocks and another size than the published one"
        rows.insert(1, (f"settings, here for as published: {stands}", why, "", "", ""))
    asked = run.method.preset(run.settings.preset).changed(dict(run.settings.changes))
    pairs = {
        name: (getattr(run.variants[0].config, name), getattr(asked, name)) for name in ANY_VALUE
    }
    if words := ", ".join(f"{k} {new} for {old}" for k, (new, old) in pairs.items() if new != old):
        why = "chosen for its dataset, where profiles stand in params.yaml"
        rows.append((f"the profile trains with {words}", why, "", "", ""))
    changes = run.settings.ablation_changes
    if changes:
        words = ", ".join(f"{name} {value}" for name, value in changes.items())
        rows.append((f"ablations are trained with {words}", FEWER, "", "", ""))
    if run.profile.ablation_categories is not None:
        what = f"ablations are measured on {run.profile.ablation_categories} categories"
        rows.append((what, FEWER, "", "", ""))
    body = [
        (why, worth(results, group, row, base) if group else "no number is comparable"
         if "weights" in what else "not measured in this run")
        for what, why, group, row, base in rows
    ]  # fmt: skip
    index = pd.Index([row[0] for row in rows], name="what")
    frame = pd.DataFrame(body, columns=["why", "effect here"], index=index)
    return table(frame, "Departures, and choices of the code that the paper does not have")


def _stands_for(run: Run) -> str:
    """What the profile runs in place of published values; "" where it runs them as they are."""
    fitted = run.profile.weights[run.name].changes
    return "; ".join(
        f"{name} {', '.join(map(str, rule.values()))} for {', '.join(map(str, rule))}"
        for name, rule in fitted.items()
        if isinstance(rule, Mapping)
        and name not in ANY_VALUE
        and any(a != b for a, b in rule.items())
    )


def rows_as_run(run: Run) -> Html:
    """What the names of the ablations' rows do not say: which values ran, and how they were trained."""
    said = []
    if stands := _stands_for(run):
        said.append(f"Rows are named as published; here ran {stands}.")
    if run.settings.ablation_changes:
        words = ", ".join(f"{k} {v}" for k, v in run.settings.ablation_changes.items())
        said.append(
            f"They are trained with {words}, their own base row too. So no row is the headline number, "
            "and what is trained so little says less about the method than about the difference."
        )
    return callout(" ".join(said) or "Rows are run and trained as the main result.")


def trained_on_tested(run: Run) -> Html:
    """A warning where some variant is trained on the dataset it is tested on; else what it saw."""
    same = [one.name for one in run.variants if one.trained_on == one.tested_on]
    if same:
        return callout(
            f"Trained on the tested dataset, as params.yaml asks by name: {', '.join(same)}. These "
            "are no zero-shot results.",
            "fail",
        )
    main = run.variants[0]
    return callout(
        f"{run.method.title} was trained on {main.trained_on} and has seen no image of "
        f"{main.tested_on}."
    )
