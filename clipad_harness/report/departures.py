"""What a method's page says about open choices, departures, and training on what is tested."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from clipad_core.clip.backbone import Backbone
from clipad_core.config import choices
from clipad_core.errors import ClipadError
from clipad_core.methods import find_method
from clipad_harness.experiments.pipeline import Run
from clipad_harness.experiments.shards import MAIN
from clipad_harness.experiments.translation import ANY_VALUE
from clipad_harness.papers.card import Departure, Paper, read_paper
from clipad_harness.report.ablations import FEWER, UNMEASURED, how_many_categories
from clipad_harness.report.claims import worth
from clipad_harness.report.tables import Html, callout, table

# The preset that is the paper to the letter; every other one is somebody's code.
PAPER_PRESET = "paper"


def open_choices(run: Run, presets: str = "published codes") -> Html:
    """What the paper leaves open, what this run chose, and what the published codes chose.

    Args:
        presets: what the method's presets are, where they are nobody's code.
    """
    scorer, config = run.scorer(), run.variants[0].config
    paper = read_paper(scorer.method)
    rows = []
    for name, choice in paper.open_choices.items():
        # The weights of a run are those that it found, not those that its preset asks for.
        value = (
            scorer.backbone(config).label if name == "weights" else _shown(getattr(config, name))
        )
        rows.append([choice.says, value, _published(paper, name)])
    columns = ["the paper says", "this run", presets]
    frame = pd.DataFrame(
        rows, columns=columns, index=pd.Index([*paper.open_choices], name="choice")
    )
    kind = type(config).__name__
    return table(frame, f"Open choices: fields of {kind}, where the sources are named")


def _published(paper: Paper, field: str) -> str:
    """What the published codes chose, those that agree together; of maps, those that give one."""
    codes = _codes_by_value(paper, field).items()
    return "; ".join(f"{value} ({', '.join(names)})" for value, names in codes)


def _codes_by_value(paper: Paper, field: str) -> dict[str, list[str]]:
    """The published codes by their value of a field; of maps, those that give one."""
    codes: dict[str, list[str]] = {}
    about_maps = field in paper.open_choices and paper.open_choices[field].of_maps
    for name, preset in find_method(paper.name).presets.items():
        if name != PAPER_PRESET and not (about_maps and paper.code(name).images_alone):
            codes.setdefault(_shown(getattr(preset, field)), []).append(name)
    return codes


def _shown(value: object) -> str:
    """A value of a field as tables have it; an empty text or list is none.

    >>> _shown((6, 12)), _shown(()), _shown(0)
    ('(6, 12)', 'none', '0')
    """
    return "none" if value in ("", ()) else str(value)


def departures(run: Run, results: pd.DataFrame) -> Html:
    """Where this run differs from the paper or its code: what, why, and what it is worth here."""
    scorer, main = run.scorer(), run.variants[0]
    paper = read_paper(scorer.method)
    names = choices(type(main.config))
    values = {name: getattr(main.config, name) for name in names} | {
        "preset": run.settings.preset,
        "aupro": main.aupro,
        "fpr_limit": main.fpr_limit,
        "seeds": results.loc[results["variant"] == MAIN, "seed"].nunique(),
    }
    rows = _other_weights(run, scorer.backbone(main.config), paper) + _changes(run)
    for departure in paper.departures:
        if _applies(departure, values, paper):
            text = departure.what.format(**values)
            rows.append((text, _why(departure, values, paper), _effect(departure, results)))
    rows += _shortened(run, results)
    frame = pd.DataFrame(
        [row[1:] for row in rows],
        columns=["why", "effect here"],
        index=pd.Index([row[0] for row in rows], name="what"),
    )
    caption = (
        "Departures from the paper and open choices that move numbers"
        if paper.open_choices
        else "Departures, and choices of the code that the paper does not have"
    )
    return table(frame, caption)


# What, why, effect here.
_Row = tuple[str, str, str]


def _other_weights(run: Run, backbone: Backbone, paper: Paper) -> list[_Row]:
    """Weights that are not the paper's, and what the profile runs in place of published values."""
    rows = []
    own = run.profile.weights[paper.name].backbone
    if backbone.kind != "published" or own != paper.backbone:
        why = f"the paper has {paper.backbone}"
        if backbone.kind != "published":
            why += ", whose weights cannot be bundled"
        if backbone.kind == "stand-in" and paper.unpublished:
            why += f"; {paper.unpublished}"
        label = f"{backbone.kind} weights: {backbone.label}"
        rows.append((label, why, "no number is comparable"))
    if stands := _stands_for(run, paper):
        why = "the backbone has other blocks and another size than the published one"
        rows.append((f"settings, here for as published: {stands}", why, UNMEASURED))
    return rows


