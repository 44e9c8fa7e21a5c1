"""Fitting seeds to drawings' style codes. Device: CPU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import engines
from engines.baseline import OfficialGenerator
from engines.errors import InputError, WeightsError
from engines.weights import STYLE_ENCODER, Weights, load_weights, save_weights
from gnr_video.style import style_from_seed
from tests.golden import golden_weights, narrow
from train.metrics.pictures import Folder
from train.metrics.style_tools import encode_styles
from train.seeds import MINIMUM, fit_seeds, main, principal_axes, turn_seeds

ARCHITECTURE = narrow(size=64, num_down=2, latent_dim=4, style_dim=16)


def drawings_codes(weights: Weights, drawings: Folder) -> torch.Tensor:
    with engines.create(weights, engine="torch", device="cpu") as engine:
        return torch.from_numpy(encode_styles(engine, drawings)).double()


@pytest.fixture(scope="module")
def drawings(tmp_path_factory):
    """Plain pictures of many colours, of another size than the weights'."""
    folder = tmp_path_factory.mktemp("drawings")
    random = np.random.default_rng(0)
    for number in range(MINIMUM):
        colours = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(colours).resize((80, 80)).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def weights():
    return golden_weights(ARCHITECTURE, style_encoder=True)


@pytest.fixture(scope="module")
def codes(weights, drawings):
    """Spread wider than the random style head gives them, along one direction above all."""
    found = drawings_codes(weights, Folder.open(drawings))
    return found / found.std(0) * torch.tensor([3.0, 1.5, 0.5, 0.1])


def test_principal_axes_of_known_codes():
    random = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=random))[0]
    wide = torch.tensor([2.0, 1.0, 0.5, 0.1], dtype=torch.float64)
    codes = torch.randn(20_000, 4, dtype=torch.float64, generator=random) * wide @ turn.T
    deviations, axes = principal_axes(codes)
    torch.testing.assert_close(deviations, wide, rtol=0.03, atol=0)
    torch.testing.assert_close(
        (axes * turn).sum(0).abs(), torch.ones(4, dtype=torch.float64), rtol=0, atol=0.01
    )


def test_seeds_reach_as_far_as_drawings_and_not_less_far_than_asked(weights, codes):
    fitted = fit_seeds(weights, codes, least=0.9)
    seeds = torch.randn(20_000, 4, generator=torch.Generator().manual_seed(0))
    before, after = (w.tensors["mapping.0.weight"] for w in (weights, fitted))
    # What the mapping network is given now, as the seeds of before.
    reach = (torch.linalg.pinv(before) @ (after @ seeds.T)).T.double()
    deviations, axes = principal_axes(codes)
    along = (reach @ axes).std(0)
    torch.testing.assert_close(along, deviations.clamp(min=0.9), rtol=0.03, atol=0)
    assert deviations[0] > 2 and deviations[-1] < 0.9


def test_styles_of_pictures_stay_what_they_are(weights, codes, drawings):
    fitted = fit_seeds(weights, codes)
    folder = Folder.open(drawings, MINIMUM)
    one, other = drawings_codes(weights, folder).float(), drawings_codes(fitted, folder).float()
    with torch.inference_mode():
        expected, found = OfficialGenerator(weights).mapping(one), OfficialGenerator(fitted).mapping(other)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(one, other, rtol=0.05)


def test_fitting_twice_changes_nothing_more(weights, codes):
    fitted = fit_seeds(weights, codes)
    deviations, axes = principal_axes(codes)
    shrunken = codes @ axes @ torch.diag(1 / deviations.clamp(min=1)) @ axes.T
    again = fit_seeds(fitted, shrunken)
    for name, tensor in again.tensors.items():
        torch.testing.assert_close(tensor, fitted.tensors[name], msg=name)


def test_a_seed_takes_over_the_look_of_another(weights, drawings):
    turned = turn_seeds(weights, 42, 7)
    a, b = (torch.from_numpy(style_from_seed(seed, 4).array())[None] for seed in (42, 7))
    folder = Folder.open(drawings, 4)
    one, other = drawings_codes(weights, folder).float(), drawings_codes(turned, folder).float()
    with torch.inference_mode():
        before, after = OfficialGenerator(weights).mapping, OfficialGenerator(turned).mapping
        torch.testing.assert_close(after(a), before(b * a.norm() / b.norm()), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(after(other), before(one), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(other.norm(dim=1), one.norm(dim=1), rtol=1e-3, atol=1e-4)


def test_weights_without_a_style_head_and_too_few_drawings_are_refused(weights, drawings):
    bare = {name: t for name, t in weights.tensors.items() if not name.startswith(STYLE_ENCODER)}
    with pytest.raises(WeightsError, match="hold no style encoder"):
        drawings_codes(replace(weights, tensors=bare), Folder.open(drawings))
    with pytest.raises(InputError, match="5 drawings are too few"):
        fit_seeds(weights, drawings_codes(weights, Folder.open(drawings, 5)))


def test_command_writes_weights_that_load(weights, drawings, tmp_path, capsys):
    source, target = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_weights(source, weights.architecture, weights.tensors, weights.metadata)
    assert main([str(source), str(drawings), "-o", str(target), "--least", "0.5", "--look", "7"]) == 0
    assert f"deviations of {MINIMUM} drawings: " in capsys.readouterr().out
    written = load_weights(target)
    assert written.metadata["seeds"] == "fitted to drawings"
    assert not torch.equal(
        written.tensors["mapping.0.weight"], load_weights(source).tensors["mapping.0.weight"]
    )
    with pytest.raises(SystemExit):
        main([str(source), str(drawings), "-o", str(target), "--least", "2"])
