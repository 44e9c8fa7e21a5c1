"""What training says to data, checkpoints and losses it cannot go on with: one line, and a hint. Device: CPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engines.errors import GnrVideoError, InputError, WeightsError
from tests.toy_domains import toy_domains
from train import checkpoint, loop
from train.checkpoint import STATE, TrainingDiverged
from train.data import Domains, ImagePool
from train.loop import Window
from train.recipes import Recipe, get_recipe
from train.trainer import Trainer
from train.two_sided import TwoSidedTrainer

TINY = replace(get_recipe("tiny"), loss=replace(get_recipe("tiny").loss, cycle_lpips=0.0))


@pytest.fixture(scope="module")
def domains() -> Domains:
    return toy_domains()


def trainer(domains: Domains, out: Path, recipe: Recipe = TINY) -> Trainer:
    return TwoSidedTrainer(domains, recipe, out, bf16=False)


def one_line(error: GnrVideoError) -> None:
    assert "\n" not in error.message
    assert error.hint


def test_a_single_image_is_not_a_domain(tmp_path, domains):
    one = replace(domains, train_b=ImagePool(domains.train_b.images[:1]))
    with pytest.raises(InputError, match="trainB has a single image") as caught:
        trainer(one, tmp_path / "run")
    one_line(caught.value)
    assert not (tmp_path / "run").exists()
    trainer(replace(domains, train_b=ImagePool(domains.train_b.images[:2])), tmp_path).train_step()


def test_images_smaller_than_the_recipe(tmp_path, domains):
    small = replace(domains, train_a=ImagePool(domains.train_a.images[:, :, ::2, ::2].contiguous()))
    with pytest.raises(InputError, match="trainA are 16 pixels wide, recipe 'tiny' trains at 32") as caught:
        trainer(small, tmp_path)
    one_line(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": replace(TINY.architecture, style_dim=16)}, "another architecture"),
        ({"name": "other"}, "of the recipe 'tiny', not 'other'"),
        ({"shared_branch": False}, "made with other settings of 'tiny'"),
        ({"stages": TINY.stages[1:]}, "made with other settings of 'tiny'"),
    ],
    ids=["architecture", "recipe", "discriminator", "stages"],
)
def test_a_checkpoint_of_another_run(tmp_path, domains, change, message):
    checkpoint.save(trainer(domains, tmp_path))
    with pytest.raises(WeightsError, match=message) as caught:
        checkpoint.resume(trainer(domains, tmp_path, replace(TINY, **change)))
    one_line(caught.value)
    assert "--out" in caught.value.hint


@pytest.mark.parametrize("what", ["text", "truncated", "another program's"])
def test_a_file_that_is_no_checkpoint(tmp_path, domains, what):
    path = tmp_path / STATE
    if what == "text":
        path.write_bytes(b"not a checkpoint")
    elif what == "truncated":
        checkpoint.save(trainer(domains, tmp_path))
        path.write_bytes(path.read_bytes()[:-5000])
    else:
        torch.save({"model": torch.zeros(3)}, path)
    with pytest.raises(WeightsError, match="cannot read the checkpoint") as caught:
        checkpoint.resume(trainer(domains, tmp_path))
    one_line(caught.value)


def broken(domains: Domains, out: Path) -> Trainer:
    """A trainer with a good checkpoint, whose next step is bad."""
    run = trainer(domains, out)
    run.train_step()
    checkpoint.save(run)
    with torch.no_grad():
        run.networks.g_ab.conv1.activate.bias.fill_(float("nan"))
    return run


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(tmp_path, domains):
    run = broken(domains, tmp_path)
    good = (tmp_path / STATE).read_bytes()
    with pytest.raises(TrainingDiverged, match=r"cycle_l2.* not finite at step 2") as caught:
        loop.run(run, log_every=4, progress=lambda _: None)  # seen two steps later, named where it began
    one_line(caught.value)
    assert str(tmp_path) in caught.value.hint
    assert (tmp_path / STATE).read_bytes() == good


@pytest.mark.parametrize("ends", ["save", "stop", "interrupt"])
def test_nothing_bad_is_saved_between_two_looks(tmp_path, domains, ends):
    run = broken(domains, tmp_path)
    good = (tmp_path / STATE).read_bytes()
    with pytest.raises(TrainingDiverged, match="not finite at step 2"):
        if ends == "save":
            loop.run(run, log_every=100, save_every_seconds=0.0)
        elif ends == "stop":
            loop.run(run, log_every=100, stop=lambda: run.step >= 3)
        else:

            def interrupt() -> bool:
                if run.step >= 3:
                    raise KeyboardInterrupt
                return False

            loop.run(run, log_every=100, stop=interrupt)
    assert (tmp_path / STATE).read_bytes() == good


def test_a_bad_update_after_a_finite_loss_is_not_saved(tmp_path, domains):
    run = trainer(domains, tmp_path)
    checkpoint.save(run)
    good = (tmp_path / STATE).read_bytes()
    parameter = run.networks.d_a.g_adv[0].weight
    parameter.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(TrainingDiverged, match="update of d_a at step 1 was not finite"):
        loop.run(run, steps=1)
    assert (tmp_path / STATE).read_bytes() == good


def test_without_a_checkpoint_it_promises_none(tmp_path, domains):
    run = trainer(domains, tmp_path)
    with torch.no_grad():
        run.networks.g_ab.conv1.activate.bias.fill_(float("nan"))
    with pytest.raises(TrainingDiverged) as caught:
        loop.run(run, steps=1, log_every=1)
    assert "no checkpoint" in caught.value.hint


def test_the_loss_that_began_is_named():
    window = Window()
    good, bad = torch.tensor(1.0), torch.tensor(float("nan"))
    window.add(7, {"cycle": good, "motion": good})
    assert window.first_bad() is None
    window.add(8, {"cycle": good, "motion": bad})
    window.add(9, {"cycle": torch.tensor(float("inf")), "motion": bad, "r1": bad})
    window.add(10, {"cycle": good, "motion": good})
    assert window.first_bad() == (8, ["motion"])


def test_means_are_over_the_steps_that_had_the_term():
    window = Window()
    window.add(1, {"cycle": torch.tensor(1.0), "r1": torch.tensor(5.0)})
    window.add(2, {"cycle": torch.tensor(2.0)})
    assert window.means() == {"cycle": 1.5, "r1": 5.0}
    assert Window().means() == {}
