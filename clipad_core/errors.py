"""The one error a user is meant to read."""


class ClipadError(ValueError):
    """Bad input or a result that must not be reported.

    The message names the file or parameter, what was found, what was expected and what to do. The
    command line prints it alone, without a traceback.

    >>> raise ClipadError("k_shot: found 9, expected at most 4 (the references given); lower k_shot.")
    Traceback (most recent call last):
        ...
    clipad_core.errors.ClipadError: k_shot: found 9, expected at most 4 (the references given); lower k_shot.
    """
