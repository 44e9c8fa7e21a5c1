"""`upfirdn2d` and `bias_act`: values against direct sums in float64, first and second derivatives. Device: CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from train.ops.bias_act import bias_act
from train.ops.upfirdn2d import setup_filter, upfirdn2d


def direct(
    x: np.ndarray, f: np.ndarray, up: int, down: int, padding: tuple[int, int, int, int]
) -> np.ndarray:
    """The definition, sum by sum: zeros in, pad or crop, convolve, keep every `down`-th."""
    left, right, top, bottom = padding
    n, c, h, w = x.shape
    wide = np.zeros((n, c, h * up, w * up))
    wide[:, :, ::up, ::up] = x
    wide = np.pad(wide, ((0, 0), (0, 0), (max(top, 0), max(bottom, 0)), (max(left, 0), max(right, 0))))
    wide = wide[
        :, :, max(-top, 0) : wide.shape[2] - max(-bottom, 0), max(-left, 0) : wide.shape[3] - max(-right, 0)
    ]
    kh, kw = f.shape
    out = np.zeros((n, c, wide.shape[2] - kh + 1, wide.shape[3] - kw + 1))
    for i in range(kh):
        for j in range(kw):
            out += f[kh - 1 - i, kw - 1 - j] * wide[:, :, i : i + out.shape[2], j : j + out.shape[3]]
    return out[:, :, ::down, ::down]


@st.composite
def cases(draw: st.DrawFn):
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    up, down = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    padding = draw(st.tuples(*[st.integers(-1, 4)] * 4))
    h, w = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    fits = h * up + padding[2] + padding[3] >= kernel[0] and w * up + padding[0] + padding[1] >= kernel[1]
    sane = (
        h * up + min(padding[2], 0) + min(padding[3], 0) > 0
        and w * up + min(padding[0], 0) + min(padding[1], 0) > 0
    )
    if not (fits and sane):
        padding = (3, 3, 3, 3)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return rng.standard_normal((2, 3, h, w)), rng.standard_normal(kernel), up, down, padding


@given(cases(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_upfirdn2d_is_its_definition(case, channels_last):
    x, f, up, down, padding = case
    tensor = torch.from_numpy(x)
    if channels_last:
        tensor = tensor.contiguous(memory_format=torch.channels_last)
    found = upfirdn2d(tensor, torch.from_numpy(f), up, down, padding)
    np.testing.assert_allclose(found.numpy(), direct(x, f, up, down, padding), atol=1e-12)


@given(cases())
@settings(max_examples=15, deadline=None)
def test_upfirdn2d_derivatives(case):
    x, f, up, down, padding = case
    tensor = torch.from_numpy(x[:1, :1]).requires_grad_(True)
    fir = torch.from_numpy(f)

    def run(t: torch.Tensor) -> torch.Tensor:
        return upfirdn2d(t, fir, up, down, padding)

    assert torch.autograd.gradcheck(run, tensor)
    assert torch.autograd.gradgradcheck(run, tensor)


def test_the_filter():
    f = setup_filter(gain=4.0)
    assert f.shape == (4, 4)
    assert f.sum().item() == pytest.approx(4.0)
    assert torch.equal(f, f.t())


def test_bias_act():
    x, b = torch.randn(2, 3, 4, 5, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    shifted = (x + b[:, None, None]).numpy()
    expected = np.where(shifted > 0, shifted, 0.2 * shifted) * np.sqrt(2)
    np.testing.assert_allclose(bias_act(x, b).numpy(), expected, atol=1e-12)
    x.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda t: bias_act(t, b), x)
