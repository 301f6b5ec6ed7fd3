"""Procedural grey textures for floors and walls; a surface's own colour multiplies them."""

from __future__ import annotations

import numpy as np

SIDE = 128
# name, number of repeats a metre
TEXTURES: tuple[tuple[str, float], ...] = (
    ('checker', 1.0), ('checker', 2.2), ('planks', 0.7), ('planks', 1.4), ('tiles', 1.2), ('tiles', 2.5),
    ('stripes', 1.5), ('carpet', 0.8), ('carpet', 2.0), ('bricks', 1.2), ('concrete', 0.6), ('panels', 0.9),
)  # fmt: skip


def texture(name: str) -> np.ndarray:
    """Return a seamless grey ``(SIDE, SIDE)`` texture in 0..1.

    :raises KeyError: unknown name
    """
    draw = {'checker': _checker, 'planks': _planks, 'tiles': _tiles, 'stripes': _stripes, 'carpet': _carpet,
            'bricks': _bricks, 'concrete': _concrete, 'panels': _panels}[name]  # fmt: skip
    row, column = np.mgrid[0:SIDE, 0:SIDE]
    grain = np.random.default_rng(17).normal(0, 0.025, (SIDE, SIDE))
    return np.clip(draw(row, column) + grain, 0, 1)


def _checker(row: np.ndarray, column: np.ndarray) -> np.ndarray:
    return np.where((row // 32 + column // 32) % 2 == 0, 0.95, 0.68)


def _planks(row: np.ndarray, column: np.ndarray) -> np.ndarray:
    plank = row // 32
    tone = np.array([0.92, 0.78, 0.86, 0.72])[plank]
    grain = 0.03 * np.sin(row * 1.3 + 2 * np.sin(2 * np.pi * column / SIDE + plank))
    gap = (row % 32 < 2) | ((column + plank * 40) % SIDE < 2)
    return np.where(gap, 0.45, tone + grain)


def _tiles(row: np.ndarray, column: np.ndarray) -> np.ndarray:
    return np.where((row % 64 < 4) | (column % 64 < 4), 0.6, 0.92)


def _stripes(row: np.ndarray, column: np.ndarray) -> np.ndarray:
    del row
    return 0.86 + 0.09 * np.sign(np.sin(2 * np.pi * column / 64))


def _carpet(row: np.ndarray, column: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(5).normal(size=row.shape)
    smooth = sum(np.roll(noise, (i, j), (0, 1)) for i in range(-2, 3) for j in range(-2, 3)) / 5
    return 0.82 + 0.07 * smooth


def _bricks(row: np.ndarray, column: np.ndarray) -> np.ndarray:
    course = row // 16
    joint = (row % 16 < 2) | ((column + 16 * (course % 2)) % 32 < 2)
    return np.where(joint, 0.95, 0.76)


def _concrete(row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Slabs with stains: a joint along two sides, and slow waves of dirt."""
    stains = 0.12 * np.sin(2 * np.pi * row / SIDE) * np.sin(4 * np.pi * column / SIDE + 1.3)
    stains += 0.08 * np.sin(2 * np.pi * (3 * row + 2 * column) / SIDE)
    return np.where((row < 2) | (column < 2), 0.4, 0.72 + stains)


def _panels(row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Ribbed sheet metal: upright ribs, lit from one side."""
    del row
    return np.select([column % 32 < 3, column % 32 < 8], [0.5, 0.98], 0.8)
