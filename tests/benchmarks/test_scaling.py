"""The simulation of clusters: against a run worked out by hand, and what it says holds a run up."""

import pytest

from benchmarks.scaling import Costs, Group, bounds, simulate

FOUR = [Group(4, 10), Group(3, 10), Group(2, 10), Group(1, 10)]


@pytest.mark.parametrize(
    ("workers", "costs", "seconds"),
    [
        (1, Costs(0, 0), 10),
        (2, Costs(0, 0), 5),  # 4 and 1, beside 3 and 2
        (2, Costs(1, 0), 6),
        (4, Costs(0, 0), 4),
        (4, Costs(0, 2), 7),  # handed out at 0, 2, 4 and 6
        (4, Costs(0, 0, weights=10, disk=10), 8),  # 40 bytes to read before, 4 seconds of work
        (4, Costs(0, 0, weights=0, disk=4), 10),  # 40 bytes to write
    ],
)
def test_a_simulated_run_takes_what_it_takes_by_hand(
    workers: int, costs: Costs, seconds: float
) -> None:
    assert simulate(FOUR, workers, costs) == seconds
    assert max(bounds(FOUR, workers, costs).values()) <= seconds


def test_more_workers_are_never_slower_and_the_limit_has_a_name() -> None:
    groups, costs = [Group(1 + place % 5, 0) for place in range(40)], Costs(1, 0.001)
    runs = [simulate(groups, workers, costs) for workers in (1, 2, 8, 64)]
    assert runs == sorted(runs, reverse=True)
    names = [
        max(limits, key=limits.__getitem__) for n in (2, 64) if (limits := bounds(groups, n, costs))
    ]
    assert names == ["work", "longest group"]
