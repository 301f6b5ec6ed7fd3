"""The folder that bags are recorded into, and which of them go when it is full."""

from __future__ import annotations

import errno
import shutil
import time
from pathlib import Path

PREFIX = 'cooper_'
CORRECTIONS = 'corrections.jsonl'
_OPEN_SECONDS = 60.0


class NoRoom(OSError):
    """A limit on disk space is reached; the text names it and the remedy."""

    def __init__(self, text: str) -> None:
        super().__init__(errno.ENOSPC, text)

    def __str__(self) -> str:
        return self.strerror


class BagFolder:
    """Bags by the time of their beginning. The oldest go first; those that people have corrected stay.

    :param path: is created where it is missing
    :param limit: size of all bags together [bytes]
    :param least_free: space that must stay free on the disk [bytes]; 0 = none, it is used to its end
    :raises OSError: the folder cannot be made
    """

    def __init__(self, path: Path, limit: int, least_free: int) -> None:
        self.path = path
        self.limit = limit
        self.least_free = least_free
        path.mkdir(parents=True, exist_ok=True)

    def bags(self) -> list[Path]:
        """Return the folders of all bags, oldest first."""
        return sorted(entry for entry in self.path.iterdir() if entry.is_dir() and entry.name.startswith(PREFIX))

    def new_bag(self) -> Path:
        """Return a folder name that is not taken, later than all others."""
        stem = PREFIX + time.strftime('%Y%m%d-%H%M%S')
        # After the last one even where earlier ones of the same second are gone: names are in the order of time.
        numbers = [int(number) for bag in self.bags() if (number := bag.name.removeprefix(f'{stem}_')).isdigit()]
        return self.path / f'{stem}_{max(numbers, default=-1) + 1:03d}'

    def make_room(self, size: int, keep: Path | None = None) -> list[Path]:
        """Delete old bags until ``size`` more bytes fit; return those that were deleted.

        :param keep: the bag that is being written
        :raises NoRoom: they do not fit within the limit, or on the disk
        """
        free = shutil.disk_usage(self.path).free
        if self.least_free and free - size < self.least_free:
            raise NoRoom(
                f'{self.path} has {free / 1e6:.0f} MB free, less than record_min_free {self.least_free / 1e6:.0f} MB '
                f'after {size / 1e6:.1f} MB more; free space or record elsewhere'
            )
        deleted = []
        sizes = {bag: size_of(bag) for bag in self.bags()}
        total = sum(sizes.values()) + size
        for bag, freed in sizes.items():
            if total <= self.limit:
                break
            if bag != keep and not (bag / CORRECTIONS).exists() and not _in_use(bag):
                shutil.rmtree(bag)
                deleted.append(bag)
                total -= freed
        if total > self.limit:
            raise NoRoom(
                f'the bags in {self.path} reach record_max_size {self.limit / 1e6:.0f} MB and those left are corrected '
                'or in use; take them away (cooper bag2data) or raise record_max_size'
            )
        return deleted


def size_of(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob('*') if path.is_file())


def _in_use(bag: Path) -> bool:
    """Whether another recorder writes it: unfinished, and written to a moment ago."""
    if (bag / 'metadata.yaml').exists():
        return False
    return any(time.time() - path.stat().st_mtime < _OPEN_SECONDS for path in bag.iterdir())
