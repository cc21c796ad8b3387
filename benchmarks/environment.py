"""An environment of its own for the library that the benchmarks compare with.

anomalib 2.7.0 needs an open_clip below 2.26.1 (later ones hand its WinCLIP hooks the tokens with
the batch first), this project runs on newer ones: two environments keep both as their authors meant
them. `peer_python` finds the environment or creates it; `python -m benchmarks.environment` does only
that and prints where it is.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from clipad_core.errors import ClipadError

REPOSITORY = Path(__file__).resolve().parent.parent
PEER_FOLDER = Path(".cache/benchmarks/anomalib")
PEER_PINS = ("anomalib==2.7.0", "open-clip-torch<2.26.1", "torch==2.13.0")
PEER_IMPORTS = "import anomalib.metrics, anomalib.models.image.winclip.torch_model"

# A torchvision built for CUDA beside a CPU torch stops at its import, because the schemas of two
# operators are missing; nothing here calls them. This runs whenever the environment's interpreter
# starts, and acts only once torchvision is wanted.
TORCHVISION_FIX = """\
import sys


class DefineOperators:
    library = None

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name == "torchvision" and cls.library is None:
            import torch

            cls.library = torch.library.Library("torchvision", "FRAGMENT")
            if torch.version.cuda is None:
                boxes = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                cls.library.define("nms" + boxes)
                cls.library.define("qnms" + boxes)


sys.meta_path.insert(0, DefineOperators)
"""


def peer_python() -> Path:
    """Return the interpreter of the comparison environment, creating the environment if needed.

    uv is used where it is found (on the path or beside this interpreter), else venv and pip. What
    was left half made is made anew.

    Returns:
        The interpreter below `.cache/benchmarks/anomalib` of the repository.

    Raises:
        ClipadError: the environment cannot be installed or its libraries cannot be imported; the
            message ends with the installer's last lines.
    """
    folder = REPOSITORY / PEER_FOLDER
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    marker = folder / "installed.txt"
    pins = "\n".join(PEER_PINS) + "\n"
    if python.exists() and marker.is_file() and marker.read_text() == pins:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv:
        _run_or_explain([uv, "venv", "--python", sys.executable, str(folder)])
        _run_or_explain([uv, "pip", "install", "--python", str(python), *PEER_PINS])
    else:
        _run_or_explain([sys.executable, "-m", "venv", str(folder)])
        _run_or_explain([str(python), "-m", "pip", "install", *PEER_PINS])
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(_run_or_explain([str(python), "-c", where]).strip())
    (packages / "sitecustomize.py").write_text(TORCHVISION_FIX)
    _run_or_explain([str(python), "-c", PEER_IMPORTS])
    marker.write_text(pins)
    return python


def _run_or_explain(command: list[str]) -> str:
    environment = dict(os.environ)
    if "PIP_FIND_LINKS" in environment:  # uv does not read pip's settings
        environment.setdefault("UV_FIND_LINKS", environment["PIP_FIND_LINKS"])
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        last_lines = "\n".join((done.stderr or done.stdout).strip().splitlines()[-8:])
        raise ClipadError(
            f"{PEER_FOLDER.as_posix()}: found exit code {done.returncode} of "
            f"`{Path(command[0]).name} {command[1]} ...`, expected an environment with "
            f"{', '.join(PEER_PINS)}; check the network or the find-links settings and run "
            f"`python -m benchmarks.environment` again. Its last lines:\n{last_lines}"
        )
    return done.stdout


if __name__ == "__main__":
    try:
        print(peer_python().relative_to(REPOSITORY).as_posix())
    except ClipadError as error:
        sys.exit(str(error))
