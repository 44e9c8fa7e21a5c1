"""Official checkpoints of every published shape become weights files; names resolve to files. Device: CPU."""

from __future__ import annotations

import os
import pickle

import pytest
import torch

from benchmarks.official import OfficialGenerator
from engines.architecture import Architecture, detect, generator_tensors
from engines.errors import WeightsError
from engines.weights import load_weights, save_weights
from gnr_video import checkpoints as weights_module
from gnr_video.checkpoints import describe_weights, import_checkpoint, resolve_weights, weights_info
from tests.golden import generator_state, golden_weights, narrow, relative_error

SHAPES = {
    "released": Architecture(),
    "main branch": Architecture(num_down=3),
    "train branch": Architecture(content_kernel=3),
}
SMALL = {
    "released": narrow(num_down=2),
    "main branch": narrow(num_down=1),
    "train branch": narrow(num_down=2, content_kernel=3),
}
SEEDS = {"G_A2B": 1, "G_B2A": 2, "G_A2B_ema": 3, "G_B2A_ema": 4}


def checkpoint(path, architecture=None, keys=tuple(SEEDS), **more):
    """A checkpoint as the official trainer saves it: networks, optimiser state, iteration."""
    content = {key: generator_state(architecture or narrow(num_down=2), SEEDS[key]) for key in keys}
    content["G_optim"] = {
        "state": {0: {"step": 5, "exp_avg": torch.zeros(3)}},
        "param_groups": [{"lr": 2e-3}],
    }
    content["iter"] = 1234
    torch.save({**content, **more}, path)
    return path


def same(weights, seed, name="conv1.conv.weight"):
    return torch.equal(weights.tensors[name], generator_state(weights.architecture, seed)[name])


@pytest.mark.parametrize("shape", SHAPES)
def test_official_shapes_are_recognised(shape):
    assert detect(generator_tensors(SHAPES[shape])) == SHAPES[shape]


@pytest.mark.parametrize("shape", SMALL)
def test_import(tmp_path, shape):
    architecture = SMALL[shape]
    source = checkpoint(tmp_path / "gnr.pt", architecture)
    imported = import_checkpoint(source, tmp_path / "out.safetensors")
    assert imported.architecture == architecture
    assert same(imported, SEEDS["G_A2B_ema"])
    assert imported.has_style_encoder
    assert imported.metadata["step"] == "1234"
    read_again = load_weights(tmp_path / "out.safetensors")
    assert read_again.sha256 == imported.sha256
    # The style encoder is the opposite generator's.
    picture = torch.rand(1, 3, 64, 64) * 2 - 1
    opposite = generator_state(architecture, SEEDS["G_B2A_ema"])
    own = dict(golden_weights(architecture).tensors)
    own |= {f"style_{name}": t for name, t in opposite.items() if name.startswith("encoder.")}
    reference = OfficialGenerator(type(imported)(architecture, own))
    with torch.inference_mode():
        z = OfficialGenerator(imported).encode_style(picture)
        assert relative_error(z, reference.encode_style(picture)) < 1e-6


def test_raw_and_direction(tmp_path):
    source = checkpoint(tmp_path / "gnr.pt")
    out = tmp_path / "out.safetensors"
    style = "style_encoder.stem.0.0.weight"
    for direction, raw, own, other in (
        ("A2B", True, "G_A2B", "G_B2A"),
        ("B2A", False, "G_B2A_ema", "G_A2B_ema"),
        ("B2A", True, "G_B2A", "G_A2B"),
    ):
        imported = import_checkpoint(source, out, direction=direction, raw=raw)
        assert same(imported, SEEDS[own])
        expected = generator_state(imported.architecture, SEEDS[other])["encoder.stem.0.0.weight"]
        assert torch.equal(imported.tensors[style], expected)


def test_the_released_checkpoint_has_no_style_encoder(tmp_path):
    source = checkpoint(tmp_path / "gnr.pt", keys=["G_A2B_ema"])
    imported = import_checkpoint(source, tmp_path / "out.safetensors")
    assert not imported.has_style_encoder
    with pytest.raises(WeightsError, match=r"no generator G_A2B; .*G_A2B_ema"):
        import_checkpoint(source, tmp_path / "raw.safetensors", raw=True)
    with pytest.raises(WeightsError, match="no generator G_B2A_ema or G_B2A"):
        import_checkpoint(source, tmp_path / "other.safetensors", direction="B2A")


def test_without_an_ema_copy(tmp_path, caplog):
    source = checkpoint(tmp_path / "gnr.pt", keys=["G_A2B", "G_B2A"])
    imported = import_checkpoint(source, tmp_path / "out.safetensors")
    assert same(imported, SEEDS["G_A2B"])
    assert "no EMA copy" in caplog.text


def test_distributed_prefix(tmp_path):
    state = {f"module.{name}": t for name, t in generator_state(narrow(), 3).items()}
    torch.save({"G_A2B_ema": state}, tmp_path / "gnr.pt")
    assert same(import_checkpoint(tmp_path / "gnr.pt", tmp_path / "out.safetensors"), 3)


def test_a_state_dict_itself(tmp_path):
    torch.save(generator_state(narrow(), 9), tmp_path / "gnr.pt")
    assert same(import_checkpoint(tmp_path / "gnr.pt", tmp_path / "out.safetensors"), 9)


