"""What people said of recorded questions, beside the bag: one line of JSON each, masks as PNG. Knows nothing of ROS.

Lines are only ever appended. Later ones add to earlier ones and hold where both speak, so saying a thing twice changes
nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cooper_ros.recording.rotation import CORRECTIONS

_UNSAFE = re.compile(r'[^A-Za-z0-9]+')


class CorrectionError(ValueError):
    """A correction says nothing or cannot be kept; the text names the remedy."""


@dataclass(frozen=True)
class Correction:
    """One thing that was said of a question.

    :param answer: what the answer should have been; empty where nothing is said of it
    :param useless: neither the frame nor the question is to be learned from; None where nothing is said of it
    :param object: name of the object that ``mask`` shows
    :param mask: ``(height, width)`` bool, where that object is visible
    :param stamp_ns: when it was said [ns]
    """

    query_id: str
    answer: str = ''
    note: str = ''
    useless: bool | None = None
    object: str = ''
    mask: np.ndarray | None = None
    stamp_ns: int = 0

    def check(self, size: tuple[int, int] | None = None) -> None:
        """Check that something is said, and that a mask can be used.

        :param size: height and width of the frame [px], where they are known
        :raises CorrectionError: with the reason
        """
        if not self.query_id:
            raise CorrectionError('query_id is empty; take it from the response of the query')
        if not (self.answer or self.note) and self.useless is None and self.mask is None:
            raise CorrectionError('the correction says nothing; give an answer, a mask, a note, or useless')
        if self.mask is None:
            return
        if not self.object:
            raise CorrectionError('the mask has no object; name what it shows, for example: red mug')
        if size is not None and self.mask.shape != size:
            raise CorrectionError(
                f'the mask has {self.mask.shape[1]} x {self.mask.shape[0]} pixels, the frame {size[1]} x {size[0]}; '
                'draw it over the frame as recorded'
            )


@dataclass(frozen=True)
class Verdict:
    """All that was said of one question.

    :param masks: file of each object's mask, by name, within the bag's folder
    """

    answer: str = ''
    note: str = ''
    useless: bool = False
    masks: dict[str, str] = field(default_factory=dict)


class CorrectionStore:
    """The corrections of one bag.

    :param bag: its folder, or a file in it
    """

    def __init__(self, bag: Path) -> None:
        self.folder = bag.parent if bag.is_file() else bag
        self.path = self.folder / CORRECTIONS

    def verdicts(self) -> dict[str, Verdict]:
        """Return what was said of each question, by id. A line that was cut off says nothing."""
        verdicts: dict[str, Verdict] = {}
        if self.path.exists():
            for line in self.path.read_text(encoding='utf-8').splitlines():
                try:
                    entry = json.loads(line)
                    verdicts[entry['query_id']] = _added(verdicts.get(entry['query_id'], Verdict()), entry)
                except (ValueError, KeyError, TypeError):
                    continue
        return verdicts

    def mask(self, verdict: Verdict, name: str) -> np.ndarray | None:
        """Return the mask of an object, ``(height, width)`` bool, where its file can be read."""
        picture = cv2.imread(str(self.folder / verdict.masks[name]), cv2.IMREAD_GRAYSCALE)
        return None if picture is None else picture > 0

    def add(self, correction: Correction) -> bool:
        """Keep a correction; return whether it said anything new.

        :raises CorrectionError: it says nothing, or the bag is gone
        :raises OSError: it cannot be written
        """
        correction.check()
        if not self.folder.is_dir():
            raise CorrectionError(
                f'{self.folder} is gone, and with it the question {correction.query_id!r}; raise record_max_size to '
                'keep bags for longer'
            )
        before = self.verdicts().get(correction.query_id, Verdict())
        entry: dict[str, Any] = {'query_id': correction.query_id, 'stamp_ns': correction.stamp_ns or time.time_ns()}
        entry.update({name: value for name in ('answer', 'note') if (value := getattr(correction, name).strip())})
        if correction.useless is not None:
            entry['useless'] = correction.useless
        if correction.mask is not None:
            entry['mask'] = {'object': correction.object, 'file': self._keep_mask(correction)}
        if _added(before, entry) == before:
            return False
        # A line that was cut off by a crash must not swallow this one.
        text = ('' if self._ends_well() else '\n') + json.dumps(entry, ensure_ascii=False) + '\n'
        with self.path.open('a', encoding='utf-8') as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        return True

    def _ends_well(self) -> bool:
        if not self.path.exists() or not self.path.stat().st_size:
            return True
        with self.path.open('rb') as file:
            file.seek(-1, os.SEEK_END)
            return file.read() == b'\n'

    def _keep_mask(self, correction: Correction) -> str:
        """Write the mask under a name that its content decides, and return the name."""
        _, data = cv2.imencode('.png', correction.mask.astype(np.uint8) * 255)
        words = '_'.join(_UNSAFE.sub('-', text) for text in (correction.query_id, correction.object))
        name = f'corrections/{words}_{hashlib.sha256(data.tobytes()).hexdigest()[:12]}.png'
        path = self.folder / name
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data.tobytes())
        return name


def _added(verdict: Verdict, entry: dict[str, Any]) -> Verdict:
    changes = {name: entry[name] for name in ('answer', 'note', 'useless') if name in entry}
    if 'mask' in entry:
        changes['masks'] = {**verdict.masks, entry['mask']['object']: entry['mask']['file']}
    return replace(verdict, **changes)
