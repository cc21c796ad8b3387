"""Prompt ensembles to prototypes: averages, and beginnings that classes share."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from clipad_core.clip import text
from clipad_core.clip.backbone import Backbone
from clipad_core.clip.prompt_ensemble import average, raw_text_embeddings, text_embeddings
from clipad_core.clip.text import encode_prompts
from clipad_core.errors import ClipadError
from clipad_core.methods.method import Category
from clipad_core.methods.winclip.config import WinCLIPConfig
from clipad_core.methods.winclip.detector import prototypes, raw_text
from clipad_core.methods.winclip.prompts import find_ensemble


def test_kept_beginnings_change_nothing_and_are_used_again(micro: Backbone) -> None:
    ensemble, tower, computed = find_ensemble("full22_dot"), replace(micro.text), []
    for words in ("bottle", "metal nut", "x-ray of a thing"):
        groups = ensemble.prompts(words)
        plain = encode_prompts(tower, micro.tokenizer, [p for g in groups for p in g])
        normal = average(plain[:154], "mean_raw")
        embeddings = text_embeddings(tower, micro.tokenizer, ensemble, words)
        assert_close(embeddings[0], normal, atol=1e-6, rtol=0)
        assert_close(embeddings[1], average(plain[154:], "mean_raw"), atol=1e-6, rtol=0)
        computed.append(set(tower.beginnings._cache))
    # 18 beginnings of templates, and before the name nothing or one of four adjectives.
    assert len({row for together in computed[0] for row in together}) == 18 * 5
    assert computed[0] == computed[1] == computed[2]


def test_an_embedding_does_not_depend_on_what_was_embedded_before(micro: Backbone) -> None:
    """Bit by bit: one process that scores all prompts and another that scores some must agree."""
    names = [
        "one_class",
        "single_pair",
        "templates_only",
        "zq21_dot",
        "full22_dot",
        "compact_note003",
    ]
    alone = {
        name: text_embeddings(
            replace(micro.text), micro.tokenizer, find_ensemble(name), "metal nut"
        )
        for name in names
    }
    for order in (names, names[::-1]):
        tower = replace(micro.text)
        for name in order:
            embeddings = text_embeddings(tower, micro.tokenizer, find_ensemble(name), "metal nut")
            assert torch.equal(embeddings, alone[name])


def test_kept_beginnings_stay_bounded(micro: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "CHUNKS_KEPT", 2)
    tower = replace(micro.text)
    text_embeddings(tower, micro.tokenizer, find_ensemble("full22_dot"), "nut")
    assert len(tower.beginnings._cache) == 2


def test_another_tower_has_beginnings_of_its_own(micro: Backbone) -> None:
    tower = replace(micro.text)
    text_embeddings(tower, micro.tokenizer, find_ensemble("states_only"), "nut")
    assert tower.beginnings._cache and not replace(tower).beginnings._cache


def test_both_averages_match_their_formula_and_differ(micro: Backbone) -> None:
    rows = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    assert_close(average(rows, "mean_raw"), F.normalize(torch.tensor([1.5, 0.5]), dim=0))
    assert_close(average(rows, "norm_mean"), torch.tensor([0.5, 0.5]).sqrt())
    ensemble = find_ensemble("full22_dot")
    raw = text_embeddings(micro.text, micro.tokenizer, ensemble, "bottle", "mean_raw")
    unit = text_embeddings(micro.text, micro.tokenizer, ensemble, "bottle", "norm_mean")
    assert raw.shape == (2, 16) and not torch.allclose(raw, unit, atol=1e-6)
    with pytest.raises(ClipadError, match="text_average: found 'median'"):
        average(rows, "median")


def test_a_one_class_ensemble_gives_one_prototype(micro: Backbone) -> None:
    embeddings = text_embeddings(micro.text, micro.tokenizer, find_ensemble("one_class"), "bottle")
    assert embeddings.shape == (1, 16)


@pytest.mark.parametrize("name", ["full22_dot", "zq21_dot", "one_class"])
@pytest.mark.parametrize("rule", ["mean_raw", "norm_mean"])
def test_raw_text_is_every_prompt_with_its_own_embedding(
    micro: Backbone, name: str, rule: str
) -> None:
    ensemble = find_ensemble(name)
    states = raw_text_embeddings(micro.text, micro.tokenizer, ensemble, "metal nut")
    groups = [group for group in ensemble.prompts("metal nut") if group]
    assert [state.prompts for state in states] == groups
    for state in states:
        for place in (0, len(state.prompts) - 1):
            alone = encode_prompts(micro.text, micro.tokenizer, [state.prompts[place]])[0]
            assert_close(state.embeddings[place], alone, atol=1e-5, rtol=0)
        assert (state.embeddings.norm(dim=-1) - 1).abs().min() > 1e-3  # not normalised
    averaged = torch.stack([average(state.embeddings, rule) for state in states])
    embeddings = text_embeddings(micro.text, micro.tokenizer, ensemble, "metal nut", rule)
    assert torch.equal(embeddings, averaged)


def test_raw_text_of_a_detector_names_the_category_and_its_damage(micro: Backbone) -> None:
    config = WinCLIPConfig().changed(
        {"prompts": "states_only", "extra_anomalous_states": "defects"}
    )
    normal, anomalous = raw_text(micro, config, Category("metal_nut", ("bad_paint",)))
    assert len(normal.prompts) == 7 and all("metal nut" in prompt for prompt in normal.prompts)
    assert anomalous.prompts[-1] == "metal nut with bad paint"
    stacked = torch.stack([average(s.embeddings, "mean_raw") for s in (normal, anomalous)])
    assert torch.equal(stacked, prototypes(micro, config, Category("metal_nut", ("bad_paint",))))
