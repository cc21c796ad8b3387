"""Time, machine, commit, run time and memory of every stage, in one untracked file beside the pages.

They differ from run to run, so they are in no tracked file and in no hash: `reports/run.js` assigns
them to one name, and a page that finds the file shows them. A script, because a page opened from disk
may load nothing else. Each record of a page carries the page's own mark, so that a page never shows
the record of another version of itself.
"""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from clipad_core.errors import ClipadError
from clipad_harness.base.files import write_text
from clipad_harness.base.machine import machine_facts

RUN_RECORD = "run.js"
# Below the cache: a process that computes knows its device and its memory, and the one that writes the
# record may be another. So each leaves a small file and replaces it as it goes.
NOTES = "computed"
CACHE = Path(".cache")
# A file a stage that is at work, or did not end well; ./repro empties it before it starts.
UNFINISHED = CACHE / "unfinished"
_HEAD = "var clipadRun = "
# CPU seconds and the most memory, as `ru_maxrss` counts it, of processes that are no children of this one.
_elsewhere = {"cpu_seconds": 0.0, "peak": 0.0}
_MARK = re.compile(r'<html [^>]*data-page="([0-9a-f]+)"')


def recorded(root: Path, stage: str, work: Callable[[], Path]) -> Path:
    """Do the work of a stage and record how it went; one that does not end well is `unfinished`.

    Args:
        root: the project.
        stage: its command without the program, as in `measure winclip`.
        work: does it and returns the file it wrote.

    Returns:
        What `work` returned.
    """
    start, used, began = time.monotonic(), _cpu_seconds(), time.time()
    note = root / UNFINISHED / f"{stage}.txt"
    _write_note(note, "It was stopped or killed.")
    try:
        written = work()
    except Exception as error:
        _write_note(note, str(error))
        raise
    with suppress(OSError):
        note.unlink(missing_ok=True)
    record = {
        "seconds": round(time.monotonic() - start, 1),
        "cpu_seconds": round(_cpu_seconds() - used, 1),
        "peak_mib": round(_peak_mib()),
        "when": datetime.now().astimezone().isoformat(timespec="seconds"),
        "host": platform.node(),
        "machine": f"{platform.system()} {platform.machine()}",
        "environment": machine_facts() | noted(root / CACHE, began),
        "commit": commit(root),
        "page": _mark(written),
    }
    try:
        _write_record(root / "reports" / RUN_RECORD, stage, record)
    except (OSError, ClipadError) as error:  # the work is done all the same
        print(f"clipad: {RUN_RECORD} is not written ({error})", file=sys.stderr)
    return written


def leave_note(cache: Path, facts: Mapping[str, str]) -> None:
    """Note how this process computes, in the place of what it noted before.

    Args:
        cache: the folder of all that is kept.
        facts: label and value.
    """
    write_text(cache / NOTES / f"{platform.node()}-{os.getpid()}.json", json.dumps(dict(facts)))


def noted(cache: Path, since: float) -> dict[str, str]:
    """What processes have noted since a time: of every label the values, each once.

    >>> noted(Path("no such folder"), 0)
    {}
    """
    notes = [
        json.loads(path.read_bytes())
        for path in sorted((cache / NOTES).glob("*.json"))
        if path.stat().st_mtime >= since
    ]
    labels = dict.fromkeys(label for note in notes for label in note)
    return {
        label: "; ".join(dict.fromkeys(note[label] for note in notes if label in note))
        for label in labels
    }


def _write_note(path: Path, text: str) -> None:
    # The stage itself has more to say about a disk that is full.
    with suppress(OSError, ClipadError):
        write_text(path, text)


def unfinished(root: Path) -> dict[str, str]:
    """The stages that did not end well when they ran last, each with the reason, without the root's path."""
    return {
        note.stem: note.read_text(encoding="utf-8").replace(f"{root}{os.sep}", "")
        for note in sorted((root / UNFINISHED).glob("*.txt"))
    }


def _write_record(path: Path, stage: str, record: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):  # stages may run side by side
        text = json.dumps(read_records(path) | {stage: record}, indent=1)
        # "<" could end a script early only inside HTML; escaped, the file may be pasted there as well.
        write_text(path, f"{_HEAD}{text.replace('<', chr(92) + 'u003c')};\n")


def read_records(path: Path) -> dict[str, Any]:
    """The records of the file, by stage; none where it is missing or was written by something else."""
    try:
        text = path.read_text(encoding="utf-8")
        records = json.loads(text.removeprefix(_HEAD).rstrip().removesuffix(";"))
    except (OSError, ValueError):
        return {}
    return records if isinstance(records, dict) else {}


def commit(root: Path) -> str:
    """The commit of the folder, and whether tracked files differ from it; "" outside git."""
    try:
        head = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{head} with changes" if changed else head


def _git(root: Path, *words: str) -> str:
    if not (root / ".git").exists():
        raise FileNotFoundError(".git")
    command = ["git", "-C", str(root), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _mark(written: Path) -> str:
    """The mark of a page; "" for a file that is none."""
    if written.suffix != ".html":
        return ""
    with written.open(encoding="utf-8") as file:
        match = _MARK.search(file.read(2000))
    return match[1] if match else ""


def count_processes(cpu_seconds: float, peak: float) -> None:
    """Count processes that worked for this one and are not its children, so that the system does not.

    Args:
        cpu_seconds: of all of them.
        peak: of the largest, as `ru_maxrss` counts it.
    """
    _elsewhere["cpu_seconds"] += cpu_seconds
    _elsewhere["peak"] = max(_elsewhere["peak"], peak)


def _cpu_seconds() -> float:
    """Of this process, its finished children and those that are counted here."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return _elsewhere["cpu_seconds"] + sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _peak_mib() -> float:
    """Of the largest process so far: this one, a finished child, or one that is counted here."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    peak = max(_elsewhere["peak"], *(resource.getrusage(who).ru_maxrss for who in kinds))
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
