"""A verification passes where nothing was touched, and names what was."""

import json
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image
from project import LEARNED, dvc, make_repository

from clipad_core.errors import ClipadError
from clipad_harness.base.sealed import read_tensors, write_tensors
from clipad_harness.cli.main import main
from clipad_harness.verify.differences import (
    CLOSE,
    DIFFERS,
    IDENTICAL,
    MISSING,
    UNKNOWN,
    Comparison,
    Pair,
    Part,
    as_text,
    first_divergence,
    judged,
)
from clipad_harness.verify.result_files import compare_sides, open_side
from clipad_harness.verify.tolerances import declared
from clipad_harness.verify.verify import compare, find_targets, verify

IMAGE = "data/synthetic/synthetic_target/hex_nut/test/good/000.png"
RESULTS = "reports/results/winclip/results.csv"


def git(folder: Path, *words: str) -> None:
    name = ["-c", "user.name=tests", "-c", "user.email=tests@example.org"]
    subprocess.run(["git", *name, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose scores are made and whose tracked files are committed."""
    project = make_repository(tmp_path_factory.mktemp("verify"))
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["winclip"]["ablations"] = {}
    (project / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    dvc(project, "repro", "measure@winclip")
    git(project, "init", "--quiet")
    git(project, "add", ".")
    git(project, "commit", "--quiet", "-m", "first")
    return project


@pytest.fixture(scope="module")
def clone(scored: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a verification of the scores leaves where it is kept."""
    folder = tmp_path_factory.mktemp("kept") / "clone"
    comparison = verify(scored, "measure@winclip", folder)
    assert {part.verdict for part in comparison.parts} == {IDENTICAL}, as_text(comparison)
    return folder


@pytest.fixture
def touched(scored: Path, tmp_path: Path) -> Path:
    """A copy that a test may tamper with."""
    return Path(shutil.copytree(scored, tmp_path / "project"))


def held_against(clone: Path, project: Path) -> Comparison:
    return compare_sides(open_side(project), open_side(clone))


def against(clone: Path, project: Path) -> list[Part]:
    return list(held_against(clone, project).parts)


def in_float32(project: Path) -> None:
    """Say of the results that they were computed so."""
    table = pd.read_csv(project / RESULTS)
    write(project, table.assign(precision="float32"))


def write(project: Path, table: pd.DataFrame) -> None:
    table.to_csv(project / RESULTS, index=False, float_format="%.6f")


def test_an_untouched_project_passes_from_data_to_metrics(scored: Path, clone: Path) -> None:
    comparison = held_against(clone, scored)
    parts = list(comparison.parts)
    assert [part.level for part in parts if part.level == "features"] == ["features"]
    by_name = {part.name: part for part in parts}
    assert by_name["data/synthetic/synthetic_target"].numbers > 20
    assert by_name[RESULTS].numbers == len(pd.read_csv(scored / RESULTS))
    assert first_divergence(parts) is None
    text = as_text(comparison)
    assert text.endswith("Identical bytes: nothing diverges.")
    assert text.startswith("winclip: float64 on cpu on both sides: nothing may differ\n\nlevel")
    assert max(map(len, text.splitlines())) <= 100


def test_a_verification_starts_from_what_is_committed(clone: Path, scored: Path) -> None:
    assert (clone / ".git").exists() and (clone / RESULTS).is_file()
    # No cache came along: what was compared was computed there.
    original, recomputed = (
        next((folder / ".cache" / "features").rglob("*.safetensors")) for folder in (scored, clone)
    )
    assert original.stat().st_ino != recomputed.stat().st_ino


def test_a_tampered_number_is_found_and_named(clone: Path, touched: Path) -> None:
    table = pd.read_csv(touched / RESULTS)
    place = table.index[(table["metric"] == "aupro") & (table["category"] == "hex_nut")][0]
    table.loc[place, "value"] += 0.01
    write(touched, table)
    comparison = held_against(clone, touched)
    [wrong] = [part for part in comparison.parts if part.verdict != IDENTICAL]
    assert (wrong.level, wrong.name, wrong.verdict) == ("metrics", RESULTS, DIFFERS)
    assert wrong.worst == pytest.approx(0.01)
    assert "hex_nut" in wrong.where and "metric aupro" in wrong.where
    assert f"First divergence: metrics, in {RESULTS} (differs)" in as_text(comparison)


def test_a_number_within_its_tolerance_passes_but_is_told(clone: Path, touched: Path) -> None:
    table = pd.read_csv(touched / RESULTS)
    place = table.index[table["metric"] == "pixel_auroc"][0]
    table.loc[place, "value"] -= 0.00005
    write(touched, table.assign(precision="float32"))
    comparison = held_against(clone, touched)
    wrong = first_divergence(comparison.parts)
    assert wrong is not None and wrong.verdict == CLOSE and 0 < wrong.worst < 1e-4
    assert comparison.notes == [
        "winclip: float32 on cpu against float64 on cpu: tolerance of float32"
    ]
    assert not comparison.wrong
    write(touched, table)
    wrong = first_divergence(against(clone, touched))
    assert wrong is not None and wrong.verdict == DIFFERS  # float64 on both sides: not a digit


def test_results_of_a_time_that_did_not_say_how_it_computed_pair_as_float32(
    clone: Path, touched: Path
) -> None:
    table = pd.read_csv(touched / RESULTS)
    table.loc[table.index[table["metric"] == "aupro"][0], "value"] += 0.0005
    write(touched, table.drop(columns=["precision", "device"]))
    comparison = held_against(clone, touched)
    [moved] = [part for part in comparison.parts if part.verdict != IDENTICAL]
    assert (moved.name, moved.verdict, moved.numbers) == (RESULTS, CLOSE, len(table))


def test_rows_in_another_order_are_other_bytes(clone: Path, touched: Path) -> None:
    write(touched, pd.read_csv(touched / RESULTS)[::-1])
    [wrong] = [part for part in against(clone, touched) if part.verdict != IDENTICAL]
    assert (wrong.name, wrong.verdict) == (f"{RESULTS}, bytes", DIFFERS)
    in_float32(touched)
    assert {part.verdict for part in against(clone, touched)} == {IDENTICAL}


def test_a_lost_row_and_a_lost_file_are_found(clone: Path, touched: Path) -> None:
    lines = (touched / RESULTS).read_text().splitlines(keepends=True)
    (touched / RESULTS).write_text("".join(lines[:-1]))
    (touched / "reports/results/winclip/by_category.csv").unlink()
    verdicts = {part.name: part.verdict for part in against(clone, touched)}
    assert verdicts[RESULTS] == DIFFERS
    assert (
        verdicts["reports/results/winclip/by_category.csv (hash)"] == IDENTICAL
    )  # dvc.lock still knows it
    (touched / "dvc.lock").unlink()
    verdicts = {part.name: part.verdict for part in against(clone, touched)}
    assert verdicts["reports/results/winclip/by_category.csv"] == MISSING


def test_a_tampered_image_is_data_that_diverge_before_all_else(
    touched: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.open(touched / IMAGE).rotate(90).save(touched / IMAGE)
    table = pd.read_csv(touched / RESULTS)
    table.loc[0, "value"] /= 2
    write(touched, table)
    monkeypatch.setenv("CLIPAD_ROOT", str(touched))
    assert main(["verify", "index"]) == 1
    output = capsys.readouterr()
    assert "First divergence: data, in data/synthetic/synthetic_target (differs)" in output.out
    assert "hex_nut/test/good/000.png (1 of" in output.out
    assert RESULTS not in output.out  # index was asked for, so nothing was scored
    assert "parts are not verified (differs: 1)" in output.err and "Traceback" not in output.err
    assert "AVX2 or newer" in output.out and "This machine: " in output.out.splitlines()[-1]


def test_features_of_one_key_that_differ_are_found_before_the_metrics(
    clone: Path, touched: Path
) -> None:
    entry = next((touched / ".cache" / "features").rglob("*.safetensors"))
    tensors = read_tensors(entry, entry.stem)
    assert tensors is not None
    tensors["image_embedding"] = tensors["image_embedding"] + 0.5
    write_tensors(entry, entry.stem, tensors)
    wrong = first_divergence(against(clone, touched))
    assert wrong is not None and wrong.level == "features" and entry.stem[:16] in wrong.where
    assert wrong.worst == pytest.approx(0.5)


def test_a_damaged_entry_is_named_not_compared(clone: Path, touched: Path) -> None:
    entry = next((touched / ".cache" / "features").rglob("*.safetensors"))
    whole = bytearray(entry.read_bytes())
    for place in (9, len(whole) - 1):  # the header, a number
        entry.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        wrong = first_divergence(against(clone, touched))
        assert wrong is not None and wrong.level == "features" and wrong.verdict == DIFFERS
        assert f"{entry.stem[:16]}, largest difference (damaged on a side)" in wrong.where


def test_other_settings_show_in_the_keys_of_the_shards(clone: Path, touched: Path) -> None:
    table = pd.read_csv(touched / RESULTS)
    write(touched, table.assign(key="0" * 16))
    wrong = first_divergence(against(clone, touched))
    assert wrong is not None and wrong.level == "scores" and wrong.verdict == CLOSE
    assert "made from other data, weights, code or settings" in wrong.where


def test_folders_of_reports_alone_and_commits_are_compared(
    clone: Path, touched: Path, tmp_path: Path
) -> None:
    metrics = touched / "reports/summaries/winclip.json"
    metrics.parent.mkdir()
    metrics.write_text(json.dumps({"headline": {"0-shot": {"aupro": {"ours": 60.0}}}}))
    git(touched, "add", "-f", "reports/summaries/winclip.json")
    git(touched, "commit", "--quiet", "-m", "second")
    reports = Path(shutil.copytree(touched / "reports", tmp_path / "other"))
    metrics.write_text(metrics.read_text().replace("60.0", "61.0"))
    [wrong] = [p for p in compare(touched, str(touched / "reports"), str(reports)).parts if p.worst]
    assert wrong.where == "headline.0-shot.aupro.ours: expected 0.61, found 0.6"
    git(touched, "commit", "--quiet", "-am", "third")
    assert {p.verdict for p in compare(touched, "HEAD", "HEAD").parts} == {IDENTICAL}
    [wrong] = [p for p in compare(touched, "HEAD~1", "HEAD").parts if p.worst]
    assert wrong.verdict == DIFFERS and wrong.worst == pytest.approx(0.01)
    with pytest.raises(ClipadError, match="found 'no-such', expected a folder .* or a commit"):
        compare(touched, "no-such", "HEAD")
    with pytest.raises(ClipadError, match="found no reports/ and no metrics file"):
        compare(touched, str(touched / "data"), "HEAD")


def test_pages_and_figures_are_read_not_only_hashed(touched: Path, tmp_path: Path) -> None:
    in_float32(touched)
    (touched / "reports" / "index.html").write_text("<main>mean 74.2 of 12</main> made by 1")
    changed = Path(shutil.copytree(touched, tmp_path / "other"))
    page = changed / "reports" / "index.html"

    def verdict(text: str) -> str:
        page.write_text(text)
        [part] = [p for p in against(changed, touched) if p.name == "reports/index.html"]
        return part.verdict

    assert verdict("<main>mean 74.2 of 12</main> made by 2") == IDENTICAL
    assert verdict("<main>mean 74.3 of 12</main> made by 1") == CLOSE
    assert verdict("<main>mean 74.5 of 12</main> made by 1") == DIFFERS
    assert verdict("<main>median 74.2 of 12</main> made by 1") == DIFFERS
    sheet = changed / "data" / "index" / "contact_sheet.png"
    Image.new("RGB", Image.open(sheet).size).save(sheet)
    [part] = [p for p in against(changed, touched) if p.name == "data/index/contact_sheet.png"]
    assert part.level == "figures" and part.verdict == DIFFERS


def test_a_part_is_a_stage_or_a_method(scored: Path) -> None:
    assert find_targets(scored, "") == []
    assert find_targets(scored, "measure") == ["measure"]
    assert find_targets(scored, "draw@synthetic_target") == ["draw@synthetic_target"]
    assert find_targets(scored, "comparison") == ["essay@comparison"]
    for method in ("winclip", *LEARNED):
        stages = [f"{stage}@{method}" for stage in ("train", "measure", "notebook")]
        assert find_targets(scored, method) == stages
    with pytest.raises(ClipadError, match="found the part 'scores', expected one of .*winclip"):
        find_targets(scored, "scores")


def test_a_stage_that_fails_in_the_clone_is_one_message(touched: Path) -> None:
    (touched / "params.yaml").write_text("profile: demo\n")
    git(touched, "commit", "--quiet", "-am", "broken")
    with pytest.raises(ClipadError, match="a stage stopped in the clean clone"):
        verify(touched, "index")


def test_an_unpacked_archive_is_copied_instead_of_cloned(touched: Path, tmp_path: Path) -> None:
    shutil.rmtree(touched / ".git")
    comparison = verify(touched, "index", tmp_path / "copy")
    assert {part.verdict for part in comparison.parts} == {IDENTICAL}, as_text(comparison)
    assert not (tmp_path / "copy" / ".cache" / "shards").exists()
    with pytest.raises(ClipadError, match="is there already, expected a new folder"):
        verify(touched, "index", tmp_path / "copy")


def test_in_float64_the_bytes_of_a_page_decide_though_its_numbers_are_the_same(
    touched: Path, tmp_path: Path
) -> None:
    page = touched / "reports" / "index.html"
    page.write_text("<main>mean 74.2 of 12</main> made by 1")
    changed = Path(shutil.copytree(touched, tmp_path / "other"))
    (changed / "reports" / "index.html").write_text("<main>mean 74.2 of 12</main> made by 2")
    [wrong] = [part for part in against(changed, touched) if part.verdict != IDENTICAL]
    assert (wrong.level, wrong.name) == ("pages", "reports/index.html, bytes")
    assert wrong.verdict == DIFFERS and "other bytes" in wrong.where
    (changed / "reports" / "index.html").write_text("<main>mean 74.3 of 12</main> made by 1")
    [wrong] = [part for part in against(changed, touched) if part.verdict != IDENTICAL]
    assert (wrong.name, wrong.verdict) == ("reports/index.html", DIFFERS)


def test_the_worst_difference_is_the_one_most_beyond_its_tolerance() -> None:
    pairs = [
        Pair("a", 0.005, 0.5, 0.504),
        Pair("b", 1e-4, 0.5, 0.5005),
        Pair("c", 1e-3, float("nan"), float("nan")),
    ]
    part = judged("metrics", "x", pairs)
    assert part.verdict == DIFFERS and part.where.startswith("b: expected 0.5, found 0.5005")
    assert judged("metrics", "x", pairs[:1]).verdict == CLOSE
    assert judged("metrics", "x", pairs[2:]).verdict == IDENTICAL
    assert judged("metrics", "x", [Pair("d", 1e-3, 0.5, float("nan"))]).verdict == DIFFERS


def test_a_number_that_moved_and_has_no_tolerance_is_not_judged_unless_another_one_differs() -> (
    None
):
    unknown, beyond = Pair("a", None, 0.5, 0.6), Pair("b", 0.01, 0.5, 0.6)
    assert judged("metrics", "x", [unknown, Pair("c", 0.2, 0.5, 0.6)]).verdict == UNKNOWN
    assert judged("metrics", "x", [unknown, beyond]).verdict == DIFFERS
    assert judged("metrics", "x", [Pair("a", None, 0.5, 0.5)]).verdict == IDENTICAL
    assert judged("metrics", "x", [Pair("a", None, None, 0.5)]).verdict == DIFFERS  # a lost row
    assert Comparison([judged("metrics", "x", [unknown])]).wrong


def test_what_has_no_declared_tolerance_is_refused() -> None:
    with pytest.raises(ClipadError, match="found no tolerance for pages value in float32"):
        declared("pages", "value", "float32")
