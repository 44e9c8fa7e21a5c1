"""What an NVIDIA GPU does with all of this, in one command: `python -m benchmarks.gpu [-o FOLDER]`.

Goes through the parts below, each in a process of its own, and writes `gpu.json` (everything), `gpu.md` (a table with
the bars) and what every part said. A part that fails or is missing a package is told as such; the others go on.

    installation  `gnr-video doctor`
    tests         those that need a GPU: `pytest -k cuda`
    kernels       `benchmarks.ops`: training's kernels against the memory's bandwidth
    network       `benchmarks.fps`: the network in every engine, against the official eager path on the same GPU
    file 720p     the 1280x720 clip at 60 fps from file to file, every stage
    file 1080p    the same at 1920x1080
    live          `benchmarks.live`: a 1280x720 camera at 60 fps
    training      `benchmarks.train_step`: a step against the official one on the same GPU

Which GPU, CUDA_VISIBLE_DEVICES says. Without one there is one line, and the exit status is 1; so it is where a bar is
missed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from engines.errors import GnrVideoError, exit_with
from engines.files import write_atomically
from engines.installation import install_line

NETWORK_MS, KERNELS, STEP, STEP_GB = 1.0, 0.85, 3.0, 12.0
FILE_FPS = {"file 720p": 60.0, "file 1080p": 30.0}
LIVE_FRAMES = 2.0
"""Bar: from camera to screen at p95, in intervals of the camera's frames."""
CAMERA_FPS = 60
HALF_HOUR = 1800.0
REPOSITORY = Path(__file__).parents[1]


@dataclass(frozen=True)
class Part:
    """A process of this run.

    Attributes:
        name: as in the module's description.
        command: of the process; it writes `result`.
        result: file that it leaves, JSON, or JUnit's XML of pytest.
        needs: module without which it cannot run, and the line that installs that; ("", "") for none.
    """

    name: str
    command: Sequence[str]
    result: Path
    needs: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class Bar:
    """What is wanted, and what was found.

    Attributes:
        what: is measured.
        bar: that it has to reach.
        found: what was measured, or why nothing was.
        holds: None: it cannot be told.
        official: what the official path on the same GPU has there; "" where there is none.
    """

    what: str
    bar: str
    found: str
    holds: bool | None
    official: str = ""


def parts(folder: Path, clips: dict[str, Path], trunk: Path | None) -> list[Part]:
    """All processes but the doctor's, in the order in which they run: engines are in the cache when `live` comes."""

    def module(name: str, *arguments: str) -> list[str]:
        return [sys.executable, "-m", name, *arguments]

    def out(name: str) -> Path:
        return folder / f"{name.replace(' ', '-')}.json"

    on_gpu = ("--networks", "default", "--only", "fp16 cuda")
    found = [
        Part(
            "tests",
            module("pytest", "-k", "cuda", f"--junitxml={folder / 'tests.xml'}", "-p", "no:cacheprovider"),
            folder / "tests.xml",
            ("pytest", install_line("dev")),
        ),
        Part("kernels", module("benchmarks.ops", "--json", str(out("kernels"))), out("kernels")),
        Part(
            "network",
            module("benchmarks.fps", "--parts", "network", "--only", "cuda", "--json", str(out("network"))),
            out("network"),
        ),
    ]
    for name, clip in clips.items():
        arguments = ("--parts", "file", *on_gpu, "--clip", str(clip), "--json", str(out(name)))
        found.append(Part(name, module("benchmarks.fps", *arguments), out(name)))
    camera = ("--size", "1280x720", "--fps", str(CAMERA_FPS))
    found.append(
        Part(
            "live",
            module("benchmarks.live", *camera, "--json", str(out("live"))),
            out("live"),
            ("pyvirtualcam", install_line("live")),
        )
    )
    lpips = () if trunk is None else ("--lpips-trunk", str(trunk))
    step = module("benchmarks.train_step", "--device", "cuda", "--json", str(out("training")), *lpips)
    found.append(Part("training", step, out("training")))
    return found


