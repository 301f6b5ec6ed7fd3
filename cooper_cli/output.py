"""What commands say: one JSON object on standard output, or a table; everything else on standard error."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from cooper_model.types import Answer, Relation, SceneObject

_CONTROL = re.compile(r'[\x00-\x08\x0b-\x1f\x7f-\x9f]')


def print_json(value: Mapping[str, Any]) -> None:
    """Print one strict JSON object; NaN and infinity become null, arrays lists."""
    sys.stdout.write(json.dumps(plain(value), ensure_ascii=False, allow_nan=False) + '\n')


def say(text: str = '') -> None:
    """Print a line for people on standard output; a model's control characters do not reach the terminal."""
    sys.stdout.write(_CONTROL.sub('\N{REPLACEMENT CHARACTER}', text) + '\n')


def note(text: str) -> None:
    """Print a line on standard error, which ``--json`` leaves free."""
    sys.stderr.write(_CONTROL.sub('\N{REPLACEMENT CHARACTER}', text) + '\n')


def plain(value: Any) -> Any:
    """Return a value as JSON knows it; floats are cut to six significant digits."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (float, np.floating)):
        return float(f'{value:.6g}') if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def write_lines(path: Path, values: Iterable[Mapping[str, Any]]) -> None:
    """Write strict JSON objects into a file, one a line; its folder is made if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(plain(value), ensure_ascii=False, allow_nan=False) + '\n' for value in values)
    path.write_text(''.join(lines), encoding='utf-8')


def relation_record(relation: Relation) -> dict[str, Any]:
    """Return a relation for JSON; an unknown distance is null."""
    return asdict(relation)


def relation_line(relation: Relation) -> str:
    """Return a relation for people, with its distance where that is known."""
    distance = f', {relation.distance:.2f} m apart' if math.isfinite(relation.distance) else ''
    return f'  {relation.subject} {relation.predicate} {relation.object}{distance}'


def object_record(item: SceneObject) -> dict[str, Any]:
    """Return a visible object for JSON."""
    return asdict(item)


def answer_record(answer: Answer, images: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return an answer for JSON, with what is told of the images on its way."""
    return {
        'answer': answer.text,
        'mode': answer.mode,
        'thoughts': answer.thoughts,
        'images': images,
        'relations': [relation_record(relation) for relation in answer.relations],
        'timings': answer.timings,
        'value': answer.value,
        'unit': answer.unit,
        'confidence': answer.confidence,
        'objects': [object_record(item) for item in answer.objects],
        'forced': answer.forced,
    }


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return rows as aligned text: the first column to the left, the others to the right."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = []
    for row in cells:
        rest = (row[column].rjust(widths[column]) for column in range(1, len(row)))
        lines.append('  '.join([row[0].ljust(widths[0]), *rest]).rstrip())
    lines.insert(1, '-' * max(len(line) for line in lines))
    return '\n'.join(lines)
