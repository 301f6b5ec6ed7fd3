"""Recorded questions of one or many bags on the desk of whoever corrects them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cooper_ros.bags import BagError
from cooper_ros.recording.corrections import Correction, CorrectionError, CorrectionStore, Verdict
from cooper_ros.recording.reader import Pictures, QuestionBag, Recorded
from cooper_ros.recording.rotation import PREFIX

_PICTURES_KEPT = 8


@dataclass(frozen=True)
class Entry:
    """A question, the bag that holds it, and what was said of it."""

    bag: Path
    question: Recorded
    verdict: Verdict


def bags_in(path: Path) -> list[Path]:
    """Return the bags that a path names: a bag, or all bags of a folder that was recorded into.

    :raises BagError: there are none
    """
    if not path.exists():
        raise BagError(f'bag {path} does not exist; check the path')
    if path.is_file() or any(each.suffix in ('.mcap', '.db3') for each in path.iterdir()):
        return [path]
    found = sorted(each for each in path.iterdir() if each.is_dir() and each.name.startswith(PREFIX))
    found += sorted(each.parent for each in path.glob('*/metadata.yaml') if not each.parent.name.startswith(PREFIX))
    if not found:
        raise BagError(f'{path} holds no bags; give a bag, or the folder that was given to: cooper record FOLDER')
    return found


class Desk:
    """Reads questions and keeps corrections.

    :param path: a bag, or a folder of bags
    :ivar damages: why bags end before their end, by bag
    :raises BagError: nothing can be read
    """

    def __init__(self, path: Path) -> None:
        self.damages: dict[Path, str] = {}
        self._places: dict[str, tuple[Path, Recorded]] = {}
        for bag in bags_in(path):
            self._open(bag)
        self._pictures = lru_cache(maxsize=_PICTURES_KEPT)(self._read_pictures)

    def _open(self, path: Path) -> None:
        try:
            with QuestionBag(path) as bag:
                questions, corrections = bag.questions(), bag.corrections()
                damage = bag.damage
        except BagError as error:
            self.damages[path] = str(error)
            return
        if damage:
            self.damages[path] = damage
        self._places.update({question.query_id: (path, question) for question in questions})
        store = CorrectionStore(path)
        if corrections and not store.path.exists():
            # The bag was copied without what lay beside it, but has what was said while it was recorded.
            for correction in corrections:
                store.add(correction)

    def entries(self) -> list[Entry]:
        """Return all questions in the order in which they were asked, with what has been said of them by now."""
        verdicts = {bag: CorrectionStore(bag).verdicts() for bag in {bag for bag, _ in self._places.values()}}
        places = sorted(self._places.values(), key=lambda place: place[1].time_ns)
        return [
            Entry(bag, question, verdicts[bag].get(question.query_id, Verdict())) for bag, question in places
        ]

    def entry(self, query_id: str) -> Entry:
        """Return one question.

        :raises CorrectionError: there is no such question
        """
        if query_id not in self._places:
            raise CorrectionError(f'no question {query_id!r} is recorded here; list them with: cooper correct BAG')
        bag, question = self._places[query_id]
        return Entry(bag, question, CorrectionStore(bag).verdicts().get(query_id, Verdict()))

    def pictures(self, query_id: str) -> Pictures:
        """Return the images of a question."""
        self.entry(query_id)
        return self._pictures(query_id)

    def _read_pictures(self, query_id: str) -> Pictures:
        path, question = self._places[query_id]
        with QuestionBag(path) as bag:
            return bag.pictures(question)

    def correct(self, correction: Correction) -> bool:
        """Keep a correction; return whether it says anything new.

        :raises CorrectionError: it says nothing, or of no question that is here
        :raises OSError: it cannot be written
        """
        entry = self.entry(correction.query_id)
        if correction.mask is not None:
            image = self.pictures(correction.query_id).image
            correction.check(None if image is None else image.shape[:2])
        return CorrectionStore(entry.bag).add(correction)
