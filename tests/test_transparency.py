"""Transparency is kept where the output holds it, else laid on white; hidden colours never show. Device: none."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image as Pil

from gnr_video.frame import Alpha, FaceLayer, Frame, Layered
from gnr_video.media.open import open_source
from gnr_video.media.transparency import on_white
from tests.media_helpers import copy, picture

SIZE = (64, 48)


def alpha(index: int = 0) -> Alpha:
    """Hidden at the left, half at the right of the middle, and a bar that moves."""
    mask = np.full(SIZE[::-1], 255, np.uint8)
    mask[:, :24] = 0
    mask[:, 40:] = 128
    mask[10:20, 4 * index : 4 * index + 8] = 255
    return mask


def transparent(path: Path, count: int = 4, vpx: str = "libvpx-vp9") -> Path:
    """A video with transparency, by its suffix; what is hidden is bright red."""
    codec, pixels = {
        ".webm": (vpx, "yuva420p"),
        ".mov": ("qtrle", "argb"),
        ".apng": ("apng", "rgba"),
    }[path.suffix]
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = *SIZE, pixels
        if codec == vpx:
            stream.options = {"crf": "4", "b": "0" if codec == "libvpx-vp9" else "2M", "auto-alt-ref": "0"}
            stream.metadata["alpha_mode"] = "1"
        for index in range(count):
            rgba = np.dstack([picture(*SIZE, index), alpha(index)])
            rgba[rgba[..., 3] == 0, :3] = (255, 0, 0)
            frame = av.VideoFrame.from_ndarray(rgba, "rgba").reformat(format=pixels)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def frames(path: Path) -> list[Frame]:
    with open_source(path) as source:
        return list(source)


@pytest.mark.parametrize(
    ("given", "vpx"), [(".webm", "libvpx-vp9"), (".webm", "libvpx"), (".mov", ""), (".apng", "")]
)
def test_sources_give_it(tmp_path: Path, given: str, vpx: str) -> None:
    for index, frame in enumerate(frames(transparent(tmp_path / f"a{given}", vpx=vpx))):
        assert frame.alpha is not None
        assert np.abs(frame.alpha.astype(int) - alpha(index)).mean() < 3
        assert (frame.image[frame.alpha == 0] == 255).all()


@pytest.mark.parametrize("suffix", [".webm", ".mov", ".apng", ".webp", ".gif"])
def test_videos_that_keep_it(tmp_path: Path, suffix: str) -> None:
    clip = transparent(tmp_path / "a.mov")
    _, sink = copy(clip, tmp_path / f"b{suffix}")
    assert not sink.warnings
    before, after = frames(clip), frames(tmp_path / f"b{suffix}")
    assert len(after) == len(before)
    for one, two in zip(before, after):
        assert one.alpha is not None and two.alpha is not None
        wanted = one.alpha
        if suffix == ".gif":  # all or nothing
            wanted = np.where(one.alpha >= 128, 255, 0)
        assert np.abs(wanted.astype(int) - two.alpha).mean() < 4
        seen = wanted == 255
        assert np.abs(one.image.astype(int) - two.image)[seen].mean() < 12


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_videos_that_lay_it_on_white(tmp_path: Path, suffix: str) -> None:
    clip = transparent(tmp_path / "a.webm")
    _, sink = copy(clip, tmp_path / f"b{suffix}")
    assert any("laid on white" in text for text in sink.warnings)
    for one, two in zip(frames(clip), frames(tmp_path / f"b{suffix}")):
        assert two.alpha is None
        assert np.abs(on_white(one.image, one.alpha).astype(int) - two.image).mean() < 6


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".avif", ".jpg", ".bmp"])
def test_pictures(tmp_path: Path, suffix: str) -> None:
    rgba = np.dstack([picture(*SIZE), alpha()])
    Pil.fromarray(rgba).save(tmp_path / "a.png")
    _, sink = copy(tmp_path / "a.png", tmp_path / f"b{suffix}")
    (before,), (after,) = frames(tmp_path / "a.png"), frames(tmp_path / f"b{suffix}")
    if suffix in (".jpg", ".bmp"):
        assert after.alpha is None
        assert any("laid on white" in text for text in sink.warnings)
        assert np.abs(on_white(before.image, before.alpha).astype(int) - after.image).mean() < 4
    else:
        assert after.alpha is not None and not sink.warnings
        assert np.abs(after.alpha.astype(int) - alpha()).mean() < 2


def test_a_sequence_of_pictures(tmp_path: Path) -> None:
    clip = transparent(tmp_path / "a.apng")
    copy(clip, tmp_path / "out-%03d.png")
    (frame,) = frames(tmp_path / "out-002.png")
    assert frame.alpha is not None and (frame.alpha == alpha(2)).all()


def test_an_opaque_gif_becomes_no_transparent_video(tmp_path: Path) -> None:
    Pil.fromarray(picture(*SIZE)).save(
        tmp_path / "a.gif", save_all=True, append_images=[Pil.fromarray(picture(*SIZE, 5))], duration=80
    )
    source, _ = copy(tmp_path / "a.gif", tmp_path / "b.webm")
    assert not source.info.has_alpha
    with av.open(str(tmp_path / "b.webm")) as made:
        assert made.streams.video[0].codec_context.pix_fmt == "yuv420p"


def test_the_pipeline_keeps_it(tmp_path: Path) -> None:
    """Where the picture keeps its shape; beside the source it is laid on white."""
    from gnr_video.compositing.compositor import Compositor
    from gnr_video.pipeline import Look, compose
    from gnr_video.timing import StageTimes

    frame = Frame(picture(*SIZE), 0, Fraction(1, 25), 0, {}, alpha())
    none: list[FaceLayer] = []
    for mode, expected in (("head", frame.alpha), ("side-by-side", None)):
        look = Look(None, Compositor(mode), _NoEffects())  # type: ignore[arg-type]
        (made,) = compose([Layered(frame, none)], look, StageTimes())
        assert made.frame.alpha is expected
        if expected is None:
            assert (made.frame.image[:, : SIZE[0]] == on_white(frame.image, frame.alpha)).all()


class _NoEffects:
    def face(self, faces: object) -> None:
        pass

    def frame(self, image: object, faces: object) -> None:
        pass
