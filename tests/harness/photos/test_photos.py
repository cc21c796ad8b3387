"""Your own photos: what is found, read, scored and written, and every way it can be wrong."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import Browser, find_chromium
from bs4 import BeautifulSoup
from deep_files import pgm
from PIL import Image
from project import LEARNED, REPOSITORY, WEIGHTS, make_project, variants_of

import clipad_core
from clipad_core import read_image
from clipad_core.clip.backbone import Backbone, load_backbone
from clipad_core.clip.image_file import photo_formats
from clipad_core.detection import Detection
from clipad_core.errors import ClipadError
from clipad_core.methods import find_method
from clipad_core.methods.anomalyclip import checkpoint as anomalyclip_checkpoint
from clipad_core.methods.checkpoint import checkpoint_bytes
from clipad_core.methods.method import Detector
from clipad_core.methods.vcpclip import checkpoint as vcpclip_checkpoint
from clipad_core.refinement import GuidedFilter, RefinedDetection
from clipad_harness.base.files import alone
from clipad_harness.cli.main import main
from clipad_harness.photos import detectors, photos, scoring
from clipad_harness.photos.detectors import (
    check_request,
    choose_weights,
    find_learner,
    open_detector,
)
from clipad_harness.photos.figures import contact, scores_figure
from clipad_harness.photos.page import resize_map, strongest, write_page
from clipad_harness.photos.scoring import PhotoScorer, Scored, Threshold
from clipad_harness.site.page import network_loads

OFFICIAL = {"anomalyclip": anomalyclip_checkpoint, "vcpclip": vcpclip_checkpoint}
NASTY = "<img src=x onerror=alert(1)> & 'quote\".png"
NOT_UTF8 = os.fsdecode(b"caf\xe9 1.png")


def draw(path: Path, size: tuple[int, int] = (40, 40), seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def brightness(images) -> Detection:
    """A detector that a test can foresee: the mean of red, and red itself."""
    assert len({image.shape for image in images}) == 1
    maps = torch.stack([torch.from_numpy(image[..., 0].astype(np.float32)) for image in images])
    if any(not image.any() for image in images):
        raise ClipadError("window embeddings: all windows say the same.")
    return Detection(maps.mean(dim=(1, 2)), maps)


def score_all(detect, paths: list[Path], folder: Path) -> list[Scored]:
    scorer = PhotoScorer(lambda: detect, "settings", folder / "kept")
    return scoring.score_photos(scorer, paths, quiet=True)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("photos"))


@pytest.fixture
def inside(project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Within reach of a project's params.yaml, in a folder with photos."""
    monkeypatch.setenv("CLIPAD_ROOT", str(project))
    monkeypatch.chdir(tmp_path)
    for i, name in enumerate(["a.png", "b/b 1.jpg", "b/c.bmp"]):
        draw(tmp_path / "in" / name, seed=i)
    return tmp_path