def _applies(departure: Departure, values: Mapping[str, Any], paper: Paper) -> bool:
    """Whether a departure is one of this run.

    Raises:
        ClipadError: the card asks for a name that the run does not have.
    """
    for name in departure.asks():
        if name not in values:
            raise ClipadError(
                f"data/papers/{paper.name}/card.yaml, departures, {departure.what!r}: found the name "
                f"{name!r}, expected one of {', '.join(values)}."
            )
    excepted = departure.unless and _all_equal(values, departure.unless)
    return _all_equal(values, departure.when) and not excepted


def _all_equal(values: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    return all(values[name] == value for name, value in expected.items())


def _why(departure: Departure, values: Mapping[str, Any], paper: Paper) -> str:
    """The reason, and which published codes share this run's value where that is the choice."""
    if not departure.choice:
        return departure.why
    value = _shown(values[departure.choice])
    names = ", ".join(_codes_by_value(paper, departure.choice).get(value, []))
    shared = f"{value} is that of {names}" if names else f"no published code has {value}"
    return f"{departure.why}; {shared}"


def _changes(run: Run) -> list[_Row]:
    """What params.yaml changes in its preset."""
    preset = run.method.preset(run.settings.preset)
    return [
        (f"{name} {value} for {getattr(preset, name)}", "changed in params.yaml", UNMEASURED)
        for name, value in run.settings.changes.items()
    ]


def _effect(departure: Departure, results: pd.DataFrame) -> str:
    if departure.effect is None:
        return departure.noted or UNMEASURED
    effect = departure.effect
    return worth(results, effect.group, effect.row, effect.base)


def _shortened(run: Run, results: pd.DataFrame) -> list[_Row]:
    """What the profile and the ablations shorten."""
    rows = []
    preset = run.method.preset(run.settings.preset).changed(dict(run.settings.changes))
    config = run.variants[0].config
    names = [name for name in ANY_VALUE if name in choices(type(config))]
    pairs = {name: (getattr(config, name), getattr(preset, name)) for name in names}
    if words := ", ".join(f"{k} {new} for {old}" for k, (new, old) in pairs.items() if new != old):
        why = "chosen for its dataset, where profiles stand in params.yaml"
        rows.append((f"the profile trains with {words}", why, UNMEASURED))
    has_ablations = bool((results["variant"] != MAIN).any())
    if has_ablations and (words := _ablation_changes(run)):
        rows.append((f"ablations are trained with {words}", FEWER, UNMEASURED))
    counts = results.groupby("variant")["category"].nunique()
    fewer = results[results["variant"].isin(counts.index[counts < counts[MAIN]])]
    if len(fewer):
        measured = how_many_categories(results, fewer)
        rows.append((f"ablations are measured on {measured}", FEWER, "see each table"))
    return rows


def _ablation_changes(run: Run) -> str:
    """How a method that learns shortens the trainings of its ablations; "" where it does not."""
    return ", ".join(f"{name} {value}" for name, value in run.settings.ablation_changes.items())


def _stands_for(run: Run, paper: Paper) -> str:
    """What the profile runs in place of published values; "" where it runs them as they are."""
    fitted = run.profile.weights[paper.name].changes
    return "; ".join(
        f"{name} {', '.join(map(str, rule.values()))} for {', '.join(map(str, rule))}"
        for name, rule in fitted.items()
        if isinstance(rule, Mapping)
        and name not in ANY_VALUE
        and any(published != own for published, own in rule.items())
    )


def rows_as_run(run: Run) -> Html:
    """What the names of the ablations' rows do not say: which values ran, and how they were trained."""
    if len(run.variants) == 1:
        return callout("This run has no ablations.")
    sentences = []
    if stands := _stands_for(run, read_paper(run.name)):
        sentences.append(f"Rows are named as published; here ran {stands}.")
    if words := _ablation_changes(run):
        sentences.append(
            f"They are trained with {words}, their own base row too. So no row is the headline number: "
            "compare within a group."
        )
    return callout(" ".join(sentences) or "Rows are run and trained as the main result.")


def trained_on_tested(run: Run) -> Html:
    """A warning where some variant is trained on the dataset it is tested on; else what it saw."""
    names = [variant.name for variant in run.variants if variant.trained_on == variant.tested_on]
    if names:
        return callout(
            f"Trained on the tested dataset, as params.yaml asks by name: {', '.join(names)}. These "
            "are no zero-shot results.",
            "fail",
        )
    main = run.variants[0]
    return callout(
        f"{read_paper(run.name).title} was trained on {main.trained_on} and has seen no image of "
        f"{main.tested_on}."
    )
