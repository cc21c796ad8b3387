"""Speed and memory of WinCLIP beside anomalib 2.7.0, on the real architecture.

    python -m benchmarks.winclip [--rounds 3]

Both sides hold the same seeded random ViT-B-16-plus-240 and read the same tensors; they are processes
of their own with one thread and take turns; medians of CPU seconds are compared. Writes
benchmarks/results/winclip.json and prints a Markdown table.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.environment import PEER_PINS, REPOSITORY, peer_python
from benchmarks.metrics import ONE_THREAD, cpu_name
from clipad_core.errors import ClipadError
from clipad_harness.base.files import write_text

RESULTS = REPOSITORY / "benchmarks/results/winclip.json"
WEIGHTS = REPOSITORY / ".cache/benchmarks/vit-b-16-plus-240.safetensors"
# Test images of MVTec's bottle: what an ablation over a category really runs on.
CATEGORY_IMAGES = 83


class Side:
    """A running side; `ask` sends one request and waits for its answer."""

    def __init__(self, python: Path, name: str, device: str = "cpu") -> None:
        environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": str(REPOSITORY)}
        self.name, self.device = name, device
        self.process = subprocess.Popen(
            [str(python), "-m", "benchmarks.winclip_sides", name, str(WEIGHTS), "1", device],
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._read()

    def _read(self) -> dict:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise ClipadError(
                f"benchmark side {self.name}: stopped; run `python -m benchmarks.winclip_sides "
                f"{self.name} {WEIGHTS.relative_to(REPOSITORY)} 1 {self.device}` to see why."
            )
        return json.loads(line)

    def ask(self, do: str, **options: object) -> dict:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **options}) + "\n")
        self.process.stdin.flush()
        answer = self._read()
        print(f"{self.name}: {do} {options} {answer['seconds']:.2f} CPU s", file=sys.stderr)
        return answer

    def close(self) -> None:
        self.process.communicate()


def write_weights() -> None:
    """One random model for all sides."""
    if WEIGHTS.is_file():
        return
    import torch
    from safetensors.torch import save_file

    from clipad_core.clip.open_clip import open_clip

    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-16-plus-240", pretrained=None)
    state = {k: v.contiguous() for k, v in model.state_dict().items() if k != "attn_mask"}
    WEIGHTS.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, WEIGHTS)


def speed(sides: dict[str, Side], k_shot: int, batch: int, rounds: int) -> dict:
    """Seconds an image of every side, taking turns; the first turn warms up and is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    values: dict[str, list[float]] = {}
    for number in range(rounds + (batch == 1)):
        for name, side in sides.items():
            answer = side.ask("detect", batch=batch)
            values[name] = answer["values"]
            if number or batch > 1:
                seconds[name].append(answer["seconds"] / batch)
    medians = {name: statistics.median(samples) for name, samples in seconds.items()}
    errors = {
        name: max(abs(a - b) for a, b in zip(of, values["anomalib"], strict=True))
        for name, of in values.items()
    }
    return {"k_shot": k_shot, "batch": batch, "seconds": medians, "errors": errors}


