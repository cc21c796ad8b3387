"""What made a page, where its numbers come from, what to cite; and the run record that hashes leave out."""

import json
import resource
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from bs4 import BeautifulSoup

from clipad_core.clip.backbone import Backbone
from clipad_core.errors import ClipadError
from clipad_harness.base import machine, run_record
from clipad_harness.papers import citations
from clipad_harness.report import provenance
from clipad_harness.report.provenance import origin_anchor
from clipad_harness.site.page import network_loads, page

FACTS = {"data hash": "ab" * 32, "licence of the data": "CC <0>"}


def results() -> pd.DataFrame:
    rows = [
        {"category": c, "k_shot": k, "seed": s, "metric": m, "key": f"{c}{k}{s}"}
        for c in ("nut", "<b>")
        for k, seeds in ((0, (0,)), (4, (0, 1, 2)))
        for s in seeds
        for m in ("aupro", "image_auroc")
    ]
    return pd.DataFrame(rows)


def test_each_number_of_shots_has_a_row_with_seeds_shards_data_licence_and_code() -> None:
    html = provenance.origins(
        results(), {"temperature": 0.07}, FACTS, ["clipad_core/methods/winclip/detector.py"]
    )
    soup = BeautifulSoup(html, "html.parser")
    row = soup.find(id=origin_anchor("4-shot"))
    assert [cell.get_text() for cell in row.find_all(["th", "td"])] == [
        *("4-shot", "0, 1, 2", "6", "ab" * 8, "CC <0>", "clipad_core/methods/winclip/detector.py"),
        "params.yaml, all fields",
    ]
    for link in soup.select('a[href^="#"]'):
        assert soup.find(id=link["href"][1:]) is not None, link
    keys = soup.find(id="keys-0-shot").get_text()
    assert "nut00" in keys and "<b>00" in keys and soup.find("b") is None
    assert "0.07" in soup.find(id="origin-config").get_text()


def test_hashes_follow_the_settings_and_the_code(micro: Backbone, tmp_path: Path) -> None:
    def about(parameters: dict) -> dict[str, str]:
        return provenance.about_page(
            dataset="mvtec",
            images=3,
            data_hash="0",
            backbones=[micro, micro],
            methods=["winclip"],
            parameters=parameters,
        )

    base, changed = about({"a": 1}), about({"a": 2})
    assert (base["precision"], base["device"]) == ("float32", "cpu")
    assert {name for name in base if base[name] != changed[name]} == {"parameters hash"}
    assert base["licence of the data"] == "CC BY-NC-SA 4.0" and base["weights hash"] == micro.digest
    files = {
        "clipad_core/clip/a.py": True,
        "clipad_core/methods/winclip/a.py": True,
        "clipad_core/methods/vcpclip/a.py": False,  # another method
        "clipad_harness/report/a.py": True,
        "clipad_harness/site/templates/a.css": True,
        "clipad_harness/site/a.pyc": False,
        "clipad_harness/verify/a.py": False,  # makes no page
    }
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    first = provenance.code_hash(["winclip"], tmp_path)
    for name, counts in files.items():
        (tmp_path / name).write_text("2")
        assert (provenance.code_hash(["winclip"], tmp_path) != first) is counts, name
        (tmp_path / name).write_text("1")


