"""`clipad plan`: counts of what runs, and what is missing, without running or fetching anything."""

from pathlib import Path

import pytest
from project import change, draw_all, make_project

from clipad_harness.base.settings import read_profile
from clipad_harness.cli.main import main
from clipad_harness.experiments import plan
from clipad_harness.experiments.pipeline import open_run
from clipad_harness.experiments.variants import trainings


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = make_project(tmp_path_factory.mktemp("plan"))
    draw_all(found)
    return found


def test_the_counts_are_those_of_the_run_itself(project: Path) -> None:
    jobs = {one.method: one for one in plan.make_plan(project, read_profile(project), 1e9)}
    run = open_run(project, "anomalyclip")
    assert jobs["anomalyclip"].trainings == len(trainings(run.variants))
    trainer = run.trainer()
    steps = sum(trainer.steps(job) for job in trainings(run.variants))
    assert jobs["anomalyclip"].steps == steps
    assert jobs["winclip"].images == len(run.index[run.index["split"] == "test"])
    assert jobs["winclip"].trainings == 0 and all(one.seconds > 0 for one in jobs.values())


def test_twice_the_speed_is_less_time(project: Path) -> None:
    profile = read_profile(project)
    for slow, fast in zip(
        plan.make_plan(project, profile, 1e9), plan.make_plan(project, profile, 2e9), strict=True
    ):
        assert fast.seconds < slow.seconds < 2 * fast.seconds + 1e-9


def test_float64_takes_twice_the_room_of_float32_and_more_time(project: Path) -> None:
    wide = plan.make_plan(project, read_profile(project), 1e9)
    before = (project / "params.yaml").read_text()
    for method in ("winclip", "anomalyclip", "vcpclip"):
        change(project, "profiles", "demo", method, "changes", "precision", value="float32")
    narrow = plan.make_plan(project, read_profile(project), 1e9)
    (project / "params.yaml").write_text(before)
    for one, other in zip(wide, narrow, strict=True):
        assert one.gigabytes == pytest.approx(2 * other.gigabytes)
        assert one.memory > other.memory and one.seconds > other.seconds


def test_operations_of_the_towers_are_those_that_are_counted(micro) -> None:
    import torch
    from micro import MICRO
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from clipad_core.clip.vision import embed_patches, encode_whole, pre_norm

    x = pre_norm(micro.vision, embed_patches(micro.vision, torch.zeros(1, 3, 32, 32))[0])
    from clipad_harness.experiments.contenders import _PACKED

    counter = FlopCounterMode(display=False, custom_mapping=_PACKED)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        encode_whole(micro.vision, x, (3,))
    assert plan.tower_operations(MICRO, 17) == pytest.approx(counter.get_total_flops(), rel=0.01)


def run(project: Path, monkeypatch, capsys, *words: str) -> tuple[int, str]:
    monkeypatch.setenv("CLIPAD_ROOT", str(project))
    monkeypatch.setattr(plan, "speed", lambda: 1e10)
    try:
        code = main(["plan", *words])
    except SystemExit as stopped:
        code = int(str(stopped.code))
    return code, capsys.readouterr().out


def test_nothing_missing_is_said_and_ends_with_zero(project: Path, monkeypatch, capsys) -> None:
    code, text = run(project, monkeypatch, capsys)
    assert code == 0 and "Nothing is missing." in text and "VCP-CLIP" in text


def test_the_paper_profile_without_data_and_weights_names_both(
    project: Path, monkeypatch, capsys
) -> None:
    monkeypatch.delenv("CLIPAD_DATA", raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(project / "none"))
    code, text = run(project, monkeypatch, capsys, "--profile", "paper")
    assert code == 1 and "No method can run" in text
    assert "dataset mvtec: found none in" in text and "dataset visa: found none in" in text
    assert "weights ViT-L-14-336-quickgelu, openai for VCP-CLIP" in text


def test_an_unknown_profile_is_one_message(project: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("CLIPAD_ROOT", str(project))
    assert main(["plan", "--profile", "papr"]) == 1
    assert "found no 'papr', only demo, paper" in capsys.readouterr().err


def test_times_are_said_in_words() -> None:
    assert [plan._duration(s) for s in (30, 600, 86400, 1e6)] == [
        *("30 seconds", "10 minutes", "24 hours", "12 days"),
    ]
