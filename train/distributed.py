"""Data-parallel training: every process takes its share of one global batch, and the result is the same.

Processes are started by torchrun. All of them draw the same random numbers for the whole batch and keep their
slice; statistics over the batch are taken over all slices; gradients are averaged before each update. One
process alone is the special case in which every function here does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

_BUCKET_ELEMENTS = 1 << 23


def join(device: str) -> torch.device:
    """Join the process group that torchrun describes in the environment, if there is one.

    Args:
        device: "cpu" or "cuda"; with several processes, each takes the GPU of its local rank.

    Returns:
        The device of this process.
    """
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return torch.device(device)
    where = torch.device(device)
    if where.type == "cuda":
        where = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(where)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if where.type == "cuda" else "gloo")
    return where


def leave() -> None:
    """Leave the process group, if one was joined."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number; 0 writes and talks."""
    return dist.get_rank() if world() > 1 else 0


def mine(batch: Tensor) -> Tensor:
    """This process's slice of a tensor over the global batch (N, ...), N a multiple of the world's size."""
    share = len(batch) // world()
    return batch[rank() * share : (rank() + 1) * share]


def gather(x: Tensor) -> Tensor:
    """All processes' slices (N, ...) as one batch (N * world, ...), differentiable as often as needed."""
    return _Gather.apply(x) if world() > 1 else x


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _SumAndSlice.apply(grad)


class _SumAndSlice(torch.autograd.Function):
    """Transpose of `_Gather`: every process's loss may depend on every slice."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor) -> Tensor:
        total = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return mine(total).clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _Gather.apply(grad)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes, in buckets of 32 MB."""
    if world() == 1:
        return
    bucket: list[Tensor] = []
    for parameter in parameters:
        if parameter.grad is not None:
            bucket.append(parameter.grad)
            if sum(g.numel() for g in bucket) > _BUCKET_ELEMENTS:
                _average(bucket)
                bucket = []
    if bucket:
        _average(bucket)


def _average(gradients: list[Tensor]) -> None:
    flat = torch.cat([g.reshape(-1).float() for g in gradients])
    dist.all_reduce(flat)
    flat /= world()
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients])):
        gradient.copy_(part.view_as(gradient))


def mean(values: Iterable[Tensor]) -> list[float]:
    """Means over the processes of scalars, in order."""
    stacked = torch.stack([value.detach().float() for value in values])
    if world() > 1:
        dist.all_reduce(stacked)
        stacked /= world()
    return stacked.tolist()


def any_of(flag: bool, device: torch.device) -> bool:
    """Whether the flag is up in any process; all get the same answer."""
    if world() == 1:
        return flag
    total = torch.tensor(float(flag), device=device)
    dist.all_reduce(total, op=dist.ReduceOp.MAX)
    return bool(total > 0)
