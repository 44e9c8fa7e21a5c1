"""MS-SSIM, LPIPS diversity and DFID on pictures with known answers. Device: CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut
from skimage.metrics import structural_similarity

from engines.errors import InputError
from tests.test_lpips import REFERENCE, WEIGHTS, needs_reference, trunk  # noqa: F401
from train.lpips import Lpips
from train.metrics.distances import frechet_distance
from train.metrics.diversity import dfid_estimate, ms_ssim, pairwise_lpips, pairwise_ms_ssim
from train.metrics.pictures import resize_clean, to_tensor


def face(size: int = 128) -> np.ndarray:
    return np.array(Image.fromarray(astronaut()[:256, 100:356]).resize((size, size)))


def test_one_scale_is_ssim():
    # 20 pixels have room for one scale; skimage's Gaussian SSIM, less the border that it pads.
    rng = np.random.default_rng(0)
    a = face(20)
    b = np.clip(a + rng.normal(0, 30, a.shape), 0, 255).astype(np.uint8)
    _, maps = structural_similarity(
        a,
        b,
        channel_axis=2,
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    expected = maps[5:-5, 5:-5].mean((0, 1)).mean()
    found = ms_ssim(to_tensor([a], 20), to_tensor([b], 20))
    assert found.item() == pytest.approx(expected, abs=1e-4)


def test_ms_ssim_of_equal_and_of_unlike_pictures():
    a = to_tensor([face(192)], 192)
    assert ms_ssim(a, a).item() == pytest.approx(1)
    noise = [ms_ssim(a, a + level * torch.randn_like(a)).item() for level in (0.05, 0.2, 0.8)]
    assert noise == sorted(noise, reverse=True)
    assert ms_ssim(a, -a).item() == 0
    # A change of brightness alone shows only in the coarsest scale's luminance term, with its exponent.
    x, y = torch.full((1, 3, 192, 192), -0.2), torch.full((1, 3, 192, 192), 0.4)
    light = (2 * 0.4 * 0.7 + 1e-4) / (0.4**2 + 0.7**2 + 1e-4)
    assert ms_ssim(x, y).item() == pytest.approx(light**0.1333, rel=1e-4)
    with pytest.raises(InputError, match="one size"):
        ms_ssim(a, a[..., :100])


def test_pairs():
    a, b = to_tensor([face()], 128), to_tensor([face()[:, ::-1]], 128)
    one = ms_ssim(a, b).item()
    assert pairwise_ms_ssim(torch.cat([a, b])) == pytest.approx(one)
    # Two of three pairs differ by `one`, the third is equal.
    assert pairwise_ms_ssim(torch.cat([a, b, b])) == pytest.approx((2 * one + 1) / 3)


def test_lpips_diversity_is_the_mean_of_pairs(trunk):  # noqa: F811
    net = Lpips("alex", trunk)
    pictures = to_tensor([face(64), face(64)[:, ::-1], face(64)[::-1]], 64)
    pairs = [(0, 1), (0, 2), (1, 2)]
    expected = np.mean([net(pictures[i : i + 1], pictures[j : j + 1]).item() for i, j in pairs])
    assert pairwise_lpips(net, pictures) == pytest.approx(expected, rel=1e-5)
    assert pairwise_lpips(net, pictures[[0, 0, 0]]) == pytest.approx(0, abs=1e-7)


@needs_reference
def test_lpips_of_the_reference_pictures(monkeypatch):
    monkeypatch.setenv("GNR_VIDEO_LPIPS_TRUNK", str(WEIGHTS))
    net = Lpips("alex")
    ref, p0, p1 = (
        to_tensor([np.array(Image.open(REFERENCE / f"ex_{name}.png").convert("RGB"))], 64)
        for name in ("ref", "p0", "p1")
    )
    assert pairwise_lpips(net, torch.cat([ref, p0])) == pytest.approx(0.722, abs=1e-3)
    assert pairwise_lpips(net, torch.cat([ref, p1])) == pytest.approx(0.138, abs=1e-3)


def test_dfid_is_the_mean_over_faces_and_punishes_one_look():
    rng = np.random.default_rng(1)
    real = rng.standard_normal((80, 6))
    diverse = [rng.standard_normal((40, 6)) for _ in range(3)]
    single = [np.repeat(one[:1], 40, 0) for one in diverse]
    estimate = dfid_estimate(diverse, real)
    assert estimate.value == pytest.approx(np.mean([frechet_distance(f, real) for f in diverse]))
    assert estimate.count == 3
    # One look only: no variance of its own, so at least all of the real pictures'.
    assert dfid_estimate(single, real).value >= np.cov(real, rowvar=False).trace()


def test_resizing_does_not_alias():
    # Stripes one pixel wide are mid-grey when reduced; a filter that does not widen would beat.
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    reduced = resize_clean(stripes, 60)
    assert np.abs(reduced[:, 8:-8, 8:-8] - 127.5).max() < 2
    flat = np.full((40, 40, 3), (10, 200, 77), np.uint8)
    assert np.allclose(resize_clean(flat, 100), np.array([10, 200, 77])[:, None, None], atol=1e-3)
    same = face(64)
    assert np.array_equal(resize_clean(same, 64), same.transpose(2, 0, 1))
