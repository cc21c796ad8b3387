"""Settings fitted to another backbone, and walks from preset to preset."""

from dataclasses import fields, replace

import pytest
from clipad_harness.experiments.learned_variants import learned_variants
from project import REPOSITORY

from clipad_core.config import fields_read, thrown_together
from clipad_core.errors import ClipadError
from clipad_core.methods.anomalyclip import config as anomalyclip_config
from clipad_core.methods.vcpclip import config as vcpclip_config
from clipad_core.methods.winclip import config as winclip_config
from clipad_harness.base.settings import LEARNED, read_learned, read_profile
from clipad_harness.experiments.switch_steps import START, differing, steps
from clipad_harness.experiments.translation import fit, fit_all, translated

MODULES = {
    "winclip": (winclip_config, "paper"),
    "anomalyclip": (anomalyclip_config, "published"),
    "vcpclip": (vcpclip_config, "code"),
}
WALKS = [
    (name, preset)
    for name, (module, start) in MODULES.items()
    for preset in module.PRESETS
    if preset != start
]


@pytest.mark.parametrize(("method", "preset"), WALKS)
def test_the_last_step_of_a_walk_is_the_preset_itself(method: str, preset: str) -> None:
    module, name = MODULES[method]
    start, end = module.find_preset(name), module.find_preset(preset)
    found = steps(start, end)
    assert found[0] == (START, {})
    last = replace(start, **found[-1][1])
    same = {name: getattr(start, name) for name in fields_read(type(start), "run")}
    assert replace(end, **same) == replace(last, **same)


@pytest.mark.parametrize(("method", "preset"), WALKS)
def test_each_step_throws_one_switch_more_in_the_order_of_the_config(
    method: str, preset: str
) -> None:
    module, name = MODULES[method]
    start, end = module.find_preset(name), module.find_preset(preset)
    found = steps(start, end)
    order = [field.name for field in fields(start)]
    first = []
    for (_, before), (label, after) in zip(found, found[1:]):
        new = list(after)[len(before) :]
        assert list(after)[: len(before)] == list(before) and new
        assert set(new) <= set(thrown_together(type(start), new[0]))
        assert label.split(" ")[1] == new[0]
        first.append(order.index(new[0]))
    assert first == sorted(first)
    assert set(found[-1][1]) == set(differing(start, end))


def test_equal_presets_need_no_step() -> None:
    paper = winclip_config.find_preset("paper")
    assert steps(paper, paper) == [(START, {})]


def test_epochs_that_a_profile_does_not_name_stay_the_same() -> None:
    rule = {"epochs": {10: 5}}
    assert translated("epochs", 10, rule) == 5 and translated("epochs", 3, rule) == 3


def test_published_values_are_translated_one_by_one() -> None:
    rules = {"blocks": {6: 2, 24: 6}, "sigma": 0.5, "image_size": {518: 96}}
    published = anomalyclip_config.AnomalyCLIPConfig().changed({"blocks": [6, 24]})
    found = fit(published, rules)
    assert (found.blocks, found.sigma, found.image_size) == ((2, 6), 0.5, 96)
    assert fit_all({"blocks": [24], "epochs": 3}, rules) == {"blocks": [6], "epochs": 3}


def test_a_value_without_a_translation_is_named() -> None:
    with pytest.raises(ClipadError, match="blocks: found 12, for which .* only 6, 24; add it"):
        translated("blocks", (6, 12), {"blocks": {6: 2, 24: 6}})


@pytest.mark.parametrize("method", LEARNED)
def test_the_demo_holds_every_setting_of_every_row(method: str) -> None:
    settings, profile = read_learned(REPOSITORY, method), read_profile(REPOSITORY, "demo")
    found = learned_variants(method, settings, profile)
    names = [one.name for one in found]
    assert names[0] == "main" and len(set(names)) == len(names)
    for preset in settings.walks:
        first, *_, last = [one for one in found if one.name.startswith(f"walk to {preset}/")]
        end = fit(MODULES[method][0].find_preset(preset), profile.weights_of(method).changes)
        start = found[0].config
        for name in differing(start, end):
            assert getattr(first.tested_with(0), name) == getattr(start, name), name
            assert getattr(last.tested_with(0), name) == getattr(end, name), name


@pytest.mark.parametrize("method", LEARNED)
def test_the_paper_profile_takes_every_row_as_published(method: str) -> None:
    settings, profile = read_learned(REPOSITORY, method), read_profile(REPOSITORY, "paper")
    main = learned_variants(method, settings, profile)[0]
    assert main.config == MODULES[method][0].find_preset(settings.preset)
    assert (main.trained_on, main.tested_on) == (
        {"anomalyclip": "visa", "vcpclip": "visa"}[method],
        "mvtec",
    )


@pytest.mark.parametrize("method", LEARNED)
def test_definitions_of_aupro_count_the_maps_of_the_main_training(method: str) -> None:
    settings, profile = read_learned(REPOSITORY, method), read_profile(REPOSITORY, "demo")
    main, *others = learned_variants(method, settings, profile)
    rows = {one.name: one for one in others if one.name.startswith("AUPRO/")}
    assert [one.aupro for one in rows.values()] == list(settings.ablations["AUPRO"])
    for row in rows.values():
        assert [row.training(seed) for seed in row.seeds] == [main.training(s) for s in main.seeds]
    shortened = [one for one in others if one.name not in rows]
    assert not {main.training(s) for s in main.seeds} & {o.training(o.seeds[0]) for o in shortened}


def test_the_two_datasets_change_places() -> None:
    settings, profile = read_learned(REPOSITORY, "vcpclip"), read_profile(REPOSITORY, "demo")
    found = {one.name: one for one in learned_variants("vcpclip", settings, profile)}
    there = found["training set/target to auxiliary"]
    assert (there.trained_on, there.tested_on) == ("synthetic_target", "synthetic_auxiliary")