def run(part: Part, seconds: float) -> dict[str, Any]:
    """Run a part: {"seconds", "status", "result"}, or "failed": why there is no result."""
    module, line = part.needs
    if module and find_spec(module) is None:
        return {"failed": f"{module} is not installed ({line})"}
    part.result.unlink(missing_ok=True)
    said = part.result.with_suffix(".txt")
    begun = time.perf_counter()
    with said.open("wb") as log:
        try:
            status = subprocess.run(
                part.command, cwd=REPOSITORY, stdout=log, stderr=subprocess.STDOUT, timeout=seconds
            ).returncode
        except subprocess.TimeoutExpired:
            return {"failed": f"not done in {seconds:g} s, see {said.name}"}
    found: dict[str, Any] = {"seconds": round(time.perf_counter() - begun, 1), "status": status}
    try:
        text = part.result.read_text(encoding="utf-8")
        found["result"] = tests(text) if part.result.suffix == ".xml" else json.loads(text)
    except (OSError, ValueError, ElementTree.ParseError):  # a missed bar has a status too, and a result
        last = said.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        found["failed"] = f"status {status}: {''.join(last)[:200] or 'it said nothing'}"
    return found


def tests(junit: str) -> dict[str, Any]:
    """Numbers of passed, failed and skipped tests of a JUnit file, and the names of those that failed."""
    cases = list(ElementTree.fromstring(junit).iter("testcase"))
    failed = [c for c in cases if c.find("failure") is not None or c.find("error") is not None]
    skipped = sum(case.find("skipped") is not None for case in cases)
    return {
        "passed": len(cases) - len(failed) - skipped,
        "failed": [f"{case.get('classname')}::{case.get('name')}" for case in failed],
        "skipped": skipped,
    }


def bars(found: dict[str, dict[str, Any]]) -> list[Bar]:
    """The table's rows, of what `run` gave for every part."""
    rows: list[tuple[str, str, Callable[[dict[str, Any]], tuple[str, bool | None, str]]]] = [
        ("tests", "all pass", _tests),
        ("network", f"official size, batch 1: under {NETWORK_MS:g} ms", _network),
    ]
    official = _official_ms(found.get("network", {}).get("result", {}))
    for name, fps in FILE_FPS.items():
        rows.append((name, f"{fps:g} fps from file to file", partial(_file, official=official, bar=fps)))
    rows += [
        (
            "live",
            f"every frame of {CAMERA_FPS} fps, {LIVE_FRAMES:g} frames late at p95",
            partial(_live, official=official),
        ),
        ("kernels", f"{KERNELS:.0%} of a copy's bandwidth", _kernels),
        ("training", f"a step {STEP:g} times as fast as the official one", _step),
        ("training", f"in {STEP_GB:g} GB", _memory),
    ]
    table = []
    for name, bar, judge in rows:
        part = found.get(name, {"failed": "not asked for"})
        if "result" in part:
            text, holds, baseline = judge(part["result"])
        else:
            text, holds, baseline = part["failed"], None, ""
        table.append(Bar(name, bar, text, holds, baseline))
    return table


def _tests(result: dict[str, Any]) -> tuple[str, bool | None, str]:
    failed, passed = result["failed"], result["passed"]
    text = f"{passed} passed, {len(failed)} failed, {result['skipped']} skipped"
    return text, (not failed) if passed or failed else None, ""


def _official_ms(result: dict[str, Any]) -> dict[str, float]:
    """network -> the official eager path's time of one picture on the GPU, ms."""
    from benchmarks.network import BASELINE

    label = f"{BASELINE} cuda"
    rows = {name: one["executions"] for name, one in result.get("network", {}).items()}
    return {name: row[label]["p50_ms"] for name, row in rows.items() if label in row}


def _fastest(rows: dict[str, Any], key: str, best: Callable[..., str]) -> str:
    from benchmarks.network import baseline_of

    here = [label for label in rows if label.endswith(" cuda") and label != baseline_of(label)]
    return best(here, key=lambda label: rows[label][key]) if here else ""


