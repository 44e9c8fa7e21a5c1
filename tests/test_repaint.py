"""Repainting: what keeps the lines, and colours that come to be drawings'. Device: CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.errors import InputError, WeightsError
from engines.weights import STYLE_ENCODER, Weights, load_weights, save_weights
from gnr_video.align import head_side
from tests.golden import golden_weights, narrow
from tests.toy_domains import toy_domains
from train.augment import to_float
from train.data import Domains, ImagePool
from train.metrics.palette import CELLS, mean_distances
from train.networks import Generator
from train.repaint import (
    WARMUP,
    Repainting,
    Settings,
    detail,
    line_loss,
    luma,
    main,
    palette,
    unevenness,
)
from train.sheets import save_png, to_image
from train.trainer import TrainingDiverged

ARCHITECTURE = narrow(size=32, num_down=2, latent_dim=4, style_dim=16)
STEPS = 40


def drawing(seed: int = 0, side: int = 48) -> torch.Tensor:
    """Two flat areas, a dark line three pixels wide between them and a spot, (1, 1, S, S) in [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    light, dark = 0.2 + 0.5 * torch.rand(2, generator=generator)
    picture = torch.full((1, 1, side, side), float(light))
    column = int(torch.randint(side // 3, 2 * side // 3, (1,), generator=generator))
    picture[..., column:] = float(-dark)
    picture[..., column - 2 : column + 1] = -0.9
    row = int(torch.randint(4, side - 4, (1,), generator=generator))
    picture[..., row : row + 3, 4:8] = -0.9
    return picture


@given(
    seed=st.integers(0, 20),
    gain=st.floats(1.0, 3.0),
    offset=st.floats(-0.5, 0.5),
)
@settings(max_examples=20, deadline=None)
def test_lines_may_become_lighter_or_stronger(seed, gain, offset):
    before = drawing(seed)
    assert float(line_loss(gain * before + offset, before)) == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda x: F.avg_pool2d(F.pad(x, (3, 3, 3, 3), "replicate"), 7, 1),
        lambda x: x.roll(3, -1),
        lambda x: 0.3 * x,
        lambda x: torch.zeros_like(x),
        lambda x: -x,
    ],
    ids=["blurred", "moved", "faint", "gone", "inverted"],
)
def test_lines_that_change_cost(spoil):
    before = drawing()
    assert float(line_loss(spoil(before), before)) > 0.2


def test_detail_is_lines_and_not_areas():
    grey = torch.full((1, 1, 40, 40), 0.5)
    grey[..., 20:] = 0.1
    found = detail(grey)
    assert float(found[..., :18].abs().max()) < 1e-6 and float(found[..., 22:].abs().max()) < 1e-6
    grey[..., 10] = -0.5
    torch.testing.assert_close(detail(grey)[0, 0, 5, 10], torch.tensor(-0.8))
    torch.testing.assert_close(detail(2 * grey + 0.3), 2 * detail(grey))


def test_only_new_edges_are_uneven():
    before = torch.zeros(1, 3, 24, 24)
    before[..., 12:] = 0.5
    sharper = 2 * before
    assert float(unevenness(sharper, before)) < 1e-6
    spotted = before.clone()
    spotted[..., 4:8, 2:6] += 0.5
    assert float(unevenness(spotted, before)) > 0.01
    assert float(unevenness(torch.ones_like(before), before)) == 0


def test_luma_of_grey_and_green():
    assert float(luma(torch.full((1, 3, 2, 2), 0.25)).mean()) == pytest.approx(0.25)
    green = torch.tensor([0.0, 1, 0])[None, :, None, None].expand(1, 3, 2, 2)
    assert float(luma(green).mean()) == pytest.approx(0.587)


@pytest.fixture(scope="module")
def domains() -> Domains:
    return toy_domains()


@pytest.fixture(scope="module")
def weights() -> Weights:
    """Of a random network, its pictures brought within black and white."""
    found = golden_weights(ARCHITECTURE, style_encoder=True)
    tensors = {name: 0.2 * t if name.startswith("to_rgb") else t for name, t in found.tensors.items()}
    return replace(found, tensors=tensors)


@pytest.fixture(scope="module")
def repainted(weights, domains):
    repainting = Repainting(weights, domains, Settings(steps=STEPS, lr=5e-3, share=1))
    losses = [repainting.train_step() for _ in range(STEPS)]
    return repainting.result(), losses


def palette_distance(weights: Weights, domains: Domains) -> float:
    """Of faces in seeds' styles from drawings."""
    network = Generator(weights.architecture)
    network.load_state_dict(
        {n: t for n, t in weights.tensors.items() if not n.startswith(STYLE_ENCODER)}, strict=False
    )
    generator = torch.Generator().manual_seed(5)
    faces = to_float(domains.train_a.images)
    with torch.no_grad():
        seeds = torch.randn(len(faces), 4, generator=generator)
        pictures = network.decode(network.content(faces), seeds).clamp(-1, 1)
    a, b = (
        F.adaptive_avg_pool2d(x, CELLS).flatten(2).transpose(1, 2).numpy()
        for x in (pictures, to_float(domains.train_b.images))
    )
    return float(2 * mean_distances(a, b).mean() - mean_distances(a, a).mean() - mean_distances(b, b).mean())


def test_colours_become_drawings(weights, domains, repainted):
    before, after = palette_distance(weights, domains), palette_distance(repainted[0], domains)
    assert after < 0.7 * before


def test_what_draws_is_left_alone(weights, repainted):
    after = repainted[0].tensors
    for name, tensor in weights.tensors.items():
        kept = name.startswith(("encoder.", f"{STYLE_ENCODER}stem.")) or (
            name.endswith(".conv.weight") and not name.startswith("to_rgb")
        )
        assert torch.equal(after[name], tensor) == kept, name


def test_the_same_seed_gives_the_same_weights(weights, domains):
    def run() -> Weights:
        repainting = Repainting(weights, domains, Settings(steps=3), seed=4)
        for _ in range(3):
            repainting.train_step()
        return repainting.result()

    one, other = run(), run()
    assert all(torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors)
    assert one.metadata["colours"] == "repainted in 3 steps"


def test_weights_go_their_share_of_the_way(weights, domains):
    def run(share: float) -> Weights:
        repainting = Repainting(weights, domains, Settings(steps=2, share=share))
        for _ in range(2):
            repainting.train_step()
        return repainting.result()

    part, whole = run(0.25), run(1)
    for name, before in weights.tensors.items():
        expected = before + 0.25 * (whole.tensors[name] - before)
        torch.testing.assert_close(part.tensors[name], expected, msg=name)


def test_learning_rate_rises_and_ends_at_nothing(weights, domains):
    repainting = Repainting(weights, domains, Settings(steps=2 * WARMUP, lr=1e-3))
    rates = []
    for _ in range(2 * WARMUP):
        repainting.train_step()
        rates.append(repainting.optimiser.param_groups[0]["lr"])
    assert rates[0] < 1e-4 and max(rates) < 1e-3 and rates[-1] < 1e-5


def test_every_loss_is_there(repainted):
    names = set().union(*repainted[1])
    expected = {"palette", "harmony", "reproduction", "lines", "detail", "flat", "latent", "excess"}
    assert names == expected
    assert all(torch.isfinite(value) for terms in repainted[1] for value in terms.values())


def test_whole_heads_take_their_turn(weights, domains):
    side = head_side(32)
    heads = ImagePool(torch.randint(0, 256, (6, 3, side, side), dtype=torch.uint8))
    repainting = Repainting(weights, replace(domains, heads=heads), Settings(steps=3, batch=4))
    for _ in range(3):
        repainting.train_step()
    assert repainting.step == 3


def test_palette_is_the_mean_of_cells():
    picture = torch.arange(3 * 64 * 64, dtype=torch.float32).reshape(1, 3, 64, 64)
    torch.testing.assert_close(palette(picture), F.avg_pool2d(picture, 2))


def test_what_cannot_be_is_refused(weights, domains):
    bare = {name: t for name, t in weights.tensors.items() if not name.startswith(STYLE_ENCODER)}
    with pytest.raises(WeightsError, match="no style encoder"):
        Repainting(replace(weights, tensors=bare), domains)
    with pytest.raises(InputError, match="the weights draw 64 pixels, the pictures have 32"):
        Repainting(golden_weights(narrow(size=64), style_encoder=True), domains)
    for wrong in ({"steps": 0}, {"batch": 1}, {"batch": 16}, {"share": 0}, {"share": 1.1}):
        with pytest.raises(InputError, match="cannot be"):
            Settings(**wrong)


@pytest.fixture(scope="module")
def folder(domains, tmp_path_factory):
    """The toy domains as a prepared data set."""
    root = tmp_path_factory.mktemp("prepared")
    for name, pool in (("trainA", domains.train_a), ("trainB", domains.train_b)):
        (root / name).mkdir()
        for number, image in enumerate(pool.images):
            save_png(to_image(image), root / name / f"{number:02}.png")
    return root


def test_command_writes_weights_that_load(weights, folder, tmp_path, capsys):
    source, target = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_weights(source, weights.architecture, weights.tensors, weights.metadata)
    assert main([str(source), str(folder), "-o", str(target), "--steps", "4", "--log-every", "2"]) == 0
    said = capsys.readouterr().out
    assert "step 2/4" in said and "step 4/4" in said and "min left" in said
    written = load_weights(target)
    assert written.metadata["colours"] == "repainted in 4 steps"
    assert not torch.equal(
        written.tensors["to_rgb1.conv.weight"], load_weights(source).tensors["to_rgb1.conv.weight"]
    )


def test_command_stops_where_a_loss_is_not_finite(weights, folder, tmp_path):
    source, target = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_weights(source, weights.architecture, weights.tensors, weights.metadata)
    with pytest.raises(TrainingDiverged, match="not finite at step 4"):
        main(
            [str(source), str(folder), "-o", str(target), "--steps", "4", "--log-every", "4", "--lr", "1e30"]
        )
    assert not target.exists()
