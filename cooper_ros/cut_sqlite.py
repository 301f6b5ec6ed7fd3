"""A sqlite3 bag without its end."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from rosbags.interfaces import Connection, ConnectionExtRosbag2, MessageDefinition, MessageDefinitionFormat
from rosbags.typesys import Stores, get_types_from_msg, get_typestore


class CutSqlite:
    """Reads rows in the order in which they were written, until a page is missing.

    :raises ValueError: not even the list of topics can be read
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage = ''
        self.connections: list[Connection] = []
        # Humble's bags carry no definitions.
        self.typestore = get_typestore(Stores.ROS2_HUMBLE)
        try:
            # Without a journal to look at, the file is read as it is.
            self._database = sqlite3.connect(f'file:{path}?mode=ro&immutable=1', uri=True, check_same_thread=False)
            # A file that is shorter than it says is otherwise refused as a whole.
            self._database.execute('PRAGMA writable_schema=ON')
            topics = self._database.execute('SELECT id, name, type FROM topics').fetchall()
        except sqlite3.Error as error:
            raise ValueError(f'{path}: not even its topics can be read ({error})') from error
        for kind, text in self._definitions():
            self.typestore.register(get_types_from_msg(text, kind))
        counts = self._count()
        for number, topic, kind in topics:
            definition = MessageDefinition(MessageDefinitionFormat.NONE, '')
            ext = ConnectionExtRosbag2('cdr', [])
            self.connections.append(Connection(number, topic, kind, definition, '', counts.get(number, 0), ext, self))

    def _definitions(self) -> list[tuple[str, str]]:
        """Return the definitions that the standard ones lack."""
        query = "SELECT topic_type, encoded_message_definition FROM message_definitions WHERE encoding = 'ros2msg'"
        try:
            found = self._database.execute(query).fetchall()
        except sqlite3.Error:
            return []
        return [(kind, text) for kind, text in found if kind not in self.typestore.fielddefs]

    def _count(self) -> dict[int, int]:
        counts: dict[int, int] = {}
        for number, _, _ in self._rows():
            counts[number] = counts.get(number, 0) + 1
        return counts

    def _rows(self) -> Iterator[tuple[int, int, bytes]]:
        try:
            # By row: an index by time may be lost.
            yield from self._database.execute('SELECT topic_id, timestamp, data FROM messages NOT INDEXED ORDER BY id')
        except sqlite3.Error as error:
            self.damage = f'{self.path.name} is cut off or damaged ({error})'

    def messages(
        self, connections: Collection[Connection], start: int | None = None, stop: int | None = None
    ) -> Iterator[tuple[Connection, int, bytes]]:
        """Yield the messages of some topics recorded in ``start`` .. ``stop`` - 1 [ns]."""
        wanted = {connection.id: connection for connection in connections}
        for number, time_ns, data in self._rows():
            if number in wanted and (start is None or start <= time_ns) and (stop is None or time_ns < stop):
                yield wanted[number], time_ns, data

    def deserialize(self, raw: bytes, kind: str) -> Any:
        """Return a message with fields as in its definition."""
        return self.typestore.deserialize_cdr(raw, kind)

    def close(self) -> None:
        """Close the file."""
        self._database.close()
