"""How fast it is: every engine and precision, alone and in the pipeline, against the official eager path.

    python -m benchmarks.fps [--json NEW.json] [--chart NEW.png] [--compare OLD.json]
    python -m benchmarks.fps --parts network --only openvino     a part of it
    python -m benchmarks.fps --networks default --parts file,live,cold --only "openvino bf16"

Networks: the official size (random weights) and the default weights. Parts:

    network  uint8 crop to uint8 crop; latency (all take turns) and throughput (back to back) apart, with the
             official eager path on the same device in the same run, the measured convolution ceiling, and all
             pictures compared
    file     a clip from file to file: frames a second and the time of every stage
    live     the clip as a camera: frames a second, and the delay from camera to screen
    cold     a fresh process until its first translated frame

The clip defaults to the project's own demo clip (1280x720). A bar that is missed, and with --compare a figure
that has become worse, makes the exit status 1. Compared are ratios to the official path in the same run, so
that another or a busier machine is not taken for a regression.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import clip as clips
from benchmarks import network
from engines.architecture import Architecture
from engines.errors import EngineError, GnrVideoError, exit_with
from engines.files import write_atomically
from engines.installation import install_line
from engines.weights import load_weights, save_weights
from gnr_video.checkpoints import resolve_weights
from gnr_video.machine import hardware, versions
from gnr_video.options import EngineOptions, LookOptions
from gnr_video.samples.portrait import make_demo_clip
from gnr_video.translator import Translator

MEASURED = ("network", "file", "live", "cold")
OFFICIAL, DEFAULT = "official size", "default weights"
FILE_FPS = 30.0
"""Frames per second that the default weights must reach on the 1280x720 clip, from file to file."""
WORSE = 0.9
"""A ratio below this part of the old one is a regression."""
WORSE_DB = 1.0
"""So is a PSNR lower by more than this."""


def measure_clips(
    weights: Path, clip: Path, parts: list[str], options: argparse.Namespace
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(part, execution, result) of one network."""
    for label, name, precision, device in network.candidates(options.only):
        if network.why_not(name, precision, device):
            continue
        try:
            translator = Translator(
                weights,
                engine=EngineOptions(name, device=device, precision=precision, threads=options.threads),
                look=LookOptions(hold=options.hold or 1),
            )
        except EngineError:
            continue  # its reason stands among those of the network alone
        with translator:
            if "file" in parts:
                yield "file", label, clips.file(translator, clip, options.repeat)
            if "live" in parts:
                yield "live", label, clips.live(translator, clip, options.seconds, options.hold)
        if "cold" in parts and device == "cpu":
            yield "cold", label, clips.cold_start(str(weights), clip, name, precision, options.repeat)


def bars(result: dict[str, Any]) -> list[tuple[str, bool]]:
    """What must hold, and whether it does; only of what was measured."""
    found = network.bars(result.get("network", {}))
    files = [row["fps"] for row in result.get("file", {}).get(DEFAULT, {}).values()]
    if files:
        text = f"default weights from file to file: {max(files):.1f} fps (bar {FILE_FPS:g})"
        found.append((text, max(files) >= FILE_FPS))
    for name, rows in result.get("cold", {}).items():
        best = min(row["warm_s"] for row in rows.values())
        text = f"{name}: first frame {best:.2f} s after the start (bar {clips.COLD_SECONDS:g})"
        found.append((text, best <= clips.COLD_SECONDS))
    return found


