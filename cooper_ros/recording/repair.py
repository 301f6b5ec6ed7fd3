"""Giving a bag that was cut off its index and metadata back, so that every tool reads it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from rosbags.typesys.store import Typestore

from cooper_ros.bags import BagError
from cooper_ros.cut_mcap import CutMcap
from cooper_ros.recording.bag_writer import BagWriter


class _Carried:
    """The definitions that a bag brought along."""

    def __init__(self, store: Typestore) -> None:
        self._store = store

    def require(self, _: str) -> Typestore:
        return self._store


def repair(folder: Path) -> int:
    """Rewrite the MCAP file of a bag as far as it is whole; return the number of its messages.

    The old file goes only when the new one is complete; corrections beside it stay.

    :raises BagError: the folder is no bag that was cut off, or nothing in it can be read
    :raises OSError: the new file cannot be written; the old one is untouched
    """
    files = sorted(folder.glob('*.mcap')) if folder.is_dir() else []
    if len(files) != 1 or (folder / 'metadata.yaml').exists():
        raise BagError(
            f'{folder} is no bag that was cut off: that is a folder with one .mcap file and no metadata.yaml; '
            'other bags: ros2 bag reindex'
        )
    try:
        cut = CutMcap(files[0])
    except ValueError as error:
        raise BagError(f'bag {folder}: nothing in it can be read ({error})') from error
    place = folder / '.repair'
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    try:
        writer = BagWriter(place / folder.name, _Carried(cut.typestore))
        for connection, time_ns, raw in cut.messages(cut.connections):
            latched = connection.topic in cut.latched
            writer.write(connection.topic, connection.msgtype, time_ns, raw, latched=latched)
        writer.close()
        for made in sorted(writer.folder.iterdir(), key=lambda path: path.name == 'metadata.yaml'):
            os.replace(made, folder / made.name)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    if files[0].name != f'{folder.name}.mcap':
        files[0].unlink()
    return writer.messages
