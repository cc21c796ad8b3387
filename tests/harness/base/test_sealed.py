"""What is kept under a key: read as it was written, or not at all."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from clipad_core.errors import ClipadError
from clipad_harness.base import sealed
from clipad_harness.experiments import shards

KEY, OTHER_KEY = "1" * 64, "2" * 64
TENSORS = {
    "image_embedding": torch.arange(6.0).reshape(1, 6),
    "tokens.2": torch.arange(12.0).reshape(2, 6).bfloat16(),
    "corners": torch.tensor([[1, 2], [3, 4]]),
    "nothing": torch.zeros(0, 3),
    "one": torch.tensor(7),
}
# What is written, and what reads and writes it.
KINDS: dict[str, tuple[Any, Callable, Callable]] = {
    "json": ([{"total": 0.1, "dice": 1e-05}, {"total": 0.05}], sealed.write_json, sealed.read_json),
    "state": (TENSORS, sealed.write_state, sealed.read_state),
    "tensors": (TENSORS, sealed.write_tensors, sealed.read_tensors),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def same(content: Any, expected: Any) -> bool:
    if not isinstance(content, dict):
        return bool(content == expected)
    return content.keys() == expected.keys() and all(
        torch.equal(content[name], expected[name]) and content[name].dtype == expected[name].dtype
        for name in content
    )


@every_kind
def test_what_was_written_is_read(tmp_path: Path, kind: str) -> None:
    content, write, read = KINDS[kind]
    path = tmp_path / "folder" / "file"
    write(path, KEY, content)
    assert same(read(path, KEY), content)
    before = path.read_bytes()
    write(path, KEY, content)
    assert path.read_bytes() == before


@every_kind
def test_any_changed_bit_is_found(tmp_path: Path, kind: str) -> None:
    content, write, read = KINDS[kind]
    path = tmp_path / "file"
    write(path, KEY, content)
    whole, survived = path.read_bytes(), []
    for place in range(len(whole)):
        for bit in range(8):
            changed = bytearray(whole)
            changed[place] ^= 1 << bit
            path.unlink()
            path.write_bytes(changed)
            value = read(path, KEY)
            if value is not None:
                assert same(value, content)
                survived.append(chr(changed[place]))
    assert survived in ([], ["E"])  # 1E-05 is 1e-05
    path.write_bytes(whole)
    assert same(read(path, KEY), content)


@every_kind
def test_a_file_in_the_place_of_another_is_not_read(tmp_path: Path, kind: str) -> None:
    content, write, read = KINDS[kind]
    write(tmp_path / "file", OTHER_KEY, content)
    assert read(tmp_path / "file", KEY) is None


@every_kind
@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"key": 1}', b"\xff\xfe", b"\n" * 99])
def test_a_foreign_file_or_none_is_not_read(tmp_path: Path, kind: str, content: bytes) -> None:
    read, path = KINDS[kind][2], tmp_path / "file"
    assert read(path, KEY) is None
    path.write_bytes(content)
    assert read(path, KEY) is None


@every_kind
def test_a_file_cut_short_is_not_read(tmp_path: Path, kind: str) -> None:
    content, write, read = KINDS[kind]
    path = tmp_path / "file"
    write(path, KEY, content)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.unlink()
        path.write_bytes(whole[:length])
        assert read(path, KEY) is None


def test_some_tensors_are_read_and_compared_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    sealed.write_tensors(path, KEY, TENSORS)
    tensors = sealed.read_tensors(path, KEY, ["tokens.2", "one"])
    assert tensors is not None and list(tensors) == ["tokens.2", "one"]
    assert sealed.read_tensors(path, KEY, ["tokens.9"]) is None
    plain = load_file(path)
    with safe_open(path, "pt") as file:
        seal = file.metadata()
    plain["corners"] += 1
    path.unlink()
    save_file(plain, path, seal)
    assert sealed.read_tensors(path, KEY, ["corners"]) is None
    assert sealed.read_tensors(path, KEY) is None
    assert sealed.read_tensors(path, KEY, ["tokens.2", "one"]) is not None
    del plain["corners"]
    save_file(plain, path, seal)
    assert sealed.read_tensors(path, KEY, ["one"]) is None


def test_what_was_read_does_not_change_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    sealed.write_tensors(path, KEY, TENSORS)
    tensors = sealed.read_tensors(path, KEY)
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert tensors is not None and same(tensors, TENSORS)


@every_kind
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, kind: str) -> None:
    content, write, _ = KINDS[kind]
    (tmp_path / "folder").write_text("a file")
    with pytest.raises(ClipadError, match="folder: found something that is no folder"):
        write(tmp_path / "folder" / "file", KEY, content)


@pytest.mark.parametrize("content", [{}, [], None, [{}, 1], [{"total": "much"}], [{"total": None}]])
def test_whole_content_of_another_kind_is_not_read(tmp_path: Path, content: Any) -> None:
    path = sealed.write_json(tmp_path / "file", KEY, content)
    assert sealed.read_json(path, KEY) == content
    kind = list[dict[str, float]]
    assert sealed.read_json(path, KEY, kind) == (content if content == [] else None)


@pytest.mark.parametrize("content", [{}, {"key": KEY, "values": {}}, {"values": {}}, [], "x"])
def test_a_shard_of_another_kind_is_computed_again(tmp_path: Path, content: Any, capsys) -> None:
    record = shards.keep_record(tmp_path, KEY, {"image_auroc": 0.5}, ["a.png"])
    [path] = tmp_path.rglob("*.json")
    before = path.read_bytes()
    sealed.write_json(path, KEY, content)
    assert shards.read_record(tmp_path, KEY) is None
    assert "damaged" in capsys.readouterr().err
    assert shards.keep_record(tmp_path, KEY, {"image_auroc": 0.5}, ["a.png"]) == record
    assert path.read_bytes() == before and shards.read_record(tmp_path, KEY) == record