def test_half(tmp_path):
    source = checkpoint(tmp_path / "gnr.pt")
    full = import_checkpoint(source, tmp_path / "full.safetensors")
    half = import_checkpoint(source, tmp_path / "half.safetensors", half=True)
    size = {name: (tmp_path / f"{name}.safetensors").stat().st_size for name in ("full", "half")}
    assert size["half"] < 0.65 * size["full"]
    name = "conv1.conv.weight"
    assert relative_error(half.tensors[name], full.tensors[name]) < 1e-3


def test_mismatch_names_tensors_and_shapes(tmp_path):
    state = generator_state(narrow(num_down=2), 3)
    state["convs.1.conv.weight"] = torch.zeros(1, 5, 7, 3, 3)
    del state["to_rgb1.bias"]
    torch.save({"G_A2B_ema": state}, tmp_path / "gnr.pt")
    with pytest.raises(WeightsError) as caught:
        import_checkpoint(tmp_path / "gnr.pt", tmp_path / "out.safetensors")
    assert "convs.1.conv.weight: expected [1, 18, 18, 3, 3], found [1, 5, 7, 3, 3]" in caught.value.message
    assert "to_rgb1.bias: expected [1, 3, 1, 1], missing" in caught.value.message
    assert list(tmp_path.iterdir()) == [tmp_path / "gnr.pt"]


def test_other_fir_kernel(tmp_path):
    state = generator_state(narrow(), 3)
    state["convs.0.conv.blur.kernel"] = torch.full((4, 4), 0.25)
    torch.save({"G_A2B_ema": state}, tmp_path / "gnr.pt")
    with pytest.raises(WeightsError, match="not the official FIR kernel"):
        import_checkpoint(tmp_path / "gnr.pt", tmp_path / "out.safetensors")


class Trap:
    """Would run code if the checkpoint were unpickled without care."""

    def __reduce__(self):
        return os.mkdir, ("trap-sprung",)


def test_no_code_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"G_A2B_ema": Trap()}, tmp_path / "gnr.pt")
    with pytest.raises(WeightsError, match="not a torch checkpoint"):
        import_checkpoint(tmp_path / "gnr.pt", tmp_path / "out.safetensors")
    assert not (tmp_path / "trap-sprung").exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"not a checkpoint\n", b"PK\x03\x04 a damaged zip", pickle.dumps([1, 2]), b"<html>quota</html>"],
    ids=["empty", "text", "zip", "list", "html"],
)
def test_not_a_checkpoint(tmp_path, content):
    (tmp_path / "gnr.pt").write_bytes(content)
    with pytest.raises(WeightsError, match=r"gnr.pt") as caught:
        import_checkpoint(tmp_path / "gnr.pt", tmp_path / "out.safetensors")
    assert "\n" not in caught.value.message
    assert not (tmp_path / "out.safetensors").exists()


def test_other_things(tmp_path):
    with pytest.raises(WeightsError, match="no checkpoint at"):
        import_checkpoint(tmp_path / "missing.pt", tmp_path / "out.safetensors")
    torch.save({"weights": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match="it holds weights"):
        import_checkpoint(tmp_path / "other.pt", tmp_path / "out.safetensors")
    source = checkpoint(tmp_path / "gnr.pt")
    with pytest.raises(WeightsError, match="cannot write"):
        import_checkpoint(source, tmp_path / "no" / "such" / "folder.safetensors")


def test_info(tmp_path):
    source = checkpoint(tmp_path / "gnr.pt")
    imported = import_checkpoint(source, tmp_path / "out.safetensors", half=True)
    info = weights_info(tmp_path / "out.safetensors")
    assert info["sha256"] == imported.sha256
    assert info["style encoder"] == "yes"
    assert info["parameters"].startswith(f"{imported.parameters:,} in ")
    assert "float16" in info["parameters"]
    assert "G_A2B_ema" in info["provenance"] and "G_B2A_ema" in info["provenance"]
    text = describe_weights(tmp_path / "out.safetensors")
    assert "64x64, content 20x16x16" in text and "licence" in text
    plain = tmp_path / "plain.safetensors"
    save_weights(plain, imported.architecture, imported.tensors)
    assert weights_info(plain)["licence"] == "not stated"
    with pytest.raises(WeightsError):
        weights_info(source)


def test_resolve(tmp_path, monkeypatch):
    monkeypatch.setenv("GNR_VIDEO_CACHE", str(tmp_path / "cache"))
    with pytest.raises(WeightsError, match="weights pull official"):
        resolve_weights("official")
    official = tmp_path / "cache" / "weights" / "official.safetensors"
    official.parent.mkdir(parents=True)
    official.touch()
    assert resolve_weights("official") == official
    monkeypatch.setattr(weights_module, "DEFAULT_FILE", tmp_path / "default.safetensors")
    for name in (None, "default"):
        with pytest.raises(WeightsError, match="no default weights"):
            resolve_weights(name)
    (tmp_path / "default.safetensors").touch()
    assert resolve_weights(None) == resolve_weights("default") == tmp_path / "default.safetensors"
    own = tmp_path / "own.safetensors"
    with pytest.raises(WeightsError, match="does not exist"):
        resolve_weights(own)
    own.touch()
    assert resolve_weights(str(own)) == own
    with pytest.raises(WeightsError, match="is a folder"):
        resolve_weights(tmp_path)
