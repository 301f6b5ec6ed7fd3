"""From bags to a robot's data folder: frames, questions by rule, and what people corrected."""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cooper_cli.bag2data_objects import Seen, observe, parse_labels, questions_about
from cooper_model.types import Frame
from cooper_ros.bags import BagError
from cooper_ros.harvest.frames import Harvest, Harvested, Options
from cooper_ros.harvest.novelty import Novelty
from cooper_ros.harvest.report import BagReport
from cooper_ros.harvest.streams import TEXT, Cameras, Streams, find_cameras, find_streams, is_of_instances
from cooper_ros.recording.corrections import CorrectionStore, Verdict
from cooper_ros.recording.desk import Desk, Entry
from cooper_ros.recording.reader import RECORD, Recorded
from cooper_ros.salvage import Bag, open_bag
from cooper_sim.grading import read_number
from cooper_sim.robot_format import UNKNOWN, RobotQuestion, RobotWriter
from cooper_sim.types import VisibleObject

REPORT = 'report.json'
ALL = 'all'
_UNSAFE = re.compile(r'[^\w.-]+')


@dataclass(frozen=True)
class Wishes:
    """What to make of the bags.

    :param labels: names by number, for masks whose bag does not tell them
    :param per_frame: questions a frame
    :param progress: told what is being done
    :param cameras: names of those of a bag that are wanted, or ``all``; nothing = the best
    """

    options: Options
    labels: Mapping[int, str] = field(default_factory=dict)
    per_frame: int = 4
    progress: Callable[[str], None] = lambda text: None
    cameras: tuple[str, ...] = ()