def _network(result: dict[str, Any]) -> tuple[str, bool | None, str]:
    from benchmarks.fps import OFFICIAL

    rows = result["network"].get(OFFICIAL, {}).get("executions", {})
    label = _fastest(rows, "p50_ms", min)
    if not label:
        return "no engine ran on the GPU", None, ""
    ms, official = rows[label]["p50_ms"], _official_ms(result).get(OFFICIAL)
    baseline = "" if official is None else f"{official:.2f} ms, {official / ms:.1f} times as long"
    return f"{ms:.2f} ms, {label.removesuffix(' cuda')}", ms < NETWORK_MS, baseline


def _file(result: dict[str, Any], official: dict[str, float], bar: float) -> tuple[str, bool | None, str]:
    from benchmarks.fps import DEFAULT

    rows = result.get("file", {}).get(DEFAULT, {})
    rows = {label: row for label, row in rows.items() if " on cuda" in row["engine"]}
    label = _fastest(rows, "fps", max)
    if not label:
        return "no engine ran on the GPU", None, ""
    fps = rows[label]["fps"]
    stages = {name: stage["p50_ms"] for name, stage in rows[label]["stages"].items()}
    slowest = max(stages, key=lambda name: stages[name], default="")
    text = f"{fps:.1f} fps, {label.removesuffix(' cuda')}"
    if slowest:
        text += f"; slowest stage: {slowest}, {stages[slowest]:.1f} ms"
    return text, fps >= bar, _alone(official)


def _alone(official: dict[str, float]) -> str:
    """What the official network with the default weights would come to, if nothing else took any time."""
    from benchmarks.fps import DEFAULT

    ms = official.get(DEFAULT)
    return "" if ms is None else f"its network alone: {1000 / ms:.0f} fps, {ms:.1f} ms a picture"


def _live(result: dict[str, Any], official: dict[str, float]) -> tuple[str, bool | None, str]:
    report = result["report"]
    camera, stage = float(report["settings"]["camera_fps"]), report["stages"]["to virtual camera"]
    fps = report["frames"] / report["seconds"]
    late = stage["p95_ms"]
    text = f"{fps:.1f} fps, {late:.0f} ms at p95 ({late * camera / 1000:.1f} frames), {report['engine']}"
    to_the_end = " on cuda" in report["engine"]
    reached = to_the_end and fps >= 0.98 * camera and late <= LIVE_FRAMES * 1000 / camera
    return text, reached, _alone(official)


def _kernels(result: dict[str, Any]) -> tuple[str, bool | None, str]:
    shares = {
        f"{row['case']}, {row['dtype']} {row['layout']}": row["bytes"] / row["ms"] / row["copy_bytes_per_ms"]
        for row in result["rows"]
    }
    worst = min(shares, key=lambda name: shares[name])
    faster = sorted(row["plain_torch_ms"] / row["ms"] for row in result["rows"])
    text = (
        f"{sum(s >= KERNELS for s in shares.values())} of {len(shares)}; least: {shares[worst]:.0%} ({worst})"
    )
    baseline = f"plain torch: {faster[0]:.1f} to {faster[-1]:.1f} times as long"
    return text, shares[worst] >= KERNELS, baseline


def _step(result: dict[str, Any]) -> tuple[str, bool | None, str]:
    seconds, speedup = result["seconds"], result["speedup"]
    text = f"{speedup:.1f} times, {seconds['ours']:.3f} s"
    holds = speedup >= STEP if result["lpips"] else None
    return text + ("" if result["lpips"] else _WITHOUT), holds, f"{seconds['plain']:.3f} s"


def _memory(result: dict[str, Any]) -> tuple[str, bool | None, str]:
    peak = result["peak_gb"]
    holds = peak["ours"] <= STEP_GB if result["lpips"] else None
    return (
        f"{peak['ours']:.1f} GB" + ("" if result["lpips"] else _WITHOUT),
        holds,
        f"{peak['plain']:.1f} GB",
    )


_WITHOUT = "; without LPIPS (--lpips-trunk), so this does not count"


