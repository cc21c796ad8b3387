"""Beside an accelerator a shard is measured while the next is detected, to the files of one by one."""

import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerator import accelerator
from project import change, make_project

from clipad_core.errors import ClipadError
from clipad_harness.data.stages import write_index
from clipad_harness.experiments import pipeline
from clipad_harness.experiments import scorer as scorer_module
from clipad_harness.experiments.scorer import Scorer
from clipad_harness.experiments.shards import CategoryScores, Record
from clipad_harness.experiments.variants import Shard
from clipad_harness.standin.datasets import draw

__all__ = ["accelerator"]

# One group, in the order in which it is measured: the headline and three rows that are kept by image, then
# one that equals the last of them, whose file is read, and another.
QUESTIONS = {
    "one class": {"prompts": "one_class"},
    "200 steps": {"aupro": "cflow200"},
    "folder name": {"class_name": "raw"},
}
ABLATIONS = {"folder name again": {"class_name": "raw"}, "100 steps": {"aupro": "mvtec"}}
DETECTED, EQUAL = [0, 1, 2, 3, 5], 4
SECONDS = 30  # until what never comes is an error
MAIN_THREAD = threading.main_thread()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_project(tmp_path_factory.mktemp("beside"))
    for name, rows in (("questions", QUESTIONS), ("ablations", ABLATIONS)):
        change(root, "winclip", name, value={"rows": {"k_shots": [0], "rows": rows}})
    for name, value in (("walks", []), ("own_walks", {}), ("k_shots", [0])):
        change(root, "winclip", name, value=value)
    change(root, "profiles", "demo", "categories", value=["hex_nut"])
    draw(root, "synthetic_target")
    write_index(root)
    return root


