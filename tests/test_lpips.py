"""LPIPS: published distances, agreement with a float64 reference, gradients, sources of weights. CPU."""

from __future__ import annotations

import functools
import hashlib
import http.server
import importlib.util
import logging
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from engines.errors import WeightsError
from engines.installation import install_line
from train import lpips
from train.lpips import Lpips, try_lpips

SHARED = Path(__file__).resolve().parents[1].parent / "shared"
WEIGHTS, REFERENCE = SHARED / "weights", SHARED / "data" / "lpips_reference"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("lpips") is None,
    reason="the heads are in the lpips wheel, which is not installed",
)
needs_reference = pytest.mark.skipif(
    not (WEIGHTS.is_dir() and REFERENCE.is_dir()),
    reason="needs ../shared/weights and ../shared/data/lpips_reference",
)

# torchvision's layouts, written out a second time: (index, in, out, kernel, stride, padding).
CONVOLUTIONS = {
    "alex": [
        (0, 3, 64, 11, 4, 2),
        (3, 64, 192, 5, 1, 2),
        (6, 192, 384, 3, 1, 1),
        (8, 384, 256, 3, 1, 1),
        (10, 256, 256, 3, 1, 1),
    ],
    "vgg": [
        (index, cin, cout, 3, 1, 1)
        for index, cin, cout in [
            *((0, 3, 64), (2, 64, 64), (5, 64, 128), (7, 128, 128), (10, 128, 256), (12, 256, 256)),
            *((14, 256, 256), (17, 256, 512), (19, 512, 512), (21, 512, 512), (24, 512, 512), (26, 512, 512)),
            (28, 512, 512),
        ]
    ],
}
POOLS = {"alex": ({2, 5}, 3), "vgg": ({4, 9, 16, 23}, 2)}
TAPS = {"alex": {1, 4, 7, 9, 11}, "vgg": {3, 8, 15, 22, 29}}


