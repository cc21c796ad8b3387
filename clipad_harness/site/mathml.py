"""TeX of the notebooks as MathML, which browsers render without a script, a font or a network."""

import re
import xml.etree.ElementTree as ElementTree

from latex2mathml.converter import convert

from clipad_core.errors import ClipadError

_NAMESPACE = "http://www.w3.org/1998/Math/MathML"
_LIMIT_OPERATORS = {"min", "max", "argmin", "argmax", "inf", "sup", "lim"}
# latex2mathml sets these as identifiers (or as an ASCII tilde), which spaces them like letters.
_OPERATORS = {"⟨": "⟨", "⟩": "⟩", "⌊": "⌊", "⌋": "⌋", "⌈": "⌈", "⌉": "⌉", "~": "∼", "…": "…"}


def to_mathml(tex: str, *, display: bool) -> str:
    r"""Convert one formula; its TeX stays readable in the `alttext` attribute.

    Args:
        tex: the formula without its dollar signs.
        display: True for a formula on a line of its own (limits below min and max).

    Raises:
        ClipadError: unbalanced braces or a command the converter does not know.

    >>> to_mathml("a < b", display=False)  # doctest: +ELLIPSIS
    '<math ... alttext="a &lt; b"><mrow><mi>a</mi><mo>&lt;</mo><mi>b</mi></mrow></math>'
    """
    bare = re.sub(r"\\[{}]", "", tex)
    if bare.count("{") != bare.count("}"):
        raise _unsupported(tex, "unbalanced braces")
    try:
        math = ElementTree.fromstring(convert(tex, display="block" if display else "inline"))
    except Exception as error:  # the converter raises several unrelated types, XML one more
        raise _unsupported(tex, str(error) or type(error).__name__) from error
    unknown = [node.text for node in math.iter() if (node.text or "").startswith("\\")]
    if unknown:
        raise _unsupported(tex, f"unknown command {unknown[0]}")
    _mend(math, display)
    math.set("alttext", " ".join(tex.split()))
    ElementTree.register_namespace("", _NAMESPACE)
    return ElementTree.tostring(math, encoding="unicode")


def _unsupported(tex: str, problem: str) -> ClipadError:
    return ClipadError(
        f"equation `{tex.strip()}`: found {problem}, expected TeX that latex2mathml converts; "
        "write it more simply."
    )


def _mend(math: ElementTree.Element, display: bool) -> None:
    """Set limits below operators, fences as operators, words in upright type as one word."""
    tag = f"{{{_NAMESPACE}}}".__add__
    for node in list(math.iter()):
        if node.tag == tag("mi") and node.text in _OPERATORS:
            node.tag, node.text = tag("mo"), _OPERATORS[node.text]
        if display and node.tag == tag("msub") and node[0].text in _LIMIT_OPERATORS:
            node.tag = tag("munder")
        letters = list(node)
        if len(letters) > 1 and all(c.get("mathvariant") == "normal" for c in letters):
            word = ElementTree.Element(tag("mi"))
            word.text = "".join(letter.text or "" for letter in letters)
            for letter in letters:
                node.remove(letter)
            node.append(word)