class DataFolder:
    """Adds bags to a folder; goes on where an earlier run stopped, and adds nothing twice."""

    def __init__(self, folder: Path, wishes: Wishes) -> None:
        self._writer = RobotWriter(folder)
        self._wishes = wishes
        self._novelty = Novelty(wishes.options.novelty)
        self._asked = {(question.frame, question.question): question for question in self._writer.questions}
        self._earlier = set(self._writer.frames)
        self._told = _read_report(folder / REPORT)

    def add(self, bags: list[Path]) -> list[BagReport]:
        """Add bags and return what became of each of their cameras; what cannot be read is told of, the rest used."""
        ours = tuple(f'{prefix_of(path)}_' for path in bags)
        for name in sorted(self._earlier):
            if not name.startswith(ours):  # frames of these bags are chosen again in their order
                self._novelty.remember(_read(self._writer.folder / 'images' / f'{name}.png'))
        reports = []
        for path in bags:
            self._wishes.progress(f'reading {path}')
            reports += self._add_bag(path)
        self._write_report([report.record() for report in reports])
        return reports

    def _write_report(self, records: list[dict[str, Any]]) -> None:
        """Tell of every bag and camera that ever went in; of those at hand only what is said now."""
        now = {(each['bag'], each['camera']) for each in records} | {(each['bag'], '') for each in records}
        self._told = [each for each in self._told if (each['bag'], each['camera']) not in now] + records
        totals = {'frames': len(self._writer.frames), 'questions': len(self._writer.questions)}
        text = json.dumps({**totals, 'bags': self._told}, indent=1, ensure_ascii=False)
        path = self._writer.folder / REPORT
        fresh = path.with_suffix('.tmp')
        fresh.write_text(text + '\n', encoding='utf-8')
        os.replace(fresh, path)

    def _add_bag(self, path: Path) -> list[BagReport]:
        reports = [BagReport(str(path))]
        try:
            bag = open_bag(path)
        except BagError as error:
            reports[0].problem(str(error))
            return reports
        try:
            self._add_open_bag(path, bag, reports)
        except BagError as error:
            reports[-1].problem(str(error))
        finally:
            bag.close()
        reports[0].problem(bag.damage)  # also where nothing before it was worth a frame
        return reports

    def _add_open_bag(self, path: Path, bag: Bag, reports: list[BagReport]) -> None:
        """Add each camera that is wanted, with a report of its own, and then what was corrected."""
        desk = Desk(path) if RECORD in bag.types.values() else None
        entries = [] if desk is None else _corrected(desk, reports[0])
        cameras = find_cameras(bag)
        for number, name in enumerate(self._chosen(cameras, reports[0])):
            if number:
                reports.append(BagReport(str(path)))
            try:
                self._add_camera(path, bag, cameras, name, entries, reports[-1])
            except BagError as error:
                reports[-1].problem(str(error))
        for entry in entries:
            names = names_of(path, entry.question, cameras)
            if not entry.verdict.useless:
                self._add_correction(names, desk, entry, reports[0])
            elif earlier := self._earlier.intersection(names):
                reports[0].problem(
                    f'{", ".join(sorted(earlier))}: called useless after it was put into the folder, where it stays; '
                    'begin a new folder to leave it out'
                )

    def _chosen(self, cameras: Cameras, report: BagReport) -> tuple[str, ...]:
        """Return the names of the cameras that are wanted; an empty one stands for the best."""
        names, wanted = tuple(cameras.by_name), self._wishes.cameras
        if ALL in wanted:
            return names or ('',)
        if not wanted and not self._wishes.options.wanted.image and len(names) > 1:
            report.problem(
                f'there are several cameras, of which the first was taken: {", ".join(names)}; choose with '
                f'--camera NAME, which may be repeated, or take all with --camera {ALL}'
            )
        return wanted or ('',)

    def _add_camera(
        self, path: Path, bag: Bag, cameras: Cameras, name: str, entries: list[Entry], report: BagReport
    ) -> None:
        options, report.camera = self._wishes.options, name
        streams = find_streams(bag, cameras, replace(options.wanted, camera=name))
        labels = self._labels(bag, streams.labels)
        if streams.mask is not None and not labels:
            report.problem(f'{streams.mask.name}: nothing names what it shows; give --labels FILE')
        useless = frozenset(
            asked.stamp_ns
            for asked in (entry.question for entry in entries if entry.verdict.useless)
            if streams.camera in ('', cameras.taking(asked.frame_id, asked.camera))
        )
        harvest = Harvest(bag, streams, replace(options, useless=useless), self._novelty, report)
        for harvested in harvest.frames():
            self._add_frame(path, harvested, labels, streams, report)

    def _labels(self, bag: Bag, topic: str) -> dict[int, str]:
        labels: dict[int, str] = {}
        if topic:
            for _, _, message in bag.read((topic,)):
                if bag.types[topic] == TEXT:
                    try:
                        labels.update(parse_labels(message.data, f'{bag.path}, {topic}'))
                    except ValueError as error:
                        raise BagError(str(error)) from error
                else:
                    labels.update({int(each.class_id): each.class_name.strip().lower() for each in message.class_map})
        return {**labels, **self._wishes.labels}

    def _add_frame(
        self, path: Path, harvested: Harvested, labels: Mapping[int, str], streams: Streams, report: BagReport
    ) -> None:
        instances = streams.mask is not None and is_of_instances(streams.mask)
        name = frame_name(path, harvested.frame.stamp_ns, '' if streams.best else streams.camera)
        seen = observe(harvested, labels, instances=instances) if labels else None
        report.counts['objects'] += 0 if seen is None else len(seen.visible)
        if name in self._writer.frames:
            report.left_out['is in the folder already'] += 1
        else:
            up = harvested.up if seen is None else seen.up
            things = () if seen is None else seen.visible
            self._writer.add_frame(name, harvested.frame, None if seen is None else seen.instances, things, up)
            report.counts['frames'] += 1
        if seen is not None:
            self._ask(name, seen, labels, report)

    def _ask(self, name: str, seen: Seen, labels: Mapping[int, str], report: BagReport) -> None:
        for each in questions_about(seen, labels, zlib.crc32(name.encode()), self._wishes.per_frame):
            question = RobotQuestion(
                name, each.text, each.answer, each.form, each.choices, each.value, each.unit, each.category,
                each.object_ids,
            )  # fmt: skip
            report.counts['questions'] += self._add_question(question)

    def _add_question(self, question: RobotQuestion) -> bool:
        key = (question.frame, question.question)
        known = self._asked.get(key)
        # A person's word holds, and their last one.
        if known is not None and (question.source == 'rule' or known.answer == question.answer):
            return False
        self._writer.add_question(question)
        self._asked[key] = question
        return True

    def _add_correction(self, names: tuple[str, str], desk: Desk, entry: Entry, report: BagReport) -> None:
        """Add what a person last said of a question: a frame with the masks that were drawn, and the right answer.

        :param names: as of :func:`names_of`
        """
        recorded, verdict = entry.question, entry.verdict
        apart = names[1]
        shown = names if recorded.live else (apart,)
        there = [name for name in shown if name in self._writer.frames]
        name = there[0] if there and not verdict.masks else apart
        changed = (name not in there or bool(verdict.masks)) and self._draw(name, desk, entry, report)
        if name not in self._writer.frames:
            report.left_out['corrected question without its frame'] += 1
            return
        if verdict.answer:
            # An earlier answer may stand beside the camera's frame, where there were no masks yet.
            asked = {name, *(each for each in there if (each, recorded.question) in self._asked)}
            added = sum(self._add_question(corrected_question(each, entry)) for each in sorted(asked)) > 0
            report.counts['corrections'] += added
            changed = changed or added
        if not changed and (verdict.answer or verdict.masks):
            report.left_out['correction is in the folder already'] += 1

    def _draw(self, name: str, desk: Desk, entry: Entry, report: BagReport) -> bool:
        """Add a frame with the masks that a person drew, or give it those drawn since; return whether any are new."""
        recorded, verdict = entry.question, entry.verdict
        pictures, store = desk.pictures(recorded.query_id), CorrectionStore(entry.bag)
        if pictures.image is None:
            return False
        masks = {each: mask for each in verdict.masks if (mask := store.mask(verdict, each)) is not None}
        for each, file in verdict.masks.items():
            if each not in masks:
                report.problem(f'{store.folder / file}: this mask cannot be read; draw {each!r} again')
        frame = Frame(pictures.image, pictures.intrinsics, pictures.depth, recorded.stamp_ns, recorded.frame_id)
        instances, things = drawn(frame, masks)
        if name not in self._writer.frames:
            self._writer.add_frame(name, frame, instances, things)
            report.counts['corrected frames'] += 1
            return True
        # What the folder has of a mask that is lost now is kept.
        if len(masks) < len(verdict.masks) or not self._writer.change_mask(name, instances, things):
            return False
        report.counts['masks changed'] += 1
        return True


