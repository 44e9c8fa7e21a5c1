"""Where generators come from: names resolved to files, official checkpoints imported, the released one
fetched.

`engines.weights` reads and writes the project's own format; here official GANs N' Roses checkpoints become
that format.
"""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from engines.architecture import check_tensors, detect, generator_tensors
from engines.errors import WeightsError
from engines.installation import install_line
from engines.paths import cache_dir
from engines.weights import (
    STYLE_ENCODER,
    Weights,
    load_weights,
    save_weights,
    stored_tensors,
)

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

Direction = Literal["A2B", "B2A"]

DEFAULT_FILE = Path(__file__).parent / "data" / "default.safetensors"

OFFICIAL_IDS = ("1PQ_SRLfFsXO_9z_OW5H9gKhhmIMn7H-p", "1IMIVke4WDaGayUa7vk_xVw1uqIHikGtC")
"""Google Drive ids of the released checkpoint, the newer first: the README of the official code links to it;
the older one still stands in its first notebook and serves when the newer is gone or over its quota."""

OFFICIAL_URL = "https://drive.google.com/uc?id={id}"
STALL_SECONDS = 60.0


def official_file() -> Path:
    """Where `pull_official` puts the released weights."""
    return cache_dir() / "weights" / "official.safetensors"


def resolve_weights(name_or_path: str | os.PathLike[str] | None) -> Path:
    """File that a `--weights` value means.

    Args:
        name_or_path: None or "default": the package's own; "official": what `weights pull official` fetched;
            anything else: a path.

    Raises:
        WeightsError: there is no such file; the hint says how to get it.
    """
    name = "default" if name_or_path is None else os.fspath(name_or_path)
    if name == "default":
        if not DEFAULT_FILE.is_file():
            raise WeightsError(
                "this installation holds no default weights",
                "give a file with --weights, or fetch the released ones: `gnr-video weights pull official`",
            )
        return DEFAULT_FILE
    if name == "official":
        if not official_file().is_file():
            raise WeightsError(
                "the official weights are not in the cache yet", "run `gnr-video weights pull official`"
            )
        return official_file()
    path = Path(name).expanduser()
    if not path.is_file():
        what = "is a folder, not a weights file" if path.is_dir() else "does not exist"
        raise WeightsError(f"{path} {what}", "--weights takes a file, or one of: default, official")
    return path


def _read_checkpoint(path: Path) -> Mapping[str, Any]:
    import torch

    if not path.is_file():
        raise WeightsError(f"no checkpoint at {path}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its remarks on pickle protocols help no user
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        AttributeError,
    ) as e:
        first = next((line for line in str(e).splitlines() if line.strip()), type(e).__name__)[:160]
        raise WeightsError(
            f"{path} is not a torch checkpoint of plain tensors: {first}",
            "expected the .pt file that the official GANs N' Roses code saves",
        ) from e
    if not isinstance(loaded, Mapping):
        raise WeightsError(f"{path} holds a {type(loaded).__name__}, expected a dictionary of state dicts")
    return loaded


def _state(entry: object, name: str) -> dict[str, torch.Tensor]:
    """A generator's tensors, without the prefix that DistributedDataParallel adds."""
    import torch

    if not isinstance(entry, Mapping):
        raise WeightsError(f"{name} in the checkpoint is a {type(entry).__name__}, expected a state dict")
    state = {str(key).removeprefix("module."): value for key, value in entry.items()}
    return {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}


def _choose(checkpoint: Mapping[str, Any], direction: str, *, raw: bool) -> str | None:
    """Key of the generator to take: the EMA copy, or with `raw` the trained one."""
    plain, ema = f"G_{direction}", f"G_{direction}_ema"
    wanted = (plain,) if raw else (ema, plain)
    return next((key for key in wanted if key in checkpoint), None)


