"""The GNR losses: what each one asks for, and the weights that the paper and the official code give them.

Source: GANs N' Roses (Chong and Forsyth 2021), section 3, and the official code where it differs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from train.distributed import gather, mine, world


@dataclass(frozen=True)
class LossWeights:
    """How much each term counts in the generators' and discriminators' losses; 0 switches a term off.

    Attributes:
        adversarial: non-saturating loss over the three heads.
        style_consistency: variance of the style codes of one image under augmentation.
        cycle_l2, cycle_lpips: A -> B -> A, with style codes shuffled among the augmentations of an image.
        style_reconstruction: the style read off a translation is the one it was decoded with.
        latent: encoded style codes look like N(0, I): a discriminator says so, or, in warm-up and one-way training,
            their moments.
        latent_form: which: "gaussian" is `latent_divergence`, "axes" is `style_moments`.
        identity: an image decoded from its own content and style is itself; faded out by the trainer. Without
            it a short training settles on tone-inverted translations.
        reproduction: a drawing comes back from its content, recoloured, relit and blurred, and its style (one-way
            training): mean absolute differences of the picture, of its colours over cells and of the trunk's taps.
        content: domain-invariant perceptual distance between a face and its translation (one-way training).
        parts: a translation has its eyes, mouth, nose and chin where the face has them, and its lips as far apart
            (one-way training, `train.facial_parts`).
        surroundings: what is painted around the face of a whole head, its hair above all, looks like a drawing's
            (one-way training on `Domains.heads` and `drawn_heads`).
        palette: translations have the colours of drawings, where drawings have them and as often (one-way training,
            `train.projected.palette_cells`).
        texture: translations and their hair look to the trunk as drawings do, cell by cell and as often: the moments
            of its features are spread alike, as in GFMN (dos Santos et al. 2019), and compared by their energy
            distance (one-way training, `train.projected.texture_cells`). Needs no discriminator, hence says the same
            at every step.
        cyclegan_identity: a picture that is of the target domain already passes through the translator
            unchanged (Zhu et al. 2017, section 5.2), with its own style. Not in one-way training, whose
            `reproduction` is just that.
        motion: a face that is moved and then translated is the translation, moved: the temporal loss of
            vid2vid (Wang et al. 2018), with motion that is known because it is made (`train.flow`).
        path_length: StyleGAN2's regulariser of the decoder; 2 there.
        r1: gradient penalty of the discriminators.
        r1_form: "sample" is the usual penalty (mean over the batch of the squared gradient of each picture's
            mean logit); "mean" is the official code's (gradient of the batch's mean logit), which is smaller
            by the square of the batch size.
    """

    adversarial: float = 1.0
    style_consistency: float = 50.0
    cycle_l2: float = 20.0
    cycle_lpips: float = 10.0
    style_reconstruction: float = 5.0
    latent: float = 2.0
    latent_form: str = "gaussian"
    identity: float = 0.0
    reproduction: float = 0.0
    content: float = 0.0
    parts: float = 0.0
    surroundings: float = 0.0
    palette: float = 0.0
    texture: float = 0.0
    cyclegan_identity: float = 0.0
    motion: float = 0.0
    path_length: float = 0.0
    r1: float = 10.0
    r1_form: str = "mean"


OFFICIAL = LossWeights()
PAPER = LossWeights(
    style_consistency=10.0,
    cycle_l2=20.0,
    cycle_lpips=20.0,
    style_reconstruction=0.0,
    latent=0.0,
    r1_form="sample",
)


SMALLEST_VARIANCE = 0.02
"""Added to a covariance of style codes along each direction, so that few codes have an inverse too."""


def generator_adversarial(logits: Sequence[Tensor]) -> Tensor:
    """Non-saturating loss, summed over the heads: mean softplus(-D(fake))."""
    return torch.stack([F.softplus(-head).mean() for head in logits]).sum()


def discriminator_adversarial(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Logistic loss, summed over the heads: mean softplus(-D(real)) + mean softplus(D(fake))."""
    return torch.stack(
        [F.softplus(-r).mean() + F.softplus(f).mean() for r, f in zip(real, fake, strict=True)]
    ).sum()


