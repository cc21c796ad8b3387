"""Settings fitted to another backbone, and walks from preset to preset."""

from dataclasses import fields, replace

import pytest
from project import LEARNED, REPOSITORY, settings, tracked_params, variants_of

from clipad_core.config import fields_read, thrown_together
from clipad_core.errors import ClipadError
from clipad_core.methods.anomalyclip import config as anomalyclip_config
from clipad_core.methods.vcpclip import config as vcpclip_config
from clipad_core.methods.winclip import config as winclip_config
from clipad_harness.base.settings import read_method, read_methods, read_profile
from clipad_harness.experiments.switch_steps import START, differing, steps
from clipad_harness.experiments.translation import fit, fit_all, translated
from clipad_harness.experiments.variants import Variant, read_variants

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
    walk = steps(start, end)
    assert walk[0] == (START, {})
    last = replace(start, **walk[-1][1])
    same = {name: getattr(start, name) for name in fields_read(type(start), "run")}
    assert replace(end, **same) == replace(last, **same)


@pytest.mark.parametrize(("method", "preset"), WALKS)
def test_each_step_throws_one_switch_more_in_the_order_of_the_config(
    method: str, preset: str
) -> None:
    module, name = MODULES[method]
    start, end = module.find_preset(name), module.find_preset(preset)
    walk = steps(start, end)
    order = [field.name for field in fields(start)]
    first = []
    for (_, before), (label, after) in zip(walk, walk[1:]):
        new = list(after)[len(before) :]
        assert list(after)[: len(before)] == list(before) and new
        assert set(new) <= set(thrown_together(type(start), new[0]))
        assert label.split(" ")[1] == new[0]
        first.append(order.index(new[0]))
    assert first == sorted(first)
    assert set(walk[-1][1]) == set(differing(start, end))


def test_equal_presets_need_no_step() -> None:
    paper = winclip_config.find_preset("paper")
    assert steps(paper, paper) == [(START, {})]


def test_epochs_that_a_profile_does_not_name_stay_the_same() -> None:
    rule = {"epochs": {10: 5}}
    assert translated("epochs", 10, rule) == 5 and translated("epochs", 3, rule) == 3


def test_published_values_are_translated_one_by_one() -> None:
    rules = {"blocks": {6: 2, 24: 6}, "sigma": 0.5, "image_size": {518: 96}}
    published = anomalyclip_config.AnomalyCLIPConfig().changed({"blocks": [6, 24]})
    fitted = fit(published, rules)
    assert (fitted.blocks, fitted.sigma, fitted.image_size) == ((2, 6), 0.5, 96)
    assert fit_all({"blocks": [24], "epochs": 3}, rules) == {"blocks": [6], "epochs": 3}


def test_a_value_without_a_translation_is_named() -> None:
    with pytest.raises(ClipadError, match="blocks: found 12, for which .* only 6, 24; add it"):
        translated("blocks", (6, 12), {"blocks": {6: 2, 24: 6}})


def by_name(variants: list[Variant]) -> dict[str, Variant]:
    """No name twice, the main one first."""
    assert (
        len({variant.name for variant in variants}) == len(variants) and variants[0].name == "main"
    )
    return {variant.name: variant for variant in variants}


def read(method: str, profile: str = "demo", **changes: object) -> dict[str, Variant]:
    """Variants as the tests run them, but for what makes their run short."""
    whole = {} if method == "winclip" else {"changes": {}, "seeds": [1, 2]}
    return by_name(variants_of(method, profile, **whole, **changes))


# To a model without context, on whose way there is none, nobody can walk in a run.
RUNNABLE = [walk for walk in WALKS if walk[1] != "untrained"]


@pytest.mark.parametrize(("method", "preset"), RUNNABLE)
def test_the_demo_walks_from_its_main_variant_to_the_fitted_preset(
    method: str, preset: str
) -> None:
    variants = read(method, walks=[preset])
    walked = [
        variant for name, variant in variants.items() if name.startswith(f"walk to {preset}/")
    ]
    end = MODULES[method][0].find_preset(preset)
    end = fit(end, settings()["profiles"]["demo"][method]["changes"])
    start = variants["main"].config
    for name in differing(start, end):
        assert getattr(walked[0].tested_with(0), name) == getattr(start, name), name
        assert getattr(walked[-1].tested_with(0), name) == getattr(end, name), name
    assert len(walked) == len(steps(start, end))


@pytest.mark.parametrize("method", MODULES)
def test_the_paper_profile_takes_the_preset_as_published(method: str) -> None:
    main = read(method, "paper")["main"]
    assert main.config == MODULES[method][0].find_preset(settings()[method]["preset"])
    trained_on = {"winclip": None, "anomalyclip": "visa", "vcpclip": "visa"}[method]
    assert (main.trained_on, main.tested_on) == (trained_on, "mvtec")


@pytest.mark.parametrize("method", LEARNED)
def test_definitions_of_aupro_count_the_maps_of_the_main_training(method: str) -> None:
    variants = read(method)
    main = variants["main"]
    rows = {name: variant for name, variant in variants.items() if name.startswith("AUPRO/")}
    definitions = settings()[method]["ablations"]["AUPRO"]["rows"]
    assert {name: variant.aupro for name, variant in rows.items()} == {
        f"AUPRO/{row}": changes["aupro"] for row, changes in definitions.items()
    }
    whole = [main.training(seed) for seed in main.seeds]
    for row in rows.values():
        assert [row.training(seed) for seed in row.seeds] == whole
    shortened = [variant for name, variant in variants.items() if name not in {"main", *rows}]
    assert not set(whole) & {variant.training(seed) for variant in shortened for seed in main.seeds}


def test_the_two_datasets_change_places() -> None:
    variant = read("vcpclip")["training set/target to auxiliary"]
    assert (variant.trained_on, variant.tested_on) == ("synthetic_target", "synthetic_auxiliary")


def test_both_profiles_hold_a_value_for_every_row_of_the_tracked_settings() -> None:
    for profile in tracked_params()["profiles"]:
        for method in read_methods(REPOSITORY):
            section = read_method(REPOSITORY, method)
            by_name(read_variants(method, section, read_profile(REPOSITORY, profile)))
