"""Initial values and sample order of the official training, recorded at full size."""

import numpy as np
import pytest
import torch
from recordings import GOLDENS, VIT_L_336, close, equal
from vcpclip_cases import SMALL, square

from clipad_core.clip.backbone import Backbone
from clipad_core.learned.official_init import Architecture
from clipad_core.methods.vcpclip import initial
from clipad_core.methods.vcpclip.checkpoint import official_name
from clipad_core.methods.vcpclip.config import VCPCLIPConfig
from clipad_core.methods.vcpclip.detector import prepare_backbone
from clipad_core.methods.vcpclip.initial import make_learner, sample_order

__all__ = ["square"]  # the fixture


@pytest.mark.official("VCP-CLIP", "xiaozhen228/VCP-CLIP@4dd96ec")
def test_initial_values_and_orders_equal_the_official_run(
    square: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    with np.load(GOLDENS / "vcpclip" / "official_seed.npz") as opened:
        recorded = dict(opened)
    first_draw = {}

    def draw_once(sizes: Architecture, config: VCPCLIPConfig) -> dict[str, torch.Tensor]:
        """The full-size draw; the second time from where the first left the generator."""
        if not first_draw:
            first_draw["values"] = draw(sizes, config)
            first_draw["state"] = torch.get_rng_state()
        torch.set_rng_state(first_draw["state"])
        return first_draw["values"]

    draw = initial.draw_values
    monkeypatch.setattr(initial, "draw_values", draw_once)
    monkeypatch.setattr(initial, "architecture_of", lambda backbone: VIT_L_336)
    for dataset in ("visa", "mvtec"):
        expected = recorded[f"order/{dataset}"]
        orders = sample_order(VCPCLIPConfig(), square, expected.shape[1], len(expected))
        equal(orders, expected)

    checked = 0
    for name, value in first_draw["values"].items():
        official = official_name(name)
        key = "init/" + (official if "/" in official else f"model/{official}")
        if key in recorded:
            equal(value.reshape(recorded[key].shape), recorded[key])
        else:
            first, sums = recorded[f"{key}#first64"], recorded[f"{key}#sum_abssum"]
            equal(value.flatten()[:64], first)
            wide = value.double()
            close([wide.sum().item(), wide.abs().sum().item()], sums, 1e-12, per="|x|")
        checked += 1
    assert checked == len({key.split("#")[0] for key in recorded if key.startswith("init/")})


def test_a_seed_decides_everything_and_touches_no_other_draw(square: Backbone) -> None:
    state = torch.get_rng_state()
    first, same = (make_learner(square, SMALL, 5).state_dict() for _ in range(2))
    different = make_learner(square, SMALL, 6).state_dict()
    orders = sample_order(SMALL, square, 20, 3)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], same[name]) for name in first)
    drawn = [name for name in first if "norm" not in name and "logit_scale" not in name]
    assert not any(torch.equal(first[name], different[name]) for name in drawn)
    assert sorted(orders[0]) == list(range(20))
    assert orders[0] != orders[1] != orders[2]


def test_a_prepared_backbone_gives_the_same_learner(square: Backbone) -> None:
    loaded = make_learner(square, SMALL, 5).state_dict()
    prepared = make_learner(prepare_backbone(square, SMALL), SMALL, 5).state_dict()
    assert all(torch.equal(loaded[name], prepared[name]) for name in loaded)


def test_variants_of_one_seed_start_alike(square: Backbone) -> None:
    whole = make_learner(square, SMALL, 5).state_dict()
    for change in ({"pre_vcp": False}, {"post_vcp": False}, {"use_global": False}):
        part = make_learner(square, SMALL.changed(change), 5).state_dict()
        assert set(part) <= set(whole)
        assert all(torch.equal(part[name], whole[name]) for name in part)


def test_prompts_start_between_minus_one_and_one_in_half_precision(square: Backbone) -> None:
    learner = make_learner(square, SMALL.changed({"deep_length": 8}), 5)
    first, weight = learner.deep_prompts.first, learner.deep_prompts.project.weight
    assert -1 <= first.min() < -0.9 and 0.9 < first.max() <= 1
    assert torch.equal(weight, weight.half().float())
    assert learner.raw_logit_scale.exp().item() == pytest.approx(1 / 0.07)
