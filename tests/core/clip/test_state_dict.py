"""Files of weights as people have them: wrapped, prefixed, renamed, in folders, damaged, or no weights."""

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from micro import MICRO
from safetensors.torch import save_file
from torch import Tensor

from clipad_core.clip.backbone import Backbone, load_backbone
from clipad_core.errors import LONGEST_MESSAGE, ClipadError

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state(model: torch.nn.Module) -> State:
    return {name: value.contiguous() for name, value in model.state_dict().items()}


def saved(path: Path, content: object, **options: bool) -> Path:
    torch.save(content, path, **options)
    return path


def stored(path: Path, tensors: State) -> Path:
    save_file(tensors, path)
    return path


def below(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": value for name, value in state.items()}


def refused(path: Path) -> str:
    with pytest.raises(ClipadError) as caught:
        load_backbone("clipad-micro", path)
    message = str(caught.value)
    assert message.isprintable() and len(message) <= LONGEST_MESSAGE
    return message


TRAINING = {
    "epoch": 3,
    "optimizer": {"state": {0: {"step": torch.zeros(())}}, "param_groups": [{"lr": 0.1}]},
    "rng_state": torch.zeros(8, dtype=torch.uint8),
}
READABLE: dict[str, Callable[[Path, State], Path]] = {
    "below model": lambda p, s: saved(p / "w.pt", {**TRAINING, "model": s}),
    "below model_state_dict": lambda p, s: saved(p / "w.pt", {"model_state_dict": s}),
    "two deep": lambda p, s: saved(p / "w.pt", {"state_dict": {"model": s}}),
    "model. before names": lambda p, s: saved(p / "w.pt", below("model.", s)),
    "module. of module.": lambda p, s: saved(p / "w.pt", {"model": below("module.module.", s)}),
    "compiled": lambda p, s: stored(p / "w.safetensors", below("_orig_mod.", s)),
    "safetensors as pt": lambda p, s: stored(p / "w.pt", s),
    "safetensors as bin": lambda p, s: stored(p / "w.bin", s),
    "without a suffix": lambda p, s: stored(p / "weights", s),
    "torch as safetensors": lambda p, s: saved(p / "w.safetensors", s),
    "before zip": lambda p, s: saved(p / "w.pt", s, _use_new_zipfile_serialization=False),
    "parameters": lambda p, s: saved(
        p / "w.pt", {name: torch.nn.Parameter(value) for name, value in s.items()}
    ),
    "double precision": lambda p, s: saved(p / "w.pt", {n: v.double() for n, v in s.items()}),
    "with the mask": lambda p, s: saved(p / "w.pt", {**s, "attn_mask": torch.zeros(77, 77)}),
    "a folder": lambda p, s: stored(p / "w.safetensors", s).parent,
    "a folder of the hub": lambda p, s: (
        stored(p / "model.safetensors", {"text_model.x": torch.zeros(1)}),
        stored(p / "open_clip_model.safetensors", s).parent,
    )[1],
}


@pytest.mark.parametrize("form", READABLE)
def test_weights_are_read_where_only_one_reading_is_possible(
    tmp_path: Path, micro: Backbone, state: State, form: str
) -> None:
    path = READABLE[form](tmp_path, state)
    assert load_backbone("clipad-micro", path).digest == micro.digest


def several(path: Path, state: State) -> Path:
    stored(path / "a.safetensors", {"x": torch.zeros(1)})
    return saved(path / "b.pt", state).parent


AMBIGUOUS: dict[str, tuple[Callable[[Path, State], Path], str]] = {
    "an average beside": (
        lambda p, s: saved(p / "w.pt", {"model": s, "ema": {n: v + 1 for n, v in s.items()}}),
        "several state dicts ('model', 'ema')",
    ),
    "two towers": (
        lambda p, s: saved(p / "w.pt", {**below("student.", s), **below("teacher.", s)}),
        "several image towers, below 'student', 'teacher'",
    ),
    "a name twice": (
        lambda p, s: saved(p / "w.pt", {**below("module.", s), "logit_scale": torch.zeros(())}),
        "with and without 'module' before the same name",
    ),
    "two files": (
        several,
        "a folder with 2 files of weights in it, expected one (a.safetensors, b.pt)",
    ),
    "an empty folder": (lambda p, s: p, "a folder with no files of weights"),
}


@pytest.mark.parametrize("form", AMBIGUOUS)
def test_weights_that_could_be_read_in_two_ways_are_refused(
    tmp_path: Path, micro: Backbone, state: State, form: str
) -> None:
    make, message = AMBIGUOUS[form]
    assert message in refused(make(tmp_path, state))


FEW = torch.arange(10)


def table(rows: Tensor, vectors: Tensor | None = None) -> State:
    vectors = torch.zeros(10, 32) if vectors is None else vectors
    return {"token_embedding.rows": rows, "token_embedding.weight": vectors}


PROJ = "visual.proj"
DEGENERATE: dict[str, tuple[Callable[[State], State], str]] = {
    "float8": (lambda s: {PROJ: s[PROJ].to(torch.float8_e4m3fn)}, "is in float8_e4m3fn"),
    "complex": (lambda s: {PROJ: s[PROJ].to(torch.complex64)}, "is in complex64"),
    "whole numbers": (lambda s: {PROJ: s[PROJ].int()}, "is in torch.int32"),
    "sparse": (lambda s: {PROJ: s[PROJ].to_sparse()}, "is sparse"),
    "sparse rows": (lambda s: {PROJ: s[PROJ].to_sparse_csr()}, "is sparse"),
    "without values": (lambda s: {PROJ: s[PROJ].to("meta")}, "has no values"),
    "quantised": (
        lambda s: {PROJ: torch.quantize_per_tensor(s[PROJ], 0.1, 0, torch.qint8)},
        "is in qint8",
    ),
    "empty": (lambda s: {PROJ: torch.zeros(0)}, "visual.proj is (0,), expected (32, 16)"),
    "repeated without end": (
        lambda s: {PROJ: torch.zeros(1).expand(10**9, 1000)},
        "visual.proj is (1000000000, 1000)",
    ),
    "too large for float32": (
        lambda s: {PROJ: s[PROJ].double() + 1e300},
        "a value that is not finite",
    ),
    "a name of two lines": (lambda s: {"a\nb": torch.zeros(1)}, "'a\\nb' has a name"),
    "a long name": (lambda s: {"x" * 10**5: torch.zeros(1)}, "expected nothing"),
    "too few row numbers": (lambda s: table(FEW[:5]), "one from 0 to 49407 for each of the 10"),
    "too many row numbers": (lambda s: table(FEW, torch.zeros(5, 32)), "for each of the 5 stored"),
    "a huge row number": (lambda s: table(FEW + 10**9), "one from 0 to 49407"),
    "a negative row number": (lambda s: table(FEW - 1), "one from 0 to 49407"),
    "a row number twice": (lambda s: table(FEW * 0), "another one from 0 to 49407"),
    "broken row numbers": (lambda s: table(FEW / 2), "in torch.float32"),
    "float8 row numbers": (
        lambda s: table(FEW.float().to(torch.float8_e4m3fn)),
        "is in float8_e4m3fn",
    ),
    "row numbers in a table": (lambda s: table(FEW[None]), "(1, 10) numbers"),
    "no row": (lambda s: table(FEW[:0], torch.zeros(0, 32)), "(0,) numbers"),
    "rows of no width": (lambda s: table(FEW, torch.tensor(1.0)), "token_embedding.weight is ()"),
}


@pytest.mark.filterwarnings("ignore:.*(Sparse CSR|deprecated)")
@pytest.mark.parametrize("form", DEGENERATE)
def test_tensors_that_are_no_weights_are_one_message(
    tmp_path: Path, micro: Backbone, state: State, form: str
) -> None:
    change, message = DEGENERATE[form]
    assert message in refused(saved(tmp_path / "w.pt", {**state, **change(state)}))


def test_rows_of_a_vocabulary_without_their_table_are_named(
    tmp_path: Path, micro: Backbone, state: State
) -> None:
    lone = {name: value for name, value in state.items() if name != "token_embedding.weight"}
    path = saved(tmp_path / "w.pt", {**lone, "token_embedding.rows": FEW})
    assert "token_embedding.weight is nothing, expected (49408, 32)" in refused(path)


def zipped(path: Path, *names: str, packed: bool = False, content: bytes = b"N.") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if packed else 0) as archive:
        for name in names:
            archive.writestr(name, content)
    return path


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def with_a_broken_name(path: Path) -> Path:
    zipped(path, "ä/data.pkl", "ä/constants.pkl")
    return written(path, path.read_bytes().replace("ä".encode(), b"\xff\xfe"))