def _corrected(desk: Desk, report: BagReport) -> list[Entry]:
    """Return the questions of a bag that somebody has corrected."""
    entries = desk.entries()
    report.counts['recorded questions'] += len(entries)
    corrected = [entry for entry in entries if entry.verdict != Verdict()]
    report.counts['corrected'] += len(corrected)
    report.counts['called useless'] += sum(entry.verdict.useless for entry in corrected)
    return corrected


def prefix_of(path: Path) -> str:
    """Return what ids of the frames of a bag begin with."""
    return _UNSAFE.sub('-', path.name if path.is_dir() else path.stem)


def frame_name(path: Path, stamp_ns: int, apart: str = '') -> str:
    """Return the id of a frame.

    :param apart: what keeps it apart from the bag's first camera at this time: another camera, or a corrected question
    """
    return f'{prefix_of(path)}_{stamp_ns}{f"_{apart}" if apart else ""}'


def names_of(path: Path, recorded: Recorded, cameras: Cameras) -> tuple[str, str]:
    """Return the id of a question's frame as the camera's, and as one of its own."""
    camera = cameras.taking(recorded.frame_id, recorded.camera)
    if camera == next(iter(cameras.by_name), ''):
        camera = ''  # frames of the best one do not name it
    return frame_name(path, recorded.stamp_ns, camera), frame_name(path, recorded.stamp_ns, recorded.query_id)


def drawn(frame: Frame, masks: Mapping[str, np.ndarray]) -> tuple[np.ndarray | None, tuple[VisibleObject, ...]]:
    """Return the instance image of masks that people drew, unknown elsewhere, and its objects."""
    if not masks:
        return None, ()
    numbered = np.zeros(frame.image.shape[:2], np.int32)
    for number, mask in enumerate(masks.values(), start=1):
        numbered[mask] = number
    labels = dict(enumerate((name.lower() for name in masks), start=1))
    seen = observe(Harvested(frame, numbered, None, None), labels, instances=True)
    return np.where(seen.instances > 0, seen.instances, UNKNOWN), seen.visible


def corrected_question(name: str, entry: Entry) -> RobotQuestion:
    """Return a recorded question with the answer that a person gave."""
    recorded, answer = entry.question, entry.verdict.answer
    choices, value, unit = recorded.choices, None, ''
    form = 'yes_no' if set(choices) == {'yes', 'no'} else 'choice' if choices else 'open'
    if not choices and recorded.value is not None:
        unit = recorded.unit
        value = read_number(answer, unit)
    if value is not None:
        form = 'number'
    elif not choices and answer.lower() in ('yes', 'no'):
        form = 'yes_no'
    return RobotQuestion(
        name, recorded.question, answer, form, choices, value, unit if value is not None else '', source='correction'
    )


def _read_report(path: Path) -> list[dict[str, Any]]:
    """Return what a folder's report tells of bags.

    :raises ValueError: it cannot be read
    """
    if not path.exists():
        return []
    try:
        told = json.loads(path.read_text(encoding='utf-8'))['bags']
        return [{**each, 'bag': each['bag'], 'camera': each['camera']} for each in told]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{path} is no report of cooper bag2data ({error!r}); delete it to go on') from error


def _read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.array(picture.convert('RGB'))
