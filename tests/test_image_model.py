"""Any image-to-image ONNX file translates: what it wants is found out or given, styles are refused.

Device: CPU. Needs onnx and onnxruntime; the models are small real networks, exported here.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import engines
from engines.errors import EngineError, StyleError, WeightsError
from engines.image_model import ImageModelOptions, parse_range
from tests.cli_helpers import call

pytest.importorskip("onnx", reason="needs onnx")
pytest.importorskip("onnxruntime", reason="needs onnxruntime")

SIDE = 32


class Negative(nn.Module):
    """A tiny generator: a 3x3 blur of the negative, through convolutions and a bounded end.

    Args:
        end: "tanh", "sigmoid", "clip" or "" (nothing says the range) at the end.
        low, high: the range it works in.
        nhwc: channels last.
        scale: how much larger the picture comes out.
    """

    def __init__(self, end: str = "", low: float = -1, high: float = 1, *, nhwc=False, scale=1):
        super().__init__()
        self.end, self.low, self.high, self.nhwc, self.scale = end, low, high, nhwc, scale
        self.blur = nn.Conv2d(3, 3, 3, padding=1, groups=3, padding_mode="replicate")
        nn.init.constant_(self.blur.weight, -1 / 9)
        nn.init.constant_(self.blur.bias, low + high)

    def forward(self, x):
        if self.nhwc:
            x = x.permute(0, 3, 1, 2)
        x = self.blur(x.to(self.blur.weight.dtype))
        if self.end == "tanh":
            x = x.clamp(-0.999, 0.999)
            x = torch.tanh(0.5 * torch.log((1 + x) / (1 - x)))
        elif self.end == "sigmoid":
            x = torch.sigmoid(torch.logit(x, eps=1e-3))
        elif self.end == "clip":
            x = x.clamp(self.low, self.high)
        if self.scale != 1:
            x = nn.functional.interpolate(x, scale_factor=self.scale, mode="nearest")
        return x.permute(0, 2, 3, 1) if self.nhwc else x


def write(path, module, *, side=SIDE, dynamic=(), dtype=torch.float32, name="input"):
    """Export a module; `dynamic`: dimensions whose length is left open."""
    shape = (1, side, side, 3) if module.nhwc else (1, 3, side, side)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            (torch.zeros(shape, dtype=dtype),),
            buffer,
            input_names=[name],
            output_names=["output"],
            dynamic_axes={n: {d: f"d{d}" for d in dynamic} for n in (name, "output")},
            opset_version=17,
            dynamo=False,
        )
    path.write_bytes(buffer.getvalue())
    return path


@pytest.fixture(scope="module")
def crops():
    x = np.linspace(10, 245, SIDE)
    picture = np.stack(np.broadcast_arrays(x[None, :], x[:, None], 255 - x[None, :]), -1)
    return np.rint(np.stack([picture, picture.transpose(1, 0, 2)])).astype(np.uint8)


def negative(crops):
    import cv2

    return np.stack([255 - cv2.blur(c, (3, 3), borderType=cv2.BORDER_REPLICATE) for c in crops])


@pytest.mark.parametrize(
    ("module", "given", "found"),
    [
        pytest.param(Negative("tanh"), {}, ((-1, 1), "nchw"), id="tanh"),
        pytest.param(Negative("tanh", nhwc=True), {}, ((-1, 1), "nhwc"), id="tanh-nhwc"),
        pytest.param(Negative("sigmoid", 0, 1), {}, ((0, 1), "nchw"), id="sigmoid"),
        pytest.param(Negative("clip", 0, 255), {}, ((0, 255), "nchw"), id="clip-255"),
        pytest.param(Negative("", -1, 1), {}, ((-1, 1), "nchw"), id="probed-1"),
        pytest.param(Negative("", 0, 1), {}, ((0, 1), "nchw"), id="probed-0-1"),
        pytest.param(Negative("", 0, 255), {}, ((0, 255), "nchw"), id="probed-255"),
        pytest.param(Negative("", -3, 5), {"value_range": (-3, 5)}, ((-3, 5), "nchw"), id="given"),
        pytest.param(Negative("tanh", scale=2), {}, ((-1, 1), "nchw"), id="twice-as-large"),
    ],
)
def test_finds_out(tmp_path, crops, module, given, found):
    path = write(tmp_path / "model.onnx", module)
    with engines.create_image_model(path, ImageModelOptions(**given), threads=1) as model:
        assert (model.value_range, model.layout) == found
        assert model.size == SIDE
        assert model.precision == "fp32"
        error = np.abs(model.translate(crops).astype(int) - negative(crops))
        assert error.max() <= (12 if module.scale > 1 else 2)
        assert error.mean() < 1


def test_bytes_in_and_out(tmp_path, crops):
    class Bytes(Negative):
        def forward(self, x):
            return super().forward(x).round().clamp(0, 255).to(torch.uint8)

    path = write(tmp_path / "bytes.onnx", Bytes("", 0, 255, nhwc=True), dtype=torch.uint8)
    with engines.create_image_model(path) as model:
        assert model.value_range == (0, 255)
        assert np.abs(model.translate(crops).astype(int) - negative(crops)).max() <= 1


def test_half_precision(tmp_path, crops):
    path = write(tmp_path / "half.onnx", Negative("", -1, 1).half(), dtype=torch.float16)
    with engines.create_image_model(path) as model:
        assert model.precision == "fp16"
        assert np.abs(model.translate(crops).astype(int) - negative(crops)).max() <= 2


def test_size(tmp_path, crops):
    free = write(tmp_path / "free.onnx", Negative("tanh"), dynamic=(0, 2, 3))
    assert engines.create_image_model(free).size == 256
    with engines.create_image_model(free, ImageModelOptions(size=SIDE)) as model:
        assert np.abs(model.translate(crops).astype(int) - negative(crops)).max() <= 2
    fixed = write(tmp_path / "fixed.onnx", Negative("tanh"))
    with pytest.raises(EngineError, match="takes 32x32 pictures, not 64x64"):
        engines.create_image_model(fixed, ImageModelOptions(size=64))


def test_has_to_be_given(tmp_path, crops):
    wild = write(tmp_path / "wild.onnx", Negative("", -40, 50))
    with pytest.raises(EngineError, match="value range") as caught:
        engines.create_image_model(wild)
    assert "--onnx-range" in caught.value.hint

    class Pointwise(Negative):
        def forward(self, x):
            return torch.clamp(-x, -1, 1)

    path = write(tmp_path / "open.onnx", Pointwise(), dynamic=(0, 1, 2, 3))
    with pytest.raises(EngineError, match="which dimension") as caught:
        engines.create_image_model(path)
    assert "--onnx-layout" in caught.value.hint
    options = ImageModelOptions(layout="nchw", size=SIDE)
    with engines.create_image_model(path, options) as model:
        assert np.abs(model.translate(crops).astype(int) - (255 - crops)).max() <= 1


def test_styles_are_refused(tmp_path, crops):
    path = write(tmp_path / "model.onnx", Negative("tanh"))
    with engines.create_image_model(path) as model:
        for call_ in (
            lambda: model.set_style(np.zeros(8, np.float32)),
            lambda: model.translate(crops, np.zeros(8, np.float32)),
            lambda: model.encode_style(crops[0]),
            lambda: model.encode(crops),
            lambda: model.to_w(np.zeros(8, np.float32)),
        ):
            with pytest.raises(StyleError, match=r"model\.onnx translates in one look only"):
                call_()
    with pytest.raises(EngineError, match="closed"):
        model.translate(crops)


def test_wrong_files(tmp_path):
    text = tmp_path / "text.onnx"
    text.write_text("not a network")
    with pytest.raises(WeightsError, match="not an ONNX file"):
        engines.create_image_model(text)
    with pytest.raises(WeightsError, match="no ONNX file"):
        engines.create_image_model(tmp_path / "none.onnx")

    class Classifier(Negative):
        def forward(self, x):
            return super().forward(x).mean((2, 3))

    path = write(tmp_path / "classifier.onnx", Classifier("tanh"))
    with pytest.raises(WeightsError, match="does not make a picture"):
        engines.create_image_model(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"engine": "torch"}, "runs in the engine onnx"), ({"precision": "fp16"}, "its own precision")],
)
def test_engine_and_precision_are_its_own(tmp_path, options, message):
    path = write(tmp_path / "model.onnx", Negative("tanh"))
    with pytest.raises(EngineError, match=message):
        engines.create_image_model(path, **options)


def test_parse_range():
    assert parse_range("-1,1") == (-1.0, 1.0)
    for text in ("1", "a,b", "0,1,2"):
        with pytest.raises(EngineError, match="not two numbers"):
            parse_range(text)
    with pytest.raises(EngineError, match="from black up to white"):
        ImageModelOptions(value_range=(1, 0))


def test_command(tmp_path, face_clip, face_model):
    """A clip, translated by somebody else's network into its negative where the face is."""
    import av

    path = write(tmp_path / "negative.onnx", Negative("tanh"), side=64)
    target = tmp_path / "out.mp4"
    done = call(face_clip, "--weights", path, "-o", target, "--paste", "crop", "--face-model", face_model)
    assert done.status == 0, done.stderr
    assert "onnx fp32 on cpu" in done.stderr
    with av.open(str(target)) as video:
        frames = [f.to_ndarray(format="rgb24") for f in video.decode(video=0)]
    assert len(frames) == 24
    done = call(face_clip, "-o", tmp_path / "human.mp4", "--weights", path, "--style", "7")
    assert done.status == 2
    assert done.stderr.count("\n") <= 3
    assert "negative.onnx translates in one look only: it takes no style" in done.stderr
    done = call(face_clip, "-o", tmp_path / "bad.mp4", "--weights", path, "--onnx-range", "0..1")
    assert done.status == 6
    assert not (tmp_path / "bad.mp4").exists()


@pytest.mark.parametrize("command", [("export",), ("weights", "info")])
def test_where_a_generator_is_wanted_the_onnx_file_is_named(tmp_path, command):
    file = tmp_path / "mine.onnx"
    file.write_bytes(b"\x08\x08")
    done = call(*command, file)
    assert done.status == WeightsError.exit_code
    assert "mine.onnx is an ONNX file" in done.stderr
    assert "--weights mine.onnx" in done.stderr
