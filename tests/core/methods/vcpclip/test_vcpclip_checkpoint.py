"""Checkpoints of VCP-CLIP: both layouts there and back, and everything that must be refused."""

import json
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from project import with_one_bit_changed
from recordings import GOLDENS
from safetensors.torch import load, load_file, save_file
from vcpclip_cases import SMALL, features_of, learner_of, square

from clipad_core.clip.backbone import Backbone
from clipad_core.errors import ClipadError
from clipad_core.learned.checkpoint_files import flatten, to_safetensors
from clipad_core.learned.official_init import Architecture
from clipad_core.methods.checkpoint import checkpoint_bytes, read_checkpoint
from clipad_core.methods.vcpclip.checkpoint import (
    NAME,
    official_bytes,
    official_name,
    read_official,
    to_official,
)
from clipad_core.methods.vcpclip.config import VCPCLIPConfig, find_preset
from clipad_core.methods.vcpclip.detector import detect, prepare_backbone
from clipad_core.methods.vcpclip.learner import VCPCLIPLearner

__all__ = ["square"]  # the fixture
DATA = "d" * 64


def equal(learner: VCPCLIPLearner, expected: VCPCLIPLearner) -> bool:
    a, b = learner.state_dict(), expected.state_dict()
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def stored(path: Path, content: dict[str, Any]) -> Path:
    torch.save(content, path)
    return path


def test_official_layout_is_that_of_the_released_files() -> None:
    sizes = Architecture(1024, 24, 14, 24, 768, 12, 77, 49408, 768)
    with torch.device("meta"):
        learner = VCPCLIPLearner(sizes, VCPCLIPConfig())
    shapes = {}
    for name, value in learner.state_dict().items():
        convolution = name.startswith("post_vcp.") and name.endswith("weight")
        shapes[official_name(name)] = (*value.shape, 1) if convolution else tuple(value.shape)
    lines = (GOLDENS / "vcpclip" / "official_layout.txt").read_text().splitlines()
    expected = {line.split(" ", 1)[0]: line.split(" ", 1)[1] for line in lines}
    assert {name: f"{shape} float32" for name, shape in shapes.items()} == expected


@pytest.mark.parametrize(
    "changes",
    [{}, {"deep_prompts": False}, {"post_vcp": False, "pre_vcp": False}, {"post_bias": False}],
)
def test_official_file_there_and_back_is_exact(
    square: Backbone, tmp_path: Path, changes: dict
) -> None:
    config = SMALL.changed(changes)
    learner = learner_of(square, config)
    path = tmp_path / "learner.pth"
    path.write_bytes(official_bytes(learner))
    again = read_official(path, square, config)
    assert equal(learner, again)
    assert all(p.requires_grad for p in again.parameters())
    assert official_bytes(again) == path.read_bytes()


def test_a_file_as_the_official_trainer_stores_it_is_read(square: Backbone, tmp_path: Path) -> None:
    """Parameters, not tensors, beside ordered dictionaries; or all of CLIP's in a fourth group."""
    learner = learner_of(square)
    groups = to_official(learner)
    saved = {key: OrderedDict(groups.pop(key)) for key in [k for k in groups if k[0] in "tNZ"]}
    top = {name: torch.nn.Parameter(value) for name, value in groups.items()}
    assert equal(learner, read_official(stored(tmp_path / "a.pth", saved | top), square, SMALL))
    four = saved | {"model": top}
    assert equal(learner, read_official(stored(tmp_path / "b.pth", four), square, SMALL))


def test_a_read_learner_detects_like_the_written_one(square: Backbone, tmp_path: Path) -> None:
    learner, prepared = learner_of(square), prepare_backbone(square, SMALL)
    path = tmp_path / "learner.pth"
    path.write_bytes(official_bytes(learner))
    detection, expected = (
        detect(prepared, SMALL, each, features_of(square))
        for each in (learner, read_official(path, prepared, SMALL))
    )
    assert torch.equal(detection.anomaly_map, expected.anomaly_map)


def test_our_file_there_and_back_is_exact(square: Backbone, tmp_path: Path) -> None:
    config = find_preset("paper").changed({"image_size": 48, "blocks": [1, 3], "heads": 4})
    learner = learner_of(square, config)
    path = tmp_path / "learner.safetensors"
    path.write_bytes(checkpoint_bytes(NAME, learner, config, square, DATA))
    for backbone in (square, prepare_backbone(square, config)):
        again, stored_config, data = read_checkpoint(NAME, path, backbone)
        assert equal(learner, again) and stored_config == config and data == DATA
        assert checkpoint_bytes(NAME, again, stored_config, backbone, data) == path.read_bytes()


def official(square: Backbone) -> dict[str, Any]:
    return to_official(learner_of(square))


def refused(path: Path, square: Backbone) -> str:
    with pytest.raises(ClipadError) as raised:
        if path.suffix == ".pth":
            read_official(path, square, SMALL)
        else:
            read_checkpoint(NAME, path, square)
    assert str(path) in str(raised.value)
    return str(raised.value)


def test_a_tensor_that_does_not_fit_is_named(square: Backbone, tmp_path: Path) -> None:
    tensors = official(square)
    tensors["trainable_linearlayer"]["fc.1.bias"] = torch.zeros(5)
    message = refused(stored(tmp_path / "shape.pth", tensors), square)
    assert "tensor trainable_linearlayer/fc.1.bias is (5,), expected (32,)" in message
    missing = official(square)
    del missing["Zero_try"]["q_proj_pre.bias"]
    message = refused(stored(tmp_path / "missing.pth", missing), square)
    assert "tensor Zero_try/q_proj_pre.bias is nothing, expected (32,)" in message
    extra = official(square) | {"prompt_more": torch.zeros(2)}
    message = refused(stored(tmp_path / "extra.pth", extra), square)
    assert "tensor prompt_more is (2,), expected nothing" in message
    broken = official(square)
    broken["New_Lan_Embed"]["prompt_query"][0, 0, 0] = torch.nan
    assert "not finite" in refused(stored(tmp_path / "nan.pth", broken), square)