def test_the_machine_is_told_by_the_run_record_and_no_byte_of_a_page_depends_on_it(
    micro: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_page() -> tuple[str, dict[str, str]]:
        facts = provenance.about_page(
            dataset="mvtec",
            images=3,
            data_hash="0",
            backbones=[micro],
            methods=["winclip"],
            parameters={},
        )
        written = tmp_path / "reports" / "page.html"
        written.parent.mkdir(exist_ok=True)

        def work() -> Path:
            written.write_text(page("Title", "<p>body</p>", provenance=facts))
            return written

        run_record.recorded(tmp_path, "notebook winclip", work)
        record = run_record.read_records(tmp_path / "reports" / "run.js")["notebook winclip"]
        return written.read_text(), record["environment"]

    first_text, about = write_page()
    cpu = tmp_path / "cpuinfo"
    cpu.write_text("processor\t: 0\nmodel name\t: Another CPU\nflags\t\t: fpu sse4_2 avx2\n")
    monkeypatch.setattr(machine, "PROCESSOR", cpu)
    monkeypatch.setattr(machine, "version", lambda name: "9.9")
    monkeypatch.setattr("platform.python_version", lambda: "3.99.0")
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(96)), raising=False)
    monkeypatch.setattr("torch.get_num_threads", lambda: 96)
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "another")
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    second_text, second_about = write_page()
    assert second_text == first_text
    assert [name for name in about if about[name] == second_about[name]] == []
    assert (
        second_about["processor"] == "Another CPU"
        and second_about["CPU features"] == "avx2, sse4_2"
    )
    assert (second_about["python"], second_about["cores"]) == ("3.99.0", "96")
    assert (
        "torch 9.9" in second_about["packages"]
        and "ATEN_CPU_CAPABILITY=avx2" in second_about["switches"]
    )
    monkeypatch.setattr(machine, "PROCESSOR", tmp_path / "none")  # as on macOS
    assert write_page()[1]["CPU features"] == "not known"


@pytest.mark.parametrize("method", ["winclip", "anomalyclip", "vcpclip"])
@pytest.mark.parametrize("dataset", ["mvtec", "synthetic_target"])
def test_a_page_cites_the_method_the_dataset_and_us(method: str, dataset: str) -> None:
    entries = citations.citations(method, dataset)
    assert [label.partition(":")[0] for label, _ in entries] == [
        "The method",
        "The dataset",
        "clipad",
    ]
    for _, entry in entries:
        assert entry.startswith("@") and entry.count("{") == entry.count("}")
        assert "title" in entry
    assert entries[0][1].partition("{")[2].startswith(f"{method},")


def test_a_method_that_nobody_has_published_is_not_cited() -> None:
    labels = [label.partition(":")[0] for label, _ in citations.citations("mine", "mvtec")]
    assert labels == ["The dataset", "clipad"]


def test_an_entry_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.bib"
    path.write_text("@misc{a,\n  x = {1}\n}\n@misc{a,\n  x = {2}\n}\n")
    with pytest.raises(ClipadError, match="found the key 'a' twice"):
        citations.read_bibliography(path)


def test_an_entry_without_an_end_is_refused_and_swallows_none(tmp_path: Path) -> None:
    path = tmp_path / "open.bib"
    path.write_text("@misc{a,\n  x = {1}\n@misc{b,\n  x = {2}\n}\n")
    with pytest.raises(ClipadError, match="found no end of the entry 'a'"):
        citations.read_bibliography(path)
    assert {"aprilgan", "clip"} <= citations.read_bibliography().keys()


def git(folder: Path, *words: str) -> None:
    name = ["-c", "user.name=tests", "-c", "user.email=tests@example.org"]
    subprocess.run(["git", *name, *words], cwd=folder, check=True, capture_output=True)


def test_a_stage_leaves_time_host_commit_and_memory_beside_its_page(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "a.txt")
    git(tmp_path, "commit", "--quiet", "-m", "</script>")
    (tmp_path / "reports").mkdir()
    written = tmp_path / "reports" / "page.html"

    def work() -> Path:
        time.sleep(0.4)
        written.write_text(page("Title", "<p>body</p>"))
        return written

    assert (
        run_record.recorded(tmp_path, "measure winclip", lambda: tmp_path / "a.txt").name == "a.txt"
    )
    (tmp_path / "a.txt").write_text("2")
    assert run_record.recorded(tmp_path, "notebook winclip", work) == written
    records = run_record.read_records(tmp_path / "reports" / "run.js")
    assert list(records) == ["measure winclip", "notebook winclip"]
    first, second = records.values()
    assert len(first["commit"]) == 40 and second["commit"] == f"{first['commit']} with changes"
    assert first["page"] == "" and f'data-page="{second["page"]}"' in written.read_text()
    assert second["seconds"] >= 0.4 > first["seconds"] >= 0
    assert run_record.commit(tmp_path / "reports") == ""


