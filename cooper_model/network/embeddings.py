"""Where numbers enter the language model: fixed position tables and the time of a latent token."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_PERIOD = 10000.0
TIME_CHANNELS = 256


def position_table(dim: int, side: int, spread: float = 1.0) -> Tensor:
    """Return the fixed 2-D sine/cosine table, shape ``(side * side, dim)`` float32.

    Row ``r * side + c`` describes row r, column c. The first half of the channels encodes the column and the second
    half the row; within each half sines come first.

    :param spread: factor on rows and columns before the sinusoids; published checkpoints use 1. A small grid
        occupies more of the table's range, and its places become easier to tell apart, with more.
    """
    quarter = dim // 4
    frequencies = _PERIOD ** -(torch.arange(quarter, dtype=torch.float64) / quarter)
    angles = torch.arange(side, dtype=torch.float64)[:, None] * spread * frequencies
    axis = torch.cat([angles.sin(), angles.cos()], dim=1)
    columns = axis.repeat(side, 1)
    rows = axis.repeat_interleave(side, dim=0)
    return torch.cat([columns, rows], dim=1).float()


class PositionTable(nn.Module):
    """Holds a fixed table under the published tensor name; never trained."""

    def __init__(self, dim: int, side: int, spread: float) -> None:
        super().__init__()
        self.side = side
        self.register_buffer('pos_embed', position_table(dim, side, spread))

    def forward(self, rows: int, columns: int) -> Tensor:
        """Return the entries of a ``rows`` x ``columns`` grid, ``(rows * columns, dim)``.

        :raises ValueError: the grid is larger than the table
        """
        return self.pos_embed[grid_ids(rows, columns, self.side).to(self.pos_embed.device)]


def grid_ids(rows: int, columns: int, side: int) -> Tensor:
    """Return ``row * side + column`` for every cell of a grid, row by row.

    :raises ValueError: the grid is larger than the table
    """
    if rows > side or columns > side:
        raise ValueError(f'an image of {rows} x {columns} tokens does not fit a table of {side} x {side}; resize it')
    return (torch.arange(rows)[:, None] * side + torch.arange(columns)).flatten()


class TimeEmbedder(nn.Module):
    """Time in 0..1, unscaled, as sinusoids (cosines first) through two linears."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(TIME_CHANNELS, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, t: Tensor) -> Tensor:
        """Return ``(..., dim)`` for times of shape ``(...)``."""
        return self.mlp(time_sinusoids(t).to(self.mlp[0].weight.dtype))


def time_sinusoids(t: Tensor) -> Tensor:
    """Return the 256 sinusoids of times ``(...)`` as ``(..., 256)`` float32."""
    half = TIME_CHANNELS // 2
    steps = torch.arange(half, dtype=torch.float32, device=t.device) / half
    angles = t.float()[..., None] * torch.exp(-torch.log(torch.tensor(_PERIOD)) * steps)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)
