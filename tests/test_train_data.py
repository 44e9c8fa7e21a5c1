"""Training images: every kind of file, framing, corrupt files, the cache, drawing batches. CPU."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engines.errors import InputError
from gnr_video.media.image_files import read_image
from gnr_video.tracking.alignment import head_side
from train.data import FFHQ_FRAMING, Framing, ImagePool, fit, load_dataset, load_images

PIL = pytest.importorskip("PIL.Image", reason="reading a data set needs Pillow")


def astronaut(size: int = 64) -> NDArray[np.uint8]:
    from skimage import data

    return cv2.resize(data.astronaut(), (size, size), interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def write(path: Path, image: NDArray[Any], **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.fromarray(image).save(path, **options)
    return path


def hwc(images: torch.Tensor, index: int = 0) -> NDArray[np.uint8]:
    return images[index].permute(1, 2, 0).numpy()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(4):
        write(tmp_path / "faces" / f"{index}.png", np.roll(astronaut(), 7 * index, axis=1))
    return tmp_path / "faces"


def test_images_arrive_unchanged_in_order(folder: Path) -> None:
    images = load_images([folder], 64)
    assert images.dtype == torch.uint8
    assert images.shape == (4, 3, 64, 64)
    for index in range(4):
        assert (hwc(images, index) == np.roll(astronaut(), 7 * index, axis=1)).all()


@pytest.mark.parametrize("suffix", ["png", "webp", "bmp", "tiff", "JPG", "gif"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    lossless = (
        {"lossless": True}
        if suffix == "webp"
        else {"quality": 98, "subsampling": 0}
        if suffix == "JPG"
        else {}
    )
    write(tmp_path / f"one.{suffix}", astronaut(), **lossless)
    difference = np.abs(hwc(load_images([tmp_path], 64)).astype(int) - astronaut())
    assert difference.mean() < {"JPG": 3, "gif": 8}.get(suffix, 1e-9)


def test_a_format_only_opencv_reads(tmp_path: Path) -> None:
    path = tmp_path / "light.hdr"
    assert cv2.imwrite(str(path), np.full((8, 8, 3), (0.25, 0.5, 1.0), np.float32))
    assert read_image(path)[0, 0] == pytest.approx([255, 128, 64], abs=2)


def test_greyscale_in_8_and_16_bits(tmp_path: Path) -> None:
    grey = np.arange(0, 256, dtype=np.uint8)[:, None].repeat(256, 1)
    assert (read_image(write(tmp_path / "8.png", grey)) == grey[:, :, None]).all()
    deep = grey.astype(np.uint16) * 257
    assert (read_image(write(tmp_path / "16.png", deep)) == grey[:, :, None]).all()
    assert (read_image(write(tmp_path / "16.tiff", deep)) == grey[:, :, None]).all()
    # An image that is dark in 16 bits stays dark.
    assert read_image(write(tmp_path / "dark.png", np.full((8, 8), 514, np.uint16))).max() == 2


def test_color_in_16_bits(tmp_path: Path) -> None:
    deep = astronaut().astype(np.uint16) * 257
    assert cv2.imwrite(str(tmp_path / "deep.png"), deep[:, :, ::-1])
    assert np.abs(read_image(tmp_path / "deep.png").astype(int) - astronaut()).max() <= 1


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    rgba = np.dstack([astronaut(), np.full((64, 64), 255, np.uint8)])
    rgba[:32, :, 3] = 0
    rgba[32:48, :, 3] = 128
    image = read_image(write(tmp_path / "alpha.png", rgba))
    assert (image[:32] == 255).all()
    assert (image[48:] == astronaut()[48:]).all()
    half = (astronaut()[32:48].astype(float) * 128 + 255.0 * 127) / 255
    assert np.abs(image[32:48] - half).max() <= 1


def test_palette_with_a_transparent_entry(tmp_path: Path) -> None:
    image = PIL.fromarray(np.array([[0, 1], [1, 0]], np.uint8), mode="P")
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.save(tmp_path / "palette.png", transparency=0)
    assert read_image(tmp_path / "palette.png").tolist() == [
        [[255, 255, 255], [200, 100, 50]],
        [[200, 100, 50], [255, 255, 255]],
    ]


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 1), (8, 3)])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, turns: int) -> None:
    # Orientation 6: the stored picture must be turned clockwise by a quarter to be upright.
    stored = np.rot90(astronaut(), turns)
    exif = PIL.Exif()
    exif[0x0112] = orientation
    path = write(tmp_path / "turned.jpg", np.ascontiguousarray(stored), exif=exif, quality=98, subsampling=0)
    upright = read_image(path).astype(int)
    assert np.abs(upright - astronaut()).mean() < 3


def test_reduction_averages_areas(tmp_path: Path) -> None:
    # One-pixel stripes: anything but an area filter aliases.
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 254
    write(tmp_path / "stripes.png", stripes)
    assert (load_images([tmp_path], 16) == 127).all()


def test_the_central_square_is_taken() -> None:
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200
    assert (fit(wide, 10) == 200).all()
    assert (fit(wide.transpose(1, 0, 2), 5) == 200).all()


@pytest.mark.parametrize("stored", [256, 512])
def test_framing_moves_the_eyes_of_ffhq_faces_to_the_training_framing(stored: int) -> None:
    """Two dots 61 px apart at y = 123 (of 256) must end 72 px apart at y = 92, at any stored size."""
    unit = stored / 256
    y, x = np.mgrid[:stored, :stored]
    for eye in (128 - 30.5, 128 + 30.5):
        blob = 255 * np.exp(-(((x + 0.5) / unit - eye) ** 2 + ((y + 0.5) / unit - 123) ** 2) / 18)
        image = np.repeat(blob.astype(np.uint8)[:, :, None], 3, 2)
        out = fit(image, 128, FFHQ_FRAMING)[:, :, 0].astype(float)
        rows, columns = np.mgrid[:128, :128] + 0.5
        centre = 2 * (columns * out).sum() / out.sum(), 2 * (rows * out).sum() / out.sum()
        assert centre == pytest.approx((128 + (eye - 128) * 72 / 61, 92), abs=0.6)


def test_framing_repeats_the_border() -> None:
    image = np.full((32, 32, 3), 77, np.uint8)
    assert (fit(image, 32, Framing(scale=0.5, dx=60, dy=-60)) == 77).all()


def test_framing_is_checked_and_counted(folder: Path) -> None:
    with pytest.raises(ValueError, match="scale and stretch > 0"):
        Framing(scale=0)
    with pytest.raises(ValueError, match="1 folders but 2 framings"):
        load_images([folder], 8, framing=[Framing(), Framing()])


def test_one_image_is_enough(tmp_path: Path) -> None:
    write(tmp_path / "deep" / "er" / "one.png", astronaut())
    assert load_images([tmp_path], 32).shape == (1, 3, 32, 32)


def test_empty_and_missing_folders_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no image")
    (tmp_path / "empty" / "._0001.png").write_bytes(b"what macOS leaves behind")
    with pytest.raises(InputError, match=r"no images in .*empty") as caught:
        load_images([tmp_path / "empty"], 32)
    assert "0001.png" in caught.value.hint
    with pytest.raises(InputError, match="no such image folder"):
        load_images([tmp_path / "absent"], 32)


def damage(folder: Path) -> list[str]:
    good = (folder / "0.png").read_bytes()
    (folder / "a_text.png").write_text("not an image")
    (folder / "b_cut.png").write_bytes(good[: len(good) // 2])
    (folder / "c_empty.jpg").write_bytes(b"")
    jpeg = write(folder / "d_cut.jpg", astronaut())
    jpeg.write_bytes(jpeg.read_bytes()[:-400])
    return ["a_text.png", "b_cut.png", "c_empty.jpg", "d_cut.jpg"]


def test_corrupt_files_are_skipped_counted_and_named(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    clean = load_images([folder], 32)
    names = damage(folder)
    with caplog.at_level(logging.WARNING):
        images = load_images([folder], 32)
    assert torch.equal(images, clean)
    assert len(caplog.records) == 1
    assert "skipped 4 of 8" in caplog.text
    assert all(name in caplog.text for name in names)


def test_nothing_but_corrupt_files_is_an_error(folder: Path) -> None:
    names = damage(folder)
    for path in folder.iterdir():
        if path.name not in names:
            path.unlink()
    with pytest.raises(InputError, match=r"none of the 4 images can be read.*a_text\.png"):
        load_images([folder], 32)


def test_the_cache_is_bit_identical_and_used(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damage(folder)
    cache = tmp_path / "cache"
    plain = load_images([folder], 32)
    assert torch.equal(load_images([folder], 32, cache=cache), plain)
    (stored,) = cache.glob("*.npy")
    # Proof that the file is what is read: change one of its values.
    array = np.load(stored)
    array[0, 0, 0, 0] ^= 255
    np.save(stored, array)
    with caplog.at_level(logging.WARNING):
        again = load_images([folder], 32, cache=cache)
    assert (again != plain).sum() == 1
    assert "a_text.png" in caplog.text, "what was skipped is said every time"
    # Copy on write: training code that writes into the tensor does not reach the file.
    again.zero_()
    assert (np.load(stored) == array).all()
    assert sorted(path.suffix for path in cache.iterdir()) == [".json", ".npy"]


def test_the_cache_notices_changes(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = load_images([folder], 32, cache=cache)
    assert load_images([folder], 16, cache=cache).shape[-1] == 16
    framed = load_images([folder], 32, cache=cache, framing=FFHQ_FRAMING)
    assert not torch.equal(framed, first)
    write(folder / "1.png", 255 - astronaut())
    changed = load_images([folder], 32, cache=cache)
    assert torch.equal(changed[0], first[0])
    assert not torch.equal(changed[1], first[1])
    os.utime(folder / "2.png", ns=(0, 0))
    load_images([folder], 32, cache=cache)
    write(folder / "9.png", astronaut())
    assert len(load_images([folder], 32, cache=cache)) == 5
    assert len(list(cache.glob("*.npy"))) == 6


@pytest.mark.parametrize("keep", [0, 40, 1000])
def test_a_damaged_cache_is_rebuilt(
    folder: Path, tmp_path: Path, keep: int, caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "cache"
    first = load_images([folder], 32, cache=cache).clone()
    (stored,) = cache.glob("*.npy")
    stored.write_bytes(stored.read_bytes()[:keep])
    with caplog.at_level(logging.WARNING):
        assert torch.equal(load_images([folder], 32, cache=cache), first)
    assert "damaged" in caplog.text
    caplog.clear()
    assert torch.equal(load_images([folder], 32, cache=cache), first)
    assert not caplog.records


def test_a_cache_that_cannot_be_written_costs_only_a_warning(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        images = load_images([folder], 32, cache=tmp_path / "file" / "cache")
    assert torch.equal(images, load_images([folder], 32))
    assert "not cached" in caplog.text


def dataset(root: Path, **counts: int) -> Path:
    for name, count in counts.items():
        for index in range(count):
            write(root / name / f"{index}.png", np.full((16, 16, 3), 10 * index + len(name), np.uint8))
    return root


def test_dataset_layout_with_an_extra_folder(tmp_path: Path) -> None:
    data = dataset(tmp_path / "data", trainA=4, trainB=3, testA=2, testB=1)
    extra = dataset(tmp_path, extras=5)
    domains = load_dataset(
        data, 16, extra_a=[(extra / "extras", FFHQ_FRAMING)], hold_out=2, cache=tmp_path / "cache"
    )
    assert [len(p) for p in (domains.train_a, domains.train_b, domains.test_a, domains.test_b)] == [
        7,
        3,
        2,
        1,
    ]
    assert domains.test_extra is not None
    # "extras" has 6 letters as "trainA": the values tell the folders and files apart.
    assert domains.train_a.images[:, 0, 0, 0].tolist() == [6, 16, 26, 36, 6, 16, 26]
    assert domains.test_extra.images[:, 0, 0, 0].tolist() == [36, 46]
    assert domains.heads is None


def test_heads_are_larger_and_leave_out_what_is_held_out(tmp_path: Path) -> None:
    data = dataset(tmp_path / "data", **{"trainA": 4, "trainB": 3, "trainB-heads": 2})
    extra = dataset(tmp_path, extras=5, heads=5)
    domains = load_dataset(
        data, 16, extra_a=[(extra / "extras", Framing())], heads=[extra / "heads"], hold_out=2
    )
    assert domains.heads is not None
    assert domains.heads.images.shape == (3, 3, head_side(16), head_side(16))
    assert domains.drawn_heads is not None
    assert domains.drawn_heads.images.shape == (2, 3, head_side(16), head_side(16))
    assert load_dataset(data, 16).drawn_heads is None


def test_dataset_without_test_folders_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = dataset(tmp_path / "data", trainA=20, trainB=3)
    with caplog.at_level(logging.WARNING):
        domains = load_dataset(data, 16)
    assert (len(domains.test_a), len(domains.test_b), domains.test_extra) == (16, 3, None)
    assert "testA" in caplog.text
    assert "testB" in caplog.text


def test_dataset_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such data set folder"):
        load_dataset(tmp_path / "absent", 16)
    data = dataset(tmp_path / "data", trainA=1)
    with pytest.raises(InputError, match=r"no such image folder: .*trainB"):
        load_dataset(data, 16)
    dataset(tmp_path, extras=2)
    with pytest.raises(InputError, match="2 images, 2 of them"):
        load_dataset(data, 16, extra_a=[(tmp_path / "extras", Framing())], hold_out=2)


def test_a_batch_is_reproducible_and_without_repetition() -> None:
    pool = ImagePool(torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1).expand(10, 3, 4, 4).contiguous())

    def draw(count: int, seed: int) -> torch.Tensor:
        return pool.sample(count, torch.Generator().manual_seed(seed))

    assert draw(4, 1).shape == (4, 3, 4, 4)
    assert torch.equal(draw(4, 1), draw(4, 1))
    assert sorted(draw(10, 2)[:, 0, 0, 0].tolist()) == list(range(10))
    assert len(draw(25, 3)) == 25
    generator = torch.Generator().manual_seed(0)
    seen = torch.cat([pool.sample(2, generator)[:, 0, 0, 0] for _ in range(1000)]).long().bincount()
    assert len(seen) == 10
    assert seen.min() > 140, "uniform: 200 each, sigma 13"
    assert seen.max() < 260


def test_pool_is_checked() -> None:
    with pytest.raises(ValueError, match=r"float32 \(1, 3, 4, 4\)"):
        ImagePool(torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match="at least one"):
        ImagePool(torch.zeros(0, 3, 4, 4, dtype=torch.uint8))
    assert repr(ImagePool(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))) == (
        "ImagePool(images=2, size=4, device=cpu)"
    )


def test_images_are_drawn_as_their_weights_say():
    images = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 3, 8, 8)
    pool, generator = ImagePool(images.contiguous()), torch.Generator().manual_seed(0)
    weights = torch.tensor([1.0, 1.0, 1.0, 5.0])
    drawn = torch.cat([pool.sample(1, generator, weights=weights)[:, 0, 0, 0] for _ in range(800)])
    assert 0.55 < float((drawn == 3).float().mean()) < 0.7
    assert sorted(pool.sample(4, generator, weights=weights)[:, 0, 0, 0].tolist()) == [0, 1, 2, 3]
    assert len(pool.sample(9, generator, weights=weights)) == 9
