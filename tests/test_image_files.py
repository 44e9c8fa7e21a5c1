"""Pictures are known by content, whatever their names say: read, named, written. Device: none."""

from __future__ import annotations

import gc
import io
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import av
import numpy as np
import pillow_heif
import pytest
from PIL import Image as Pil
from PIL import ImageCms

from engines.errors import InputError, OutputError
from gnr_video.media import image_files
from gnr_video.media.formats import (
    FORMATS,
    IMAGE_OUTPUTS,
    JXL,
    Head,
    gif_moves,
    jpeg_moves,
    jxl_moves,
    png_moves,
    sniff,
)
from gnr_video.media.image_files import read_image, read_picture
from gnr_video.media.open import anime_name, open_sink, open_source, picture_format
from tests.media_helpers import copy, make_clip, picture

pillow_heif.register_heif_opener()

WRITABLE = {
    "PNG": {},
    "JPEG": {"quality": 95},
    "WEBP": {"quality": 95},
    "BMP": {},
    "TIFF": {},
    "JPEG2000": {},
    "AVIF": {"quality": 95},
    "HEIF": {"quality": 95},
    "GIF": {},
    "PPM": {},
    "QOI": {},
    "TGA": {},
    "PCX": {},
    "SGI": {},
    "ICO": {"sizes": [(64, 48)]},
    "DDS": {},
}
"""Pillow's name -> how a test writes it."""
UNSIGNED = ("ICO", "TGA", "PCX", "SGI")


def encoded(name: str, image: Pil.Image | None = None, **options: object) -> bytes:
    out = io.BytesIO()
    (image or Pil.fromarray(picture(64, 48))).save(out, name, **(WRITABLE[name] | options))
    return out.getvalue()


def moving(name: str, count: int = 3, duration: int = 80) -> bytes:
    first, *others = [Pil.fromarray(picture(64, 48, 5 * index)) for index in range(count)]
    return encoded(name, first, save_all=True, append_images=others, duration=duration)


@pytest.mark.parametrize("name", WRITABLE)
def test_content_tells_what_a_picture_is(tmp_path: Path, name: str) -> None:
    usual = next(one for one in FORMATS if one.name == name)
    names = [f"a{usual.suffixes[-1]}"]
    if name not in UNSIGNED:
        names += ["photo", "wrong.mp4", "photo.jpg", "with space.JPEG"]
    for each in names:
        (tmp_path / each).write_bytes(encoded(name))
        found = picture_format(str(tmp_path / each))
        assert found is usual
        with open_source(tmp_path / each) as source:
            (frame,) = source
        assert source.info.is_still
        assert frame.size == (64, 48)
        assert np.abs(frame.image.astype(int) - picture(64, 48)).mean() < (12 if name == "GIF" else 6)


@pytest.mark.parametrize("name", ["JPEG", "HEIF", "TIFF", "WEBP", "GIF"])
def test_a_picture_through_a_pipe(tmp_path: Path, name: str) -> None:
    code = (
        "from gnr_video.media.open import open_source, picture_format\n"
        "kind = picture_format('-')\n"
        "with open_source('-') as source:\n"
        "    frames = list(source)\n"
        "print(kind.name, source.info.is_still, [f.size for f in frames])"
    )
    done = subprocess.run([sys.executable, "-c", code], input=encoded(name), capture_output=True, check=True)
    assert done.stdout.decode().split() == [name, "True", "[(64,", "48)]"]


