"""What an essay, a notebook about several methods, is called and is for: what the index says of it.

Its notebook says so in its own metadata (`clipad_harness.site.notebook.describe`); the stage that runs it
hands that on as `reports/essays/<name>.json`.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from clipad_core.errors import ClipadError
from clipad_core.validation import validate
from clipad_harness.base.files import write_text


@dataclass(frozen=True)
class Description:
    """A page in the index: its title, and its purpose as the end of a sentence."""

    title: str
    purpose: str


def description_path(root: Path, name: str) -> Path:
    """Where the stage of an essay says what it is called and is for."""
    return root / "reports" / "essays" / f"{name}.json"


def write_description(path: Path, description: Description) -> Path:
    """Hand it on to the index."""
    return write_text(path, json.dumps(asdict(description), indent=2) + "\n")


def read_description(path: Path) -> Description:
    """What the stage of an essay said.

    Raises:
        ClipadError: a file that is unreadable, is no JSON, or has another layout.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        description: Description = validate(Description, record, path)
    except (OSError, ValueError) as error:
        raise ClipadError(
            f"{path}: found no title and purpose ({error}); run the stage of the essay again."
        ) from error
    return description
