"""The one error a user is meant to read."""

# Characters of a message; of a longer one the middle is left out.
LONGEST_MESSAGE = 2000


class ClipadError(ValueError):
    """Bad input or a result that must not be reported.

    The message names the file or parameter, what was found, what was expected and what to do. The
    command line prints it alone, without a traceback. Whatever value it shows, it stays readable:
    it begins with the place and ends with what to do, so that of a long one the middle is left out.

    >>> raise ClipadError("k_shot: found 9, expected at most 4 (the references given); lower k_shot.")
    Traceback (most recent call last):
        ...
    clipad_core.errors.ClipadError: k_shot: found 9, expected at most 4 (the references given); lower k_shot.
    >>> len(str(ClipadError("k_shot: found " + "9" * 10_000 + ", expected at most 4.")))
    2000
    """

    def __init__(self, message: str) -> None:
        if len(message) > LONGEST_MESSAGE:
            half = (LONGEST_MESSAGE - 5) // 2
            message = f"{message[: half + 1]} ... {message[-half:]}"
        super().__init__(message)
