"""Loading a frozen CLIP: by file, by tag, by seed, and every way a file can be wrong."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from micro import MICRO
from safetensors.torch import load_file, save_file

from clipad_core.clip.backbone import Backbone, digest_tensors, load_backbone
from clipad_core.clip.open_clip import open_clip
from clipad_core.clip.published import MEAN, STD, check_pixels, find_published
from clipad_core.clip.text import encode_prompts
from clipad_core.errors import ClipadError


@pytest.fixture
def stored(tmp_path: Path, micro: Backbone) -> Path:
    """The weights of the fixture as a file with its config beside it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.create_model("clipad-micro", pretrained=None)
    state = {k: v.contiguous() for k, v in model.state_dict().items() if k != "attn_mask"}
    save_file(state, tmp_path / "clipad-micro.safetensors")
    (tmp_path / "clipad-micro.json").write_text(json.dumps(MICRO))
    return tmp_path / "clipad-micro.safetensors"


def prompt_embedding(backbone: Backbone) -> torch.Tensor:
    return encode_prompts(backbone.text, backbone.tokenizer, ["a photo of a bottle."])


def test_a_file_gives_the_same_model_as_the_seed_it_was_made_from(stored, micro) -> None:
    backbone = load_backbone("clipad-micro", stored)
    assert backbone.digest == micro.digest
    assert backbone.kind == "file" and micro.kind == "random"
    assert "clipad-micro.safetensors" in backbone.label and "seed 0" in micro.label
    assert prompt_embedding(backbone).equal(prompt_embedding(micro))
    assert backbone.image_size == 32 and backbone.temperature == pytest.approx(0.07)


def test_the_file_format_does_not_change_the_digest(stored: Path, micro: Backbone) -> None:
    state = load_file(stored)
    path = stored.with_suffix(".pt")
    torch.save({"state_dict": {f"module.{k}": v for k, v in reversed(state.items())}}, path)
    assert load_backbone("clipad-micro", path).digest == micro.digest


def test_one_changed_weight_changes_the_digest(stored: Path) -> None:
    state = load_file(stored)
    before = digest_tensors(state)
    state["visual.proj"][0, 0] += 1e-3
    assert digest_tensors(state) != before


@pytest.mark.parametrize("changes", [{"quick_gelu": True}, {"vision_cfg": {"head_width": 8}}])
def test_the_same_tensors_in_another_architecture_have_another_digest(
    stored: Path, micro: Backbone, changes: dict
) -> None:
    config = json.loads(json.dumps(MICRO))
    for name, value in changes.items():
        config[name] = {**config[name], **value} if isinstance(value, dict) else value
    path = stored.rename(stored.with_name("clipad-turned.safetensors"))
    (stored.parent / "clipad-turned.json").write_text(json.dumps(config))
    assert load_backbone("clipad-turned", path).digest != micro.digest


def test_weights_of_other_pixel_statistics_are_refused() -> None:
    with pytest.raises(ClipadError, match=r"mean \(0\.5, 0\.5, 0\.5\), expected CLIP's"):
        check_pixels(find_published("ViT-L-14", "laion2b_s32b_b82k"))
    for name, tag in [("ViT-B-16-plus-240", "laion400m_e31"), ("ViT-L-14-336", "openai")]:
        check_pixels(find_published(name, tag))


def test_the_stand_in_is_known_by_its_header_whatever_its_name(stored: Path) -> None:
    save_file(load_file(stored), stored, metadata={"clipad": "stand-in"})
    assert load_backbone("clipad-micro", stored).kind == "stand-in"


def test_stored_vocabulary_rows_return_to_their_place(stored: Path, micro: Backbone) -> None:
    state = load_file(stored)
    rows = micro.tokenizer(["a photo of a bottle."]).unique()
    state["token_embedding.weight"] = state["token_embedding.weight"][rows].contiguous()
    state["token_embedding.rows"] = rows
    save_file(state, stored)
    backbone = load_backbone("clipad-micro", stored)
    assert prompt_embedding(backbone).equal(prompt_embedding(micro))
    assert backbone.text.token_embedding[40000].abs().sum() == 0


def test_a_right_hash_is_accepted_and_a_wrong_one_names_both(stored: Path) -> None:
    digest = hashlib.sha256(stored.read_bytes()).hexdigest()
    load_backbone("clipad-micro", stored, sha256=digest[:12])
    with pytest.raises(ClipadError, match=f"{digest}, expected {'0' * 64}"):
        load_backbone("clipad-micro", stored, sha256="0" * 64)
    with pytest.raises(ClipadError, match="expected"):
        load_backbone("clipad-micro", stored, sha256=digest[:4])


def test_the_first_tensor_that_does_not_fit_is_named(stored: Path) -> None:
    state = load_file(stored)
    state["visual.proj"] = torch.zeros(3, 3)
    save_file(state, stored)
    with pytest.raises(ClipadError, match=r"visual\.proj is \(3, 3\), expected \(32, 16\)"):
        load_backbone("clipad-micro", stored)
    del state["visual.proj"]
    save_file(state, stored)
    with pytest.raises(ClipadError, match=r"visual\.proj is nothing"):
        load_backbone("clipad-micro", stored)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_damaged_file_is_named(tmp_path: Path, micro: Backbone, suffix: str) -> None:
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(b"no weights")
    with pytest.raises(ClipadError, match="could not be read"):
        load_backbone("clipad-micro", path)


def test_code_hidden_in_a_file_is_not_run(tmp_path: Path, micro: Backbone) -> None:
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"state_dict": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(ClipadError, match="could not be read"):
        load_backbone("clipad-micro", tmp_path / "trap.pt")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("ViT-Z-99", "random:0", "found 'ViT-Z-99', expected an open_clip architecture"),
        ("ViT-B-16", "laion9b", "found 'laion9b' for ViT-B-16, expected a published tag"),
        ("ViT-B-16", "missing.safetensors", "missing.safetensors does not exist"),
        ("ViT-B-16-SigLIP", "webli", "found 'ViT-B-16-SigLIP', whose image tower is one of timm"),
    ],
)
def test_unknown_names_are_refused(name: str, weights: str, message: str) -> None:
    with pytest.raises(ClipadError, match=message):
        load_backbone(name, weights)


def test_pixel_statistics_are_those_of_open_clip() -> None:
    assert (MEAN, STD) == (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ClipadError, match="precision: found 'float8'"):
        load_backbone("ViT-B-16", "random:0", precision="float8")
