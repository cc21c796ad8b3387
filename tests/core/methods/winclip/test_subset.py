"""Fewer templates and states: coverage against every set of its size, draws, and what is refused."""

from itertools import combinations
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.prompt_ensemble import PromptEnsemble, average
from clipad_core.clip.text import encode_prompts
from clipad_core.errors import ClipadError
from clipad_core.methods.method import Category
from clipad_core.methods.winclip.config import WinCLIPConfig
from clipad_core.methods.winclip.detector import METHOD, check_category, prototypes, raw_text
from clipad_core.methods.winclip.prompts import (
    ANOMALOUS_STATES,
    NORMAL_STATES,
    TEMPLATES_DOT,
    find_ensemble,
)
from clipad_core.methods.winclip.subset import drawn, most_covering, reduced, text_similarity

BOTTLE = Category("bottle")


def kept(micro: Backbone, **changes: Any) -> PromptEnsemble:
    config = WinCLIPConfig().changed(changes)
    return reduced(micro.text, micro.tokenizer, find_ensemble(config.prompts), config)


def naive_coverage(similarity: torch.Tensor, chosen: tuple[int, ...]) -> float:
    """Facility location as printed: for every text the best of those that are kept."""
    return sum(max(float(row[place]) for place in chosen) for row in similarity)


@pytest.mark.parametrize("seed", range(6))
def test_coverage_chooses_step_by_step_what_covers_most(seed: int) -> None:
    units = F.normalize(torch.randn(9, 3, generator=torch.Generator().manual_seed(seed)), dim=-1)
    similarity = units.double() @ units.double().T
    chosen = most_covering(similarity, 4)
    for size in range(1, 5):
        before, best = tuple(chosen[: size - 1]), tuple(chosen[:size])
        rest = [place for place in range(9) if place not in before]
        gains = [naive_coverage(similarity, (*before, place)) for place in rest]
        assert naive_coverage(similarity, best) == pytest.approx(max(gains), abs=1e-9)
    # Shifted to be non-negative it is monotone and submodular: the bound of Nemhauser et al.
    sets = combinations(range(9), 4)
    optimum = max(naive_coverage(similarity + 1, chosen_set) for chosen_set in sets)
    assert naive_coverage(similarity + 1, tuple(chosen)) >= (1 - 1 / 2.718281828) * optimum


def test_of_equal_texts_coverage_takes_the_first_and_no_place_twice() -> None:
    near = 1e-9
    rows = [[1.0, 0.0, 1 + near], [0.0, 1.0, 0.0], [1 - near, 0.0, 1.0]]
    twins = torch.tensor(rows, dtype=torch.float64)
    assert most_covering(twins, 3) == [0, 1, 2]


def test_the_defaults_keep_every_list_as_it_is(micro: Backbone) -> None:
    for name in ("full22_dot", "zq21_dot", "one_class"):
        assert kept(micro, prompts=name) == find_ensemble(name)


def test_what_is_kept_stands_in_the_order_of_the_list_and_grows(micro: Backbone) -> None:
    places: list[set[str]] = []
    for count in (1, 2, 5, 12, 22):
        templates = kept(micro, templates_kept=count).templates
        assert len(templates) == count
        assert list(templates) == [text for text in TEMPLATES_DOT if text in templates]
        places.append(set(templates))
    assert all(smaller < larger for smaller, larger in zip(places, places[1:]))
    similarity = text_similarity(micro.text, micro.tokenizer, TEMPLATES_DOT)
    assert places[2] == {TEMPLATES_DOT[place] for place in most_covering(similarity, 5)}


def test_templates_are_compared_around_the_word_object(micro: Backbone) -> None:
    prompts = [text.replace("{}", "object") for text in TEMPLATES_DOT[:3]]
    one, other, third = F.normalize(encode_prompts(micro.text, micro.tokenizer, prompts), dim=-1)
    similarity = text_similarity(micro.text, micro.tokenizer, TEMPLATES_DOT[:3])
    assert float(similarity[0, 2]) == pytest.approx(float((one * third).sum()), abs=1e-6)
    assert float(similarity[1, 1]) == pytest.approx(1, abs=1e-6) and other.shape == one.shape


