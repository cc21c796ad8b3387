"""Captions for drawn pairs: one sentence for the sound image, one for the damaged, one difference.

Both captions of a pair share the template and the noun; only the state differs. So the state is the
only thing that the contrast inside a pair can learn from. The words "normal" and "anomalous" are
never written: they are the words of the two-class baseline, not of captions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

import torch
from jaxtyping import Int
from torch import Tensor

from clipad_core.clip.open_clip import open_clip
from clipad_core.methods.winclip.prompts import ANOMALOUS_STATES, NORMAL_STATES, TEMPLATES_DOT

GENERIC = "object"
# A word that no caption trains: its vocabulary row stays zero, as the row of any category name met
# later does. Captions that hold it teach the tower to read the state without the name.
UNKNOWN = "qqq"
UNKNOWN_ROW = 0


@dataclass(frozen=True)
class Subject:
    """What a pair shows: the thing (name, colour, material) and what is wrong with its damaged half."""

    name: str
    colour: str
    material: str
    defect: str


@dataclass(frozen=True)
class CaptionPair:
    """One sentence each; ``specific`` where the noun tells this thing from most others."""

    sound: str
    damaged: str
    specific: bool


def words(text: str) -> str:
    """A code name as words: ``missing_part`` -> ``missing part``."""
    return text.replace("_", " ")


def noun(subject: Subject, chance: Random, recoloured: bool) -> tuple[str, bool]:
    """A way to name the thing, and whether it is specific; a recoloured drawing keeps no colour word."""
    name, material = words(subject.name), words(subject.material)
    colour = "" if recoloured else words(subject.colour)
    draw = chance.random()
    if draw < 0.30:
        return GENERIC, False
    if draw < 0.42:
        return " ".join([UNKNOWN] * chance.choice((1, 1, 2, 3))), False
    if draw < 0.47:
        return f"{material} {GENERIC}".strip(), False
    if draw < 0.75:
        return name, True
    if draw < 0.90:
        return f"{colour} {name}".strip(), True
    return " ".join(f"{colour} {material} {name}".split()), True


def caption_pair(subject: Subject, chance: Random, recoloured: bool = False) -> CaptionPair:
    """Write both captions of a pair: same template, same noun, opposite states.

    The states are WinCLIP's (7 normal, 4 anomalous); a third of the damaged captions names the
    defect instead, and half of their partners deny it ("without scratch").
    """
    phrase, specific = noun(subject, chance, recoloured)
    template = chance.choice(TEMPLATES_DOT)
    sound, damaged = chance.choice(NORMAL_STATES), chance.choice(ANOMALOUS_STATES)
    if chance.random() < 0.33:
        damaged = f"{{}} with {words(subject.defect)}"
        if chance.random() < 0.5:
            sound = f"{{}} without {words(subject.defect)}"
    return CaptionPair(
        template.format(sound.format(phrase)), template.format(damaged.format(phrase)), specific
    )


def vocabulary(subjects: Iterable[Subject]) -> Int[Tensor, " rows"]:
    """Sorted ids of every token that captions of these subjects can hold, without the unknown word."""
    phrases = {GENERIC, *TEMPLATES_DOT, *NORMAL_STATES, *ANOMALOUS_STATES}
    for subject in subjects:
        fields = (subject.name, subject.colour, subject.material, subject.defect)
        phrases.update(words(field) for field in fields)
    tokenizer = open_clip.SimpleTokenizer()
    ids = tokenizer([phrase.replace("{}", " ") for phrase in sorted(phrases)])
    unknown = tokenizer([UNKNOWN])[0, 1 : 1 + len(tokenizer.encode(UNKNOWN))]
    used = ids.unique()
    return used[(used > 0) & ~torch.isin(used, unknown)]


class CompactTokenizer:
    """CLIP's tokenizer with ids counted inside a small vocabulary; any other token is row 0.

    Captions are made of few words, and CLIP's tokenizer never joins two words: each is looked up once.
    """

    def __init__(self, rows: Int[Tensor, " rows"]) -> None:
        self._tokenizer = open_clip.SimpleTokenizer()
        self._lookup = torch.zeros(self._tokenizer.vocab_size, dtype=torch.long)
        self._lookup[rows] = torch.arange(1, len(rows) + 1)
        self._words: dict[str, list[int]] = {}
        ends = [self._tokenizer.sot_token_id, self._tokenizer.eot_token_id]
        self._start, self._end = self._lookup[ends].tolist()

    def __call__(self, captions: list[str]) -> tuple[Int[Tensor, "n t"], Int[Tensor, " n"]]:
        """Ids, zero behind the longest caption's end, and the place of each end-of-text token."""
        lines = [
            [self._start, *(i for word in text.split() for i in self._word(word)), self._end]
            for text in captions
        ]
        ends = torch.tensor([len(line) - 1 for line in lines])
        width = int(ends.max()) + 1
        return torch.tensor([line + [0] * (width - len(line)) for line in lines]), ends

    def _word(self, word: str) -> list[int]:
        if word not in self._words:
            self._words[word] = self._lookup[self._tokenizer.encode(word)].tolist()
        return self._words[word]