def import_checkpoint(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    direction: Direction = "A2B",
    raw: bool = False,
    half: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> Weights:
    """Turn an official checkpoint into a weights file.

    All published shapes are recognised by their tensors: `num_down` 4 (the released weights) and 3, content
    convolutions 1x1 and 3x3. Where the checkpoint also holds the opposite generator, its stem and style head
    go in as the style encoder, so that styles can be read off pictures.

    Args:
        checkpoint: .pt file with "G_A2B", "G_A2B_ema", ... or with one generator's state dict itself.
        out: weights file to write (replaced at once when it is complete).
        direction: which generator: "A2B" (face to anime) or "B2A".
        raw: take the trained parameters instead of their moving average.
        half: store float16.
        metadata: further text values for the file, over those made here.

    Raises:
        WeightsError: not a checkpoint, no such generator in it, or tensors that do not fit; the message names
            them with the shapes expected and found.
    """
    from safetensors import SafetensorError

    if direction not in ("A2B", "B2A"):
        raise WeightsError(f"no direction {direction!r}", "choose A2B (face to anime) or B2A")
    source, out = Path(checkpoint), Path(out)
    loaded = _read_checkpoint(source)
    key = _choose(loaded, direction, raw=raw)
    if key is not None:
        state = _state(loaded[key], key)
    elif any(str(name).removeprefix("module.") == "mapping.0.weight" for name in loaded):
        key, state = "one generator", _state(loaded, "the generator")
    else:
        names = ", ".join(sorted(map(str, loaded))[:8]) or "nothing"
        hint = f"drop --raw to take G_{direction}_ema" if f"G_{direction}_ema" in loaded else ""
        wanted = f"G_{direction}" if raw else f"G_{direction}_ema or G_{direction}"
        raise WeightsError(f"{source} holds no generator {wanted}; it holds {names}", hint)
    if key == f"G_{direction}" and not raw:
        log.warning("%s holds no EMA copy of G_%s: taking the trained parameters", source.name, direction)

    shapes = {name: tuple(t.shape) for name, t in state.items()}
    architecture = detect(shapes)
    _check_kernels(state)
    tensors = dict(state)
    opposite = _choose(loaded, "B2A" if direction == "A2B" else "A2B", raw=raw)
    if opposite is not None:
        other = _state(loaded[opposite], opposite)
        expected = {
            name: shape for name, shape in generator_tensors(architecture).items() if _is_style_part(name)
        }
        check_tensors(expected, {name: tuple(t.shape) for name, t in other.items()})
        tensors |= {
            STYLE_ENCODER + name.removeprefix("encoder."): other[name] for name in expected if name in other
        }
    origin = f"imported from {source.name}, {key}" + (f", style encoder of {opposite}" if opposite else "")
    values = {
        "name": source.stem,
        "provenance": origin,
        "licence": "as the checkpoint's authors state",
        "direction": direction,
    }
    if isinstance(loaded.get("iter"), int):
        values["step"] = str(loaded["iter"])
    try:
        save_weights(out, architecture, tensors, {**values, **(metadata or {})}, half=half)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"cannot write {out}: {error}") from error
    return load_weights(out)


def _check_kernels(state: Mapping[str, torch.Tensor]) -> None:
    """The FIR buffers are constants here, so a checkpoint with other ones would give other pictures."""
    import torch

    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    expected = torch.outer(taps, taps) / taps.sum() ** 2
    for name, tensor in state.items():
        if name.endswith(".kernel"):
            gain = 4.0 if "blur" in name or "upsample" in name else 1.0
            if not torch.allclose(tensor.float(), expected * gain, atol=1e-6):
                raise WeightsError(f"{name} is not the official FIR kernel [1, 3, 3, 1] with gain {gain:g}")


def _is_style_part(name: str) -> bool:
    return name.startswith(("encoder.stem.", "encoder.style."))


