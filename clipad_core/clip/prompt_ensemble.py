"""Prompt ensembles, states times templates, and the two text prototypes that they make of a class.

WinCLIP (Jeong et al., CVPR 2023), section 4.1. A prompt is a template around a state around the class
name: "a blurry photo of the" + "damaged" + "bottle" + ".". The lists stand in the methods' rooms.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor

from clipad_core.clip.device import precise
from clipad_core.clip.text import TextTower, Tokenizer, encode_prompts, mean_embedding
from clipad_core.errors import ClipadError


@dataclass(frozen=True)
class PromptEnsemble:
    """States and templates; ``{}`` stands for the class name in a state, for the state in a template.

    >>> PromptEnsemble(("{}",), ("damaged {}",), ("a photo of a {}.",), "").prompts("bottle")
    (('a photo of a bottle.',), ('a photo of a damaged bottle.',))
    """

    normal_states: tuple[str, ...]
    anomalous_states: tuple[str, ...]
    templates: tuple[str, ...]
    source: str

    def prompts(self, class_name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """All normal and all anomalous prompts of a class, states outermost."""

        def fill(states: tuple[str, ...]) -> tuple[str, ...]:
            # str.replace, not str.format: a class name may hold braces.
            named = [state.replace("{}", class_name) for state in states]
            return tuple(t.replace("{}", state) for state in named for t in self.templates)

        return fill(self.normal_states), fill(self.anomalous_states)

    def beginnings(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What stands before the class name in every prompt, in the order of `prompts`."""
        mark = "\0"
        groups = self.prompts(mark)
        normal, anomalous = (tuple(p.split(mark)[0] for p in group) for group in groups)
        return normal, anomalous

    def with_states(self, anomalous: tuple[str, ...]) -> PromptEnsemble:
        """Add task-specific anomalous states, as in Table 7 ("{} with missing part")."""
        return replace(self, anomalous_states=self.anomalous_states + anomalous)


def average(embeddings: Float[Tensor, "n d"], rule: str) -> Float[Tensor, " d"]:
    r"""Average the prompt embeddings of one state into its prototype, unit norm.

    WinCLIP (Jeong et al., CVPR 2023), section 4.1 averages per label and leaves the norm open:

    - ``mean_raw``: :math:`n(\frac1n \sum_i e_i)` (anomalib, zqhang, caoyunkang);
    - ``norm_mean``: :math:`n(\frac1n \sum_i n(e_i))` (mala-lab, APRIL-GAN, common CLIP practice).

    >>> average(torch.tensor([[3.0, 0.0], [0.0, 1.0]]), "norm_mean")
    tensor([0.7071, 0.7071])
    """
    if rule not in ("mean_raw", "norm_mean"):
        raise ClipadError(
            f"text_average: found {rule!r}, expected 'mean_raw' or 'norm_mean'; choose one of them."
        )
    return mean_embedding(precise(embeddings), of_units=rule == "norm_mean", to_unit=True)


@dataclass(frozen=True)
class StatePrompts:
    """The prompts of one state, normal or anomalous, and what the text tower says of each.

    Attributes:
        prompts: the strings, as the ensemble lists them; some list one twice.
        embeddings: one a prompt, neither averaged nor normalised.
    """

    prompts: tuple[str, ...]
    embeddings: Float[Tensor, "n d"]


def raw_text_embeddings(
    tower: TextTower, tokenizer: Tokenizer, ensemble: PromptEnsemble, class_name: str
) -> list[StatePrompts]:
    """Every prompt of an ensemble for one class with its raw embedding: what `average` is given.

    What stands before the class name is encoded once for all classes.

    Returns:
        The normal state, then the anomalous one; a one-class ensemble has no anomalous prompt.

    Raises:
        ClipadError: a prompt that fills the context.
    """
    groups = [group for group in ensemble.prompts(class_name) if group]
    prompts = [prompt for group in groups for prompt in group]
    starts = [start for group in ensemble.beginnings() for start in group]
    embeddings = encode_prompts(tower, tokenizer, prompts, starts)
    parts = embeddings.split([len(group) for group in groups])
    return [StatePrompts(*state) for state in zip(groups, parts, strict=True)]


# An ensemble's prototypes of a category serve all variants that ask for them.
PROTOTYPES_KEPT = 256
_prototypes: WeakKeyDictionary[TextTower, OrderedDict[tuple[object, ...], Tensor]] = (
    WeakKeyDictionary()
)


def text_embeddings(
    tower: TextTower,
    tokenizer: Tokenizer,
    ensemble: PromptEnsemble,
    class_name: str,
    rule: str = "mean_raw",
) -> Float[Tensor, "s d"]:
    """Prototypes of an ensemble for one class: row 0 normal, row 1 anomalous, unit norm.

    A one-class ensemble has no anomalous prompt and gives row 0 alone. What was asked before is
    not embedded again.
    """
    cache = _prototypes.setdefault(tower, OrderedDict())
    key = (ensemble, class_name, rule)
    if key not in cache:
        cache[key] = _embed(tower, tokenizer, ensemble, class_name, rule)
        if len(cache) > PROTOTYPES_KEPT:
            cache.popitem(last=False)
    return cache[key]


def _embed(
    tower: TextTower, tokenizer: Tokenizer, ensemble: PromptEnsemble, class_name: str, rule: str
) -> Float[Tensor, "s d"]:
    states = raw_text_embeddings(tower, tokenizer, ensemble, class_name)
    return torch.stack([average(state.embeddings, rule) for state in states])