def test_a_video_through_a_pipe_is_read_from_its_first_byte(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mkv", audio="aac")
    code = (
        "from gnr_video.media.open import open_source, picture_format\n"
        "assert picture_format('-') is None\n"
        "with open_source('-') as source:\n"
        "    print(len(list(source)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=clip.read_bytes(), capture_output=True, check=True
    )
    assert int(done.stdout) == 12


@pytest.mark.parametrize("name", ["WEBP", "AVIF", "PNG", "GIF"])
def test_animations_keep_all_frames_and_times(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.png").write_bytes(moving(name))
    assert picture_format(str(tmp_path / "a.png")) is None
    with open_source(tmp_path / "a.png") as source:
        frames = list(source)
    assert not source.info.is_still
    assert [round(f.pts_seconds, 3) for f in frames] == [0.0, 0.08, 0.16]
    for index, frame in enumerate(frames):
        error = np.abs(frame.image.astype(int) - picture(64, 48, 5 * index)).mean()
        assert error < 12
    copy(tmp_path / "a.png", tmp_path / "b.mp4")
    with open_source(tmp_path / "b.mp4") as again:
        assert [round(f.pts_seconds, 2) for f in again] == [0.0, 0.08, 0.16]


def test_a_part_of_an_animation(tmp_path: Path) -> None:
    (tmp_path / "a.webp").write_bytes(moving("WEBP", 6, 100))
    with open_source(tmp_path / "a.webp", start=0.15, end=0.45) as source:
        assert [f.pts for f in source] == [0, 100, 200]
    assert source.info.frame_count == 3
    with pytest.raises(InputError, match="no frame in the part"):
        open_source(tmp_path / "a.webp", start=5)


def test_a_stream_of_jpegs_is_a_video(tmp_path: Path) -> None:
    make_clip(tmp_path / "a.mjpeg", codec="mjpeg", pix_fmt="yuvj420p")
    with open_source(tmp_path / "a.mjpeg") as source:
        assert len(list(source)) == 12
    assert not source.info.is_still


def test_where_pictures_end() -> None:
    jpeg, png, gif = encoded("JPEG"), encoded("PNG"), encoded("GIF")
    for test, one, many in (
        (jpeg_moves, jpeg + b"anything", jpeg + jpeg),
        (png_moves, png + b"anything", png + png),
        (png_moves, png + b"anything", moving("PNG")),
        (gif_moves, gif, moving("GIF")),
    ):
        assert test(one) is False
        assert test(many) is True
        assert test(one[:40]) is None


def test_a_phone_s_jpeg_with_more_in_it(tmp_path: Path) -> None:
    """A second size (Multi-Picture Format), or a short video behind the picture."""
    small = Pil.fromarray(picture(32, 24))
    (tmp_path / "mpo.jpg").write_bytes(
        _mpo(Pil.fromarray(picture(64, 48)), small),
    )
    clip = make_clip(tmp_path / "a.mp4").read_bytes()
    (tmp_path / "motion.jpg").write_bytes(encoded("JPEG") + clip)
    for name in ("mpo.jpg", "motion.jpg"):
        with open_source(tmp_path / name) as source:
            (frame,) = source
        assert frame.size == (64, 48)


def _mpo(*pictures: Pil.Image) -> bytes:
    out = io.BytesIO()
    pictures[0].save(out, "MPO", save_all=True, append_images=pictures[1:])
    return out.getvalue()


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF"])
def test_a_picture_that_is_cut_off_is_refused(tmp_path: Path, name: str) -> None:
    large = Pil.fromarray(picture(256, 256))
    data = encoded(name, large)
    (tmp_path / "a.png").write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(InputError, match=r"a\.png is not an image, or is damaged"):
        list(open_source(tmp_path / "a.png"))


def test_jpeg_xl_where_it_can_be_read(tmp_path: Path) -> None:
    pytest.importorskip("pillow_jxl", reason="needs pillow-jxl-plugin")
    rgba = Pil.fromarray(np.dstack([picture(64, 48), np.full((48, 64), 200, np.uint8)]))
    turned = Pil.Exif()
    turned[274] = 6  # which JPEG XL's own header overrules
    for boxes in (False, True):
        out = io.BytesIO()
        rgba.save(out, "JXL", lossless=True, use_container=boxes, exif=turned.tobytes())
        data = out.getvalue()
        (tmp_path / "a.png").write_bytes(data)
        assert picture_format(str(tmp_path / "a.png")) is JXL
        with open_source(tmp_path / "a.png") as source:
            (frame,) = source
        assert (frame.image == picture(64, 48)).all()
        assert frame.alpha is not None and (frame.alpha == 200).all()
    (tmp_path / "a.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"a\.png is not an image, or is damaged"):
        open_source(tmp_path / "a.png")


def test_jpeg_xl_where_it_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "_pillow_reads_jxl", lambda: False)
    monkeypatch.setattr(image_files, "ffmpeg_reads_jxl", lambda: False)
    (tmp_path / "a.jpg").write_bytes(b"\xff\x0a" + bytes(64))
    with pytest.raises(InputError, match="JPEG XL picture, which cannot be read here") as caught:
        open_source(tmp_path / "a.jpg")
    assert "pip install pillow-jxl-plugin" in caught.value.hint


@pytest.mark.parametrize("alpha", [False, True])
def test_what_only_ffmpeg_reads(alpha: bool) -> None:
    """The way of JPEG XL where Pillow has no plugin but FFmpeg has libjxl, walked with a PNG."""
    pixels = picture(64, 48)
    given = Pil.fromarray(np.dstack([pixels, np.full((48, 64), 200, np.uint8)]) if alpha else pixels)
    found = image_files.read_by_ffmpeg("a.jxl", encoded("PNG", given))
    assert (found.image == pixels).all()
    assert (found.alpha is not None) == alpha
    with pytest.raises(InputError, match=r"a\.jxl is not an image"):
        image_files.read_by_ffmpeg("a.jxl", b"no picture")


def test_an_animated_png_with_a_color_profile(tmp_path: Path) -> None:
    """PyAV frees the profile's name twice when a picture's side data are looked at: the process ended."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pages = [Pil.fromarray(picture(64, 48, index)) for index in range(3)]
    pages[0].save(tmp_path / "a.png", icc_profile=profile, save_all=True, append_images=pages[1:])
    copy(tmp_path / "a.png", tmp_path / "b.mp4")
    gc.collect()
    with open_source(tmp_path / "a.png") as source:
        assert [(frame.image == picture(64, 48, frame.index)).all() for frame in source] == [True] * 3
    gc.collect()


def jxl_header(*fields: tuple[int, int]) -> bytes:
    """The beginning of a JPEG XL; (value, bits) each, least significant bits first."""
    value, at = 0, 0
    for number, bits in fields:
        value |= number << at
        at += bits
    return b"\xff\x0a" + value.to_bytes(16, "little")


def test_animated_jpeg_xl_is_not_half_read(tmp_path: Path) -> None:
    """Its header tells, with sizes in all forms, an intended size and a preview."""
    small, large = ((1, 1), (5, 5), (1, 3)), ((0, 1), (1, 2), (700, 13), (0, 3), (2, 2), (9000, 18))
    preview = ((1, 1), (1, 1), (2, 2), (7, 5), (0, 3), (3, 2), (100, 9))
    for size in (small, large):
        for more in (((0, 1), (0, 1)), ((1, 1), *large, *preview)):
            for moves in (0, 1):
                data = jxl_header(*size, (0, 1), (1, 1), (5, 3), *more, (moves, 1))
                assert jxl_moves(data) == bool(moves)
        assert not jxl_moves(jxl_header(*size, (1, 1), (1, 60)))
        assert not jxl_moves(jxl_header(*size, (0, 1), (0, 1), (1, 60)))
    # Of libjxl: three pictures of 777x300, and one of 64x48.
    assert jxl_moves(bytes.fromhex("ff0a58891086a00900c404080201001d04000000"))
    assert not jxl_moves(bytes.fromhex("ff0acb402408040100e98f2b59899191c2a53843"))
    moving = jxl_header(*small, (0, 1), (1, 1), (0, 3), (0, 1), (0, 1), (1, 1))
    boxes = b"\0\0\0\x0cJXL \r\n\x87\n" + (20).to_bytes(4, "big") + b"ftypjxl \0\0\0\0jxl "
    for box in (b"\0\0\0\0jxlc", b"\0\0\0\x1ejxlp\0\0\0\0"):
        assert jxl_moves(boxes + box + moving)
    assert jxl_moves(boxes) is None
    (tmp_path / "a.jxl").write_bytes(moving)
    if not image_files.ffmpeg_reads_jxl():
        with pytest.raises(InputError, match="animated JPEG XL, which cannot be read here"):
            open_source(tmp_path / "a.jxl")


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    raw = encoded("TIFF", tiffinfo={50706: b"\x01\x04\x00\x00"})
    (tmp_path / "a.dng").write_bytes(raw)
    with pytest.raises(InputError, match="raw file"):
        open_source(tmp_path / "a.dng")
    (tmp_path / "b.png").write_bytes(b"plain text")
    with pytest.raises(InputError, match=r"b\.png is not an image"):
        open_source(tmp_path / "b.png")


def test_pages_are_counted(tmp_path: Path) -> None:
    pages = [Pil.fromarray(picture(64, 48, index)) for index in range(3)]
    (tmp_path / "a.tif").write_bytes(encoded("TIFF", pages[0], save_all=True, append_images=pages[1:]))
    with open_source(tmp_path / "a.tif") as source:
        (frame,) = source
    assert (frame.image == picture(64, 48)).all()
    assert any("3 pages" in warning for warning in source.warnings)


def test_orientation(tmp_path: Path) -> None:
    exif = Pil.Exif()
    exif[0x0112] = 6
    for name in ("JPEG", "TIFF", "HEIF", "AVIF", "WEBP", "PNG"):
        (tmp_path / "a").write_bytes(encoded(name, exif=exif.tobytes()))
        image = read_image(tmp_path / "a")
        assert image.shape == (64, 48, 3), name
        assert np.abs(image.astype(int) - np.rot90(picture(64, 48), -1)).mean() < 6, name


def test_a_color_profile_becomes_srgb(tmp_path: Path) -> None:
    """The same colours, in sRGB and in a profile with other primaries, come out the same."""
    grey = np.full((8, 8, 3), (180, 90, 60), np.uint8)
    lab = ImageCms.createProfile("LAB")
    srgb = ImageCms.createProfile("sRGB")
    profile = ImageCms.ImageCmsProfile(lab).tobytes()
    stored = ImageCms.profileToProfile(Pil.fromarray(grey), srgb, lab, outputMode="LAB")
    assert stored is not None
    stored.save(tmp_path / "a.tif", icc_profile=profile)
    assert np.abs(read_image(tmp_path / "a.tif").astype(int) - grey).max() <= 3
    same = ImageCms.ImageCmsProfile(srgb).tobytes()
    Pil.fromarray(picture(64, 48)).save(tmp_path / "b.png", icc_profile=same)
    assert (read_image(tmp_path / "b.png") == picture(64, 48)).all()
    Pil.fromarray(picture(64, 48)).save(tmp_path / "c.png", icc_profile=b"no profile")
    assert (read_image(tmp_path / "c.png") == picture(64, 48)).all()


@pytest.mark.parametrize("suffix", IMAGE_OUTPUTS)
def test_what_is_written_is_what_the_name_says(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "a").write_bytes(encoded("PNG"))
    target = tmp_path / f"b{suffix}"
    copy(tmp_path / "a", target)
    kind = sniff(Head(io.BytesIO(target.read_bytes()))).format  # type: ignore[arg-type]
    assert kind is not None and suffix in kind.suffixes
    assert np.abs(read_image(target).astype(int) - picture(64, 48)).mean() < 6


def test_names_of_translations(tmp_path: Path) -> None:
    for given, name, expected in (
        ("photo.tif", "TIFF", "photo_anime.tif"),
        ("photo.TIFF", "TIFF", "photo_anime.tiff"),
        ("photo.png", "TIFF", "photo_anime.tif"),
        ("photo", "PNG", "photo_anime.png"),
        ("photo.jfif", "JPEG", "photo_anime.png"),
        ("photo.heic", "HEIF", "photo_anime.png"),
        ("photo.apng", "PNG", "photo_anime.png"),
        ("photo.gif", "GIF", "photo_anime.png"),
    ):
        (tmp_path / given).write_bytes(encoded(name))
        path = tmp_path / given
        assert anime_name(path, picture_format(str(path))).name == expected
        with open_source(path) as source, open_sink(tmp_path / expected, source, overwrite=True) as sink:
            for frame in source:
                sink.write(frame)
        (tmp_path / expected).unlink()


def test_pictures_without_a_signature_of_ours_are_ffmpeg_s(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.dpx"), "w", format="image2") as out:
        stream = out.add_stream("dpx", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
        out.mux(stream.encode(av.VideoFrame.from_ndarray(picture(64, 48), "rgb24")))
    with open_source(tmp_path / "a.dpx") as source:
        (frame,) = source
    assert source.info.is_still
    assert (frame.image == picture(64, 48)).all()


def test_hidden_colors_are_not_read(tmp_path: Path) -> None:
    image = np.dstack([picture(64, 48), np.full((48, 64), 255, np.uint8)])
    image[:24, :, 3] = 0
    Pil.fromarray(image).save(tmp_path / "a.png")
    read = read_picture(tmp_path / "a.png")
    assert read.alpha is not None and (read.alpha == image[..., 3]).all()
    assert (read.image[:24] == 255).all() and (read.image[24:] == image[24:, :, :3]).all()
    image[..., 3] = 255
    Pil.fromarray(image).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png").alpha is None


def photographs(folder: Path) -> Path:
    folder.mkdir()
    for name, kind, size in (
        ("b.jpg", "JPEG", (64, 48)),
        ("a.HEIC", "HEIF", (48, 64)),
        ("c.tif", "TIFF", (32, 32)),
        ("b.png", "PNG", (40, 40)),
        ("noextension", "JPEG", (64, 48)),
    ):
        (folder / name).write_bytes(encoded(kind, Pil.fromarray(picture(*size))))
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_a_folder_of_photographs_keeps_names_and_sizes(tmp_path: Path) -> None:
    given = photographs(tmp_path / "in")
    source, _ = copy(given, f"{tmp_path}/out/")
    assert source.info.is_mixed
    made = {file.name: read_image(file).shape[1::-1] for file in (tmp_path / "out").iterdir()}
    assert made == {
        "a.png": (48, 64),
        "b.jpg.png": (64, 48),
        "b.png.png": (40, 40),
        "c.tif": (32, 32),
        "noextension.png": (64, 48),
    }
    with pytest.raises(OutputError, match="and maybe more already"):
        copy(given, f"{tmp_path}/out/")
    copy(given, tmp_path / "numbered" / "%02d.png")
    assert len(list((tmp_path / "numbered").iterdir())) == 5


def test_photographs_of_several_sizes_make_no_video(tmp_path: Path) -> None:
    given = photographs(tmp_path / "in")
    with open_source(given) as source, pytest.raises(OutputError, match="several sizes"):
        open_sink(tmp_path / "out.mp4", source)


def test_turned_photographs_are_of_one_size(tmp_path: Path) -> None:
    """What counts is the upright size."""
    exif = Pil.Exif()
    exif[0x0112] = 6
    (tmp_path / "in").mkdir()
    turned = Pil.fromarray(picture(48, 64))
    (tmp_path / "in" / "1.jpg").write_bytes(encoded("JPEG"))
    (tmp_path / "in" / "2.jpg").write_bytes(encoded("JPEG", turned, exif=exif.tobytes()))
    with open_source(tmp_path / "in") as source:
        assert not source.info.is_mixed
        assert [frame.size for frame in source] == [(64, 48), (64, 48)]


def test_a_gif_without_delays(tmp_path: Path) -> None:
    (tmp_path / "a.gif").write_bytes(moving("GIF", 3, 0))
    with open_source(tmp_path / "a.gif") as source:
        assert [frame.pts_seconds for frame in source] == pytest.approx([0.0, 0.1, 0.2])
    assert not source.info.is_still


@pytest.mark.parametrize("name", ["JPEG", "HEIF", "TIFF"])
@pytest.mark.parametrize("address", ["photo.jpg", "photo"])
def test_a_picture_over_http(tmp_path: Path, name: str, address: str) -> None:
    (tmp_path / address).write_bytes(encoded(name))
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        with open_source(f"http://127.0.0.1:{server.server_port}/{address}") as source:
            (frame,) = source
        server.shutdown()
    assert source.info.is_still
    assert np.abs(frame.image.astype(int) - picture(64, 48)).mean() < 6
