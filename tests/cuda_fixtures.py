"""What tests of the engines for GPUs share: small weights, crops, what the CPU makes of them, the stand-in for CUDA."""

from __future__ import annotations

import numpy as np
import pytest

import engines
from tests.cuda_stub import install
from tests.golden import golden_weights, narrow

ARCHITECTURE = narrow(size=64, num_down=3, latent_dim=8, style_dim=16)
STYLE = np.random.default_rng(1).standard_normal(8).astype(np.float32)


@pytest.fixture(scope="module")
def weights():
    return golden_weights(ARCHITECTURE)


@pytest.fixture(scope="module")
def crops():
    return np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def expected(weights, crops):
    with engines.create(weights, engine="torch", device="cpu", precision="fp32") as engine:
        return engine.translate(crops, STYLE)


@pytest.fixture
def cuda(monkeypatch):
    return install(monkeypatch)


def alike(found, expected):
    return found.shape == expected.shape and np.abs(found.astype(int) - expected).max() <= 1