def test_draws_differ_by_seed_are_nested_and_never_repeat(micro: Backbone) -> None:
    draws = [
        kept(micro, templates_kept=4, kept_by="random", kept_seed=seed).templates
        for seed in range(20)
    ]
    assert len(set(draws)) == 20 and all(len(set(templates)) == 4 for templates in draws)
    assert sorted(drawn(22, 22, 3)) == list(range(22)) and drawn(22, 5, 3)[:2] == drawn(22, 2, 3)
    assert drawn(22, 4, 1) == [11, 18, 6, 0]


def test_as_many_states_of_either_label_are_kept_as_there_are(micro: Backbone) -> None:
    five = kept(micro, states_kept=5)
    assert len(five.normal_states) == 5 and five.anomalous_states == ANOMALOUS_STATES
    one = kept(micro, states_kept=1)
    assert len(one.normal_states) == len(one.anomalous_states) == 1
    assert kept(micro, states_kept=7).normal_states == NORMAL_STATES


def test_the_size_words_alone_can_be_taken_out(micro: Backbone) -> None:
    templates = kept(micro, templates_without=["small", "large"]).templates
    sizes = [f"a photo of {a} {size} {{}}." for a in ("a", "the") for size in ("small", "large")]
    assert set(TEMPLATES_DOT) - set(templates) == set(sizes) and len(templates) == 18
    both = kept(micro, templates_without=["small", "large"], templates_kept=2).templates
    assert len(both) == 2 and not set(both) & set(sizes)


def test_prototypes_are_those_of_the_kept_prompts_alone(micro: Backbone) -> None:
    config = WinCLIPConfig().changed({"templates_kept": 2, "states_kept": 1})
    ensemble = reduced(micro.text, micro.tokenizer, find_ensemble("full22_dot"), config)
    normal, anomalous = raw_text(micro, config, BOTTLE)
    assert (normal.prompts, anomalous.prompts) == ensemble.prompts("bottle")
    assert len(normal.prompts) == 2
    stacked = torch.stack([average(s.embeddings, "mean_raw") for s in (normal, anomalous)])
    assert torch.equal(prototypes(micro, config, BOTTLE), stacked)


def test_words_of_damage_stand_beside_the_general_states_or_in_their_place(
    micro: Backbone,
) -> None:
    category = Category(
        "nut", ("bent", "bad_paint"), ("tear",), ("stripped thread",), ("moth hole",)
    )
    expected = {
        "defects": ["nut with bad paint", "nut with bent"],
        "other_defects": ["nut with tear"],
        "phrases": ["nut with stripped thread"],
        "other_phrases": ["nut with moth hole"],
    }
    for kind, states in expected.items():
        for general, before in ((True, 4), (False, 0)):
            changes = {"prompts": "states_only", "extra_anomalous_states": kind}
            config = WinCLIPConfig().changed(changes | {"general_states": general})
            normal, anomalous = raw_text(micro, config, category)
            assert list(anomalous.prompts[before:]) == states and len(normal.prompts) == 7
            assert METHOD.category_words(config) == (kind,)
    assert METHOD.category_words(WinCLIPConfig()) == ()


def test_words_of_a_config_are_known_before_a_run(micro: Backbone) -> None:
    plain = WinCLIPConfig().changed({"extra_anomalous_states": ["{} with rust"]})
    assert "a photo of the  with rust." in METHOD.texts(plain)
    alone = WinCLIPConfig().changed({"extra_anomalous_states": "phrases", "general_states": False})
    for ask in (check_category, prototypes):
        with pytest.raises(ClipadError, match="found 'phrases', of which bottle has none"):
            ask(micro, alone, BOTTLE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"templates_kept": 0}, "templates_kept: found 0, expected 1 to 22, as full22_dot has"),
        ({"templates_kept": 23}, "templates_kept: found 23, expected 1 to 22"),
        (
            {"templates_kept": 19, "templates_without": ["small", "large"]},
            "templates_kept: found 19, expected 1 to 18",
        ),
        ({"states_kept": 8}, "states_kept: found 8, expected 1 to 7"),
        ({"kept_by": "chance"}, "kept_by: found 'chance'"),
        ({"kept_seed": -1}, "kept_seed: found -1, expected at least 0"),
        ({"templates_without": ["middle"]}, "found 'middle', which no template of full22_dot"),
        ({"templates_without": ["of"]}, "without which no template of full22_dot is left"),
        ({"general_states": False}, "general_states: found false without extra_anomalous_states"),
    ],
)
def test_what_cannot_be_kept_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ClipadError, match=message):
        WinCLIPConfig().changed(changes)
