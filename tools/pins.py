"""Makes constraints.txt and environment.yml from pyproject.toml: python tools/pins.py."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = """\
# Made from pyproject.toml by tools/pins.py. Use: conda env create -f environment.yml
name: {name}
channels: [conda-forge]
dependencies:
  - python={python}
  - pip
  - pip:
      - "-c constraints.txt"
      - "-e .[{extras}]"
"""
HEADER = """\
# Made from pyproject.toml by tools/pins.py. Use as -c, never as -r: a pin without a local tag lets
# a CPU build of torch in where one is at hand, and the usual build everywhere else.
"""


def environment(pyproject: str) -> str:
    """Write environment.yml for the text of a pyproject.toml: its oldest Python, all its extras."""
    project = tomllib.loads(pyproject)["project"]
    return ENVIRONMENT.format(
        name=project["name"],
        python=project["requires-python"].removeprefix(">="),
        extras=",".join(project["optional-dependencies"]),
    )


def constraints() -> str:
    """Resolve pyproject.toml for every Python and platform it allows; needs the network."""
    command = ["uv", "pip", "compile", "pyproject.toml", "--universal", "--all-extras", "--quiet"]
    command += ["--upgrade", "--no-header", "--no-annotate", "--no-emit-index-url"]
    environ = {key: value for key, value in os.environ.items() if key != "UV_FIND_LINKS"}
    pins = subprocess.run(
        command, cwd=ROOT, env=environ, check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    return HEADER + re.sub(r"\+cpu\b", "", pins)


if __name__ == "__main__":
    (ROOT / "environment.yml").write_text(environment((ROOT / "pyproject.toml").read_text()))
    (ROOT / "constraints.txt").write_text(constraints())
