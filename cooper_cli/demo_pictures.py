"""What a demo run leaves behind: pictures, the thoughts as text, a summary."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from cooper_cli.demo_report import Asked, Report
from cooper_cli.output import plain
from cooper_cli.pictures import save_array

CAPTION = 24
MONTAGE_HEIGHT = 360


def save_all(report: Report, out: Path) -> None:
    """Write every picture, ``thoughts.txt`` and ``summary.json`` to ``out``; the report learns their names."""
    # Pictures of an earlier run would pass for those of this one.
    for pattern in ('frame*.png', 'question*.png'):
        for old in out.glob(pattern):
            old.unlink()
    files: list[Path] = []
    for number, picture in enumerate(report.pictures):
        named = {'camera': picture.camera, 'depth': picture.depth, 'segmentation': picture.overlay}
        files += [save_array(out / f'frame{number}_{name}.png', image) for name, image in named.items()]
        files.append(save_array(out / f'frame{number}.png', montage(named)))
    for number, asked in enumerate(report.asked):
        if asked.reply is not None and asked.camera is not None:
            files.append(save_array(out / f'question{number}.png', _question_montage(asked)))
    thoughts = out / 'thoughts.txt'
    thoughts.write_text('\n\n'.join(_told(number, asked) for number, asked in enumerate(report.asked)) + '\n')
    summary = out / 'summary.json'
    report.files = [str(path) for path in (*files, thoughts, summary)]
    summary.write_text(json.dumps(plain(report.record()), indent=1, ensure_ascii=False) + '\n')


def montage(images: dict[str, np.ndarray]) -> np.ndarray:
    """Return images side by side at one height, each under its name, ``(height, width, 3)`` uint8 RGB."""
    columns = []
    for name, image in images.items():
        height, width = image.shape[:2]
        size = (max(1, round(width * MONTAGE_HEIGHT / height)), MONTAGE_HEIGHT)
        scaled = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        columns.append(np.vstack([_caption(name, scaled.shape[1]), scaled]))
    return np.hstack(columns)


def _caption(text: str, width: int) -> np.ndarray:
    strip = np.full((CAPTION, width, 3), 255, np.uint8)
    # OpenCV's built-in font has no letters beyond ASCII.
    readable = text.encode('ascii', 'replace').decode()
    cv2.putText(strip, readable, (4, CAPTION - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return strip


def _question_montage(asked: Asked) -> np.ndarray:
    images = {'camera': asked.camera}
    for name, image in (('depth', asked.reply.depth_color), ('segmentation', asked.reply.segmentation)):
        if image is not None:
            images[name] = image
    pictures = montage(images)
    said = asked.reply.answer if asked.answered else f'no answer: {asked.message}'
    lines = [f'Q ({asked.question.mode}): {asked.question.text}', f'A: {said}']
    return np.vstack([*(_caption(line, pictures.shape[1]) for line in lines), pictures])


def _told(number: int, asked: Asked) -> str:
    reply = asked.reply
    lines = [f'[{number}] {asked.question.mode}, by {asked.via}: {asked.question.text}']
    if reply is not None:
        lines += [f'  thought {turn}: {thought.strip()}' for turn, thought in enumerate(reply.thoughts)]
        lines += [f'  generated: {name}' for name in asked.images]
    lines.append(f'  answer: {reply.answer}' if asked.answered else f'  no answer: {asked.message}')
    if asked.truth is not None:
        lines.append(f'  truth: {asked.truth["answer"]}')
    return '\n'.join(lines)