@pytest.mark.parametrize(("system", "unit"), [("linux", 2**10), ("darwin", 1)])
def test_memory_and_time_are_those_of_the_stage_and_of_the_processes_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str, unit: int
) -> None:
    """Linux counts the most that was held in KiB, macOS in bytes."""
    held = {resource.RUSAGE_SELF: 2**31 // unit, resource.RUSAGE_CHILDREN: 2**32 // unit}
    share, worked = {resource.RUSAGE_SELF: 1.0, resource.RUSAGE_CHILDREN: 2.5}, [3.0]

    def usage(who: int) -> SimpleNamespace:
        used = share[who] * worked[0]
        return SimpleNamespace(ru_maxrss=held[who], ru_utime=0.75 * used, ru_stime=0.25 * used)

    def work() -> Path:
        worked[0] += 2
        return tmp_path

    monkeypatch.setattr(run_record.resource, "getrusage", usage)
    monkeypatch.setattr(run_record.sys, "platform", system)
    run_record.recorded(tmp_path, "one", work)
    [record] = run_record.read_records(tmp_path / "reports" / "run.js").values()
    assert record["peak_mib"] == 4096 and record["cpu_seconds"] == 2 * (1.0 + 2.5)


def test_a_stage_that_fails_leaves_no_record_and_a_foreign_file_is_replaced(tmp_path: Path) -> None:
    def fail() -> Path:
        raise ClipadError("no")

    with pytest.raises(ClipadError, match="^no$"):
        run_record.recorded(tmp_path, "index", fail)
    path = tmp_path / "reports" / "run.js"
    assert not path.exists()
    path.parent.mkdir()
    path.write_text("alert(1)")
    run_record.recorded(tmp_path, "index", lambda: tmp_path / "index.csv")
    text = path.read_text()
    assert text.startswith("var clipadRun = {") and "alert" not in text
    assert list(json.loads(text[len("var clipadRun = ") : -2])) == ["index"]


def test_of_a_stage_that_did_not_end_well_the_reason_is_kept_until_it_does(tmp_path: Path) -> None:
    def fail() -> Path:
        raise ClipadError(f"{tmp_path}/data: no images.")

    def stop() -> Path:
        assert run_record.unfinished(tmp_path).keys() == {
            "index",
            "measure winclip",
        }  # as in a kill
        raise KeyboardInterrupt

    with pytest.raises(ClipadError, match="no images"):
        run_record.recorded(tmp_path, "index", fail)
    with pytest.raises(KeyboardInterrupt):
        run_record.recorded(tmp_path, "measure winclip", stop)
    assert run_record.unfinished(tmp_path) == {
        "index": "data: no images.",
        "measure winclip": "It was stopped or killed.",
    }
    for stage in ("index", "measure winclip"):
        run_record.recorded(tmp_path, stage, lambda: tmp_path / "index.csv")
    assert run_record.unfinished(tmp_path) == {}


def test_a_record_that_cannot_be_written_fails_no_stage(tmp_path: Path, capsys) -> None:
    (tmp_path / "reports").touch()  # no folder
    (tmp_path / ".cache").touch()
    output = tmp_path / "index.csv"
    assert run_record.recorded(tmp_path, "index", lambda: output) == output
    assert "run.js is not written" in capsys.readouterr().err


def test_a_page_depends_on_its_content_alone_and_loads_only_its_run_record() -> None:
    content = page("Title", "<p>a</p>", provenance={"x": "1"}, command="./repro")
    assert content == page("Title", "<p>a</p>", provenance={"x": "1"}, command="./repro")
    assert (
        content[:400] != page("Title", "<p>b</p>", provenance={"x": "1"}, command="./repro")[:400]
    )
    assert '<script src="run.js"></script>' in content and network_loads(content) == []
    for src in ("../run.js", "https://a.org/run.js", "run.js?x", "other.js", "//a.org/run.js"):
        assert network_loads(f'<script src="{src}"></script>') == [f'script src="{src}"']
    assert network_loads('<img src="run.js">') == ['img src="run.js"']
    with pytest.raises(ClipadError, match="loads nothing from outside"):
        page("Title", "<p>a</p>", origins='<img src="https://a.org/b.png">')
