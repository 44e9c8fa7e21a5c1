"""What is behind people gives way to something else, and nothing of it shines through at their edges. Device: CPU."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import InputError
from gnr_video.compositing.background import KEY_GREEN, Backdrop, Background, blurred, covering, without_spill
from gnr_video.frame import Alignment, FaceLayer, Image
from gnr_video.media.open import open_source
from gnr_video.samples.portrait import portrait
from tests.cli_helpers import call
from tests.media_helpers import read_pictures


@pytest.fixture(scope="module")
def photo() -> Image:
    return np.asarray(cv2.resize(portrait(), (512, 512), interpolation=cv2.INTER_AREA), np.uint8)


class TestValues:
    @pytest.mark.parametrize(
        ("text", "color"),
        [("key", KEY_GREEN), ("#0000FF", (0, 0, 255)), ("Blur", None), ("red", (190, 48, 50))],
    )
    def test_words(self, text: str, color: tuple[int, int, int] | None) -> None:
        backdrop = Backdrop.parse(text)
        assert backdrop is not None
        assert (backdrop.color, backdrop.picture) == (color, None)

    def test_nothing(self) -> None:
        assert Backdrop.parse("keep") is None

    def test_a_picture(self, tmp_path: Path) -> None:
        cv2.imwrite(str(tmp_path / "red.png"), np.full((20, 30, 3), (0, 0, 255), np.uint8))
        backdrop = Backdrop.parse(str(tmp_path / "red.png"))
        assert backdrop is not None and backdrop.picture is not None
        assert (backdrop.picture == (255, 0, 0)).all()
        other = Backdrop((255, 0, 0))
        assert backdrop.describe() != other.describe() != Backdrop().describe()

    @pytest.mark.parametrize("content", [None, b"", b"no picture"])
    def test_what_is_none(self, tmp_path: Path, content: bytes | None) -> None:
        if content is not None:
            (tmp_path / "bad.png").write_bytes(content)
        with pytest.raises(InputError):
            Backdrop.parse(str(tmp_path / "bad.png"))


@given(st.integers(8, 90), st.integers(8, 90), st.integers(8, 90), st.integers(8, 90))
def test_a_picture_covers_any_frame_from_its_middle(w: int, h: int, width: int, height: int) -> None:
    x = np.zeros((h, w, 3), np.uint8)
    x[h // 2 - 1 : h // 2 + 1, w // 2 - 1 : w // 2 + 1] = 255
    out = covering(x, width, height)
    assert out.shape == (height, width, 3)
    bright = np.argwhere(out[..., 0] > out.max() / 2).mean(0)
    zoom = max(width / w, height / h)
    assert np.abs(bright - ((height - 1) / 2, (width - 1) / 2)).max() <= 1 + 1.5 * zoom


def test_a_blur_keeps_colors_and_loses_edges(photo: Image) -> None:
    out = blurred(photo)
    assert np.abs(out.mean((0, 1)) - photo.mean((0, 1))).max() < 2
    assert cv2.Laplacian(out, cv2.CV_64F).std() < cv2.Laplacian(photo, cv2.CV_64F).std() / 10


@pytest.mark.usefixtures("person_model")
class TestPeople:
    def test_behind_a_person_is_the_color_and_the_person_stays(self, photo: Image) -> None:
        out = photo.copy()
        with Background(Backdrop((0, 0, 255))) as background:
            assert background.apply(out, photo, [], 0.0) is None
            people = background.people(photo, [], 0.0)
        face = slice(80, 130), slice(200, 240)
        assert people[face].mean() > 250
        assert np.abs(out[face].astype(int) - photo[face]).mean() < 2
        assert (out[:60, :60] == (0, 0, 255)).all()
        assert 0.2 < (people > 127).mean() < 0.8

    def test_a_drawing_is_in_front_wherever_it_is(self, photo: Image) -> None:
        drawing = np.full((64, 64, 3), 200, np.uint8)
        face = FaceLayer(
            Alignment(0, 60.0, 60.0, 0.3, 0.0), drawing=drawing, mask=np.full((64, 64), 255, np.uint8)
        )
        out = photo.copy()
        with Background(Backdrop((0, 0, 255))) as background:
            background.apply(out, photo, [face], 0.0)
            people = background.people(photo, [face], 0.0)
        assert (people[50:70, 50:70] == 255).all()
        np.testing.assert_array_equal(out[50:70, 50:70], photo[50:70, 50:70])

    def test_it_is_steady(self, photo: Image) -> None:
        random = np.random.default_rng(0)
        seen = []
        with Background(Backdrop()) as background:
            for i in range(12):
                noisy = np.clip(photo + random.normal(0, 4, photo.shape), 0, 255).astype(np.uint8)
                seen.append(background.people(noisy, [], i / 30).astype(float))
        assert np.abs(np.diff(seen[4:], axis=0)).mean() < 1

    def test_transparent(self, photo: Image) -> None:
        out = photo.copy()
        with Background(Backdrop(transparent=True)) as background:
            people = background.apply(out, photo, [], 0.0)
        assert people is not None
        assert people[80:130, 200:240].mean() > 250
        assert people[:60, :60].max() == 0
        assert (out[:60, :60] == 255).all(), "what is hidden never shows"

    @pytest.mark.parametrize("name", ["out.webm", "out.png", "frames/%03d.png"])
    def test_a_transparent_file(
        self, tiny: Path, face_clip: Path, face_model: Path, tmp_path: Path, photo: Image, name: str
    ) -> None:
        source = face_clip
        if name == "out.png":
            source = tmp_path / "photo.png"
            cv2.imwrite(str(source), photo[..., ::-1])
        options = ["--end", 0.2, "--weights", tiny, "--engine", "torch", "--background", "transparent"]
        done = call(source, "-o", tmp_path / name, *options)
        assert done.status == 0, done.stderr
        with open_source(tmp_path / name.replace("%03d", "001")) as made:
            alpha = next(iter(made)).alpha
        assert alpha is not None
        assert alpha[:8, :8].max() < 20
        assert (alpha > 235).mean() > 0.1

    def test_what_holds_no_transparency_is_refused(self, tiny: Path, face_clip: Path, tmp_path: Path) -> None:
        for name in ("out.mp4", "out.jpg"):
            done = call(face_clip, "-o", tmp_path / name, "--weights", tiny, "--background", "transparent")
            assert done.status == 4
            assert "cannot be transparent" in done.stderr

    def test_in_a_video(self, tiny: Path, face_clip: Path, face_model: Path, tmp_path: Path) -> None:
        made = {}
        for what in ("keep", "key"):
            out = tmp_path / f"{what}.mkv"
            options = ["--end", 0.2, "--weights", tiny, "--engine", "torch", "--background", what]
            assert call(face_clip, "-o", out, *options).status == 0
            made[what] = read_pictures(out)
        corner = made["key"][2][:20, :20].reshape(-1, 3).mean(0)
        np.testing.assert_allclose(corner, KEY_GREEN, atol=12)
        assert np.abs(made["keep"][2][:20, :20].reshape(-1, 3).mean(0) - KEY_GREEN).max() > 40


def test_no_color_of_the_old_background_is_left_at_edges() -> None:
    """A red person before blue; where the matte is half, the picture is violet and comes out red."""
    x = np.linspace(-4, 4, 200)[None].repeat(100, 0)
    share = 1 / (1 + np.exp(-x * 12))
    image = (share[..., None] * (200, 30, 30) + (1 - share[..., None]) * (20, 30, 220)).astype(np.uint8)
    out = without_spill(image, (255 * share).astype(np.uint8))
    edge = (share > 0.3) & (share < 0.7)
    assert image[edge][:, 2].mean() > 90
    assert out[edge][:, 2].mean() < 55
    np.testing.assert_array_equal(out[share > 0.95], image[share > 0.95])


def test_a_background_that_cannot_be(tmp_path: Path) -> None:
    done = call("clip.mp4", "--background", "nowhere.png")
    assert done.status == 3
    assert "is no background" in done.stderr or "no such file" in done.stderr
