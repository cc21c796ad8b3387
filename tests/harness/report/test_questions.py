"""What a question's rows answer: verdicts are read off intervals, and a row that is absent says so."""

from collections.abc import Sequence
from types import SimpleNamespace

import pytest
from foreseen import Foreseen

from clipad_core.errors import ClipadError
from clipad_harness.report import questions
from clipad_harness.report.questions import Asked, Effect

SCORER = SimpleNamespace(backbone=lambda _config: SimpleNamespace(kind="stand-in"))


def asked(*rows: Foreseen) -> Asked:
    for row in rows:
        object.__setattr__(row, "scorer", SCORER)
        object.__setattr__(row, "variant", SimpleNamespace(config=None))
    return Asked("winclip", "templates", rows, ["nut", "bolt"])  # type: ignore[arg-type]


WEAK, STRONG, LIKE_WEAK = (
    Foreseen("weak", 0.0),
    Foreseen("strong", 1.5),
    Foreseen("like weak", 0.01),
)


@pytest.mark.parametrize(
    ("row", "base", "points", "word"),
    [
        ("strong", "weak", 0.0, "yes"),
        ("weak", "strong", 0.0, "no"),
        ("strong", "weak", 99.0, "no"),
        ("weak", "strong", -99.0, "yes"),
        ("like weak", "weak", 0.0, "undecided"),
    ],
)
def test_a_verdict_is_read_off_the_interval(row: str, base: str, points: float, word: str) -> None:
    question = asked(WEAK, STRONG, LIKE_WEAK)
    verdict = question.verdict(row, base, "image", points)
    assert verdict is not None and verdict.word == word
    effect = question.effect(row, base, "image")
    assert f"{row} minus {base} by image AUROC: {effect} points" == verdict.sentence
    answer = question.answer(verdict, "It holds.", "It fails.")
    begin = {
        "yes": "Yes. It holds.",
        "no": "No. It fails.",
        "undecided": "Undecided on these weights",
    }
    assert begin[word] in answer and "40 images of 2 categories, stand-in weights" in answer


def test_the_table_gives_every_row_its_distance_to_the_base() -> None:
    page = asked(WEAK, STRONG).table("weak")
    assert page.count("base") >= 3 and "points to weak" in page
    assert str(asked(WEAK, STRONG).effect("strong", "weak", "pixel")) in page


def test_the_figure_says_in_words_what_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def note(_figure: object, alt: str, *, caption: str) -> None:
        said.extend((alt, caption))

    monkeypatch.setattr(questions, "show", note)
    asked(WEAK, STRONG).figure("weak")
    assert "WinCLIP: each row minus weak" in said[1] and "strong +" in said[0]


def test_what_is_not_measured_is_said_and_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "show", lambda *_: pytest.fail("drawn"))
    absent = asked()
    assert absent.verdict("a", "b", "image") is None
    absent.figure("a")
    for page in (absent.table("a"), absent.answer(None, "", "")):
        assert "WinCLIP, templates: not measured in this run" in page


def test_a_row_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(
        ClipadError, match="templates: found no row 'strange', expected one of weak"
    ):
        asked(WEAK, STRONG).effect("strange", "weak", "image")


@pytest.mark.parametrize(
    ("interval", "is_clear"), [((0.1, 2.0), True), ((-2.0, -0.1), True), ((-1.0, 1.0), False)]
)
def test_a_difference_is_clear_where_its_interval_leaves_zero_out(
    interval: Sequence[float], is_clear: bool
) -> None:
    assert Effect(0.5, *interval).clear is is_clear
