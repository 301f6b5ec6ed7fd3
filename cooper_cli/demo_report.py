"""What a demo run has seen, whether all of it worked, and how it is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from textwrap import shorten
from typing import Any

import numpy as np

from cooper_model.types import MODES
from cooper_ros.client import Feedback, Question, Reply
from cooper_ros.topics import METRIC_OUTPUTS
from cooper_ros.watcher import Picture

LINE = 90


@dataclass
class Asked:
    """One question and what came of it.

    :param truth: the right answer where it is known, as on ``~/truth``
    :param error: why there was no reply
    :param camera: the camera image that the reply is about
    """

    question: Question
    truth: dict[str, Any] | None = None
    via: str = ''
    reply: Reply | None = None
    error: str = ''
    feedback: list[Feedback] = field(default_factory=list)
    camera: np.ndarray | None = None

    @property
    def answered(self) -> bool:
        """Whether there is an answer."""
        return self.reply is not None and self.reply.success

    @property
    def message(self) -> str:
        """Why there is no answer."""
        return self.error or (self.reply.message if self.reply else '')

    @property
    def seconds(self) -> float:
        """From asking to the reply."""
        return self.reply.seconds if self.reply else float('nan')

    @property
    def right(self) -> bool | None:
        """Whether the answer agrees with the truth; None where that is not known."""
        if self.truth is None or not self.answered:
            return None
        from cooper_sim.grading import Truth, is_right

        truth = self.truth
        known = Truth(truth['answer'], truth['value'], truth['unit'], tuple(truth['choices']))
        return is_right(self.reply.answer, known)

    @property
    def said(self) -> str:
        """The answer, or in brackets why there is none, cut to a line."""
        return shorten(self.reply.answer if self.answered else f'({self.message})', LINE, placeholder=' ...')

    def line(self) -> str:
        """Return question, answer and verdict in a line for people."""
        verdict = {None: '', True: ', agrees', False: f', truth: {self.truth and self.truth["answer"]}'}[self.right]
        head = f'{self.question.mode:10} {self.via:7} {self.question.text}'
        return f'{head} -> {self.said} [{self.seconds:.1f} s{verdict}]'

    def record(self) -> dict[str, Any]:
        """Return what there is to say, for JSON."""
        reply = self.reply
        return {
            'question': self.question.text,
            'category': self.truth['category'] if self.truth else None,
            'mode': self.question.mode,
            'via': self.via,
            'success': self.answered,
            'message': self.message,
            'answer': reply.answer if reply else '',
            'value': reply.value if reply else None,
            'unit': reply.unit if reply else '',
            'confidence': reply.confidence if reply else 0.0,
            'truth': self.truth['answer'] if self.truth else None,
            'right': self.right,
            'seconds': self.seconds,
            'stamp_ns': reply.stamp_ns if reply else 0,
            'query_id': reply.query_id if reply else '',
            'thoughts': list(reply.thoughts) if reply else [],
            'images': self.images,
            'feedback': len(self.feedback),
        }

    @property
    def images(self) -> list[str]:
        """Kinds of images that the reply brought."""
        reply = self.reply
        kinds = {'depth': reply and reply.depth_color, 'segmentation': reply and reply.segmentation}
        return [name for name, image in kinds.items() if image is not None]


@dataclass
class Report:
    """A run in figures.

    :param recorded: images of the camera in a bag, 0 for other sources
    :param published: images that the camera sent, repetitions of the last one included
    :param distinct_images: different headers among them
    :param received, used, dropped, undecodable: of these, as the node counts them
    :param perceived: frames that the node perceived; perceived_headers: different images among those published
    :param foreign_headers: headers of published messages that no camera image had
    :param problems: why the run failed; empty where all worked
    """

    camera: str
    kind: str
    problems: list[str] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    start_seconds: float = 0.0
    seconds: float = 0.0
    recorded: int = 0
    published: int = 0
    distinct_images: int = 0
    received: int = 0
    used: int = 0
    dropped: int = 0
    undecodable: int = 0
    perceived: int = 0
    failed: int = 0
    perceived_headers: int = 0
    outputs: dict[str, int] = field(default_factory=dict)
    foreign_headers: dict[str, list[str]] = field(default_factory=dict)
    objects: int = 0
    relations: int = 0
    camera_status: int | None = None
    node_status: int | None = None
    pictures: list[Picture] = field(default_factory=list)
    files: list[str] = field(default_factory=list)

    @property
    def lost(self) -> int:
        """Images that left the camera and did not reach the node."""
        return max(0, self.published - self.received)

    @property
    def judged(self) -> list[Asked]:
        """The questions whose true answer is known and that were answered."""
        return [asked for asked in self.asked if asked.right is not None]

    @property
    def right(self) -> int:
        """How many of those agree with the truth."""
        return sum(bool(asked.right) for asked in self.judged)

    def agreement(self) -> dict[str, tuple[int, int]]:
        """Return how many answers agree with the truth, and of how many that is known, by mode."""
        judged = {mode: [asked.right for asked in self.judged if asked.question.mode == mode] for mode in MODES}
        return {mode: (sum(map(bool, verdicts)), len(verdicts)) for mode, verdicts in judged.items() if verdicts}

    def agreement_line(self) -> str:
        """Return the agreement in a line for people, empty where no true answer is known."""
        if not self.judged:
            return ''
        by_mode = ', '.join(f'{mode} {right} of {known}' for mode, (right, known) in self.agreement().items())
        return f'{self.right} of {len(self.judged)} answers agree with the simulation: {by_mode}'

    def record(self) -> dict[str, Any]:
        """Return everything for JSON."""
        return {
            'passed': not self.problems,
            'problems': self.problems,
            'camera': {
                'source': self.camera,
                'kind': self.kind,
                'recorded': self.recorded,
                'published': self.published,
            },
            'frames': {
                'distinct': self.distinct_images,
                'received': self.received,
                'used': self.used,
                'dropped': self.dropped,
                'undecodable': self.undecodable,
                'lost_in_transport': self.lost,
                'perceived': self.perceived,
            },
            'outputs': self.outputs,
            'headers': {'checked': self.perceived_headers, 'foreign': self.foreign_headers},
            'questions': [asked.record() for asked in self.asked],
            'agreement': {
                'judged': len(self.judged),
                'right': self.right,
                'by_mode': {
                    mode: {'judged': known, 'right': right} for mode, (right, known) in self.agreement().items()
                },
            },
            'scene': {'objects': self.objects, 'relations': self.relations},
            'seconds': {'start': self.start_seconds, 'total': self.seconds},
            'files': self.files,
        }


def silent_topics(outputs: Mapping[str, int], kind: str) -> list[str]:
    """Return the topics on which nothing came although something should have.

    :param outputs: messages by topic
    :param kind: of the camera source
    """
    # Metres and the camera's calibration are not to be had from every checkpoint and source.
    optional = METRIC_OUTPUTS if kind == 'sim' else (*METRIC_OUTPUTS, 'depth/camera_info')
    return [name for name, count in outputs.items() if not count and name not in optional]


def check(report: Report) -> None:
    """Add to ``report.problems`` everything that a working system would have done otherwise.

    Whether answers agree with the truth is reported and is no condition. A real picture may be beyond the model, so
    there a question may fail if the reply says why; a simulated one may not.
    """
    if report.problems:
        return
    problems = report.problems
    silent = silent_topics(report.outputs, report.kind)
    if silent:
        problems.append(f'nothing was published on {", ".join(silent)}')
    if report.foreign_headers:
        problems.append(f'messages with headers that no camera image had: {report.foreign_headers}')
    if not report.perceived_headers:
        problems.append('no image was perceived')
    waiting = report.received - report.used - report.dropped
    if waiting not in (0, 1):
        problems.append(f'{report.received} images were received, but {report.used} used and {report.dropped} dropped')
    missing = [mode for mode in MODES if mode not in {asked.question.mode for asked in report.asked}]
    if missing:
        problems.append(f'no question was asked in mode {", ".join(missing)}')
    for asked in report.asked:
        if not asked.answered and (report.kind == 'sim' or asked.error or not asked.message):
            problems.append(
                f'no answer to {asked.question.text!r} ({asked.question.mode}): {asked.message or "no reason given"}'
            )
    if report.asked and not any(asked.answered for asked in report.asked):
        problems.append('no question was answered')
    for name, status in (('camera', report.camera_status), ('node', report.node_status)):
        if status not in (0, None):
            problems.append(f'the {name} ended with status {status}')
