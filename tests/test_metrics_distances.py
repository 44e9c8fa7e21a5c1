"""FID, KID and their intervals on data with known answers; Inception's network. Device: CPU."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.errors import InputError, WeightsError
from train.metrics.distances import (
    fid_estimate,
    frechet_distance,
    kernel_distance,
    kernel_distance_subsets,
    kid_estimate,
)
from train.metrics.estimate import distance_estimate, mean_estimate
from train.metrics.inception import Inception, fill_inception, load_inception


def gaussian(count: int, mean: np.ndarray, covariance: np.ndarray, seed: int) -> np.ndarray:
    """Samples whose own mean and covariance are exactly these."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, len(mean)))
    x -= x.mean(0)
    whitener = np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False)))
    return x @ whitener.T @ np.linalg.cholesky(covariance).T + mean


def test_fid_of_a_set_with_itself_is_nothing():
    rng = np.random.default_rng(0)
    for count, features in ((100, 512), (600, 64), (100, 2048)):
        x = rng.gamma(0.5, 1.0, (count, features)) * 3  # skewed, as ReLU features are
        assert frechet_distance(x, rng.permutation(x)) < 1e-6


def test_fid_of_two_gaussians_is_the_formula():
    d = 12
    rng = np.random.default_rng(1)
    rotation = np.linalg.qr(rng.standard_normal((d, d)))[0]
    variances = rng.uniform(0.5, 4, (2, d))
    means = rng.standard_normal((2, d))
    # Covariances with common eigenvectors: the root of their product has the products' roots.
    a, b = (
        gaussian(400, m, rotation @ np.diag(v) @ rotation.T, seed)
        for seed, (m, v) in enumerate(zip(means, variances))
    )
    expected = np.square(means[0] - means[1]).sum() + np.square(np.diff(np.sqrt(variances), axis=0)).sum()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_fid_of_covariances_without_common_axes():
    # The definition by a matrix square root, on sets larger and smaller than the number of features.
    linalg = pytest.importorskip("scipy.linalg", reason="scipy has the matrix square root to compare with")
    rng = np.random.default_rng(2)
    for count in (9, 200):
        a = rng.standard_normal((count, 16)) @ rng.standard_normal((16, 16)) + 0.3
        b = rng.standard_normal((count + 5, 16)) @ rng.standard_normal((16, 16))
        sa, sb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
        root = np.real(linalg.sqrtm(sa @ sb + 1e-14 * np.eye(16)))
        expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(sa + sb - 2 * root)
        assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0.1, 10))
def test_fid_is_symmetric_and_scales_as_a_square(seed, factor):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((20, 8)), rng.standard_normal((30, 8)) + 1
    value = frechet_distance(a, b)
    assert frechet_distance(b, a) == pytest.approx(value)
    assert frechet_distance(a * factor, b * factor) == pytest.approx(value * factor**2)


def test_kid_of_points_is_the_formula():
    # Two one-dimensional sets, kernel (xy + 1)^3 written out.
    a, b = np.array([[0.0], [1.0]]), np.array([[2.0], [-1.0]])
    within_a, within_b = (0 + 1) ** 3, (-2 + 1) ** 3
    between = np.mean([(x * y + 1) ** 3 for x in (0, 1) for y in (2, -1)])
    assert kernel_distance(a, b) == pytest.approx(within_a + within_b - 2 * between)


def test_kid_is_unbiased():
    rng = np.random.default_rng(3)
    same = [kernel_distance(*rng.standard_normal((2, 15, 6))) for _ in range(400)]
    assert abs(np.mean(same)) < 3 * np.std(same) / math.sqrt(len(same))
    assert min(same) < 0
    shifted = [
        kernel_distance(rng.standard_normal((n, 1)), rng.standard_normal((n, 1)) + 1)
        for n in (4, 40)
        for _ in range(1500)
    ]
    # E k(x, x') = 1 + 3/D E(x)^2 ... for N(0, 1) against N(1, 1), D = 1: moments give 21.
    few, many = np.mean(shifted[:1500]), np.mean(shifted[1500:])
    expected = _expected_kid(0, 0) + _expected_kid(1, 1) - 2 * _expected_kid(0, 1)
    assert few == pytest.approx(expected, rel=0.15)
    assert many == pytest.approx(expected, rel=0.05)


def _expected_kid(m: float, n: float) -> float:
    """E (x y + 1)^3 of independent x ~ N(m, 1), y ~ N(n, 1), from their first three moments."""
    x, y = ((k, k * k + 1, k**3 + 3 * k) for k in (m, n))
    return 1 + 3 * x[0] * y[0] + 3 * x[1] * y[1] + x[2] * y[2]