@pytest.fixture
def quick(inside: Path, micro: Backbone, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As `inside`, with a detector that a test can foresee and no weights to load."""
    monkeypatch.setattr(detectors, "load_backbone", lambda *_: micro)
    monkeypatch.setattr(detectors, "open_detector", lambda *_, **__: brightness)
    return inside


def score(*words: str) -> int:
    return main(["score", *words, "--class-name", "hex nut", "--out", "out", "--quiet"])


def rows(path: Path = Path("out/scores.csv")) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_folders_files_and_patterns_are_found_once_and_in_order(inside: Path) -> None:
    (inside / "in/notes.txt").write_text("no photo")
    (inside / "in/.hidden.png").write_bytes(b"")
    paths = photos.find_photos(["in/b/*.bmp", "in", "in/a.png", "in"]).photos
    assert [str(path) for path in paths] == ["in/b/c.bmp", "in/a.png", "in/b/b 1.jpg"]
    draw(inside / "in/[1].png")
    assert photos.find_photos(["in/[1].png"]).photos == [Path("in/[1].png")]
    assert photos.find_photos(["in/**/*.jpg"]).photos == [Path("in/b/b 1.jpg")]
    assert len(photos.find_photos(["in", "in/b/*", "./in/../in/b", "in/a.png"]).photos) == 4


@pytest.mark.parametrize(
    "pattern", ["in/**/*.png", "**/*.png", "in/**", "in/**/b/../**/*.png", "in/*", "in/*/"]
)
def test_a_pattern_follows_every_linked_folder_once(inside: Path, pattern: str) -> None:
    for link in ("in/1", "in/2", "in/b/3"):
        (inside / link).symlink_to(inside / "in")
    draw(inside / "elsewhere/linked.png")
    (inside / "in/elsewhere").symlink_to(inside / "elsewhere")
    names = [path.name for path in photos.find_photos([pattern]).photos]
    assert len(names) == len(set(names)) and {"a.png", "linked.png"} <= set(names)


def test_patterns_match_what_a_search_of_the_folder_would_take(inside: Path) -> None:
    for name in ("in/@eaDir/a.png", "in/.hidden/a.png", "in/out/a.png", "in/b/deep/d.png"):
        draw(inside / name)

    def names(pattern: str) -> list[str]:
        found = photos.find_photos([pattern], skip=Path("in/out")).photos
        return [path.relative_to("in").as_posix() for path in found]

    assert names("in/**/*.png") == ["a.png", "b/deep/d.png"]
    assert names("in/**/*.bmp") == names("in/?/*.bmp") == names("in/**/b/*.bmp") == ["b/c.bmp"]
    assert names("in/*/") == names("in/*/**") == ["b/b 1.jpg", "b/c.bmp", "b/deep/d.png"]
    assert names("in/@eaDir/*.png") == ["@eaDir/a.png"]
    assert photos.find_photos([f"{inside}/in/*.png"]).photos == [inside / "in/a.png"]


def test_brackets_in_the_name_of_a_folder_stand_for_themselves_too(inside: Path) -> None:
    draw(inside / "line[1]/x[2].png")
    draw(inside / "line1/y.png")
    assert photos.find_photos(["line[1]/x*.png"]).photos == [Path("line[1]/x[2].png")]
    assert photos.find_photos(["line[[]1]/*.png"]).photos == [Path("line[1]/x[2].png")]
    assert len(photos.find_photos(["line[1]/*.png"]).photos) == 2
    with pytest.raises(
        ClipadError, match=r"correct the path \(in a pattern .* is written \[\[\]\)"
    ):
        photos.find_photos(["line[1]/x[2]*.png"])


def test_every_file_of_a_folder_is_a_photo_or_named(inside: Path) -> None:
    folder = inside / "all"
    draw(folder / "photo.png")
    with Image.open(folder / "photo.png") as image:
        for name in ("1.gif", "2.jp2", "3.avif", "5.webp"):
            image.save(folder / name)
        image.save(folder / "4.jfif", format="JPEG")
        image.save(folder / "no suffix", format="PNG")
        image.save(folder / "photo.bin", format="PNG")
    (folder / "6.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(64))
    (folder / "7.dng").write_bytes(b"II*\0" + bytes(64))
    (folder / "8.cr3").write_bytes(b"\0\0\0\x18ftypcrx " + bytes(64))
    (folder / "9.svg").write_text("<svg/>")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "gone.jpg").symlink_to("nowhere.jpg")
    texts = (
        "notes.txt",
        "table.csv",
        "1.xmp",
        "1.aae",
        "film.mov",
        "data.bin",
        "report.pdf",
        "README",
    )
    for name in texts:
        (folder / name).write_text("words")
    (folder / "film.mov").write_bytes(bytes(64))
    (folder / "data.bin").write_bytes(bytes(64))
    files = photos.find_photos(["all"])
    named = {path.name for path in files.photos} | {path.name for path in files.others}
    assert named == {path.name for path in folder.iterdir()}
    assert {path.name for path in files.others} == set(texts)
    problems = [scored for scored in score_all(brightness, files.photos, inside) if scored.problem]
    assert {scored.path.name for scored in problems} == {
        *("6.HEIC", "7.dng", "8.cr3", "9.svg", "empty.jpg", "gone.jpg")
    }


def test_folders_of_servers_and_earlier_results_are_no_photos_and_links_are_followed(
    inside: Path,
) -> None:
    for name in ("@eaDir/a.png", "#recycle/a.png", "$RECYCLE.BIN/a.png", "scored/own.png"):
        draw(inside / "in" / name)
    draw(inside / "in/~snapshot/a.png")
    litter = ("a.png~", "~$a.png", "a.png:com.apple.quarantine", "d.png.part", "e.png.crdownload")
    for name in litter:
        shutil.copy(inside / "in/a.png", inside / "in" / name)
    # No results of ours, whatever they are called.
    draw(inside / "in/results/overlays/own.png")
    (inside / "in/results/scores.csv").write_text("file,score,operator\n")
    draw(inside / "elsewhere/linked.png")
    (inside / "in/link").symlink_to("../elsewhere")
    (inside / "in/b/loop").symlink_to("..")
    files = photos.find_photos(["in"])
    assert [path.as_posix() for path in files.photos] == [
        *("in/a.png", "in/b/b 1.jpg", "in/b/c.bmp", "in/link/linked.png"),
        *("in/results/overlays/own.png", "in/scored/own.png"),
    ]
    assert set(files.others) == {Path("in/results/scores.csv")}
    # Whoever names such a folder means it.
    assert len(photos.find_photos(["in/@eaDir"]).photos) == 1


def test_results_are_known_by_what_they_hold_wherever_they_were_moved(quick: Path, capsys) -> None:
    assert score("in", "--raw-maps") == 0
    before = photos.find_photos(["in"]).photos
    os.renames("out/scores.csv", "in/march/old.csv")
    os.renames("out/index.html", "in/march/page.htm")
    os.renames("out/overlays", "in/pictures")
    os.renames("out/maps", "in/maps")
    files = photos.find_photos(["in"])
    assert files.photos == before
    folders = ["march", "pictures", "pictures/b", "maps", "maps/b"]
    assert {path.as_posix() for path in files.others} == {f"in/{name}" for name in folders}
    assert score("in/pictures") == 1
    assert "a folder without photos (in/pictures: an earlier run wrote" in capsys.readouterr().err
    assert score("in/pictures/*.jpg") == 1
    assert "or match (in/pictures: an earlier run wrote it)" in capsys.readouterr().err
    assert len(photos.find_photos(["in/pictures/a.png.jpg"]).photos) == 1  # a file is meant


def test_results_beside_photos_are_named_and_not_the_folder_of_both(quick: Path, capsys) -> None:
    words = ["score", "in", "--class-name", "nut", "--out", "in", "--quiet", "--raw-maps"]
    assert main(words) == 0
    capsys.readouterr()
    assert main(words) == 0
    [told] = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    names = told.partition("no photos: ")[2].rstrip(".").split(", ")
    assert "in/index.html" in names and "in" not in names
    others = photos.find_photos(["in"]).others
    folders = {"in/overlays", "in/overlays/b", "in/maps", "in/maps/b"}
    assert {path.as_posix() for path in others} == {"in/index.html", "in/scores.csv"} | folders
    # One pattern finds both.
    assert photos.find_photos(["in/*"]).others == others


def test_no_result_of_an_earlier_run_stays_beside_new_scores(quick: Path, capsys) -> None:
    assert score("in", "--raw-maps") == 0
    np.save("out/maps/own.npy", np.zeros(3))
    Path("out/overlays/notes.txt").write_text("own")
    shutil.copy("in/a.png", "out/overlays/own.png")
    draw(quick / "bad/empty.jpg").write_bytes(b"")
    assert score("bad") == 1
    files = {
        path.relative_to("out").as_posix() for path in Path("out").rglob("*") if path.is_file()
    }
    assert files == {"scores.csv", "maps/own.npy", "overlays/notes.txt", "overlays/own.png"}
    assert not Path("out/overlays/b").exists()
    # Without maps a run leaves none, and one of other photos no overlay of the earlier ones.
    assert score("in", "--raw-maps") == 0
    assert score("in/b") == 0
    assert not list(Path("out/maps").rglob("*.png.npy"))
    assert {path.name for path in Path("out/overlays").rglob("*.jpg")} == {
        "b 1.jpg.jpg",
        "c.bmp.jpg",
    }


def test_an_overlay_that_is_the_input_of_the_next_run_stays(quick: Path) -> None:
    assert score("in") == 0
    assert score("out/overlays/a.png.jpg") == 0
    assert rows()[0]["problem"] == "" and Path("out/overlays/a.png.jpg").is_file()


@pytest.mark.parametrize("foreign", ["scores.csv", "index.html", "overlays", "maps"])
def test_nothing_of_somebody_else_is_replaced_by_results(inside: Path, foreign: str) -> None:
    folder = inside / "own"
    folder.mkdir()
    photos.check_output(folder)
    (folder / foreign).write_text("mine")
    with pytest.raises(
        ClipadError, match=f"--out: found .*{foreign}, which `clipad score` did not"
    ):
        photos.check_output(folder)
    (folder / foreign).unlink()
    (folder / "scores.csv").write_text("file,score,problem\n")
    words = {"subject": "nut", "warning": "", "provenance": {}, "command": "clipad score"}
    write_page(folder / "index.html", [], [], **words)
    (folder / "maps").mkdir()
    photos.check_output(folder)
    (inside / "elsewhere").mkdir()
    (folder / "overlays").symlink_to(inside / "elsewhere")
    with pytest.raises(ClipadError, match="overlays, which"):
        photos.check_output(folder)


def refuse_to_list(name: str):
    """As `entries`, but for folders of a name, which nobody may list."""
    listed = photos.entries

    def refuse(folder: Path) -> list[Path]:
        if folder.name == name:
            raise ClipadError(f"{folder}: cannot be listed (Permission denied).")
        return listed(folder)

    return refuse


def test_a_folder_that_cannot_be_listed_is_named(inside: Path, monkeypatch) -> None:
    monkeypatch.setattr(photos, "entries", refuse_to_list("b"))
    files = photos.find_photos(["in"])
    assert files.unlisted == {Path("in/b"): "cannot be listed (Permission denied)."}
    assert files.photos == [Path("in/a.png")]
    with pytest.raises(ClipadError, match="in/b: cannot be listed"):
        photos.find_photos(["in/b"])
    with pytest.raises(ClipadError, match="in/b: cannot be listed"):
        photos.find_photos(["in/b/*.bmp"])
    assert photos.find_photos(["in/**/*.png"]).unlisted == files.unlisted


@pytest.mark.parametrize(
    "names",
    [
        ["../../jobs/line/p.jpg", "r.jpg"],
        ["in/../in/x.png", "in/x.png", "./in/b/../x.png"],
        ["a.png", "A.png"],
        ["x" * 240 + ".png", "x" * 240 + ".jpg", "\u00e9" * 125 + ".png"],
        [os.path.abspath("/p/1.png"), "2.png"],
    ],
)
def test_everything_stays_below_its_folder_under_a_name_of_its_own(tmp_path, names) -> None:
    places = photos.place_below(tmp_path / "out", [Path(name) for name in names], ".jpg")
    assert len({str(place).lower() for place in places}) == len(names)
    for place in places:
        assert ".." not in place.parts and place.is_relative_to(tmp_path / "out")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.with_name(f".{place.name}.12345678.tmp").write_bytes(b"")


def test_what_lies_beside_the_folder_of_the_command_is_written_below_out(quick: Path) -> None:
    draw(quick / "jobs/line1/p.png")
    draw(quick / "work/today/r.png")
    os.chdir(quick / "work/today")
    words = ["../../jobs/line1", "r.png", "--out", "../../report", "--raw-maps", "--quiet"]
    assert main(["score", *words, "--class-name", "nut"]) == 0
    assert [path.name for path in (quick / "jobs/line1").iterdir()] == ["p.png"]
    below = {
        path.relative_to(quick / "report").as_posix()
        for path in (quick / "report").rglob("*")
        if path.is_file()
    }
    assert below == {
        *("index.html", "scores.csv", "maps/jobs/line1/p.png.npy", "maps/work/today/r.png.npy"),
        *("overlays/jobs/line1/p.png.jpg", "overlays/work/today/r.png.jpg"),
    }


def test_a_photo_of_any_damage_is_named_and_the_others_are_scored(quick: Path, capsys) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open("in/b/b 1.jpg") as image:
        image.save("in/exif.jpg", exif=exif)
        image.save("in/long" + "g" * 230 + ".png")
    whole = Path("in/exif.jpg").read_bytes()
    place = whole.index(b"Exif\0\0") + 8
    Path("in/exif.jpg").write_bytes(whole[:place] + b"\xff" + whole[place + 1 :])
    Path("in/cut.jpg").write_bytes(Path("in/b/b 1.jpg").read_bytes()[:400])
    Path("in/notes.txt").write_text("words")
    assert main(["score", "in", "--class-name", "nut", "--out", "out"]) == 1
    error = capsys.readouterr().err
    assert "2 of 6 photos could not be scored" in error and "no photos: in/notes.txt." in error
    assert [row["file"] for row in rows() if row["problem"]] == ["in/cut.jpg", "in/exif.jpg"]
    page = BeautifulSoup(Path("out/index.html").read_text(encoding="utf-8"), "html.parser")
    assert "in/notes.txt" in page.find(id="others").find_next("table").get_text()
    assert len(page.select("ol.photos li")) == 4


def test_a_stopped_run_leaves_its_scores_and_a_second_one_goes_on(
    quick: Path, monkeypatch, capsys
) -> None:
    for i in range(20):
        draw(quick / f"many/{i:02}.png", seed=i)
    calls: list[int] = []

    def stop_later(images) -> Detection:
        calls.append(len(images))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return brightness(images)

    monkeypatch.setattr(detectors, "open_detector", lambda *_, **__: stop_later)
    assert score("many") == 130
    assert [row["file"] for row in rows()] == [f"many/{i:02}.png" for i in range(8)]
    stopped = rows()
    # Another setting is another run.
    assert main(["score", "many/00.png", "--class-name", "bolt", "--out", "bolt", "--quiet"]) == 0
    calls[:] = [0, 0]
    capsys.readouterr()
    assert main(["score", "many", "--class-name", "hex nut", "--out", "out"]) == 0
    assert calls == [0, 0, 8, 4] and rows()[:8] == stopped and len(rows()) == 20
    assert "8 of 20 photos were scored by a run that was stopped" in capsys.readouterr().err
    assert not Path("out/.scored").exists()
    # Two photos of one content are no earlier run.
    (quick / "many/20.png").write_bytes((quick / "many/00.png").read_bytes())
    assert main(["score", "many", "--class-name", "hex nut", "--out", "out"]) == 0
    assert "stopped" not in capsys.readouterr().err


@pytest.mark.parametrize("change", ["class name", "photo", "range", "refine"])
def test_what_scores_depend_on_is_scored_again(quick: Path, monkeypatch, change: str) -> None:
    request = detectors.DetectorRequest("winclip", None, clipad_core.WinCLIPConfig(), "nut")
    micro = detectors.load_backbone()
    seen = []

    def count(images) -> Detection:
        seen.append(len(images))
        return brightness(images)

    def run(request: detectors.DetectorRequest) -> None:
        scorer = PhotoScorer(lambda: count, request.key(micro), quick / "kept")
        scoring.score_photos(scorer, [Path("in/a.png")], quiet=True)

    run(request)
    run(request)
    assert seen == [1]
    if change == "photo":
        draw(quick / "in/a.png", seed=9)
    else:
        changed = {
            "class name": {"class_name": "bolt"},
            "range": {"value_range": (0, 9)},
            "refine": {"refine": GuidedFilter()},
        }
        request = replace(request, **changed[change])
    run(request)
    assert seen == [1, 1]


def test_a_damaged_piece_of_a_stopped_run_is_made_again(tmp_path: Path) -> None:
    path = draw(tmp_path / "a.png")
    [first] = score_all(brightness, [path], tmp_path)
    file, _ = first.kept
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    with pytest.raises(ClipadError, match="found no whole map"):
        first.anomaly_map()
    [second] = score_all(brightness, [path], tmp_path)
    assert not second.reused and second.score == first.score
    assert score_all(brightness, [path], tmp_path)[0].reused


class Brightness:
    """A way to open `brightness` in another process."""

    def __call__(self):
        return brightness


def test_workers_give_the_same_in_the_same_order(tmp_path: Path) -> None:
    paths = [draw(tmp_path / f"{i:02}.png", seed=i) for i in range(10)]
    (tmp_path / "broken.png").write_bytes(b"no image")
    paths.insert(3, tmp_path / "broken.png")
    written: list[Path] = []
    scorer = PhotoScorer(Brightness(), "settings", tmp_path / "two")
    two = scoring.score_photos(
        scorer,
        paths,
        workers=2,
        quiet=True,
        write=lambda scored: written.extend(photo.path for photo in scored),
    )
    one = score_all(brightness, paths, tmp_path)
    assert [(p.path, p.score, p.problem) for p in two] == [
        (p.path, p.score, p.problem) for p in one
    ]
    assert [photo.path for photo in two] == paths and sorted(written) == sorted(paths)


def test_values_of_10_bits_are_told_once_and_a_range_scales_them(quick: Path, capsys) -> None:
    for i in range(3):
        values = np.random.default_rng(i).integers(0, 1024, (40, 40)).astype(np.uint16)
        (quick / "deep").mkdir(exist_ok=True)
        Image.fromarray(values).save(quick / f"deep/{i}.png")
    assert score("deep") == 0
    [warning] = [line for line in capsys.readouterr().err.splitlines() if "16 bits" in line]
    assert "deep/0.png and 2 more: found values from" in warning and "--range 0 1023" in warning
    dark = [float(row["score"]) for row in rows()]
    assert "--range 0 1023" in Path("out/index.html").read_text(encoding="utf-8")
    assert score("deep", "--range", "0", "1023") == 0
    assert "16 bits" not in capsys.readouterr().err
    assert max(dark) < 4 and min(float(row["score"]) for row in rows()) > 100


def test_values_of_10_and_of_12_bits_have_a_line_each_and_a_range_is_checked(
    quick: Path, capsys
) -> None:
    for name, value in {"10.pgm": 900, "11.pgm": 1000, "12.pgm": 4000}.items():
        (quick / "deep").mkdir(exist_ok=True)
        pgm(quick / "deep" / name, np.full((40, 40), value), 65535)
    assert score("deep") == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "clipad: deep" in line]
    assert "10.pgm and 1 more" in told[0] and "--range 0 1023 scales" in told[0]
    assert "12.pgm: found" in told[1] and "--range 0 4095 scales" in told[1] and len(told) == 2
    assert score("deep", "--range", "0", "4095") == 0
    [told] = [line for line in capsys.readouterr().err.splitlines() if "clipad: deep" in line]
    assert "10.pgm and 1 more: found values from 900 to 1000 under --range 0 4095" in told
    assert "--range 0 1023 scales" in told
    assert score("deep", "--range", "0", "1023") == 0
    assert "clipad: deep" not in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--reference", "--good"])
def test_values_of_10_bits_are_told_of_good_photos_too(quick: Path, option, capsys) -> None:
    (quick / "good").mkdir()
    pgm(quick / "good/1.pgm", np.full((40, 40), 900), 65535)
    score("in", option, "good")
    told = capsys.readouterr().err
    assert "good/1.pgm: found values from 900 to 900" in told and "--range 0 1023 scales" in told
    assert "--range 0 1023" in Path("out/index.html").read_text(encoding="utf-8")


def test_colours_of_16_bits_are_told_apart_from_greys_which_a_range_scales(
    quick: Path, capsys
) -> None:
    pgm(quick / "in/grey.pgm", np.full((40, 40), 900), 65535)
    pgm(quick / "in/colours.ppm", np.full((40, 40, 3), 900), 65535)
    assert score("in") == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "16 bits" in line]
    assert "grey.pgm" in told[0] and "--range 0 1023 scales" in told[0]
    assert "colours.ppm" in told[1] and "no range scales" in told[1] and len(told) == 2


def test_good_photos_give_a_threshold_a_column_and_an_exit_code(quick: Path, capsys) -> None:
    for i in range(20):
        Image.new("RGB", (40, 40), (10 + i, 5, 5)).save(draw(quick / f"good/{i:02}.png"))
    for name, red in {"good.png": 15, "edge.png": 28, "bad.png": 200}.items():
        Image.new("RGB", (40, 40), (red, 0, 0)).save(draw(quick / "line" / name))
    Path("good/notes.txt").write_text("words")
    assert score("line", "--good", "good") == 3
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("clipad: 1 of 3 photos is bad: they score more than 28.0, the 0.95")
    verdicts = {row["file"]: row["verdict"] for row in rows()}
    assert verdicts == {"line/bad.png": "bad", "line/edge.png": "good", "line/good.png": "good"}
    page = BeautifulSoup(Path("out/index.html").read_text(encoding="utf-8"), "html.parser")
    assert "the 0.95 quantile of the scores of 20 good photos, of which 1 scores higher" in (
        page.select_one(".lead").get_text()
    )
    assert page.find(id="threshold")["data-start"] == "28.0"
    assert [
        item.select_one(".mark-above").has_attr("hidden") for item in page.select("ol.photos li")
    ] == [*(False, True, True)]
    assert score("line/good.png", "line/edge.png", "--good", "good") == 0
    assert score("line", "--good", "good", "--quantile", "0.5") == 3
    assert [row["verdict"] for row in rows()] == ["bad", "bad", "good"]
    # What cannot be scored comes first.
    Path("line/broken.png").write_bytes(b"no image")
    assert score("line", "--good", "good") == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert "1 of 24 photos could not be scored" in message and "1 of 3 photos is bad" in message


def test_a_good_photo_that_cannot_be_read_is_named_like_any_other(quick: Path, capsys) -> None:
    draw(quick / "good/a.png", seed=7)
    Path("good/b\x1b[2J.jpg").write_bytes(b"no image")
    Path("good/c.jpg").write_bytes(b"no image")
    Path("good/notes.txt").write_text("words")
    assert score("in", "--good", "good", "--quantile", "1") == 1
    failed = [row for row in rows() if row["problem"]]
    assert [row["file"] for row in failed] == ["good/b\x1b[2J.jpg", "good/c.jpg"]
    assert all(row["problem"].startswith("--good: found no readable image") for row in failed)
    left_out, message = capsys.readouterr().err.splitlines()[-2:]  # in spite of --quiet
    assert left_out == "clipad: left out, since they are no photos: good/notes.txt."
    assert "2 of 6 photos could not be scored" in message and "also good/c.jpg" in message
    assert r"good/b\x1b[2J.jpg: --good: found no readable image" in message


def test_photos_that_give_their_own_threshold_are_told(quick: Path, capsys) -> None:
    Path("in/loop.png").symlink_to("loop.png")
    assert score("in/a.png", "in/b", "--good", "in/a.png") == 3
    assert score("in", "--good", "in/a.png") == 1
    assert "1 of 4 photos are among those of --good too" in capsys.readouterr().err
    Path("in/loop.png").unlink()
    assert score("in", "--good", "in/a.png") == 3
    error = capsys.readouterr().err
    assert "1 of 3 photos are among those of --good too" in error and "by: in/a.png." in error
    assert "quantile of 1 good photo, of so few the highest" in error
    assert "among those of --good" in Path("out/index.html").read_text(encoding="utf-8")


def test_a_second_run_into_the_same_folder_is_refused_while_the_first_goes_on(
    quick: Path, capsys
) -> None:
    with alone(Path("out/scores.csv")) as is_alone:
        assert is_alone and score("in") == 1
        assert "--out: found another run that writes into out now" in capsys.readouterr().err
    assert score("in") == 0 and not [*Path("out").glob(".*"), *Path("out").glob("*.lock")]


def test_bytes_that_are_no_text_in_class_name_and_out_do_not_cost_the_page(quick, capsys) -> None:
    word = os.fsdecode(b"caf\xe9")
    assert main(["score", "in", "--class-name", word, "--out", word]) == 1
    assert r"--out: found bytes that are no UTF-8 in caf\xe9" in capsys.readouterr().err
    assert main(["score", "in", "--class-name", word, "--out", "out", "--quiet"]) == 0
    assert (
        "--class-name 'caf\\xe9'"
        in BeautifulSoup(
            Path("out/index.html").read_text(encoding="utf-8"), "html.parser"
        ).get_text()
    )


def test_references_among_the_good_ones_give_no_threshold(quick: Path) -> None:
    for i in range(3):
        Image.new("RGB", (40, 40), (10 + i, 5, 5)).save(draw(quick / f"good/{i}.png"))
    assert score("in", "--good", "good", "--reference", "good/0.png") == 3
    page = BeautifulSoup(Path("out/index.html").read_text(encoding="utf-8"), "html.parser")
    assert "of the scores of 2 good photos" in page.select_one(".lead").get_text()


def test_what_was_written_is_no_photo_the_next_time(inside: Path) -> None:
    draw(inside / "in/out/overlays/a.png.jpg")
    assert len(photos.find_photos(["in"], skip=Path("in/out")).photos) == 3


def test_photos_of_any_shape_are_scored_in_order_and_a_bad_one_is_named(tmp_path: Path) -> None:
    sizes = [(40, 40), (40, 40), (50, 40), (40, 40)]
    paths = [draw(tmp_path / f"{i}.png", size, i) for i, size in enumerate(sizes)]
    Image.new("RGB", (40, 40)).save(tmp_path / "black.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    paths[1:1] = [tmp_path / "black.png", tmp_path / "broken.png"]
    scored = score_all(brightness, paths, tmp_path)
    assert [photo.path for photo in scored] == paths
    assert [photo.problem for photo in scored if photo.score is None] == [
        "window embeddings: all windows say the same.",
        f"found no readable image, expected an image ({', '.join(photo_formats())}); get it again.",
    ]
    for photo in scored:
        if photo.score is not None:
            red = read_image(photo.path)[..., 0]
            assert photo.score == pytest.approx(red.mean(), rel=1e-5)
            assert np.array_equal(photo.anomaly_map(), red)


def test_a_batch_holds_a_bounded_number_of_pixels(tmp_path: Path, monkeypatch) -> None:
    paths = [draw(tmp_path / f"{i}.png", seed=i) for i in range(20)]
    seen = []
    monkeypatch.setattr(scoring, "PIXELS_PER_BATCH", 3 * 40 * 40)

    def count(images) -> Detection:
        seen.append(len(images))
        return brightness(images)

    score_all(count, paths, tmp_path / "few")
    assert seen == [3, 3, 2, 3, 3, 2, 3, 1]
    seen.clear()
    monkeypatch.undo()
    score_all(count, paths, tmp_path / "many")
    assert seen == [8, 8, 4]


def test_a_score_that_is_no_number_is_a_problem_not_a_score(tmp_path: Path) -> None:
    def broken(images) -> Detection:
        return Detection(torch.tensor([torch.nan]), torch.zeros(1, 4, 4))

    scored = score_all(broken, [draw(tmp_path / "a.png")], tmp_path)
    assert scored[0].score is None and "not finite" in scored[0].problem


def test_everything_is_written_and_the_page_shows_it(inside: Path, capsys) -> None:
    assert score("in", "--reference", "in/a.png", "--raw-maps") == 0
    out, error = capsys.readouterr()
    assert out == "out/index.html\n" and error.count("\n") == 1 and "stand-in" in error
    table = rows()
    assert [row["file"] for row in table] == ["in/a.png", "in/b/b 1.jpg", "in/b/c.bmp"]
    assert all(0 < float(row["score"]) < 1 and not row["problem"] for row in table)
    assert sorted(p.name for p in Path("out").iterdir()) == [
        "index.html",
        "maps",
        "overlays",
        "scores.csv",
    ]
    with Image.open("out/overlays/b/b 1.jpg.jpg") as overlay:
        assert overlay.size == (40, 40)
    assert np.load("out/maps/b/c.bmp.npy").dtype == np.float32

    soup = BeautifulSoup(Path("out/index.html").read_text(encoding="utf-8"), "html.parser")
    assert not network_loads(str(soup))
    scores = [float(item["data-score"]) for item in soup.select("ol.photos li")]
    assert scores == sorted((float(row["score"]) for row in table), reverse=True)
    assert all(image["alt"].strip() for image in soup.select("img"))
    assert soup.select_one("main .callout.warning")
    links = [link["href"] for link in soup.select("ol.photos a")]
    assert "overlays/b/b%201.jpg.jpg" in links
    assert "1 reference" in soup.find(id="provenance").get_text()


def test_the_threshold_moves_by_keyboard_and_by_number(inside: Path) -> None:
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium on this machine")
    assert score("in") == 0
    high, middle, low = sorted((float(row["score"]) for row in rows()), reverse=True)
    browser = Browser(program)
    count = "document.getElementById('count').textContent"
    try:
        browser.open(Path("out/index.html"))
        browser.run("document.getElementById('slider').focus()")
        browser.press("End", 35)
        assert browser.run(count) == "1 of 3 above"
        browser.press("Home", 36)
        assert browser.run(count) == "3 of 3 above"
        for value, expected in [((middle + high) / 2, 1), ((low + middle) / 2, 2), (high + 1, 0)]:
            browser.run(
                f"(() => {{ const box = document.getElementById('exact'); box.value = '{value}';"
                " box.dispatchEvent(new Event('input')); })()"
            )
            assert browser.run(count) == f"{expected} of 3 above"
            assert browser.run("document.querySelectorAll('.photos li.above').length") == expected
        browser.run("document.getElementById('only').click()")
        assert browser.run("document.querySelectorAll('.photos li:not([hidden])').length") == 0
        assert not browser.complaints()
    finally:
        browser.close()


def test_one_odd_photo_does_not_take_the_slider_from_the_others(tmp_path: Path) -> None:
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium on this machine")
    scores = [9000.0, *np.linspace(1, 2, 201), 1.5]  # two are equal, with 101 above them
    scored = [Scored(Path(f"{i}.png"), float(score)) for i, score in enumerate(scores)]
    pages = {}
    for name, threshold in {"plain": None, "good": Threshold(1.9, 0.95, 40, 2)}.items():
        pages[name] = tmp_path / f"{name}.html"
        words = {"subject": "", "warning": "", "provenance": {}, "command": "clipad score"}
        write_page(pages[name], [], scored, threshold=threshold, **words)
    browser = Browser(program)
    count, places = "document.getElementById('count').textContent", set()
    try:
        browser.open(pages["plain"])
        assert browser.run(count) == "20 of 203 above"
        browser.run("document.getElementById('slider').focus()")
        browser.press("ArrowRight", 39)
        assert browser.run(count) == "19 of 203 above"
        browser.press("Home", 36)
        for _ in range(203):
            places.add(int(browser.run(count).split()[0]))
            browser.press("ArrowRight", 39)
        assert places == set(range(1, 204)) - {102}
        # Half of the strip belongs to the many.
        marks = "[...document.querySelectorAll('svg line')].map((line) => Number(line.getAttribute('x1')))"
        assert len({round(x) for x in browser.run(marks)}) > 150
        browser.open(pages["good"])
        expected = sum(score > 1.9 for score in scores)
        assert browser.run(count) == f"{expected} of 203 above"
        assert not browser.complaints()
    finally:
        browser.close()


def test_refined_maps_keep_their_scores_and_the_page_says_how(inside: Path) -> None:
    names = [f"out/maps/{name}.npy" for name in ("a.png", "b/b 1.jpg", "b/c.bmp")]
    assert score("in", "--raw-maps") == 0
    before, plain = rows(), [np.load(path) for path in sorted(Path("out/maps").rglob("*.npy"))]
    assert score("in", "--raw-maps", "--refine", "{guided: {radius: 0.1}}") == 0
    refined = [np.load(path) for path in sorted(Path("out/maps").rglob("*.npy"))]
    assert rows() == before and len(refined) == len(plain) == len(names)
    assert all(not np.array_equal(*pair) for pair in zip(refined, plain, strict=True))
    page = BeautifulSoup(Path("out/index.html").read_text(encoding="utf-8"), "html.parser").text
    assert "GuidedFilter(radius=0.1" in page and "--refine '{guided: {radius: 0.1}}'" in page


def test_a_package_that_segments_may_import_torchvision(inside: Path, tmp_path: Path) -> None:
    """A CUDA torchvision beside a CPU torch ends in an error of its own, unless open_clip is there first."""
    (tmp_path / "segment_anything.py").write_text("import torchvision\n")
    words = [
        "score",
        "in",
        "--class-name",
        "nut",
        "--out",
        "out",
        "--refine",
        "{sam: {checkpoint: x.pth}}",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "clipad_harness", *words],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{REPOSITORY}"},
        capture_output=True,
        text=True,
        check=False,
    )
    message = "clipad: --refine: sam.checkpoint: found no file x.pth"
    assert done.returncode == 1 and done.stderr.startswith(message), done.stderr


def test_photos_that_nothing_is_found_in_are_named_by_a_stopped_run_too(
    quick: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    def without_regions(images) -> RefinedDetection:
        plain = brightness(images)
        return RefinedDetection(plain.image_score, plain.anomaly_map, (0,))

    monkeypatch.setattr(detectors, "open_detector", lambda *_, **__: without_regions)
    assert score("in") == 0
    message = "--refine: found no regions in 1 of 3 photos, whose maps stay as they are: in/a.png."
    assert message in capsys.readouterr().err
    assert message in Path("out/index.html").read_text(encoding="utf-8")
    kept = PhotoScorer(lambda: without_regions, "settings", quick / "kept")
    again = PhotoScorer(lambda: pytest.fail("scored twice"), "settings", quick / "kept")
    for scorer in (kept, again):
        [scored] = scoring.score_photos(scorer, [Path("in/a.png")], quiet=True)
        assert scored.unrefined


def test_a_reference_changes_the_scores_and_itself_scores_low(inside: Path) -> None:
    score("in")
    zero_shot = {row["file"]: float(row["score"]) for row in rows()}
    score("in", "--reference", "in/a.png")
    few_shot = {row["file"]: float(row["score"]) for row in rows()}
    assert few_shot != zero_shot and min(few_shot, key=few_shot.get) == "in/a.png"


def test_a_bad_photo_does_not_stop_the_others(inside: Path, capsys) -> None:
    (inside / "in/broken.png").write_bytes(b"no image")
    assert score("in") == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("clipad: 1 of 4 photos could not be scored") and "broken.png" in error
    assert [row["problem"] != "" for row in rows()] == [False, False, False, True]
    page = BeautifulSoup(Path("out/index.html").read_text(encoding="utf-8"), "html.parser")
    assert "in/broken.png" in page.find(id="failed").find_next("table").get_text()


def test_only_bad_photos_leave_a_table_and_a_message(inside: Path, capsys) -> None:
    (inside / "in/broken.png").write_bytes(b"no image")
    assert score("in/broken.png") == 1
    assert "no photo could be scored" in capsys.readouterr().err
    assert len(rows()) == 1 and not Path("out/index.html").exists()


@pytest.mark.skipif(os.name == "nt", reason="names of bytes")
def test_names_of_all_kinds_are_kept_and_shown_as_text(inside: Path) -> None:
    draw(inside / "odd" / NOT_UTF8, seed=1)
    draw(inside / "odd" / NASTY, seed=2)
    draw(inside / "odd" / "two\nlines.png", seed=3)
    assert score("odd") == 0
    assert [row["file"] for row in rows()] == [
        f"odd/{NASTY}",
        r"odd/caf\xe9 1.png",
        "odd/two\nlines.png",
    ]
    assert Path("out/overlays", NOT_UTF8 + ".jpg").is_file()
    soup = BeautifulSoup(Path("out/index.html").read_text(encoding="utf-8"), "html.parser")
    assert not soup.select("img[onerror]")
    assert {name.get_text() for name in soup.select(".name")} == {
        NASTY,
        r"caf\xe9 1.png",
        "two\nlines.png",
    }
    assert "overlays/caf%E9%201.png.jpg" in [link["href"] for link in soup.select(".pair a")]


def test_references_that_a_method_does_not_read_are_refused() -> None:
    with pytest.raises(ClipadError, match="--reference: found some, which clip cannot use; leave"):
        check_request("clip", None, "nut", None, has_references=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.png"], "found no such file, folder or match at nowhere.png"),
        (["in/*.gif"], "found no such file, folder or match at in/*.gif"),
        (["empty"], "found a folder without photos at empty"),
        (["in", "--method", "patchcore"], "--method: found 'patchcore', expected one of winclip"),
        (["in", "--checkpoint", "x.pth"], "--checkpoint: found x.pth for winclip"),
        (["in", "--class-name", " "], "--class-name: found none"),
        (["in", "--method", "vcpclip"], "--checkpoint: found no learner of main, seed "),
        (["in", "--method", "vcpclip", "--checkpoint", "main@7"], "found the seed 7 of main"),
        (["in", "--quantile", "0"], "--quantile: found 0.0, expected a share above 0"),
        (["in", "--workers", "0"], "--workers: found 0, expected a number from 1"),
        (["in", "--refine", "slick"], "--refine: found 'slick', expected one of none, guided"),
        (["in", "--refine", "{sam: {checkpoint: x}}"], "refine: sam"),
        (["in", "--range", "9", "3"], "--range: found 9 to 3, expected a lower and a higher value"),
        (["in", "--good", "in/a.png", "--reference", "in/a.png"], "--good: found 1 photos, all of"),
        (["in", "--method", "vcpclip", "--checkpoint", "x.pth"], "x.pth does not exist"),
        (
            ["in", "--method", "vcpclip", "--checkpoint", "broken.png"],
            "--class-name: found 'nut', which vcpclip does not read",
        ),
        (
            ["in", "--method", "vcpclip", "--class-name", "", "--checkpoint", "broken.png"],
            "checkpoint: broken.png",
        ),
        (["in", "--out", "in/a.png"], "--out: found a file at in/a.png"),
        (["in", "--out", "in/a.png/x"], "--out: in/a.png/x cannot be made"),
        (["in", "--reference", "broken.png"], "broken.png: found no readable image"),
        (
            ["in", "--reference", "nowhere"],
            "--reference: found no such file, folder or match at now",
        ),
        (["in", "--good", "empty"], "--good: found a folder without photos at empty"),
        (
            ["in", "--good", "broken.png"],
            "of which none could be scored (broken.png: found no read",
        ),
        (["in", "--class-name", "x " * 99], "--class-name: prompt: found one of "),
        (["in", "--weights", "laion400m_e31"], "found one of them, expected both"),
        (["in", "--backbone", "ViT-B-16", "--weights", "laion9b"], "found 'laion9b' for ViT-B-16"),
    ],
)
def test_a_wrong_request_is_one_message(inside: Path, words, message, capsys) -> None:
    (inside / "empty").mkdir()
    (inside / "broken.png").write_bytes(b"no image")
    assert main(["score", "--class-name", "nut", "--out", "out", "--quiet", *words]) == 1
    error = capsys.readouterr().err.splitlines()
    error = [line for line in error if "stand-in" not in line]
    assert len(error) == 1 and error[0].startswith("clipad: ") and message in error[0]
    assert not Path("out/scores.csv").exists()


@pytest.mark.parametrize("method", LEARNED)
def test_a_method_that_learned_scores_with_its_checkpoint(inside: Path, method, capsys) -> None:
    room, files = find_method(method), OFFICIAL[method]
    weights, config = choose_weights(method, None, None)
    backbone = load_backbone(weights.backbone, weights.weights)
    learner = room.training.make_learner(backbone, config, 1)
    content = checkpoint_bytes(method, learner, config, backbone, "data")
    Path("ours.safetensors").write_bytes(content)
    # AnomalyCLIP's official file holds the embedded words around what is learned, too.
    around = (backbone, config) if method == "anomalyclip" else ()
    torch.save(files.to_official(learner, *around), "official.pth")
    scores = []
    for checkpoint in ("ours.safetensors", "official.pth"):
        words = ["score", "in", "--out", "out", "--quiet", "--method", method]
        assert main([*words, "--checkpoint", checkpoint]) == 0
        scores.append([float(row["score"]) for row in rows()])
    assert scores[0] == pytest.approx(scores[1], abs=2e-6) and len(set(scores[0])) == 3
    expected = Detector(room, backbone, config, learner=learner)
    pixels = read_image("in/a.png")
    assert scores[0][0] == pytest.approx(float(expected([pixels]).image_score), abs=2e-6)
    page = BeautifulSoup(Path("out/index.html").read_text(encoding="utf-8"), "html.parser")
    assert "official.pth" in page.find(id="provenance").get_text()


def test_a_method_that_learned_and_reads_references_scores_with_both(inside: Path) -> None:
    room, (weights, config) = find_method("anomalyclip"), choose_weights("anomalyclip", None, None)
    backbone = load_backbone(weights.backbone, weights.weights)
    learner = room.training.make_learner(backbone, config, 1)
    content = checkpoint_bytes("anomalyclip", learner, config, backbone, "data")
    Path("ours.safetensors").write_bytes(content)
    words = ["score", "in", "--out", "out", "--quiet", "--method", "anomalyclip"]
    assert main([*words, "--checkpoint", "ours.safetensors", "--reference", "in/b/c.bmp"]) == 0
    tested, reference = (read_image(f"in/{name}") for name in ("a.png", "b/c.bmp"))
    expected = Detector(room, backbone, config, references=[reference], learner=learner)
    without = Detector(room, backbone, config, learner=learner)
    score = float(rows()[0]["score"])
    assert score == pytest.approx(float(expected([tested]).image_score), abs=2e-6)
    assert abs(score - float(without([tested]).image_score)) > 1e-3


@pytest.mark.parametrize("method", LEARNED)
def test_a_learner_that_was_trained_here_is_found_by_its_name(
    tmp_path: Path, micro: Backbone, monkeypatch, method: str
) -> None:
    project = make_project(tmp_path)
    monkeypatch.setenv("CLIPAD_ROOT", str(project))
    room, folder = find_method(method), project / "data" / "trained" / method
    folder.mkdir(parents=True)
    variants = {variant.name: variant for variant in variants_of(method)}
    row = next(v for v in variants.values() if v.at_test)
    other = next(v for v in variants.values() if v.config != variants["main"].config)
    for name, variant, seed in [
        ("first", variants["main"], variants["main"].seeds[0]),
        ("other", other, other.seeds[-1]),
    ]:
        config = variant.training(seed).config
        weights = load_backbone("clipad-tiny", project / "data/weights/clipad-tiny.safetensors")
        learner = room.training.make_learner(weights, config, seed)
        content = checkpoint_bytes(method, learner, config, weights, "data")
        (folder / f"{name}.safetensors").write_bytes(content)
    assert find_learner(method, "") == (folder / "first.safetensors", {})
    assert find_learner(method, f"{other.name}@{other.seeds[-1]}")[0].stem == "other"
    if row.config == variants["main"].config:
        assert find_learner(method, row.name) == (folder / "first.safetensors", row.at_test)
    own = folder / "other.safetensors"
    assert find_learner(method, str(own)) == (own, {})
    with pytest.raises(ClipadError, match="names no variant of .* expected a file or one of main,"):
        find_learner(method, "no/such")
    (folder / "twin.safetensors").write_bytes((folder / "first.safetensors").read_bytes())
    with pytest.raises(
        ClipadError, match="found 2 learners .* first.safetensors, twin.safetensors"
    ):
        find_learner(method, "main")
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(
        ClipadError, match=f"(?s)found no learner.*could not be read.*train {method}"
    ):
        find_learner(method, "main")


def test_the_notebook_takes_a_folder_anywhere_and_a_damaged_photo(
    quick: Path, monkeypatch, capsys
) -> None:
    for name in ("in/a-damaged.jpg", "in/b/a-damaged.jpg"):
        (quick / name).write_bytes(b"no image")
    (quick / "in/locked").mkdir()
    monkeypatch.setattr(photos, "entries", refuse_to_list("locked"))
    pgm(quick / "in/deep.pgm", np.full((40, 40), 900), 65535)
    notebook = json.loads((REPOSITORY / "notebooks/your_images.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    parameters = f"# Parameters\nphotos = [{str(quick / 'in')!r}]\nreference = []\n"
    names = {"In": ["", cells[0], parameters]}
    for source in [cells[0], parameters, *cells[1:]]:
        exec(source, names)
    assert set(names["names"]) == {"a.png", "deep.pgm", "b/b 1.jpg", "b/c.bmp"}
    assert set(names["problems"]) == {"a-damaged.jpg", "b/a-damaged.jpg"}
    assert names["left_out"] == {"locked": "cannot be listed (Permission denied)."}
    [told] = names["told"]
    assert "deep.pgm: found values from 900 to 900 in 16 bits" in told


def test_outside_a_project_weights_must_be_named_and_a_method_need_not(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.delenv("CLIPAD_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "a.png")
    assert score("a.png") == 1
    assert "found neither, nor a params.yaml here or above" in capsys.readouterr().err
    tiny = WEIGHTS / "clipad-tiny.safetensors"
    if tiny.is_file():
        assert score("a.png", "--backbone", "clipad-tiny", "--weights", str(tiny)) == 0
        assert len(rows()) == 1


def test_a_crop_of_the_centre_is_no_setting_for_photos(micro: Backbone) -> None:
    config = clipad_core.WinCLIPConfig(resize="centre_crop")
    with pytest.raises(ClipadError, match="does not see the borders"):
        open_detector("winclip", micro, config=config, class_name="nut")


def test_a_map_keeps_its_place_at_another_size() -> None:
    small = np.zeros((4, 6), dtype=np.float32)
    small[0, 5] = 1
    large = resize_map(small, (40, 60))
    assert large.shape == (40, 60) and strongest(large) == strongest(small) == "upper right"
    assert (
        strongest(np.eye(9)[4:5]) == "upper centre" and strongest(np.ones((1, 1))) == "upper left"
    )
    middle = np.zeros((9, 9))
    middle[4, 4] = 1
    assert strongest(middle) == "centre"


def test_the_figures_of_the_notebook_show_every_photo() -> None:
    images = [np.zeros((8, 6, 3), dtype=np.uint8)] * 5
    drawn = [axes for axes in contact(images).axes if axes.images]
    assert len(drawn) == 5 and drawn[0].get_title() == "6 x 8"
    axes = scores_figure([float(-i) for i in range(20)], [f"$x{i}$" for i in range(20)]).axes[0]
    assert sum(len(line.get_xdata()) for line in axes.lines) == 20
    assert axes.get_yticklabels()[-1].get_text() == "8 others"
    with pytest.raises(ClipadError, match="found none"):
        contact([])


def test_the_four_lines_of_the_readme_run_on_a_photo_that_was_held_upright(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    [snippet] = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len([line for line in snippet.splitlines() if line]) == 4
    project = make_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(draw(tmp_path / "photo.png", (60, 40))) as image:
        image.save(tmp_path / "photo.jpg", exif=exif)
    stand_in = str(project / "data" / "weights" / "clipad-tiny.safetensors")
    published = '"ViT-B-16-plus-240", "laion400m_e31"'
    assert published in snippet
    exec(snippet.replace(published, f'"clipad-tiny", {stand_in!r}'), {})
    shape = re.fullmatch(
        r"tensor\(\[0\.\d+\]\) torch\.Size\(\[1, (\d+), (\d+)\]\)\n", capsys.readouterr().out
    )
    assert shape and int(shape[1]) > int(shape[2])
