"""Weights: what is published, OpenAI's archives, every way a file can be wrong, names for files."""

import gc
import hashlib
import json
import os
import pickle
import re
import shutil
import warnings
import weakref
import zipfile
from pathlib import Path

import huggingface_hub
import pytest
import torch
from micro import MICRO, add_config
from project import REPOSITORY, make_project
from safetensors.torch import save_file

from clipad_core.clip import published
from clipad_core.clip.backbone import Backbone, load_backbone
from clipad_core.clip.open_clip import open_clip
from clipad_core.clip.published import create_architecture, find_published, has_own_repository
from clipad_core.clip.state_dict import read_state_dict
from clipad_core.clip.torchscript import is_torchscript, read_torchscript
from clipad_core.errors import ClipadError
from clipad_harness.base import weights
from clipad_harness.base.settings import Weights, read_profile
from clipad_harness.cli.main import main

OPENAI = "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> torch.nn.Module:
    folder = tmp_path_factory.mktemp("config")
    add_config(folder, "clipad-micro", MICRO)
    add_config(folder, "clipad-micro-quickgelu", {**MICRO, "quick_gelu": True})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return create_architecture("clipad-micro-quickgelu").eval()


@pytest.fixture(scope="module")
def archive(model: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As OpenAI publishes: traced, weights in half precision, settings among the tensors."""
    traced = create_architecture("clipad-micro-quickgelu").eval()
    traced.load_state_dict(model.state_dict())
    for name, value in (("input_resolution", 32), ("context_length", 77), ("vocab_size", 49408)):
        traced.__dict__.pop(name, None)
        traced.register_buffer(name, torch.tensor(value))
    inputs = (torch.zeros(1, 3, 32, 32), torch.zeros(1, 77, dtype=torch.long))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.trace(traced, inputs, check_trace=False)
    path = tmp_path_factory.mktemp("archive") / "openai.pt"
    script.half().save(str(path))
    return path


@pytest.fixture
def stored(model: torch.nn.Module, tmp_path: Path) -> Path:
    path = tmp_path / "some clip.safetensors"
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    return path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = make_project(tmp_path)
    monkeypatch.setenv("CLIPAD_ROOT", str(root))
    return root


def rewrite(source: Path, target: Path, change) -> Path:
    """Save what a change makes of the tensors of a file."""
    state = {key: value.clone() for key, value in read_state_dict(source).tensors.items()}
    save_file(change(state), target)
    return target


def wrong(findings: list[weights.Finding]) -> dict[str, str]:
    return {finding.check: finding.result for finding in findings if finding.ok is False}


def test_what_is_published_is_read_from_open_clip() -> None:
    weights_entry = find_published("ViT-L-14-336-quickgelu", "openai")
    assert (weights_entry.sha256, weights_entry.quick_gelu) == (OPENAI, True)
    weights_entry = find_published("ViT-B-16-plus-240", "laion400m_e32")
    assert (weights_entry.sha256, weights_entry.quick_gelu) == ("699c4b84", False)


def test_a_tag_that_shares_its_copy_is_fetched_by_its_own_address(monkeypatch) -> None:
    e31, e32 = (find_published("ViT-B-16-plus-240", f"laion400m_e3{i}") for i in (1, 2))
    if e31.repository != e32.repository:
        pytest.skip("this open_clip lists a copy of each")
    assert has_own_repository(e31) and not has_own_repository(e32)
    fetched = []

    def offline(url: str) -> None:
        fetched.append(url)
        raise OSError("no network")

    monkeypatch.setattr(open_clip, "download_pretrained_from_url", offline)
    with pytest.raises(ClipadError, match=r"laion400m_e32\) is not on this machine .*no network"):
        load_backbone("ViT-B-16-plus-240", "laion400m_e32")
    assert fetched == [e32.url] and "699c4b84" in e32.url


def test_without_a_network_the_hub_is_asked_once_and_the_message_is_whole(
    monkeypatch, caplog
) -> None:
    urls, why = [], "no network: " + "x" * 300

    def offline(url: str, **_: object) -> None:
        urls.append(url)
        raise RuntimeError(why)

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", offline)
    monkeypatch.setattr(open_clip, "create_model", lambda *_, **__: pytest.fail("asked again"))
    with pytest.raises(ClipadError) as failure:
        load_backbone("ViT-B-16-plus-240", "laion400m_e31")
    message = str(failure.value)
    assert len(urls) == 1 and why in message and message.endswith("its SHA-256.")
    assert not caplog.records


def test_weights_that_are_here_are_read_without_a_network(monkeypatch, tmp_path: Path) -> None:
    sources = []

    def note(_name: str, pretrained: str) -> None:
        sources.append(pretrained)
        raise OSError("enough")

    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache", lambda *_: str(tmp_path / "weights.safetensors")
    )
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda *_, **__: 1 / 0)
    monkeypatch.setattr(open_clip, "create_model", note)
    with pytest.raises(ClipadError, match="enough"):
        load_backbone("ViT-B-16-plus-240", "laion400m_e31")
    assert sources == [str(tmp_path / "weights.safetensors")]


def test_an_archive_gives_the_tensors_that_torch_reads_from_it(archive: Path) -> None:
    assert is_torchscript(archive)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = torch.jit.load(str(archive)).state_dict()
    tensors = read_torchscript(archive)
    for key, value in expected.items():
        assert tensors[key].dtype == value.dtype and tensors[key].equal(value), key
    assert tensors["visual.proj"].dtype == torch.float16
    names = set(read_state_dict(archive).tensors)
    assert names == set(create_architecture("clipad-micro-quickgelu").state_dict())


def test_an_archive_loads_as_the_rounded_weights_it_holds(archive: Path, model) -> None:
    backbone = load_backbone("clipad-micro-quickgelu", archive)
    assert backbone.kind == "file"
    expected = model.state_dict()["visual.proj"].half().float()
    assert backbone.vision.proj.equal(expected) and backbone.vision.proj.dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "reduce"),
    [("os", "system"), ("torch.serialization", "load"), ("builtins", "exec")],
)
def test_code_hidden_in_an_archive_is_not_run(tmp_path: Path, name: str, reduce: str) -> None:
    path = tmp_path / "trap.pt"
    call = f"c{name}\n{reduce}\n(S'touch {tmp_path / 'sprung'}'\ntR.".encode()
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("trap/data.pkl", call)
        file.writestr("trap/constants.pkl", pickle.dumps(()))
    with pytest.raises(ClipadError, match="holds something else than tensors"):
        read_state_dict(path)
    assert not (tmp_path / "sprung").exists()


def test_an_archive_that_inflates_is_refused(archive: Path, tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(path, "w") as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry), zipfile.ZIP_DEFLATED)
    with pytest.raises(ClipadError, match="compressed"):
        read_state_dict(path)


def test_openais_weights_in_an_architecture_with_gelu_are_refused(archive: Path) -> None:
    with pytest.raises(ClipadError, match="expected clipad-micro-quickgelu"):
        load_backbone("clipad-micro", archive)
    with pytest.raises(ClipadError, match="`backbone: ViT-L-14-336-quickgelu`"):
        load_backbone("ViT-L-14-336", "openai")


def test_a_file_is_recognised_by_its_digest_not_by_its_name(stored: Path, monkeypatch) -> None:
    digest = hashlib.sha256(stored.read_bytes()).hexdigest()
    entry = published.Published("clipad-micro", "t1", digest[:8], False, "x/some-clip.pt", "")
    monkeypatch.setattr(published, "_all_published", lambda: iter([entry]))
    backbone = load_backbone("clipad-micro", stored)
    assert (backbone.kind, backbone.label) == ("published", "clipad-micro (t1)")
    with pytest.raises(ClipadError, match="trained with GELU"):
        load_backbone("clipad-micro-quickgelu", stored)
    damaged = stored.with_name("some-clip.pt")
    damaged.write_bytes(b"half of it")
    with pytest.raises(ClipadError, match=r"named like clipad-micro \(t1\) but has SHA-256"):
        load_backbone("clipad-micro", damaged)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {k: v for k, v in s.items() if k.startswith("visual.")}, "no text tower"),
        (lambda s: {k: v for k, v in s.items() if "visual" not in k}, "no image tower"),
        (lambda s: {"prompt": torch.zeros(1)}, r"no image tower and no text tower \(.*'prompt'\)"),
        (lambda s: {"vision_model.x": torch.zeros(1)}, "layout of Hugging Face transformers"),
        (lambda s: s | {"visual.proj": s["visual.proj"] / 0}, "visual.proj holds a value"),
    ],
)
def test_a_file_that_is_no_whole_clip_is_named(stored: Path, change, message: str) -> None:
    path = rewrite(stored, stored.with_name("other.safetensors"), change)
    with pytest.raises(ClipadError, match=message):
        load_backbone("clipad-micro", path)


def test_an_empty_file_and_one_of_another_architecture_are_named(stored: Path) -> None:
    empty = stored.with_name("empty.pt")
    empty.touch()
    with pytest.raises(ClipadError, match=r"empty\.pt could not be read \(EOFError\)"):
        load_backbone("clipad-micro", empty)
    stand_in = REPOSITORY / "data/weights/clipad-tiny.safetensors"
    with pytest.raises(ClipadError, match="does not fit the architecture"):
        load_backbone("ViT-B-16", stand_in)


def test_methods_share_a_backbone_until_its_file_is_written_anew(stored: Path) -> None:
    def shared() -> Backbone:
        settings = Weights("clipad-micro-quickgelu", str(stored), None, {})
        return weights.shared_backbone(settings, "float32", "cpu")

    first = shared()
    assert shared() is first
    rewrite(stored, stored, lambda s: s | {"visual.proj": s["visual.proj"] + 1e-3})
    os.utime(stored, ns=(0, stored.stat().st_mtime_ns + 1))  # however coarse the disk's clock is
    assert shared().digest != first.digest


def test_only_the_latest_backbones_stay_in_memory(micro: Backbone) -> None:
    drawn = [Weights("clipad-micro", f"random:{seed}", None, {}) for seed in range(9)]
    shared = [weakref.ref(weights.shared_backbone(named, "float32", "cpu")) for named in drawn]
    gc.collect()
    assert [seed for seed, backbone in enumerate(shared) if backbone() is not None] == [5, 6, 7, 8]


def test_a_check_names_all_that_is_wrong_at_once(archive: Path, stored: Path) -> None:
    assert not wrong(weights.inspect(archive, "clipad-micro-quickgelu"))
    results = {
        finding.check: finding.result
        for finding in weights.inspect(archive, "clipad-micro-quickgelu")
    }
    assert "TorchScript" in results["format"] and "float16 in" in results["numbers"]
    assert set(wrong(weights.inspect(archive, "ViT-B-16"))) == {"architecture", "activation"}
    assert set(wrong(weights.inspect(stored, None))) == {"backbone"}
    assert set(wrong(weights.inspect(stored, "clipad-micro", "0" * 64))) == {"SHA-256"}
    assert set(wrong(weights.inspect(stored, "ViT-Z"))) == {"backbone"}


def test_what_a_file_does_not_tell_is_not_in_order(project, archive, stored, capsys) -> None:
    def marks(file: Path, backbone: str) -> dict[str, str]:
        assert main(["weights", "check", str(file), "--backbone", backbone]) == 0
        lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
        return {words[1]: words[0] for words in lines}

    assert marks(archive, "clipad-micro-quickgelu")["activation"] == "ok"
    unknown = marks(stored, "clipad-micro")
    assert unknown["activation"] == unknown["published"] == "?"
    assert unknown["architecture"] == unknown["SHA-256"] == "ok"


def test_a_check_finds_whatever_stops_loading(stored: Path) -> None:
    changes = [
        lambda s: s | {"visual.proj": s["visual.proj"].int()},
        lambda s: s | {"visual.proj": s["visual.proj"].to(torch.float8_e4m3fn)},
        lambda s: s | {"token_embedding.rows": torch.arange(3)},
        lambda s: {"x": torch.zeros(1)},
    ]
    for change in changes:
        path = rewrite(stored, stored.with_name("other.safetensors"), change)
        with pytest.raises(ClipadError) as caught:
            load_backbone("clipad-micro", path)
        assert list(wrong(weights.inspect(path, "clipad-micro")).values()) == [str(caught.value)]


def test_a_folder_means_the_one_file_in_it(project: Path, stored: Path, capsys) -> None:
    folder = project / "data" / "weights" / "own"
    folder.mkdir()
    shutil.copy(stored, folder / "model.bin")
    assert main(["weights", "check", str(folder), "--backbone", "clipad-micro"]) == 0
    requested = Weights("clipad-micro", "data/weights/own", None, {})
    assert weights.resolve(project, requested).weights == str(folder / "model.bin")
    shutil.copy(stored, folder / "other.bin")
    assert main(["weights", "check", str(folder), "--backbone", "clipad-micro"]) == 1
    assert "expected one (model.bin, other.bin)" in capsys.readouterr().err


def test_a_damaged_file_of_the_hubs_cache_is_found_by_its_name(stored: Path) -> None:
    blob = stored.with_name(hashlib.sha256(stored.read_bytes()).hexdigest())
    link = stored.with_name("open_clip_model.safetensors")
    shutil.copy(stored, blob)
    link.symlink_to(blob)
    assert not wrong(weights.inspect(link, "clipad-micro"))
    blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    assert set(wrong(weights.inspect(link, "clipad-micro"))) == {"SHA-256"}


def test_the_list_says_what_is_here(project: Path, monkeypatch, tmp_path, capsys) -> None:
    repositories = []

    def cached(repository: str, name: str) -> str | None:
        repositories.append(repository)
        return str(project / "params.yaml") if "plus_clip" in repository else None

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cached)
    monkeypatch.setattr(weights, "CLIP_CACHE", tmp_path)
    (tmp_path / "ViT-L-14-336px.pt").write_bytes(b"x")
    assert main(["weights", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {" ".join(line.split()[:2]): line for line in lines}
    assert rows["ViT-B-16-plus-240 laion400m_e31"].endswith("params.yaml")
    assert rows["ViT-B-16-plus-240 laion400m_e32"].endswith(" no")
    assert rows["ViT-L-14-336-quickgelu openai"].endswith("ViT-L-14-336px.pt")
    assert rows["clipad-tiny stand-in"].endswith("clipad-tiny.safetensors")


@pytest.mark.parametrize("how", [[], ["--link"]])
def test_a_registered_file_is_a_name_in_params(project, archive, how, capsys) -> None:
    words = ["weights", "add", str(archive), "--name", "mine", *how]
    assert main([*words, "--backbone", "clipad-micro-quickgelu"]) == 0
    assert "weights: mine" in capsys.readouterr().out
    params = project / "params.yaml"
    text = params.read_text().replace("backbone: clipad-tiny", "backbone: clipad-micro-quickgelu")
    text = re.sub("weights: data.*", "weights: mine", text)
    params.write_text(re.sub("sha256: .*", "sha256: null", text))
    resolved = weights.resolve(project, read_profile(project).weights["winclip"])
    assert resolved.sha256 == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert load_backbone(resolved.backbone, resolved.weights, resolved.sha256).kind == "file"
    assert Path(resolved.weights).is_symlink() == bool(how)
    assert main(["weights", "check", "mine"]) == 0
    params.write_text(params.read_text().replace("clipad-micro-quickgelu", "clipad-tiny"))
    with pytest.raises(ClipadError, match="which the weights 'mine' are registered for"):
        weights.resolve(project, read_profile(project).weights["winclip"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["check", "nowhere.pt"], "expected a file, a registered name, or BACKBONE/TAG"),
        (["check", "ViT-B-16/laion9b"], "found 'laion9b' for ViT-B-16"),
        (["check", "FILE", "--sha256", "00000000"], "SHA-256 wrong"),
        (["add", "FILE", "--name", "x"], "--backbone: found none"),
        (["add", "FILE", "--name", "../x", "--backbone", "clipad-micro"], "--name: found '../x'"),
        (["add", "FILE", "--name", "x", "--backbone", "ViT-B-16"], "does not fit"),
        (["add", "nowhere.pt", "--name", "x"], "nowhere.pt does not exist"),
    ],
)
def test_a_wrong_request_is_one_message(project, stored, words, message, capsys) -> None:
    assert main(["weights", *(str(stored) if w == "FILE" else w for w in words)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("clipad: ") and error.count("\n") == 1 and message in error
    assert not list((project / "data" / "weights").glob("x*"))


def test_a_name_is_given_once_and_a_broken_record_is_named(project, stored, capsys) -> None:
    words = ["weights", "add", str(stored), "--name", "mine", "--backbone", "clipad-micro"]
    assert main(words) == 0
    assert main(words) == 1
    assert "found 'mine' in" in capsys.readouterr().err
    (project / "data/weights/mine.record.json").write_text(json.dumps({"name": "mine"}))
    with pytest.raises(ClipadError, match=r"mine\.record\.json: found no record"):
        weights.read_registered(project)


def test_published_weights_that_are_not_here_say_where_to_get_them(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(weights, "CLIP_CACHE", tmp_path)
    assert main(["weights", "check", "ViT-L-14-336-quickgelu/openai"]) == 1
    assert (
        f"is not on this machine. Get https://openaipublic.azureedge.net/clip/models/{OPENAI}"
        in (capsys.readouterr().err)
    )


def test_a_backbone_of_an_archive_sees_the_same_as_open_clip(archive: Path, model) -> None:
    from clipad_core.clip.text import encode_prompts

    backbone: Backbone = load_backbone("clipad-micro-quickgelu", archive)
    rounded = create_architecture("clipad-micro-quickgelu").eval()
    rounded.load_state_dict({k: v.half().float() for k, v in model.state_dict().items()})
    with torch.no_grad():
        expected = rounded.encode_text(backbone.tokenizer(["a photo of a bottle."]))
    seen = encode_prompts(backbone.text, backbone.tokenizer, ["a photo of a bottle."])
    torch.testing.assert_close(seen, expected, atol=1e-5, rtol=1e-4)