def text(sides: dict[str, Side], rounds: int) -> dict:
    """Text set-up of a first and of a second class with the same ensemble."""
    seconds: dict[str, dict[str, list[float]]] = {n: {"first": [], "second": []} for n in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            side.ask("forget")
            seconds[name]["first"].append(side.ask("set_up", name="transistor")["seconds"])
            seconds[name]["second"].append(side.ask("set_up", name="metal_nut")["seconds"])
    return {
        n: {k: statistics.median(v) for k, v in phases.items()} for n, phases in seconds.items()
    }


def memory(python: Path, name: str, batch: int) -> float:
    """Peak of a fresh process that scores one batch, zero-shot, in MB."""
    side = Side(python, name)
    side.ask("set_up", name="transistor")
    answer = side.ask("detect", batch=batch)
    side.close()
    return float(answer["megabytes"])


def rows(result: dict) -> list[tuple[str, str, str, float, str]]:
    """What, peer, ours, ratio, target: one line of the table each."""
    lines: list[tuple[str, str, str, float, str]] = []
    for run in result["speed"]:
        for name, least in (("ours_float32", 1.25), ("ours_bfloat16", 2.2)):
            peer, clipad = run["seconds"]["anomalib"], run["seconds"][name]
            error = run["errors"][name]
            label = f"{run['k_shot']}-shot, batch {run['batch']}, {name[5:]} (error {error:.0e})"
            lines.append((label, f"{peer:.2f} s", f"{clipad:.2f} s", peer / clipad, f">= {least}x"))
    peer, clipad = result["text"]["anomalib"], result["text"]["ours_float32"]
    for which, target in (("first", ">= 4x"), ("second", "-")):
        ratio = peer[which] / clipad[which]
        label = f"text set-up, {which} class"
        lines.append((label, f"{peer[which]:.1f} s", f"{clipad[which]:.1f} s", ratio, target))
    for batch, megabytes in result["memory"].items():
        ratio = megabytes["anomalib"] / megabytes["ours_float32"]
        sizes = (f"{megabytes['anomalib']:.0f} MB", f"{megabytes['ours_float32']:.0f} MB")
        lines.append((f"peak memory, batch {batch}", *sizes, ratio, ">= 2x"))
    cost = result["ten_variants"]
    one, ten = f"{cost['one']:.0f} s", f"{cost['ten']:.0f} s"
    lines.append(("ten variants against one run, 83 images", one, ten, cost["ratio"], "<= 1.2x"))
    return lines


def as_markdown(result: dict) -> str:
    """The table of docs/speed.md."""
    head = "| CPU seconds of one thread, an image | anomalib 2.7.0 | clipad | ratio | target |"
    body = [f"| {a} | {b} | {c} | {d:.2f}x | {e} |" for a, b, c, d, e in rows(result)]
    return "\n".join([head, "|---|---|---|---|---|", *body])


def measure(rounds: int, batches: list[int], memory_batch: int) -> dict:
    """Run everything, side by side."""
    write_weights()
    own_python, peer = Path(sys.executable), peer_python()
    pythons = {"anomalib": peer, "ours_float32": own_python, "ours_bfloat16": own_python}
    sides = {name: Side(python, name) for name, python in pythons.items()}
    exact = {name: sides[name] for name in ("anomalib", "ours_float32")}
    result: dict = {"text": text(exact, rounds), "speed": []}
    sides["ours_bfloat16"].ask("set_up", name="metal_nut")
    for k_shot in (0, 4):
        for side in sides.values():
            side.ask("refer", k_shot=k_shot)
        for batch in batches:
            turns = rounds if batch == 1 else 1
            result["speed"].append(speed(sides, k_shot, batch, turns))
    extra = sides["ours_float32"].ask("variants", batch_of=CATEGORY_IMAGES)["values"]
    for side in sides.values():
        side.close()
    four = next(s for s in result["speed"] if s["k_shot"] == 4 and s["batch"] == 1)
    one_run = (
        four["seconds"]["ours_float32"] * CATEGORY_IMAGES + result["text"]["ours_float32"]["first"]
    )
    ten_variants = one_run + extra["others"]
    result["ten_variants"] = {"one": one_run, "ten": ten_variants, "ratio": ten_variants / one_run}
    peaks = {name: memory(pythons[name], name, memory_batch) for name in exact}
    result["memory"] = {str(memory_batch): peaks}
    about = {"cpu": cpu_name(), "python": platform.python_version(), "peer": list(PEER_PINS)}
    return {**about, "rounds": rounds, "threads": 1, **result}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="turns of every side (default 3)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--memory-batch", type=int, default=32)
    options = parser.parse_args()
    result = measure(options.rounds, options.batches, options.memory_batch)
    write_text(RESULTS, json.dumps(result, indent=1) + "\n")
    print(as_markdown(result))


if __name__ == "__main__":
    try:
        main()
    except ClipadError as error:
        sys.exit(str(error))
