"""One training program on one device or, under torchrun, on several: ranks, gathering over them, shutting down."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather


@dataclass(frozen=True)
class Ranks:
    """This process among all: `rank` of `world`, and the GPU it takes where there are GPUs."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def part(self, size: int) -> slice:
        """This rank's rows of a global batch; `size` is a multiple of the world."""
        each = size // self.world
        return slice(self.rank * each, (self.rank + 1) * each)


@contextmanager
def ranks(device: torch.device) -> Iterator[Ranks]:
    """Joins the process group that torchrun set up (nccl on GPUs, else gloo); alone without one."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield Ranks()
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device.type == "cuda":
        torch.cuda.set_device(local)
    # The others wait while the first rank scores and writes; a large set takes longer than the usual ten minutes.
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(hours=2))
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), local)
    finally:
        dist.destroy_process_group()


def gather(rows: Tensor) -> Tensor:
    """The rows of all ranks, in order of rank; gradients flow back to the rank that each came from.

    What a rank does on its own rows stays its own: dropout, the texts it draws and, on the CPU, batch statistics.

    Every rank computes the same loss of all rows, so its gradient reaches a row once from each rank; the mean over
    ranks that DistributedDataParallel takes makes that the gradient of the one global loss.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return rows
    return torch.cat(all_gather(rows.contiguous()))


def agree(module: nn.Module) -> None:
    """Gives every rank the first one's buffers, such as batch statistics, which each has of its own rows."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)