@dataclass
class Watched:
    """A scorer, what its group's shards are, and who began and ended what, in order."""

    scorer: Scorer
    group: list[Shard]
    steps: list[int] = field(default_factory=list)
    events: list[tuple[str, int]] = field(default_factory=list)
    threads: dict[str, set[threading.Thread]] = field(default_factory=dict)

    def finish(self) -> list[Record]:
        return self.scorer.finish_all(self.group, self.steps.append)

    def files(self) -> dict[str, bytes]:
        folder = self.scorer.encodings.folder / "shards"
        return {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    def unmeasured(self) -> int:
        """How many shards are detected and not measured yet."""
        ends = [what for what, _ in self.events]
        return ends.count("detected") - ends.count("measured")


Step = Callable[[int], object]


def nothing(place: int) -> None: ...


def watched(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    beside: bool | None = None,
    detecting: Step = nothing,
    measuring: Step = nothing,
) -> Watched:
    """A scorer that has features and no shard.

    Args:
        beside: whether it is as on an accelerator; None: as its device has it.
        detecting: called with the place of a shard before it is detected; ``measuring``: measured.
    """
    if beside is not None:
        monkeypatch.setattr(Scorer, "measures_beside", beside)
    run = pipeline.open_run(project, "winclip")
    scorer = run.scorer()
    shutil.rmtree(scorer.encodings.folder / "shards", ignore_errors=True)
    seen = Watched(scorer, run.shards)
    places = {shard: place for place, shard in enumerate(run.shards)}
    order: dict[int, int] = {}
    detect, measure = scorer.detect, scorer_module.measure

    def step(what: str, done: str, place: int, before: Step, work: Callable[[], Any]) -> Any:
        seen.threads.setdefault(what, set()).add(threading.current_thread())
        before(place)
        result = work()
        seen.events.append((done, place))
        return result

    def watched_detect(shard: Shard) -> CategoryScores:
        place = places[shard]
        scored = step("detect", "detected", place, detecting, lambda: detect(shard))
        order[id(scored)] = place
        return scored

    def watched_measure(scored: CategoryScores, *rest: Any) -> dict[str, float]:
        place = order[id(scored)]
        return step("measure", "measured", place, measuring, lambda: measure(scored, *rest))

    monkeypatch.setattr(scorer, "detect", watched_detect)
    monkeypatch.setattr(scorer_module, "measure", watched_measure)
    return seen


def raising(error: Exception, at: int) -> Step:
    def step(place: int) -> None:
        if place == at:
            raise error

    return step


def keys(seen: Watched, shards: Sequence[Shard]) -> set[str]:
    return {f"{seen.scorer.key(shard)}.json" for shard in shards}


def test_a_shard_is_measured_while_the_next_one_is_detected(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both sides of each pair wait for each other: one after the other, neither would come."""
    meeting = threading.Barrier(2, timeout=SECONDS)
    seen = watched(
        project,
        monkeypatch,
        beside=True,
        detecting=lambda place: place in (1, 2, 3) and meeting.wait(),
        measuring=lambda place: place in (0, 1, 2) and meeting.wait(),
    )
    assert len({seen.scorer.shares(shard) for shard in seen.group}) == 1
    records = seen.finish()
    assert [record.key for record in records] == [seen.scorer.key(s) for s in seen.group]
    assert seen.steps == [1] * 6
    assert seen.threads["detect"] == {MAIN_THREAD}
    assert len(seen.threads["measure"]) == 1 and MAIN_THREAD not in seen.threads["measure"]


def test_files_and_records_on_an_accelerator_are_those_of_one_by_one(
    project: Path,
    tmp_path: Path,
    accelerator: torch.device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = Path(shutil.copytree(project, tmp_path / "project"))
    change(root, "profiles", "demo", "device", value="auto")
    results = []
    for beside in (None, False):
        with monkeypatch.context() as patch:
            seen = watched(root, patch, beside=beside)
            results.append((seen.finish(), seen.files()))
            assert (seen.threads["measure"] == {MAIN_THREAD}) is (beside is False)
            assert {type(one) for one in seen.scorer.detect(seen.group[0]).maps} == {np.ndarray}
    assert results[0] == results[1]
    kinds = [Path(name).suffix for name in results[0][1]]
    assert kinds.count(".json") == 5 and kinds.count(".safetensors") == 4


def test_not_more_than_one_detected_shard_waits(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    third, waiting = threading.Event(), list[int]()

    def detecting(place: int) -> None:
        waiting.append(seen.unmeasured())
        if place == 2:
            third.set()

    seen = watched(
        project,
        monkeypatch,
        beside=True,
        detecting=detecting,
        # The third comes meanwhile only if it does not wait for this one.
        measuring=lambda place: place == 0 and third.wait(0.5),
    )
    seen.finish()
    assert max(waiting) == 1


def test_a_shard_that_equals_the_one_before_it_waits_for_its_metrics(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again, measured = threading.Event(), list[int]()

    def measuring(place: int) -> None:
        measured.append(place)
        if place == EQUAL - 1:
            again.wait(0.5)

    seen = watched(
        project,
        monkeypatch,
        beside=True,
        detecting=lambda place: place == EQUAL and again.set(),
        measuring=measuring,
    )
    records = seen.finish()
    assert measured == DETECTED and records[EQUAL] == records[EQUAL - 1]


@pytest.mark.parametrize("error", [ClipadError("shard: found it wrong."), MemoryError("full")])
@pytest.mark.parametrize("beside", [True, False])
def test_an_error_of_metrics_ends_the_group_and_what_was_before_it_is_kept(
    beside: bool,
    error: Exception,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads = threading.active_count()
    seen = watched(project, monkeypatch, beside=beside, measuring=raising(error, at=1))
    with pytest.raises(type(error), match=str(error)) as caught:
        seen.finish()
    assert caught.value is error
    assert keys(seen, seen.group[:1]) == {n for n in seen.files() if n.endswith(".json")}
    assert seen.steps == [1] and ("detected", 3) not in seen.events
    assert threading.active_count() == threads


def test_an_error_of_the_next_detection_leaves_what_is_being_measured(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error, threads = ClipadError("image: damaged."), threading.active_count()
    began = threading.Event()
    fail = raising(error, at=2)
    seen = watched(
        project,
        monkeypatch,
        beside=True,
        detecting=lambda place: (place == 2 and began.wait(SECONDS), fail(place)),
        measuring=lambda place: place == 1 and began.set(),
    )
    with pytest.raises(ClipadError, match="image: damaged"):
        seen.finish()
    assert keys(seen, seen.group[:2]) == {n for n in seen.files() if n.endswith(".json")}
    assert seen.steps == [1, 1] and threading.active_count() == threads


def test_of_two_errors_that_of_the_earlier_shard_is_said(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = watched(
        project,
        monkeypatch,
        beside=True,
        detecting=raising(ClipadError("the second's detection"), at=1),
        measuring=raising(ClipadError("the first's metrics"), at=0),
    )
    with pytest.raises(ClipadError, match="the first's metrics"):
        seen.finish()
    assert not seen.files()


def test_what_is_kept_is_read_and_what_is_missing_is_detected_once(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = watched(project, monkeypatch, beside=True)
    records, files = seen.finish(), seen.files()
    detected = [place for what, place in seen.events if what == "detected"]
    assert detected == DETECTED
    seen.events.clear()
    assert seen.finish() == records and seen.events == []
    [path] = project.rglob(f"{records[0].key}.safetensors")
    path.unlink()
    assert seen.finish() == records and seen.events == [("detected", 0)]
    assert seen.files() == files


def test_on_a_cpu_nothing_runs_in_a_second_thread(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: set[int] = set()
    seen = watched(
        project,
        monkeypatch,
        detecting=lambda _: counts.add(threading.active_count()),
        measuring=lambda _: counts.add(threading.active_count()),
    )
    before = threading.active_count()
    seen.finish()
    assert not seen.scorer.measures_beside and counts == {before}
    assert seen.threads == {"detect": {MAIN_THREAD}, "measure": {MAIN_THREAD}}
    places = [place for _, place in seen.events]
    assert places == sorted(places)