def regressions(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What has become worse, one line each; only what both runs have measured."""
    found = []
    for name, result in new.get("network", {}).items():
        before = old.get("network", {}).get(name, {})
        for label, row in result["executions"].items():
            was = before.get("executions", {}).get(label)
            if (
                was
                and label != network.baseline_of(label)
                and row["times_faster"] < WORSE * was["times_faster"]
            ):
                found.append(
                    f"{name}, {label}: {row['times_faster']:g} times the official path, was {was['times_faster']:g}"
                )
        for pair, value in result["pairwise_psnr_db"].items():
            was_db = before.get("pairwise_psnr_db", {}).get(pair)
            if was_db is not None and value < was_db - WORSE_DB and value < 60:
                found.append(f"{name}, {pair}: {value:g} dB, was {was_db:g}")
    for part, key in (("file", "fps"), ("live", "fps"), ("cold", "warm_s")):
        for name, rows in new.get(part, {}).items():
            for label, row in rows.items():
                was = old.get(part, {}).get(name, {}).get(label)
                if was is None:
                    continue
                # What this machine would do now if nothing but its speed had changed; live, the camera leads.
                speed = 1.0 if part == "live" else _slower(old, new)
                ratio = row[key] / (was[key] * speed) if key == "fps" else was[key] / speed / row[key]
                if ratio < WORSE:
                    unit = "fps" if key == "fps" else "s to the first frame"
                    found.append(f"{name}, {part}, {label}: {row[key]:g} {unit}, was {was[key]:g}")
    return found


def _slower(old: dict[str, Any], new: dict[str, Any]) -> float:
    """How many times longer the official path took before, for a network that both runs measured; else 1."""
    before = old.get("network", {})
    for name, result in new.get("network", {}).items():
        if name in before:
            was, now = (one["executions"][network.BASELINE]["p50_ms"] for one in (before[name], result))
            return float(was) / float(now)
    return 1.0


def _earlier_run(text: str) -> dict[str, Any]:
    """What `--json` wrote, read before anything is measured."""
    try:
        found = json.loads(Path(text).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"cannot read {text}: {error}") from None
    if not isinstance(found, dict) or "hardware" not in found:
        raise argparse.ArgumentTypeError(f"{text} is not what --json of an earlier run wrote")
    return found


def chart(result: dict[str, Any], path: Path) -> None:
    """Draw latency of the network and frames a second of the pipeline, by execution, as PNG.

    Raises:
        GnrVideoError: matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise GnrVideoError("a chart needs matplotlib", install_line("bench")) from error
    panels: list[tuple[str, str, dict[str, float]]] = []
    for name, one in result.get("network", {}).items():
        rows = {label: row["p50_ms"] for label, row in one["executions"].items()}
        panels.append((f"network, {name}", "ms per frame (log)", rows))
    for part in ("file", "live"):
        for name, rows in result.get(part, {}).items():
            panels.append((f"{part}, {name}", "frames per second", {k: r["fps"] for k, r in rows.items()}))
    if not panels:
        raise GnrVideoError("there is nothing to draw", "measure the parts network, file or live")
    heights = [0.9 + 0.32 * len(rows) for _, _, rows in panels]
    figure = Figure(figsize=(8, sum(heights) + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for axis, (title, unit, rows) in zip(axes, panels):
        colors = ["#999999" if label == network.baseline_of(label) else "#4477aa" for label in rows]
        drawn = axis.barh(list(rows), list(rows.values()), color=colors)
        axis.bar_label(drawn, fmt="%.3g", padding=3, fontsize=8)
        axis.invert_yaxis()
        axis.set(title=title, xlabel=unit)
        axis.margins(x=0.12)
        if unit.endswith("(log)"):
            axis.set_xscale("log")
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    machine = result["hardware"]
    gpu = f", {', '.join(machine['gpu'])}" if machine["gpu"] else ""
    figure.suptitle(f"{machine['cpu']}, {machine['cores_usable']} cores{gpu}", fontsize=9)
    figure.savefig(path, format="png", dpi=130)


def print_clip(part: str, name: str, label: str, row: dict[str, Any]) -> None:
    if part == "cold":
        print(
            f"{name}, {label}: first frame {row['warm_s']:.2f} s after the start (imports {row['imports_s']:.2f}, "
            f"translator {row['translator_s']:.2f}, frame {row['frame_s']:.2f}); the very first {row['cold_s']:.2f} s"
        )
        return
    more = f", {row['drawn_fps']:.1f} drawn, {row['dropped']} dropped" if part == "live" else ""
    print(f"{name}, {part}, {label}: {row['fps']:.1f} fps{more}")
    print("  " + row["table"].replace("\n", "\n  "), flush=True)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    def chosen(text: str) -> list[str]:
        parts = [part.strip() for part in text.split(",") if part.strip()]
        if wrong := [part for part in parts if part not in MEASURED]:
            raise argparse.ArgumentTypeError(
                f"no part is called {wrong[0]!r}; there are {', '.join(MEASURED)}"
            )
        return parts

    parser.add_argument("--parts", type=chosen, default=list(MEASURED), help="network,file,live,cold")
    parser.add_argument("--networks", choices=("both", "official", "default"), default="both")
    parser.add_argument(
        "--only", action="append", metavar="TEXT", help="executions named so; may be repeated"
    )
    parser.add_argument("--weights", help="instead of the default weights")
    parser.add_argument("--clip", type=Path, help="video to translate (default: the demo clip)")
    parser.add_argument(
        "--threads", type=int, help="CPU threads of the network (default: the engines' choice)"
    )
    parser.add_argument(
        "--hold",
        type=int,
        help="frames that a drawing is shown for, in clips (default: 1; live: as few as keep up)",
    )
    parser.add_argument("--rounds", type=int, default=20, help="turns of the network alone")
    parser.add_argument(
        "--repeat", type=int, default=3, help="runs over the whole clip, and of fresh processes"
    )
    parser.add_argument("--seconds", type=float, default=6.0, help="of the demo clip, and of a live run")
    parser.add_argument("--compared", type=int, nargs=2, default=(10, 5), metavar=("FACES", "STYLES"))
    parser.add_argument("--json", type=Path, help="write everything there")
    parser.add_argument("--chart", type=Path, help="draw it, as PNG")
    parser.add_argument(
        "--compare", type=_earlier_run, metavar="OLD.json", help="say what has become worse since"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = _parse(arguments)
    old = options.compare
    result: dict[str, Any] = {"hardware": hardware(), "versions": versions()}
    clip_parts = [part for part in options.parts if part != "network"]
    with tempfile.TemporaryDirectory() as folder:
        networks: dict[str, Path] = {}
        if options.networks != "default":
            networks[OFFICIAL] = Path(folder) / "official-size.safetensors"
            random = network.random_weights(Architecture())
            save_weights(networks[OFFICIAL], random.architecture, random.tensors, random.metadata)
        if options.networks != "official":
            networks[DEFAULT] = resolve_weights(options.weights)
        for name, weights in networks.items():
            if "network" not in options.parts:
                continue
            measured = network.measure(
                load_weights(weights),
                rounds=options.rounds,
                threads=options.threads,
                only=options.only,
                seconds=min(2.0, options.seconds),
                compared=tuple(options.compared),
            )
            result.setdefault("network", {})[name] = measured
            print(network.table(name, measured), end="\n\n", flush=True)
        if clip_parts:
            clip = options.clip or make_demo_clip(Path(folder) / "demo.mp4", seconds=options.seconds)
            result["clip"] = clip.name
            for name, weights in networks.items():
                for part, label, row in measure_clips(weights, clip, clip_parts, options):
                    result.setdefault(part, {}).setdefault(name, {})[label] = row
                    print_clip(part, name, label, row)
    reached = bars(result)
    for text, holds in reached:
        print(f"{'ok' if holds else 'MISSED':7}{text}")
    result["bars"] = dict(reached)
    worse = regressions(old, result) if old else []
    for text in worse:
        print(f"WORSE  {text}")
    if old and not worse:
        print("ok     nothing that both runs measured is worse")
    if options.json:
        write_atomically(options.json, (json.dumps(result, indent=2) + "\n").encode())
    if options.chart:
        chart(result, options.chart)
    return 0 if all(holds for _, holds in reached) and not worse else 1


if __name__ == "__main__":
    exit_with(main)