def random_trunk(net: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    state = {}
    for index, cin, cout, kernel, _, _ in CONVOLUTIONS[net]:
        gain = (2 / (cin * kernel * kernel)) ** 0.5
        state[f"features.{index}.weight"] = torch.randn(cout, cin, kernel, kernel, generator=generator) * gain
        state[f"features.{index}.bias"] = torch.randn(cout, generator=generator) * 0.1
    return state


@pytest.fixture(scope="module")
def trunk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An AlexNet with random weights: LPIPS's arithmetic does not depend on training."""
    path = tmp_path_factory.mktemp("trunk") / "alex_random.pth"
    torch.save(random_trunk("alex"), path)
    return path


def images(count: int = 2, size: int = 64, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    pair = torch.rand(2, count, 3, size, size, generator=generator) * 2 - 1
    return pair[0], pair[1]


def reference(net: str, state: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """LPIPS v0.1 in float64, layer by layer as the paper has it."""
    spec = importlib.util.find_spec("lpips")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    path = Path(spec.submodule_search_locations[0], "weights", "v0.1", f"{net}.pth")
    heads = torch.load(path, map_location="cpu", weights_only=True)
    convolutions = {entry[0]: entry for entry in CONVOLUTIONS[net]}
    pools, kernel_size = POOLS[net]

    def taps(image: torch.Tensor) -> list[torch.Tensor]:
        h = image.double() - torch.tensor([-0.030, -0.088, -0.188]).double().view(1, 3, 1, 1)
        h = h / torch.tensor([0.458, 0.448, 0.450]).double().view(1, 3, 1, 1)
        out = []
        for index in range(max(TAPS[net]) + 1):
            if index in convolutions:
                _, _, _, _, stride, padding = convolutions[index]
                weight, bias = state[f"features.{index}.weight"], state[f"features.{index}.bias"]
                h = F.conv2d(h, weight.double(), bias.double(), stride, padding)
            elif index in pools:
                h = F.max_pool2d(h, kernel_size, 2)
            else:
                h = h.relu()
            if index in TAPS[net]:
                out.append(h / (h.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return out

    total = torch.zeros(x.shape[0], dtype=torch.float64)
    for level, (one, two) in enumerate(zip(taps(x), taps(y))):
        weight = heads[f"lin{level}.model.1.weight"].detach().double()
        total = total + F.conv2d((one - two).square(), weight).mean((1, 2, 3))
    return total


@needs_reference
@pytest.mark.parametrize(("name", "published"), [("ex_p0.png", 0.722), ("ex_p1.png", 0.138)])
def test_published_distances(name: str, published: float) -> None:
    import cv2

    def read(file: str) -> torch.Tensor:
        image = cv2.imread(str(REFERENCE / file))[:, :, ::-1].copy()
        return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1

    distance = Lpips("alex", WEIGHTS)(read("ex_ref.png"), read(name))
    assert distance.shape == (1,)
    assert distance.item() == pytest.approx(published, abs=5e-4)


def test_matches_the_reference_alex(trunk: Path) -> None:
    x, y = images()
    expected = reference("alex", random_trunk("alex"), x, y)
    torch.testing.assert_close(Lpips("alex", trunk)(x, y).double(), expected, rtol=1e-5, atol=1e-7)


def test_matches_the_reference_vgg(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    state = {name: tensor.half() for name, tensor in random_trunk("vgg").items()}
    save_file(state, str(tmp_path / "vgg_features_fp16.safetensors"))
    x, y = images(size=32)
    with torch.no_grad():
        distance = Lpips("vgg", tmp_path)(x, y)
    torch.testing.assert_close(distance.double(), reference("vgg", state, x, y), rtol=1e-5, atol=1e-7)


def test_identical_images_are_at_distance_zero_and_order_does_not_matter(trunk: Path) -> None:
    model, (x, y) = Lpips("alex", trunk), images()
    assert torch.equal(model(x, x), torch.zeros(2))
    assert (model(x, y) > 1e-3).all()
    torch.testing.assert_close(model(x, y), model(y, x), rtol=1e-6, atol=0)


def test_images_of_a_batch_do_not_influence_each_other(trunk: Path) -> None:
    model, (x, y) = Lpips("alex", trunk), images(3)
    alone = torch.cat([model(x[i : i + 1], y[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(model(x, y), alone, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_tap_gradients_match_float64(layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lpips, "_BLOCK_ELEMENTS", 1000)  # several blocks an image, the last one shorter
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(2, 2, 30, 11, 13, generator=generator).relu().unbind(0)
    weight, upstream = torch.rand(30, generator=generator), torch.tensor([0.3, 2.0])
    mine = [t.clone(memory_format=layout).requires_grad_() for t in (x, y)]
    distance = lpips._TapDistance.apply(*mine, weight)
    distance.backward(upstream)

    exact = [t.double().requires_grad_() for t in (x, y)]
    u, v = (t / (t.square().sum(1, keepdim=True).sqrt() + 1e-10) for t in exact)
    expected = ((u - v).square() * weight.double().view(1, -1, 1, 1)).sum(1).mean((1, 2))
    expected.backward(upstream.double())
    torch.testing.assert_close(distance.double(), expected, rtol=1e-5, atol=1e-8)
    for one, two in zip(mine, exact):
        assert one.grad is not None
        torch.testing.assert_close(one.grad.double(), two.grad, rtol=1e-4, atol=1e-8)


def test_gradient_reaches_the_image_and_nothing_else(trunk: Path) -> None:
    model, (x, y) = Lpips("alex", trunk), images()
    x.requires_grad_()
    model.train()
    model(x, y).sum().backward()
    assert not model.training
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert y.grad is None
    assert all(parameter.grad is None for parameter in model.parameters())


def test_gradient_is_finite_where_every_feature_is_zero(tmp_path: Path) -> None:
    state = random_trunk("alex")
    state["features.0.bias"] -= 1e4  # no unit of the first tap, hence none of the later ones, ever fires
    torch.save(state, tmp_path / "alex.pth")
    x, y = images()
    x.requires_grad_()
    Lpips("alex", tmp_path)(x, y).sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_features_of_a_target_can_be_kept(trunk: Path) -> None:
    model, (x, y) = Lpips("alex", trunk), images()
    with torch.no_grad():
        kept = model.features(y)
    assert [f.shape[1] for f in kept] == [64, 192, 384, 256, 256]
    assert torch.equal(model(x, kept), model(x, y))


def test_bfloat16_stays_close(trunk: Path) -> None:
    x, y = images(4)
    exact = Lpips("alex", trunk)(x, y)
    model = Lpips("alex", trunk, dtype=torch.bfloat16)
    x.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        distance = model(x, y)
    distance.sum().backward()
    assert distance.dtype == torch.float32
    torch.testing.assert_close(distance, exact, rtol=0.02, atol=0)
    assert x.grad is not None
    assert x.grad.dtype == torch.float32
    assert torch.isfinite(x.grad).all()


def test_resize_to_equals_reducing_beforehand(trunk: Path) -> None:
    x, y = images(size=128)
    small = [F.avg_pool2d(t, 2) for t in (x, y)]
    plain = Lpips("alex", trunk)
    torch.testing.assert_close(Lpips("alex", trunk, resize_to=64)(x, y), plain(*small), rtol=1e-5, atol=1e-7)
    assert torch.equal(Lpips("alex", trunk, resize_to=256)(x, y), plain(x, y))


def test_neither_lpips_nor_torchvision_is_imported(trunk: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from train.lpips import Lpips; "
        f"Lpips('alex', Path({str(trunk)!r})); "
        "print([m for m in ('lpips', 'torchvision') if m in sys.modules])"
    )
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "[]"


def test_trunk_folder_from_the_environment(trunk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(lpips.TRUNK_VARIABLE, str(trunk.parent))
    x, y = images()
    assert torch.equal(Lpips("alex")(x, y), Lpips("alex", trunk)(x, y))


def test_trunk_is_downloaded_once_into_the_hub_cache(
    trunk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = trunk.read_bytes()
    name = f"alex-{hashlib.sha256(data).hexdigest()[:8]}.pth"
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / name).write_bytes(data)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path / "www"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.delenv(lpips.TRUNK_VARIABLE, raising=False)
    x, y = images()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setitem(lpips._URLS, "alex", f"http://127.0.0.1:{server.server_port}/{name}")
        distance = Lpips("alex")(x, y)
        server.shutdown()
    assert torch.equal(distance, Lpips("alex", trunk)(x, y))
    assert torch.equal(distance, Lpips("alex")(x, y)), "from the cache, the server is gone"


def test_no_network_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv(lpips.TRUNK_VARIABLE, raising=False)
    monkeypatch.setitem(lpips._URLS, "alex", "http://127.0.0.1:9/alex-00000000.pth")
    with pytest.raises(WeightsError, match="cannot download the AlexNet") as caught:
        Lpips("alex")
    assert lpips.TRUNK_VARIABLE in caught.value.hint
    with caplog.at_level(logging.WARNING):
        assert try_lpips("alex") is None
    assert len(caplog.records) == 1
    assert "cannot download" in caplog.text


def test_missing_heads_name_the_extra(trunk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WeightsError, match="lpips package") as caught:
        Lpips("alex", trunk)
    assert caught.value.hint == install_line("train")


def test_weights_that_do_not_fit_are_named(trunk: Path, tmp_path: Path) -> None:
    missing = {name: t for name, t in random_trunk("alex").items() if name != "features.6.bias"}
    torch.save(missing, tmp_path / "alex_missing.pth")
    with pytest.raises(WeightsError, match=r"lack features\.6\.bias"):
        Lpips("alex", tmp_path / "alex_missing.pth")
    with pytest.raises(WeightsError, match=r"features\.0\.weight .*\(64, 3, 11, 11\), not \(64, 3, 3, 3\)"):
        Lpips("vgg", trunk)
    (tmp_path / "broken.safetensors").write_bytes(b"not a weights file")
    with pytest.raises(WeightsError, match="cannot read"):
        Lpips("alex", tmp_path / "broken.safetensors")
    with pytest.raises(WeightsError, match=r"no vgg\*\.safetensors"):
        Lpips("vgg", tmp_path)
    with pytest.raises(WeightsError, match="cannot read"):
        Lpips("alex", tmp_path / "absent.pth")
    with pytest.raises(ValueError, match="'squeeze'"):
        Lpips("squeeze", trunk)  # type: ignore[arg-type]
