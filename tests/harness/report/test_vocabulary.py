"""Words that the stand-in has never read are named, and only those."""

from dataclasses import replace

from project import REPOSITORY, variants_of

from clipad_core.clip.backbone import Backbone, load_backbone
from clipad_core.methods import find_method, winclip
from clipad_core.methods.method import Category
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
    lists = {name: {"prompts": name} for name in ("one_class", "two_class", "states_only")}
    groups = {"prompts": {"rows": lists}, "AUPRO": {"rows": {"exact": {"aupro": "exact"}}}}
    rows = variants_of("winclip", ablations=groups)
    note = vocabulary.note(winclip.METHOD, stand_in, rows, "prompts")
    assert "stand-in weights) has never read" in note and "anomalous" in note
    assert "flawless" not in note and "damaged" not in note
    assert "every word" in vocabulary.note(winclip.METHOD, stand_in, rows, "AUPRO")


def test_words_of_a_category_that_were_never_read_are_named() -> None:
    stand_in = load_backbone("clipad-tiny", REPOSITORY / "data/weights/clipad-tiny.safetensors")
    category = Category("nut", ("hole",), ("crack",), ("a stripped thread",), ("a hole",))
    note = vocabulary.of_category(stand_in, [category])
    assert "has never read stripped, thread:" in note
    read = vocabulary.of_category(stand_in, [Category("nut", ("hole",))])
    assert "has read every word of these categories" in read


def test_the_words_of_every_method_are_found() -> None:
    methods = {name: find_method(name) for name in ("winclip", "anomalyclip", "vcpclip")}
    texts = {name: method.texts(method.config()) for name, method in methods.items()}
    assert "a photo of the  with flaw." in texts["winclip"]
    assert texts["anomalyclip"] == ["{state} {object}.", "", "damaged"]
    assert texts["vcpclip"] == ["a photo of a {state} {category}", "good", "damaged"]