def pull_official(
    progress: Callable[[int], None] | None = None,
    *,
    url: str = OFFICIAL_URL,
    force: bool = False,
    stall_seconds: float = STALL_SECONDS,
) -> Path:
    """Fetch the released official checkpoint with gdown and import it into the cache.

    Args:
        progress: called a few times a second with the number of bytes fetched so far.
        url: address with "{id}" in it, for mirrors and tests.
        force: fetch again what is there already.
        stall_seconds: give up when nothing arrives for so long.

    Returns:
        The weights file; from then on `--weights official` means it.

    Raises:
        WeightsError: gdown is missing, nothing could be fetched, or what came is no such checkpoint.
    """
    target = official_file()
    if target.is_file() and not force:
        return target
    if find_spec("gdown") is None:
        raise WeightsError("gdown is needed to fetch from Google Drive", install_line("weights"))
    failures = []
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="pull-", dir=target.parent))
    except OSError as error:
        raise WeightsError(f"cannot write to the cache {target.parent}: {error.strerror or error}") from error
    try:
        for drive_id in OFFICIAL_IDS:
            address = url.format(id=drive_id)
            try:
                checkpoint = _fetch(address, folder / drive_id, progress, stall_seconds)
                import_checkpoint(
                    checkpoint,
                    target,
                    metadata={
                        "name": "official",
                        "provenance": f"released GANs N' Roses checkpoint, {address}",
                        "licence": "as its authors state: https://github.com/mchong6/GANsNRoses",
                    },
                )
            except WeightsError as error:
                log.info("%s: %s", address, error)
                failures.append(f"{drive_id}: {error.message}")
            else:
                return target
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    raise WeightsError(
        "the official checkpoint could not be fetched: " + "; ".join(failures),
        f"download {url.format(id=OFFICIAL_IDS[0])} with a browser, then `gnr-video weights import FILE`",
    )


def _fetch(address: str, folder: Path, progress: Callable[[int], None] | None, stall_seconds: float) -> Path:
    """Run gdown in a process of its own: not every version of it gives up on a server that went silent."""
    folder.mkdir()
    target = folder / "checkpoint.pt"
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "gdown", "--quiet", "-O", str(target), address],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            size, moved = 0, time.monotonic()
            while process.poll() is None:
                time.sleep(0.1)
                found = sum(_size(path) for path in folder.iterdir())
                if found != size:
                    size, moved = found, time.monotonic()
                    if progress is not None:
                        progress(size)
                if time.monotonic() - moved > stall_seconds:
                    raise WeightsError(f"nothing arrived for {stall_seconds:.0f} s")
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
        output.seek(0)
        said = output.read().decode(errors="replace").split("\n")
    if process.returncode != 0 or not target.is_file():
        reason = next((line.strip() for line in said if line.strip()), f"exit status {process.returncode}")
        raise WeightsError(f"gdown failed: {reason[:200]}")
    if progress is not None:
        progress(_size(target))
    return target


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # renamed meanwhile
        return 0


def weights_info(path: str | os.PathLike[str]) -> dict[str, str]:
    """What a weights file says of itself, as text by heading, in the order to print.

    Raises:
        WeightsError: no such file, or not a weights file.
    """
    path = Path(path)
    weights = load_weights(path)
    expected = stored_tensors(weights.architecture, weights.tensors)
    stored = {str(t.dtype).removeprefix("torch.") for t in _stored_types(path)}
    info = {
        "file": str(path),
        "architecture": weights.architecture.describe(),
        "parameters": f"{weights.parameters:,} in {len(expected)} tensors, {', '.join(sorted(stored))}",
        "style encoder": "yes" if weights.has_style_encoder else "no: styles come from seeds only",
        "colours": "yes: hair, eyes and skin can be asked for" if weights.has_colors else "no",
        "size": f"{path.stat().st_size / 1e6:.1f} MB",
        "sha256": weights.sha256,
    }
    for key, value in weights.metadata.items():
        if key not in ("format", "architecture"):
            info[key] = value
    info.setdefault("provenance", "not stated")
    info.setdefault("licence", "not stated")
    return info


def _stored_types(path: Path) -> list[torch.Tensor]:
    """One tensor of the file as it is stored (all have the same type)."""
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as handle:
        return [handle.get_tensor(name) for name in list(handle.keys())[:1]]


def describe_weights(path: str | os.PathLike[str]) -> str:
    """`weights_info` as aligned lines of text."""
    info = weights_info(path)
    width = max(map(len, info))
    return "\n".join(f"{key:<{width}}  {value}" for key, value in info.items())