ENTRIES = ("x/data.pkl", "x/constants.pkl")
UNREADABLE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "an archive whose tree inflates": (
        lambda p: zipped(p, *ENTRIES, packed=True, content=b"(" * 10**6),
        "compressed",
    ),
    "a state dict that inflates": (
        lambda p: zipped(p, "x/data.pkl", packed=True, content=pickle.dumps({})),
        "compressed",
    ),
    "an archive with two trees": (lambda p: zipped(p, *ENTRIES, "y/data.pkl"), "2 trees"),
    "an archive without a tree": (lambda p: zipped(p, "x/constants.pkl"), "no trees of modules"),
    "an archive with a broken name": (with_a_broken_name, "could not be read ('utf-8'"),
    "a zip of something": (lambda p: zipped(p, "clip.safetensors"), "that torch did not write"),
    "a pointer": (lambda p: written(p, b"version https://git-lfs.github.com/spec/v1\n"), "Git LFS"),
    "a page": (lambda p: written(p, b"<!DOCTYPE html>"), "a web page"),
    "a packed file": (lambda p: written(p, b"\x1f\x8b\x08"), "packed by gzip"),
    "a list": (lambda p: saved(p, [torch.zeros(1)]), "it holds a list"),
    "nothing": (lambda p: saved(p, None), "it holds a NoneType"),
    "a cut header": (lambda p: written(p, b"\x20" + bytes(7) + b'{"a": '), "could not be read"),
}