def test_another_method_is_refused(square: Backbone, tmp_path: Path) -> None:
    anomalyclip = {"prompt_learner": {"ctx_pos": torch.zeros(1, 1, 12, 32)}}
    message = refused(stored(tmp_path / "anomalyclip.pth", anomalyclip), square)
    assert "does not fit vcpclip" in message
    path = tmp_path / "anomalyclip.safetensors"
    header = {"method": "anomalyclip", "config": {}, "backbone": "", "data": ""}
    path.write_bytes(to_safetensors({"x": torch.zeros(1)}, header))
    assert "is of the method 'anomalyclip', expected 'vcpclip'" in refused(path, square)
    numbers = stored(tmp_path / "list.pth", [1, 2])  # type: ignore[arg-type]
    assert "holds a list" in refused(numbers, square)
    assert "holds int under 'epoch'" in refused(
        stored(tmp_path / "epoch.pth", official(square) | {"epoch": 3}), square
    )


class Attack:
    """What an unsafe unpickler would run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_code_in_a_pickle_is_refused_and_not_run(square: Backbone, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    for name, save in (("torch", torch.save), ("plain", None)):
        path = tmp_path / f"{name}.pth"
        content = official(square) | {"attack": Attack(trace)}
        path.write_bytes(pickle.dumps(content, protocol=2)) if save is None else save(content, path)
        refused(path, square)
        assert not trace.exists()


def test_truncated_absent_and_foreign_files_are_refused(square: Backbone, tmp_path: Path) -> None:
    whole = official_bytes(learner_of(square))
    checkpoint = checkpoint_bytes(NAME, learner_of(square), SMALL, square, DATA)
    for suffix, content in ((".pth", whole), (".safetensors", checkpoint)):
        path = tmp_path / f"cut{suffix}"
        path.write_bytes(content[: len(content) // 2])
        assert "could not be read" in refused(path, square)
        path.write_bytes(b"")
        assert "could not be read" in refused(path, square)
        assert "does not exist" in refused(tmp_path / f"none{suffix}", square)


def rewritten(path: Path, checkpoint: bytes, header: dict[str, Any]) -> Path:
    path.write_bytes(to_safetensors(load(checkpoint), header))
    return path


def test_our_file_with_another_header_is_refused(square: Backbone, tmp_path: Path) -> None:
    checkpoint = checkpoint_bytes(NAME, learner_of(square), SMALL, square, DATA)
    path = tmp_path / "ours.safetensors"
    path.write_bytes(checkpoint)
    save_file(load_file(path), path)
    assert "does not say what it was trained with" in refused(path, square)
    save_file(load_file(path), path, {"clipad": "stand-in"})
    assert "does not say what it was trained with" in refused(path, square)
    header = {"method": "vcpclip", "config": {}, "backbone": "0" * 64, "data": DATA}
    assert "digest 000000000000" in refused(rewritten(path, checkpoint, header), square)
    header["backbone"] = square.digest
    with pytest.raises(ClipadError, match="blocks: found 24, expected at most 3"):
        read_checkpoint(NAME, rewritten(path, checkpoint, header), square)
    del header["data"]
    assert "does not say" in refused(rewritten(path, checkpoint, header), square)
    save_file(load_file(path), path, {"clipad": "[1]"})
    assert "does not say" in refused(path, square)
    header |= {"data": DATA}
    save_file(load_file(path), path, {"clipad": json.dumps(header)})
    assert "holds no digest of its content" in refused(path, square)


def test_our_file_with_a_changed_bit_is_refused_by_name(square: Backbone, tmp_path: Path) -> None:
    learner, path = learner_of(square), tmp_path / "ours.safetensors"
    checkpoint = checkpoint_bytes(NAME, learner, SMALL, square, DATA, "k" * 64)
    path.write_bytes(checkpoint)
    read = 0
    for _ in with_one_bit_changed(path, every=8 + int.from_bytes(checkpoint[:8], "little")):
        try:
            again, stored_config, data = read_checkpoint(NAME, path, square)
        except ClipadError as error:
            assert str(path) in str(error)
        else:  # 1e-05 became 1E-05
            assert equal(learner, again) and (stored_config, data) == (SMALL, DATA)
            read += 1
    assert read < 5
    read_checkpoint(NAME, path, square, "k" * 64)


def test_our_file_of_another_training_is_refused_where_one_is_asked_for(
    square: Backbone, tmp_path: Path
) -> None:
    path = tmp_path / "ours.safetensors"
    for key in ("k" * 64, None):
        path.write_bytes(checkpoint_bytes(NAME, learner_of(square), SMALL, square, DATA, key))
        read_checkpoint(NAME, path, square)
        with pytest.raises(ClipadError, match=f"{path} is of the training .* expected jjjjjjjj"):
            read_checkpoint(NAME, path, square, "j" * 64)


def test_our_file_on_other_weights_is_refused(
    square: Backbone, micro: Backbone, tmp_path: Path
) -> None:
    path = tmp_path / "ours.safetensors"
    path.write_bytes(checkpoint_bytes(NAME, learner_of(square), SMALL, square, DATA))
    assert "was trained on weights with the digest" in refused(path, micro)


def test_groups_are_flattened_by_name() -> None:
    nested = {"top": torch.zeros(1), "group": {"inner": torch.ones(2)}}
    assert list(flatten(nested, Path("x.pth"))) == ["top", "group/inner"]
