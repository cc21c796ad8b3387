"""Refinements by their names, as params.yaml and the command line write them."""

from __future__ import annotations

from collections.abc import Mapping

from clipad_core.errors import ClipadError
from clipad_core.refinement.guided import GuidedFilter
from clipad_core.refinement.refinement import Refinement
from clipad_core.refinement.regions import Felzenszwalb, Slic
from clipad_core.refinement.sam import SegmentAnything
from clipad_core.validation import validate

# The word for leaving a map as the method gives it.
NO_REFINEMENT = "none"
_KINDS: dict[str, type[Refinement]] = {
    kind.name: kind for kind in (GuidedFilter, Slic, Felzenszwalb, SegmentAnything)
}


def read_refinement(written: object, where: str = "refine") -> Refinement | None:
    """A refinement by its name, or by its name with settings below it; None of the word `none`.

    Args:
        written: plain data.
        where: it stands, for messages.

    Raises:
        ClipadError: no such refinement, or a setting that it does not have or cannot use.

    >>> read_refinement("guided")
    GuidedFilter(radius=0.03, epsilon=0.001, guide='colour')
    >>> read_refinement({"slic": {"count": 50}}), read_refinement("none")
    (Slic(count=50, compactness=10.0), None)
    """
    if written == NO_REFINEMENT:
        return None
    named = {written: {}} if isinstance(written, str) else written
    if not isinstance(named, Mapping) or len(named) != 1 or not _KINDS.keys() >= named.keys():
        raise ClipadError(
            f"{where}: found {written!r}, expected one of {', '.join([NO_REFINEMENT, *_KINDS])}, "
            "alone or with its settings below it."
        )
    [(name, settings)] = named.items()
    try:
        refinement: Refinement = validate(_KINDS[name], settings, where, name)
    except ClipadError as error:
        raise error if str(error).startswith(where) else ClipadError(f"{where}: {error}") from error
    return refinement
