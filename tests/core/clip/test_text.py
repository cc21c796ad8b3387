"""The functional text tower against open_clip's own module."""

import pytest
import torch
from torch.testing import assert_close

from clipad_core.clip.backbone import Backbone
from clipad_core.clip.open_clip import open_clip
from clipad_core.clip.text import class_words, encode_prompts
from clipad_core.errors import ClipadError


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
    prompts = [f"a photo of {n} bottles" for n in range(150)] + ["a bottle", "a bottle"]
    embeddings = encode_prompts(micro.text, micro.tokenizer, prompts)
    alone = encode_prompts(micro.text, micro.tokenizer, ["a bottle"])
    assert_close(embeddings[150:], alone.expand(2, -1), atol=1e-6, rtol=0)


def test_an_unknown_class_name_rule_is_refused() -> None:
    with pytest.raises(ClipadError, match="class_name: found 'lower'"):
        class_words("bottle", "lower")
