"""Matrices of Muon divided among processes that all hold whole weights.

What Muon computes for a matrix does not depend on the batch's size, so done by every process alike it would cost a
small run a fifth of its time. Here each matrix has one process that updates it and tells the others.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from accelerate.utils import broadcast, reduce
from torch import Tensor, nn


class Division:
    """Which process updates which matrix.

    :param matrices: by name, the same in every process
    """

    def __init__(self, matrices: Mapping[str, nn.Parameter], process: int, processes: int) -> None:
        self.process = process
        self.shares: list[dict[str, nn.Parameter]] = [{} for _ in range(processes)]
        loads = [0] * processes
        for name, p in sorted(matrices.items(), key=lambda item: (-_work(item[1]), item[0])):
            least = loads.index(min(loads))
            self.shares[least][name] = p
            loads[least] += _work(p)

    @property
    def own(self) -> Mapping[str, nn.Parameter]:
        """The matrices that this process updates."""
        return self.shares[self.process]

    @torch.no_grad()
    def exchange(self) -> None:
        """Give every process the matrices that others have updated."""
        for owner, share in enumerate(self.shares):
            values = list(share.values())
            if not values:
                continue
            flat = broadcast(torch.cat([p.flatten() for p in values]), from_process=owner)
            for p, part in zip(values, flat.split([p.numel() for p in values]), strict=True):
                p.copy_(part.view_as(p))

    def gather(self, kind: str, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a kind of optimiser state of all matrices, as ``kind.name``, in every process.

        :param own: that of this process, named likewise; absent ones count as zero
        """
        names = [name for share in self.shares for name in share]
        matrices = [p for share in self.shares for p in share.values()]
        known = [own.get(f'{kind}.{name}', torch.zeros_like(p)) for name, p in zip(names, matrices, strict=True)]
        flat = reduce(torch.cat([value.flatten() for value in known]), 'sum')
        parts = flat.split([p.numel() for p in matrices])
        return {f'{kind}.{name}': part.view_as(p) for name, p, part in zip(names, matrices, parts, strict=True)}


def _work(matrix: Tensor) -> int:
    """Return what a Newton-Schulz iteration of a matrix costs, up to a factor."""
    return matrix.numel() * min(matrix.shape)
