"""Files of learned methods as people have them: wrapped, prefixed, degenerate."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from clipad_core.errors import ClipadError
from clipad_core.learned.checkpoint_files import check_fit, flatten, read_pth

GROUPS = {"prompt_learner": {"ctx": torch.ones(2)}, "norm": torch.zeros(1)}
FLAT = {"prompt_learner/ctx": [1.0, 1.0], "norm": [0.0]}


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    "content",
    [
        GROUPS,
        {"state_dict": GROUPS, "epoch": 3, "optimizer": {"param_groups": [{"lr": 0.1}]}},
        {"model_state_dict": GROUPS},
        {"model": GROUPS},
        {"module.prompt_learner": {"module.ctx": torch.ones(2)}, "module.norm": torch.zeros(1)},
    ],
)
def test_what_a_trainer_puts_around_a_learner_is_taken_off(tmp_path: Path, content: Any) -> None:
    path = saved(tmp_path / "x.pth", content)
    flat = {name: tensor.tolist() for name, tensor in flatten(read_pth(path), path).items()}
    assert flat == FLAT


def test_a_group_of_the_backbones_own_beside_others_stays_where_it_is(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pth", {**GROUPS, "model": {"proj": torch.zeros(1)}})
    assert set(flatten(read_pth(path), path)) == {*FLAT, "model/proj"}


def test_a_group_inside_itself_is_one_message(tmp_path: Path) -> None:
    content: dict[str, Any] = dict(GROUPS)
    content["again"] = content
    path = saved(tmp_path / "x.pth", content)
    with pytest.raises(ClipadError, match="without end inside each other"):
        flatten(read_pth(path), path)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.ones(2).to(torch.float8_e4m3fn), "is in float8_e4m3fn"),
        (torch.ones(2).to(torch.complex64), "is in complex64"),
        (torch.ones(2).int(), r"is in torch\.int32, expected floating-point"),
        (torch.ones(2).to_sparse(), "is sparse"),
        (torch.ones(2).to("meta"), "has no values"),
        (torch.ones(0), r"is \(0,\), expected \(2,\)"),
        (torch.full((2,), 1e300, dtype=torch.float64), "not finite"),
    ],
)
def test_tensors_that_nothing_computes_with_are_one_message(
    tmp_path: Path, tensor: Tensor, message: str
) -> None:
    path = saved(tmp_path / "x.pth", {"ctx": tensor})
    with pytest.raises(ClipadError, match=message):
        check_fit(flatten(read_pth(path), path), {"ctx": (2,)}, path, "some method")


def test_a_pointer_in_place_of_a_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ClipadError, match="Git LFS"):
        read_pth(path)