def r1_penalty(logits: Sequence[Tensor], images: Tensor, form: str = "sample") -> Tensor:
    """R1 (Mescheder et al. 2018), summed over the heads.

    Args:
        logits: each (N, ...), computed from `images` with a graph.
        images: (N, 3, S, S), requiring a gradient.
        form: see `LossWeights.r1_form`.
    """
    total = images.new_zeros(())
    for head in logits:
        out = head.mean() / world() if form == "mean" else head.flatten(1).mean(1).sum()
        (gradient,) = torch.autograd.grad(out, images, create_graph=True)
        total = total + gradient.float().square().flatten(1).sum(1).mean()
    return total


def path_lengths(picture: Tensor, w: Tensor, noise: Tensor) -> Tensor:
    """How far each picture moves when its w does (StyleGAN2, section 3.2): the length of J^T y, y ~ N(0, I).

    Args:
        picture: (N, 3, S, S), computed from `w` with a graph.
        w: (N, stages, style_dim); the squared length is the mean over the stages.
        noise: y, like `picture`.

    Returns:
        (N,) float32, per pixel's deviation, which makes it comparable between sizes; with a graph.
    """
    along = (picture.float() * noise).sum() / math.sqrt(picture.shape[2] * picture.shape[3])
    (gradient,) = torch.autograd.grad(along, w, create_graph=True)
    return (gradient.float().square().sum(2).mean(1) + 1e-8).sqrt()


def masked_mse(a: Tensor, b: Tensor, kept: Tensor) -> Tensor:
    """Mean squared difference of rows (N, D); those with 0 in `kept` (N, 1) count as equal."""
    return ((a - b) * kept).square().mean()


def style_consistency(styles: Tensor, contents: int) -> Tensor:
    """Sum over the code's entries of the variance among an image's augmentations, averaged over the images.

    Args:
        styles: (contents * n, latent_dim), the n augmentations of an image standing together.
    """
    return styles.unflatten(0, (contents, -1)).var(1, unbiased=False).sum(1).mean()


def shuffle_within(codes: Tensor, contents: int, generator: torch.Generator) -> Tensor:
    """Permute the style codes among the augmentations of each image (which should all have the same one).

    Args:
        codes: (contents * n, latent_dim), of this process.
        generator: draws the permutations of all processes' images, so that they stay in step.
    """
    n = codes.shape[0] // contents
    orders = torch.stack([torch.randperm(n, generator=generator) for _ in range(contents * world())])
    order = mine(orders) + n * torch.arange(contents)[:, None]
    return codes[order.flatten().to(codes.device)]


def latent_divergence(codes: Tensor, recent: Tensor) -> Tensor:
    """KL(N(mean, covariance) || N(0, I)) of style codes: how far they are from where seeds are drawn.

    A deviation of 1 along each axis does not do: codes that all lie along one diagonal have it. And a batch is too
    small for a covariance. So both moments are taken over the codes of the last steps, and each code of the batch
    gets the gradient that it would have as one of them: mean + (I - covariance^-1) (code - mean), which is the
    stronger along a direction the less the codes reach there.

    Args:
        codes: (N, D), the batch's; only they get gradients.
        recent: (M, D), codes of the last steps, the batch's among them.

    Returns:
        Scalar, float32.
    """
    with torch.autocast(codes.device.type, enabled=False):
        codes, recent = codes.float(), recent.detach().float()
        mean = recent.mean(0)
        unit = torch.eye(recent.shape[1], device=recent.device)
        spread = recent - mean
        covariance = spread.T @ spread / len(recent) + SMALLEST_VARIANCE * unit
        # inv_ex: codes that are not finite are the trainer's to report.
        push = unit - torch.linalg.inv_ex(covariance).inverse
        value = (
            covariance.trace() + mean.square().sum() - len(mean) - torch.linalg.slogdet(covariance)[1]
        ) / 2
        centred = codes - mean
        descent = ((centred @ push * centred).sum(1) / 2 + codes @ mean).mean()
        return value + descent - descent.detach()


def style_moments(codes: Tensor) -> Tensor:
    """How far the batch's style codes (N, D) are from mean 0 and deviation 1 along each axis. Those along one diagonal
    have both."""
    codes = gather(codes)
    return codes.mean(0).square().sum() + (codes.std(0) - 1).square().sum()
