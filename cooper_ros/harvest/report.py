"""What was used of a bag, what was left out, and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

CLOCKS_APART = 0.5  # [s]


@dataclass
class BagReport:
    """Filled while a bag is read.

    :ivar camera: name of the camera in it
    :ivar topics: topic by role
    :ivar unused: reason by topic
    :ivar counts: images read and chosen, frames with depth, mask, camera and up, questions, corrections
    :ivar left_out: how often something was left out, by reason
    :ivar problems: what is wrong with the bag, each once
    :ivar offsets: from image to depth and to mask [s], median and largest of those taken, by role
    """

    bag: str
    camera: str = ''
    topics: dict[str, str] = field(default_factory=dict)
    unused: dict[str, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    offsets: dict[str, dict[str, float]] = field(default_factory=dict)
    tolerance: float = 0.0

    def problem(self, text: str) -> None:
        """Name something that is wrong, once."""
        if text and text not in self.problems:
            self.problems.append(text)

    def add_offsets(self, role: str, seconds: list[float]) -> None:
        """Tell how far apart in time the pairs are that were taken."""
        if seconds:
            self.offsets[role] = {'median': float(np.median(seconds)), 'largest': float(max(seconds, key=abs))}

    def check_clocks(self, delays: dict[str, float]) -> None:
        """Name topics whose stamps lie differently to the time of recording.

        :param delays: median of time of recording minus stamp, by topic [s]
        """
        image, *others = delays.items() if delays else (('', 0.0),)
        for topic, delay in others:
            if abs(delay - image[1]) > CLOCKS_APART:
                self.problem(
                    f'clocks disagree: stamps of {topic} lie {delay:.2f} s before their recording, those of {image[0]} '
                    f'{image[1]:.2f} s; synchronise the clocks of the machines (chrony), or correct the driver'
                )

    def record(self) -> dict[str, Any]:
        """Return all of it for JSON."""
        return {
            'bag': self.bag,
            'camera': self.camera,
            'topics': self.topics,
            'unused_topics': self.unused,
            'counts': dict(self.counts),
            'left_out': dict(self.left_out),
            'problems': self.problems,
            'tolerance': self.tolerance,
            'offsets': self.offsets,
        }
