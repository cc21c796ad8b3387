"""The functional text tower against open_clip's own module, and the prompt lists as data."""

import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from clipad_core.clip import text
from clipad_core.clip.backbone import Backbone
from clipad_core.clip.text import Beginnings, average, encode_prompts, text_embeddings
from clipad_core.errors import ClipadError
from clipad_core.methods.winclip.prompts import (
    ENSEMBLES,
    TEMPLATES_DOT,
    ZQ21_DOT,
    class_words,
    find_ensemble,
)

COUNTS = {
    "full22_dot": (154, 88),
    "full22_nodot": (154, 88),
    "zq21_dot": (147, 84),
    "compact_note003": (5, 50),
    "one_class": (1, 0),
    "two_class": (1, 1),
    "states_only": (7, 4),
    "templates_only": (22, 22),
    "single_pair": (1, 1),
}


@torch.no_grad()
def test_a_prompt_whose_end_may_be_cut_off_is_refused(micro: Backbone) -> None:
    encode_prompts(micro.text, micro.tokenizer, ["nut " * 74])
    with pytest.raises(ClipadError, match="found one of 77 tokens or more.*'nut nut"):
        encode_prompts(micro.text, micro.tokenizer, ["a nut", "nut " * 75])


def test_prompt_embeddings_equal_open_clip_with_its_full_context(micro: Backbone) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.create_model("clipad-micro", pretrained=None).eval()
    prompts = ["a photo of a bottle.", "x", "a photo of the small metal nut for visual inspection."]
    expected = model.encode_text(micro.tokenizer(prompts))
    assert_close(encode_prompts(micro.text, micro.tokenizer, prompts), expected, atol=1e-5, rtol=0)


def test_embeddings_do_not_depend_on_the_other_prompts(micro: Backbone) -> None:
    many = [f"a photo of {n} bottles" for n in range(150)] + ["a bottle", "a bottle"]
    found = encode_prompts(micro.text, micro.tokenizer, many)
    alone = encode_prompts(micro.text, micro.tokenizer, ["a bottle"])
    assert_close(found[150:], alone.expand(2, -1), atol=1e-6, rtol=0)


def test_kept_beginnings_change_nothing_and_are_used_again(micro: Backbone) -> None:
    ensemble, kept, computed = find_ensemble("full22_dot"), Beginnings(), []
    for words in ("bottle", "metal nut", "x-ray of a thing"):
        groups = ensemble.prompts(words)
        plain = encode_prompts(micro.text, micro.tokenizer, [p for g in groups for p in g])
        normal = average(plain[:154], "mean_raw")
        found = text_embeddings(micro.text, micro.tokenizer, ensemble, words, beginnings=kept)
        assert_close(found[0], normal, atol=1e-6, rtol=0)
        assert_close(found[1], average(plain[154:], "mean_raw"), atol=1e-6, rtol=0)
        computed.append(set(kept._kept))
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
        name: text_embeddings(micro.text, micro.tokenizer, find_ensemble(name), "metal nut")
        for name in names
    }
    for order in (names, names[::-1]):
        kept = Beginnings()
        for name in order:
            words = (micro.text, micro.tokenizer, find_ensemble(name))
            assert torch.equal(text_embeddings(*words, "metal nut", beginnings=kept), alone[name])


def test_kept_beginnings_stay_bounded(micro: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "CHUNKS_KEPT", 2)
    kept = Beginnings()
    text_embeddings(
        micro.text, micro.tokenizer, find_ensemble("full22_dot"), "nut", beginnings=kept
    )
    assert len(kept._kept) == 2


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


@pytest.mark.parametrize("name", list(ENSEMBLES))
def test_every_list_has_its_published_size_and_source(name: str) -> None:
    normal, anomalous = ENSEMBLES[name].prompts("metal nut")
    assert (len(normal), len(anomalous)) == COUNTS[name]
    assert all("metal nut" in prompt and "{" not in prompt for prompt in normal + anomalous)
    assert ENSEMBLES[name].source


@pytest.mark.parametrize("name", [name for name in ENSEMBLES if name != "zq21_dot"])
def test_no_list_has_duplicates_but_the_one_that_is_known_for_it(name: str) -> None:
    prompts = [prompt for group in ENSEMBLES[name].prompts("bottle") for prompt in group]
    assert len(set(prompts)) == len(prompts)


def test_the_21_entry_list_lacks_two_templates_and_doubles_one() -> None:
    assert len(ZQ21_DOT) == 21 and len(set(ZQ21_DOT)) == 20
    assert ZQ21_DOT.count("a jpeg corrupted photo of the {}.") == 2
    assert set(TEMPLATES_DOT) - set(ZQ21_DOT) == {
        "a cropped photo of a {}.",
        "a jpeg corrupted photo of a {}.",
    }


def test_a_one_class_ensemble_gives_one_prototype(micro: Backbone) -> None:
    found = text_embeddings(micro.text, micro.tokenizer, find_ensemble("one_class"), "bottle")
    assert found.shape == (1, 16)


def test_task_states_join_the_anomalous_ones() -> None:
    ensemble = find_ensemble("states_only").with_states(("{} with bad soldering",))
    assert ensemble.prompts("pcb")[1][-1] == "pcb with bad soldering"
    assert len(ensemble.prompts("pcb")[0]) == 7


def test_a_class_name_with_braces_is_taken_as_it_is() -> None:
    assert ENSEMBLES["two_class"].prompts("{0}") == (("normal {0}",), ("anomalous {0}",))


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ClipadError, match="expected one of full22_dot"):
        find_ensemble("imagenet")
    with pytest.raises(ClipadError, match="class_name: found 'lower'"):
        class_words("bottle", "lower")