def test_kid_of_subsets_has_the_mean_of_the_whole():
    rng = np.random.default_rng(4)
    a, b = rng.standard_normal((60, 10)), rng.standard_normal((50, 10)) + 0.5
    mean, deviation = kernel_distance_subsets(a, b, subsets=300, size=20)
    assert mean == pytest.approx(kernel_distance(a, b), abs=4 * deviation / math.sqrt(300))
    assert deviation > 0
    assert kid_estimate(a, b).value == kernel_distance(a, b)
    assert kid_estimate(a, b, subset_size=20).value == pytest.approx(mean, abs=deviation)


def test_intervals_of_distances_cover():
    """Nine of ten intervals hold the distance that this many samples give on average."""
    rng = np.random.default_rng(5)
    draws = [(rng.standard_normal((40, 4)), rng.standard_normal((40, 4)) + 0.7) for _ in range(60)]
    estimates = [fid_estimate(a, b) for a, b in draws]
    target = np.mean([e.value for e in estimates])
    covered = np.mean([e.low <= target <= e.high for e in estimates])
    assert 0.85 <= covered <= 1
    assert all(e.count == 40 for e in estimates)


def test_samples_of_one_face_are_left_out_together():
    rng = np.random.default_rng(6)
    base, real = rng.standard_normal((20, 3)), np.ones((50, 3))
    repeated, groups = np.repeat(base, 4, 0), np.repeat(np.arange(20), 4)

    def mean_gap(i, j):
        return float(np.square(repeated[i].mean(0) - real[j].mean(0)).sum())

    together = distance_estimate(mean_gap, groups, np.arange(50))
    apart = distance_estimate(mean_gap, np.arange(80), np.arange(50))
    # Four copies of a sample hold no more than one: the honest interval is the wider.
    assert together.high - together.low > 1.3 * (apart.high - apart.low)


def test_mean_and_its_interval():
    values = np.random.default_rng(7).normal(5, 2, 400)
    estimate = mean_estimate(values)
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * 2 / 20, rel=0.15)
    assert mean_estimate(values) == estimate
    single = mean_estimate([3.0])
    assert (single.value, single.count) == (3.0, 1)
    assert single.to_json() == {"value": 3.0, "low": None, "high": None, "count": 1}
    with pytest.raises(ValueError, match="at least one"):
        mean_estimate([])


@pytest.mark.parametrize("measure", [frechet_distance, kernel_distance])
@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (np.zeros((1, 4)), np.zeros((9, 4)), "got 1 and 9"),
        (np.zeros((5, 4)), np.zeros((5, 3)), r"\(5, 4\) and \(5, 3\)"),
        (np.full((5, 4), np.nan), np.zeros((5, 4)), "not finite"),
    ],
)
def test_says_what_cannot_be_compared(measure, a, b, message):
    with pytest.raises(InputError, match=message):
        measure(a, b)


def test_inception_is_the_network_of_the_weights_file(tmp_path):
    torch.manual_seed(0)
    net = Inception()
    # Without classifier: torchvision's 27,161,264 less the auxiliary head's 3,326,696 and the classifier's.
    assert sum(p.numel() for p in net.parameters()) == 27_161_264 - 3_326_696 - 2048 * 1000 - 1000
    state = net.state_dict() | {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    torch.save(state, tmp_path / "inception.pth")
    loaded = load_inception(tmp_path / "inception.pth")
    picture = torch.rand(1, 3, 299, 299) * 2 - 1
    with torch.inference_mode():
        features = loaded(picture)
        assert torch.equal(features, net(picture))
    assert features.shape == (1, 2048)
    assert features.std() > 0
    with pytest.raises(WeightsError, match=r"lack Mixed_7c\.branch_pool"):
        fill_inception({k: v for k, v in state.items() if "7c.branch_pool" not in k})
    with pytest.raises(WeightsError, match=r"Conv2d_1a_3x3\.conv\.weight .* is \(32, 1, 3, 3\)"):
        fill_inception(state | {"Conv2d_1a_3x3.conv.weight": torch.zeros(32, 1, 3, 3)})


def test_inception_weights_are_not_fetched_unasked(monkeypatch, tmp_path):
    monkeypatch.delenv("GNR_VIDEO_INCEPTION", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match="no Inception weights") as caught:
        load_inception(None)
    assert "--inception" in caught.value.hint
    with pytest.raises(WeightsError, match="cannot read"):
        load_inception(tmp_path / "missing.pth")
