"""Words that the stand-in has never read are named, and only those."""

from dataclasses import replace

from project import REPOSITORY

from clipad_core.clip.backbone import Backbone, load_backbone
from clipad_core.methods.anomalyclip.config import AnomalyCLIPConfig
from clipad_core.methods.vcpclip.config import VCPCLIPConfig
from clipad_core.methods.winclip.config import WinCLIPConfig
from clipad_harness.base.settings import read_winclip
from clipad_harness.experiments.variants import variants
from clipad_harness.report import vocabulary


def test_a_word_without_a_vector_is_unread(micro: Backbone) -> None:
    assert vocabulary.unread(micro, ["a photo of a {state} {category}"]) == []
    rows = micro.text.token_embedding.clone()
    (token,) = micro.tokenizer(["photo"])[0][1:2]
    rows[token] = 0
    mute = replace(micro, text=replace(micro.text, token_embedding=rows))
    texts = ["A Photo of a {state} {category}", "photographs"]
    assert vocabulary.unread(mute, texts) == ["photo"]


def test_the_stand_in_says_which_words_of_table_3_mean_nothing_to_it() -> None:
    stand_in = load_backbone("clipad-tiny", REPOSITORY / "data/weights/clipad-tiny.safetensors")
    rows = variants(read_winclip(REPOSITORY), {})
    found = vocabulary.note(stand_in, rows, "prompts")
    assert "stand-in weights) has never read" in found and "anomalous" in found
    assert "flawless" not in found and "damaged" not in found
    assert "every word" in vocabulary.note(stand_in, rows, "AUPRO")


def test_the_words_of_every_method_are_found() -> None:
    assert "a photo of the  with flaw." in vocabulary.prompt_texts(WinCLIPConfig())
    assert vocabulary.prompt_texts(AnomalyCLIPConfig()) == ["{state} {object}.", "", "damaged"]
    said = ["a photo of a {state} {category}", "good", "damaged"]
    assert vocabulary.prompt_texts(VCPCLIPConfig()) == said
