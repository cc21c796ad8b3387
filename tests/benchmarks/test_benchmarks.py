"""Every benchmark fits the code: what it imports is there, its words are read, its parts run small."""

import ast
import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from project import REPOSITORY

from benchmarks import drawing, metrics, metrics_sides, reading, winclip_sides
from clipad_core.clip.backbone import Backbone
from clipad_core.methods.method import Category
from clipad_core.methods.winclip.detector import METHOD

NAMES = sorted(path.stem for path in REPOSITORY.glob("benchmarks/*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_what_a_benchmark_imports_of_clipad_is_there(name: str) -> None:
    """Also what it imports late, within functions; the libraries of its peers are not asked for."""
    tree = ast.parse((REPOSITORY / f"benchmarks/{name}.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("clipad_"):
            for alias in node.names:
                if not hasattr(importlib.import_module(node.module), alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_can_be_imported_and_explains_its_words(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    if hasattr(module, "argparse"):
        monkeypatch.setattr("sys.argv", [name, "--help"])
        with pytest.raises(SystemExit, match="^0$"):
            module.main()
        said = " ".join(capsys.readouterr().out.split())
        assert (module.__doc__ or "").partition("\n")[0] in said


def test_the_sides_of_the_metrics_give_the_same_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_sides, "N_IMAGES", 6)
    monkeypatch.setattr(metrics_sides, "N_NORMAL", 2)
    monkeypatch.setattr(metrics_sides, "GRID_PER_SIZE", {48: 6})
    for name, array in zip(("maps", "masks"), metrics_sides.draw(48), strict=True):
        np.save(tmp_path / f"{name}.npy", array)
    sides = {
        name: metrics_sides.measure_side(side, tmp_path)["values"]
        for name, side in metrics_sides.SIDES.items()
        if not name.startswith("anomalib")
    }
    for comparison in metrics.COMPARISONS:
        peer = sides.get(comparison.peer, {})
        own = sides[comparison.clipad]
        assert {name: own[name] for name in peer} == pytest.approx(peer, abs=1e-12)
    assert set(sides["clipad_four"]) == {"pixel_auroc", "pixel_ap", "pixel_f1max", "aupro"}


def test_every_part_of_the_drawing_program_is_drawn() -> None:
    for part in (drawing.pairs, drawing.datasets_in_memory, drawing.datasets_to_disk):
        assert part(48) > 0


def test_clipads_side_of_winclip_gives_what_the_detector_gives(
    micro: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def images(count: int, seed: int) -> torch.Tensor:
        return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))

    monkeypatch.setattr(winclip_sides, "ARCHITECTURE", "clipad-micro")
    monkeypatch.setattr(winclip_sides, "images", images)
    side = winclip_sides.Clipad(Path("random:0"), "float32", "cpu")
    winclip_sides.answer(side, {"do": "forget"})
    winclip_sides.answer(side, {"do": "set_up", "name": "nut"})
    for k_shot in (0, 2):
        winclip_sides.answer(side, {"do": "refer", "k_shot": k_shot})
        values = winclip_sides.answer(side, {"do": "detect", "batch": 3})["values"]
        references = None
        if k_shot:
            recipe = METHOD.references.recipe(side.config)
            references = METHOD.encode(micro, images(k_shot, seed=99), recipe)
        known = METHOD.know(micro, side.config, Category("nut"), references, None)
        features = METHOD.encode(micro, images(3, seed=7), METHOD.recipe(side.config, k_shot))
        expected = METHOD.detect(micro, side.config, known, features)
        assert values[:3] == pytest.approx(expected.image_score.tolist(), abs=1e-6)
        assert len(values) == 6
    cost = winclip_sides.answer(side, {"do": "variants", "batch_of": 2})["values"]
    assert set(cost) == {"first", "others"}


def test_reading_is_timed_by_threads_and_by_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reading, "IMAGES", 4)
    monkeypatch.setattr(reading, "TURNS", 1)
    monkeypatch.setattr(reading, "SECONDS_TO_COUNT", 0.1)
    monkeypatch.setattr(reading, "cores", lambda: 1)
    for place in range(3):
        pixels = np.full((40, 30, 3), 80 * place, dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{place}.png")
    assert reading.view_of(16, tmp_path / "1.png").shape == (1, 3, 16, 16)
    reading.main([str(tmp_path), "--size", "16"])
    said = capsys.readouterr().out
    assert said.startswith("3 images to 16 px") and "\n| 2 | " in said and "% of a thread's" in said
    with pytest.raises(SystemExit):
        reading.main([str(tmp_path / "empty")])
    assert "found no image" in capsys.readouterr().err