@pytest.mark.parametrize("form", UNREADABLE)
@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_a_file_that_is_no_weights_is_named_for_what_it_is(
    tmp_path: Path, micro: Backbone, form: str, name: str
) -> None:
    make, message = UNREADABLE[form]
    assert message in refused(make(tmp_path / name))


def test_a_dictionary_inside_itself_is_read_to_its_end(
    tmp_path: Path, micro: Backbone, state: State
) -> None:
    content: dict[str, object] = {"model": state}
    content["self"] = content
    path = saved(tmp_path / "w.pt", content)
    assert load_backbone("clipad-micro", path).digest == micro.digest


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "is no config of an architecture"),
        (json.dumps({**MICRO, "embed_dim": "wide"}), "open_clip cannot build clipad-odd"),
        (json.dumps([MICRO]), "found 'clipad-odd', expected an open_clip architecture"),
    ],
)
def test_a_broken_config_beside_the_weights_is_named(
    tmp_path: Path, micro: Backbone, state: State, config: str, message: str, monkeypatch
) -> None:
    from clipad_core.clip.open_clip import open_clip

    for known in ("_MODEL_CONFIG_PATHS", "_MODEL_CONFIGS"):
        monkeypatch.setattr(open_clip.factory, known, getattr(open_clip.factory, known).copy())
    (tmp_path / "clipad-odd.json").write_text(config)
    with pytest.raises(ClipadError, match=message):
        load_backbone("clipad-odd", stored(tmp_path / "w.safetensors", state))


def test_a_tag_of_open_clips_wins_over_a_folder_of_its_name(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "laion9b").mkdir()
    (tmp_path / "openai").mkdir()
    with pytest.raises(ClipadError, match=r"laion9b is a folder with no files of weights"):
        load_backbone("ViT-L-14-336", "laion9b")
    with pytest.raises(ClipadError, match="`backbone: ViT-L-14-336-quickgelu`"):
        load_backbone("ViT-L-14-336", "openai")
