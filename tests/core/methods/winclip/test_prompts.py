"""The prompt lists as data."""

import pytest

from clipad_core.errors import ClipadError
from clipad_core.methods.winclip.prompts import (
    ENSEMBLES,
    TEMPLATES_DOT,
    ZQ21_DOT,
    find_ensemble,
)

COUNTS = {
    "full22_dot": (154, 88),
    "full22_nodot": (154, 88),
    "zq21_dot": (147, 84),
    "compact_note003": (5, 50),
    "one_class": (1, 0),
    "two_class": (1, 1),
    "states_only": (7, 4),
    "templates_only": (22, 22),
    "single_pair": (1, 1),
}


@pytest.mark.parametrize("name", list(ENSEMBLES))
def test_every_list_has_its_published_size_and_source(name: str) -> None:
    normal, anomalous = ENSEMBLES[name].prompts("metal nut")
    assert (len(normal), len(anomalous)) == COUNTS[name]
    assert all("metal nut" in prompt and "{" not in prompt for prompt in normal + anomalous)
    assert ENSEMBLES[name].source


@pytest.mark.parametrize("name", [name for name in ENSEMBLES if name != "zq21_dot"])
def test_no_list_has_duplicates_but_the_one_that_is_known_for_it(name: str) -> None:
    prompts = [prompt for group in ENSEMBLES[name].prompts("bottle") for prompt in group]
    assert len(set(prompts)) == len(prompts)


def test_the_21_entry_list_lacks_two_templates_and_doubles_one() -> None:
    assert len(ZQ21_DOT) == 21 and len(set(ZQ21_DOT)) == 20
    assert ZQ21_DOT.count("a jpeg corrupted photo of the {}.") == 2
    assert set(TEMPLATES_DOT) - set(ZQ21_DOT) == {
        "a cropped photo of a {}.",
        "a jpeg corrupted photo of a {}.",
    }


def test_task_states_join_the_anomalous_ones() -> None:
    ensemble = find_ensemble("states_only").with_states(("{} with bad soldering",))
    assert ensemble.prompts("pcb")[1][-1] == "pcb with bad soldering"
    assert len(ensemble.prompts("pcb")[0]) == 7


def test_a_class_name_with_braces_is_taken_as_it_is() -> None:
    assert ENSEMBLES["two_class"].prompts("{0}") == (("normal {0}",), ("anomalous {0}",))


def test_an_unknown_ensemble_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ClipadError, match="expected one of full22_dot"):
        find_ensemble("imagenet")
