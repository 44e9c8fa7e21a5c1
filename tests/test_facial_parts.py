"""Where eyes and mouths are: the maps, the head that reads them off the trunk's taps, and the loss. Device: CPU."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.data import astronaut
from torch import Tensor

from engines.errors import InputError, WeightsError
from tests.random_trunk import random_trunk
from tests.toy_domains import toy_domains
from train.augment import apply_affine, random_affine
from train.facial_parts import (
    FACIAL_PARTS,
    LANDMARKS,
    OPENING_WEIGHT,
    PartsHead,
    centre_of_mass,
    centres_of_drawings,
    find_parts,
    fit_head,
    lips_apart,
    mouth_openings,
    mouths_open,
    moved_points,
    part_centres,
    part_distance,
    part_errors,
    part_maps,
    read_parts,
    weights_to_mean,
)
from train.trunk import TRUNK_FILE, Trunk


def face_points(count: int, seed: int = 0) -> Tensor:
    """Plausible `LANDMARKS` (N, 16, 2): eyes, lips, inner lips, nose, chin, moved a little as a whole."""
    points = [(82, 92), (102, 92), (154, 92), (174, 92)]
    points += [(100, 170), (156, 170), (128, 163), (128, 180), (112, 165), (144, 165), (144, 178), (112, 178)]
    points += [(128, 170), (128, 172), (128, 130), (128, 220)]
    shift = torch.rand(count, 1, 2, generator=torch.Generator().manual_seed(seed)) * 24 - 12
    return torch.tensor(points, dtype=torch.float32) + shift


@pytest.mark.parametrize("side", [16, 32])
def test_spots_lie_where_the_parts_are(side: int):
    points = face_points(3)
    maps = part_maps(points, side)
    assert maps.shape == (3, len(FACIAL_PARTS), side, side) and maps.min() >= 0 and maps.max() <= 1
    for name, centre in {
        "eyes": points[:, :4].mean(1),
        "mouth": points[:, 4:12].mean(1),
        "nose": points[:, 14],
        "chin": points[:, 15],
    }.items():
        assert (centre_of_mass(maps[:, FACIAL_PARTS.index(name)]) - centre).abs().max() < 4


def test_the_opening_grows_with_the_gap_between_the_lips():
    points = face_points(1).expand(4, -1, -1).clone()
    points[:, 13, 1] = points[:, 12, 1] + torch.tensor([0.0, 2.0, 8.0, 30.0])
    heights = part_maps(points, 32)[:, FACIAL_PARTS.index("opening")].amax((1, 2))
    assert heights[0] == heights[1] == 0 and 0.3 < heights[2] < 0.6 and heights[3] > 0.75


@pytest.mark.parametrize("skin", [(255, 235, 220), (120, 80, 60)])
def test_a_drawn_mouth_is_open_where_it_is_not_skin(skin: tuple[int, int, int]):
    found = []
    for height in (0, 5, 9, 20):
        picture = np.full((256, 256, 3), skin, np.uint8)
        if height:
            cv2.ellipse(picture, (128, 178), (18, height), 0, 0, 360, (200, 40, 60), -1)
        cv2.line(picture, (108, 178), (148, 178), (30, 20, 20), 2)
        picture[230:] = 10  # the dark under a chin
        found.append(torch.from_numpy(picture).permute(2, 0, 1))
    line, little, more, wide = mouths_open(torch.stack(found), torch.tensor([[128.0, 178.0]] * 4)).tolist()
    assert line == 0 < little < more < wide == 1
    assert (
        mouths_open(found[0][None], torch.tensor([[-20.0, 400.0]])).isfinite().all()
    )  # none is in the picture


def test_eyes_and_mouth_are_found_in_the_maps():
    points = face_points(4)
    centres = part_centres(torch.logit(part_maps(points, 32), 1e-4))
    eyes = points[:, :4].unflatten(1, (2, 2)).mean(2)
    wanted = torch.cat([eyes, points[:, 4:12].mean(1, keepdim=True)], 1) / 128 - 1
    assert (centres - wanted).abs().max() < 0.05


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_points_move_as_the_picture_does(seed: int):
    draw = torch.Generator().manual_seed(seed)
    theta = random_affine(2, draw, degrees=20, scale=(0.8, 1.2), translate=0.05)
    point = 108 + 40 * torch.rand(2, 1, 2, generator=draw)
    picture = part_maps(point.expand(-1, 16, -1), 128)[:, 3:4]
    there = centre_of_mass(apply_affine(picture, theta)[:, 0])
    assert (there - moved_points(point, theta)[:, 0]).abs().max() < 1.5


def test_the_distance_is_zero_for_equal_maps_only_and_its_gradient_leads_there():
    wanted = torch.randn(2, 5, 8, 8, generator=torch.Generator().manual_seed(1))
    assert abs(float(part_distance(wanted, wanted))) < 1e-7
    logits = torch.zeros_like(wanted, requires_grad=True)
    distance = part_distance(logits, wanted)
    distance.backward()
    assert distance > 0.01
    assert float(part_distance((logits - 100 * logits.grad).detach(), wanted)) < float(distance.detach())


def test_an_opening_weighs_more_than_other_parts():
    wanted = torch.zeros(1, 5, 8, 8)
    apart = [
        float(part_distance(wanted + torch.eye(5)[i, :, None, None], wanted))
        for i in range(len(FACIAL_PARTS))
    ]
    opening = FACIAL_PARTS.index("opening")
    for i, distance in enumerate(apart):
        assert distance == pytest.approx(apart[opening] / (1 if i == opening else OPENING_WEIGHT), rel=1e-4)


def test_the_head_learns_where_marks_are():
    """Drawn marks on noise, a trunk of random weights: after a few steps the spots are at the marks."""
    trunk = random_trunk()
    points = face_points(24)
    marks = torch.nn.functional.interpolate(part_maps(points, 32), 64, mode="bilinear")
    pictures = (marks[:, [0, 1, 3]] + marks[:, 4:]).clamp(0, 1).mul(200).add(20).to(torch.uint8)
    openings = lips_apart(points)
    before = part_errors(PartsHead(), trunk, pictures, points, openings)
    head = fit_head([(pictures, points, openings)], trunk, steps=60, batch=8, sizes=(64,), log_every=1000)
    after = part_errors(head, trunk, pictures, points, openings)
    assert after["mouth"] < 0.5 * before["mouth"] and after["eyes"] < 0.75 * before["eyes"], (before, after)


def test_the_head_that_is_shipped_finds_the_parts_of_a_portrait(tmp_path: Path):
    if TRUNK_FILE.at_hand() is None:
        pytest.skip("needs EfficientNet-Lite1's weights in the cache, or GNR_VIDEO_TRUNK")
    trunk = Trunk.load()
    portrait = cv2.resize(astronaut()[:230, 110:340], (256, 256), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(tmp_path / "face.png"), portrait[..., ::-1])
    cv2.imwrite(str(tmp_path / "nobody.png"), np.full((64, 64, 3), 90, np.uint8))
    pictures, points = find_parts([tmp_path])
    assert pictures.shape == (1, 3, 256, 256) and points.shape == (1, len(LANDMARKS), 2)
    errors = part_errors(PartsHead.load(), trunk, pictures, points, lips_apart(points))
    assert errors["eyes"] < 15 and errors["mouth"] < 15 and errors["opening"] < 0.5, errors


def test_a_folder_without_a_face_is_named(tmp_path: Path):
    cv2.imwrite(str(tmp_path / "nobody.png"), np.full((64, 64, 3), 90, np.uint8))
    with pytest.raises(InputError, match="no face is found"):
        find_parts([tmp_path])


def test_a_damaged_head_says_how_to_get_another(tmp_path: Path):
    (tmp_path / "parts.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(WeightsError, match="cannot read") as error:
        PartsHead.load(tmp_path / "parts.safetensors")
    assert "train.facial_parts" in error.value.hint


def test_centres_of_drawings_are_eyes_left_before_right_and_mouth():
    found = centres_of_drawings(toy_domains().train_b.images, random_trunk())
    assert found.shape == (24, 3, 2) and bool((found.abs() <= 1).all())
    assert bool((found[:, 0, 0] <= found[:, 1, 0]).all())


def test_openings_are_read_off_pictures():
    pictures = toy_domains().train_b.images
    found = mouth_openings(read_parts(pictures, random_trunk(), PartsHead.load()))
    assert found.shape == (len(pictures),) and bool(((found >= 0) & (found <= 1)).all())
    logits = torch.logit(part_maps(face_points(1), 32, torch.tensor([0.7])), 1e-4)
    assert 0.6 < float(mouth_openings(logits)) <= 0.7


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 1))
def test_weights_bring_the_mean_as_near_as_they_may(seed: int, mean: float):
    values = torch.rand(50, generator=torch.Generator().manual_seed(seed)) ** 4
    weights = weights_to_mean(values, mean, 8.0)
    assert weights.min() >= 1 and weights.max() <= 8 and bool((weights[values.argsort()].diff() >= 0).all())
    reached = float((weights * values).sum() / weights.sum())
    most = float(((1 + 7 * values / values.max()) * values).sum() / (1 + 7 * values / values.max()).sum())
    assert reached == pytest.approx(min(max(mean, float(values.mean())), most), abs=1e-3)
    assert bool((weights_to_mean(torch.zeros(4), 0.5, 8.0) == 1).all())
