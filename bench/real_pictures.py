"""Real images beside what was measured and what was generated, and who is to be thanked for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from bench.real_data import Shot
from cooper_model.perception import colour_relative, overlay
from cooper_model.types import DepthMap, Segmentation

CELL = (180, 240)  # height, width of one picture [px]
HEAD = 24
GAP = 4
COLUMNS = ('image', 'measured depth', 'generated depth', 'generated masks')


@dataclass(frozen=True)
class Row:
    """One image and its maps.

    :param aligned: ``(height, width)`` generated depth [m] fitted to the measured, None where none was measured
    """

    shot: Shot
    depth: DepthMap
    masks: Segmentation
    aligned: np.ndarray | None


def grid(rows: Sequence[Row]) -> np.ndarray:
    """Return one picture, ``(height, width, 3)`` uint8 RGB: a numbered row for each image.

    Both depths of a row have the same colours for the same metres; near is red, unmeasured is grey.
    """
    width = HEAD + len(COLUMNS) * (CELL[1] + GAP)
    head = np.full((HEAD, width, 3), 255, np.uint8)
    for number, name in enumerate(COLUMNS):
        _write(head, name, HEAD + number * (CELL[1] + GAP))
    parts = [head]
    for number, row in enumerate(rows, 1):
        label = np.full((CELL[0], HEAD, 3), 255, np.uint8)
        _write(label, str(number), 2)
        gap = np.full((CELL[0], GAP, 3), 255, np.uint8)
        cells = [part for picture in _pictures(row) for part in (_cell(picture), gap)]
        parts += [np.hstack([label, *cells]), np.full((GAP, width, 3), 255, np.uint8)]
    return np.vstack(parts)


def _pictures(row: Row) -> list[np.ndarray | None]:
    frame = row.shot.frame
    drawn = row.depth.relative if row.aligned is None else row.aligned
    judged = drawn if row.aligned is None else frame.depth
    near, far = np.nanpercentile(judged, (2, 98))
    colours = [frame.image, None, _coloured(drawn, near, far), overlay(frame.image, row.masks)]
    if row.aligned is not None:
        colours[1] = _coloured(frame.depth, near, far)
    return colours


def _coloured(depth: np.ndarray, near: float, far: float) -> np.ndarray:
    relative = ((depth - near) / max(far - near, 1e-6)).clip(0, 1)
    colours = colour_relative(np.nan_to_num(relative, nan=0.0).astype(np.float32))
    return np.where(np.isfinite(depth)[..., None], colours, np.uint8(128))


def _cell(picture: np.ndarray | None) -> np.ndarray:
    """Return a picture as large as fits into a cell, on white."""
    cell = np.full((*CELL, 3), 255, np.uint8)
    if picture is None:
        return cell
    height, width = picture.shape[:2]
    scale = min(CELL[0] / height, CELL[1] / width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    top, left = (CELL[0] - size[1]) // 2, (CELL[1] - size[0]) // 2
    cell[top : top + size[1], left : left + size[0]] = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return cell


def _write(picture: np.ndarray, text: str, left: int) -> None:
    place = (left, HEAD - 8)
    cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)


def caption(rows: Sequence[Row]) -> str:
    """Return the Markdown that belongs under the picture: what each row is, its source and its licence."""
    lines = [
        f'From left to right: {", ".join(COLUMNS)}. Near is red; generated depth is scaled and shifted to the measured '
        'where there is any, otherwise stretched to its own range; grey was not measured.',
        '',
    ]
    for number, row in enumerate(rows, 1):
        shot = row.shot
        source, licence = shot.source or 'source not recorded', shot.licence or 'licence not recorded'
        lines.append(f'{number}. {shot.name}: {source}; {licence}')
    shared = sorted({row.shot.licence for row in rows if row.shot.licence.startswith('CC BY-SA')})
    lines += ['', 'All were made smaller, and maps were added.']
    if shared:
        lines[-1] += f' As some rows are under {" and ".join(shared)}, so is this picture.'
    return '\n'.join(lines) + '\n'