def markdown(result: dict[str, Any]) -> str:
    """The table that is to be sent, of what `gpu.json` holds."""
    machine, versions = result["hardware"], result["hardware"]["versions"]
    named = ", ".join(f"{name} {versions[name]}" for name in ("torch", "tensorrt", "av") if name in versions)
    answers = {True: "yes", False: "**no**", None: "not told"}
    lines = [
        f"# {', '.join(machine['gpu'])}",
        "",
        f"{machine['cpu']}, {machine['cores_usable']} cores, {machine['os']}; CUDA {result['cuda']}, {named}.",
        "",
        "| | bar | measured | reached | official path, same GPU |",
        "|---|---|---|---|---|",
    ]
    for bar in result["bars"]:
        cells = (bar["what"], bar["bar"], bar["found"], answers[bar["holds"]], bar["official"])
        lines.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    network = result["parts"].get("network", {}).get("result", {})
    if executions := {name: one["executions"] for name, one in network.get("network", {}).items()}:
        lines += [
            "",
            "| network | ms p50 | p99 | PSNR, dB | times the official path |",
            "|---|---|---|---|---|",
        ]
        for name, rows in executions.items():
            for label, row in rows.items():
                if label.endswith(" cuda"):
                    psnr = row.get("psnr_db", "")
                    lines.append(
                        f"| {name}, {label.removesuffix(' cuda')} | {row['p50_ms']:.2f} | {row['p99_ms']:.2f} "
                        f"| {psnr} | {row['times_faster']:.1f} |"
                    )
        from benchmarks.network import TF32

        lines += ["", f"{TF32}."]
    failed = result["parts"].get("tests", {}).get("result", {}).get("failed", [])
    wrong = [
        f"{check['name']}: {check['detail']}"
        for check in result["installation"]
        if check["status"] in ("warn", "fail")
    ]
    for title, rows in (("Tests that failed", failed), ("What the doctor says", wrong)):
        if rows:
            lines += ["", f"{title}:", "", *(f"- {row}" for row in rows)]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ("tests", "kernels", "network", *FILE_FPS, "live", "training")
    parser.add_argument("-o", "--out", type=Path, default=Path("gpu"), metavar="FOLDER")
    parser.add_argument(
        "--parts", type=lambda text: text.split(","), metavar="NAME,...", help=", ".join(names)
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="of the clips")
    parser.add_argument("--timeout", type=float, default=HALF_HOUR, metavar="SECONDS", help="of one part")
    parser.add_argument("--lpips-trunk", type=Path, help="VGG16 weights, for the bars of the training step")
    options = parser.parse_args(arguments)
    if wrong := set(options.parts or ()) - set(names):
        parser.error(f"no part is called {min(wrong)!r}; there are {', '.join(names)}")
    import torch

    if not torch.cuda.is_available():
        raise GnrVideoError(
            f"there is no NVIDIA GPU that torch {torch.__version__} sees: nothing was measured",
            "`gnr-video doctor` says why",
        )
    from gnr_video.doctor import run_doctor
    from gnr_video.machine import hardware
    from gnr_video.samples.portrait import make_demo_clip

    folder = options.out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"hardware": hardware(), "cuda": torch.version.cuda}
    result["installation"] = [asdict(check) for check in run_doctor()]
    sizes = {"file 720p": (1280, 720), "file 1080p": (1920, 1080)}
    clips = {name: folder / f"{name.replace(' ', '-')}.mp4" for name in sizes}
    wanted = options.parts or names
    result["parts"] = {}
    trunk = options.lpips_trunk and options.lpips_trunk.resolve()
    for part in parts(folder, clips, trunk):
        if part.name not in wanted:
            continue
        print(f"{part.name} ...", end=" ", flush=True)
        if part.name in clips:
            make_demo_clip(clips[part.name], seconds=options.seconds, fps=CAMERA_FPS, size=sizes[part.name])
        result["parts"][part.name] = found = run(part, options.timeout)
        print(found.get("failed") or f"{found['seconds']:.0f} s", flush=True)
    table = bars(result["parts"])
    result["bars"] = [asdict(bar) for bar in table]
    write_atomically(folder / "gpu.json", (json.dumps(result, indent=1) + "\n").encode())
    text = markdown(result)
    write_atomically(folder / "gpu.md", text.encode())
    print(f"\n{text}\n{folder / 'gpu.json'} holds everything.")
    return 0 if all(bar.holds is not False for bar in table) else 1


if __name__ == "__main__":
    exit_with(main)
