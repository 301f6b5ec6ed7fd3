"""Records a node's questions, and frames between them, in a thread of its own; never holds the node up.

The parameter ``record`` says where; an empty text closes the bag. What cannot be written ends the recording with a
reason for the diagnostics, and the node goes on answering.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rclpy.serialization import serialize_message

from cooper_model.types import Frame
from cooper_ros.encodings import ConversionError
from cooper_ros.frames import NoFrame
from cooper_ros.recording.messages import Asked, frame_messages, question_messages
from cooper_ros.recording.rotation import BagFolder, NoRoom

if TYPE_CHECKING:
    from cooper_ros.recording.bag_writer import BagWriter

MEGABYTE = 1_000_000
TICK_SECONDS = 0.2
FLUSH_SECONDS = 0.5
DEPTH_SECONDS = 0.2
QUEUE_BYTES = 256 * MEGABYTE
ROOM = 16 * MEGABYTE
STATIC = 'tf2_msgs/msg/TFMessage'
STATIC_KEPT = 1000
PICTURES = 4  # that a question holds: frame, depth, segmentation, and the smaller maps together


class Settings(Protocol):
    """The parameters that start with ``record``, by name."""

    def __getitem__(self, name: str) -> Any: ...


class Camera(Protocol):
    """Where frames between questions come from; ``newest`` raises ``NoFrame`` or ``ConversionError``."""

    name: str

    def newest(self) -> Frame: ...


@dataclass(frozen=True)
class RecordingState:
    """What the recorder does.

    :param folder: that is recorded into; empty where nothing is
    :param bag: the bag that is being written
    :param problem: why recording stopped; empty where it runs or was not asked for
    :param questions, frames, corrections: written since the node started
    :param dropped: items lost because the disk was too slow
    :param skipped: topics that cannot be recorded, with the reason
    """

    folder: str = ''
    bag: str = ''
    problem: str = ''
    questions: int = 0
    frames: int = 0
    corrections: int = 0
    dropped: int = 0
    skipped: str = ''


@dataclass(frozen=True)
class Place:
    """Where a question is recorded.

    :param bag: None while it is on its way to the disk
    :param stamp_ns, frame_id: header of its frame
    :param size: height and width of its frame [px]
    """

    bag: Path | None
    stamp_ns: int
    frame_id: str
    size: tuple[int, int]


@dataclass(frozen=True)
class _Entry:
    """One serialized message of a topic."""

    topic: str
    kind: str
    data: bytes
    latched: bool = False


@dataclass(frozen=True)
class _Item:
    """Messages that belong together: they get the same bag time.

    :param make: returns them; called in the recorder's thread, so that nobody else waits for it
    :param size: about how much memory it holds until then [bytes]
    :param counts: which count of the state goes up by one; empty for none
    :param query_id: of a question
    """

    make: Callable[[], list[_Entry]]
    size: int
    counts: str = ''
    query_id: str = ''


class Recorder:
    """The recording thread of one node. All methods may be called from any thread.

    :param topics: gives the full topic names by role, for a camera's name
    :param settings: read again at every tick, so that recording begins and ends while the node runs
    """

    def __init__(
        self, topics: Callable[[str], Mapping[str, str]], settings: Settings, cameras: Iterable[Camera]
    ) -> None:
        self.state = RecordingState()
        self._topics = topics
        self._settings = settings
        self._cameras = cameras
        self._asked_for = ''
        self._folder: BagFolder | None = None
        self._bag: BagWriter | None = None
        self._places: dict[str, Place] = {}
        self._latched: dict[str, tuple[_Entry, ...]] = {}
        self._queue: deque[_Item] = deque()
        self._queued = 0
        self._changed = threading.Condition()
        self._closing = False
        self._flushed = self._last_ns = 0
        self._room = 0
        self._looked = 0.0
        self._framed: dict[str, tuple[float, int]] = {}
        self._deep: set[str] = set()
        self._waiting: dict[str, float] = {}
        self._thread = threading.Thread(target=self._run, name='recorder', daemon=True)
        self._thread.start()

    # From other threads

    @property
    def wanted(self) -> bool:
        """Whether what is added now will be written."""
        return bool(self._settings['record']) and not self.state.problem

    def add_question(self, asked: Asked) -> None:
        """Record a question with its frame and images."""
        if not self.wanted:
            return
        frame = asked.frame
        self._places[asked.query_id] = Place(None, frame.stamp_ns, frame.frame_id, frame.image.shape[:2])
        checkpoint = self._settings['checkpoint']
        make = partial(self._entries, partial(question_messages, asked, checkpoint), asked.camera)
        self._enqueue(_Item(make, PICTURES * frame.image.nbytes, 'questions', asked.query_id))

    def place(self, query_id: str) -> Place | None:
        """Return where a question of this node is recorded, None where it is not known."""
        return self._places.get(query_id)

    def add_correction(self, message: Any) -> None:
        """Record a ``cooper_msgs/Correction``."""
        if self.wanted:
            make = partial(self._entries, lambda: {'correction': message})
            self._enqueue(_Item(make, len(message.mask.data), 'corrections'))

    def add_raw(self, topic: str, kind: str, data: bytes, *, latched: bool = False) -> None:
        """Record a message of another node's topic as it came. Latched ones are repeated in each new bag.

        That is the newest of a topic; of transforms all that differ, because each node says its own.
        """
        entry = _Entry(topic, kind, bytes(data), latched)
        kept = self._latched.get(topic, ())
        if latched and entry not in kept:
            self._latched[topic] = (*kept, entry)[-(STATIC_KEPT if kind == STATIC else 1) :]
        if self.wanted:
            self._enqueue(_Item(lambda: [entry], len(data)))

    def skip(self, reasons: str) -> None:
        """Tell which topics cannot be recorded, and why."""
        self.state = replace(self.state, skipped=reasons)

    def close(self) -> None:
        """Write what waits, finish the bag and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _entries(self, make: Callable[[], dict[str, Any]], camera: str = '') -> list[_Entry]:
        """Return messages by role as entries of a camera's topics."""
        entries, topics = [], self._topics(camera)
        for role, message in make().items():
            package, folder = type(message).__module__.split('.')[:2]
            kind = f'{package}/{folder}/{type(message).__name__}'
            entries.append(_Entry(topics[role], kind, serialize_message(message)))
        return entries

    def _enqueue(self, item: _Item) -> None:
        with self._changed:
            if self._queued + item.size > QUEUE_BYTES:
                self.state = replace(self.state, dropped=self.state.dropped + 1)
                return
            self._queue.append(item)
            self._queued += item.size
            self._changed.notify()

    # In the recorder's thread

    def _run(self) -> None:
        while not self._closing or self._queue:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closing, self._tick_seconds)
                items = list(self._queue)
                self._queue.clear()
                self._queued = 0
            try:
                self._tick(items)
            except Exception as error:  # noqa: BLE001 - told by the diagnostics; the node goes on answering
                self._stop(error)
        self._finish()

    def _tick(self, items: list[_Item]) -> None:
        self._follow_setting()
        if self._folder is None or self.state.problem:
            return
        for item in items:
            self._write(item)
        now = time.monotonic()
        # Messages of other nodes may come much faster, and to look at a frame is to decode it.
        if now - self._looked >= self._tick_seconds:
            self._looked = now
            for camera in self._cameras:
                self._record_frame(camera)
        if self._bag is not None and now - self._flushed >= FLUSH_SECONDS:
            self._bag.flush()
            self._flushed = now

    @property
    def _tick_seconds(self) -> float:
        rate = self._settings['record_rate']
        return min(TICK_SECONDS, 1 / rate) if rate > 0 else TICK_SECONDS

    def _follow_setting(self) -> None:
        wanted = self._settings['record']
        if wanted == self._asked_for:
            return
        self._finish()
        self._asked_for = wanted
        self._folder = None
        self.state = replace(self.state, folder=wanted, problem='')
        if wanted:
            self._folder = BagFolder(Path(wanted).expanduser().absolute(), *self._limits())
            self._open()

    def _limits(self) -> tuple[int, int]:
        """Return the most bytes of all bags together, and the least that stay free on the disk."""
        return tuple(self._settings[name] * MEGABYTE for name in ('record_max_size', 'record_min_free'))

    def _open(self) -> None:
        # rosbags is an extra: a node that does not record does without.
        from cooper_ros.recording.bag_writer import BagWriter
        from cooper_ros.recording.definitions import Definitions

        self._make_room(0)
        self._bag = BagWriter(self._folder.new_bag(), Definitions())
        self.state = replace(self.state, bag=str(self._bag.folder))
        if self._latched:
            self._write(_Item(lambda: [entry for kept in list(self._latched.values()) for entry in kept], 0))
        self._bag.flush()

    def _make_room(self, size: int) -> None:
        """Look for room for the next ``ROOM`` bytes at once: that takes a while, and transforms come in hundreds."""
        if self._bag is None or size > self._room:
            self._folder.limit, self._folder.least_free = self._limits()
            room = max(size, min(ROOM, self._folder.limit // 100))
            self._folder.make_room(room, self._bag and self._bag.folder)
            self._room = room
        self._room -= size

    def _write(self, item: _Item) -> None:
        if self._bag.size >= self._settings['record_file_size'] * MEGABYTE:
            self._finish()
            if self.state.problem:
                raise OSError(self.state.problem)
            self._open()
        entries = item.make()
        self._make_room(sum(len(entry.data) for entry in entries))
        # One time for all that belongs together, and no two items with the same.
        self._last_ns = max(time.time_ns(), self._last_ns + 1)
        for entry in entries:
            self._bag.write(entry.topic, entry.kind, self._last_ns, entry.data, latched=entry.latched)
        if item.query_id:
            self._places[item.query_id] = replace(self._places[item.query_id], bag=self._bag.folder)
        if item.counts:
            self.state = replace(self.state, **{item.counts: getattr(self.state, item.counts) + 1})

    def _record_frame(self, camera: Camera) -> None:
        """Record the newest frame of a camera where record_rate asks for one now."""
        rate = self._settings['record_rate']
        now, (framed, stamp_ns) = time.monotonic(), self._framed.get(camera.name, (0.0, 0))
        if rate <= 0 or now - framed < 1 / rate:
            return
        try:
            frame = camera.newest()
        except (NoFrame, ConversionError):
            return  # the camera's own diagnostics tell
        if frame.stamp_ns != stamp_ns and not self._awaits_depth(camera.name, frame, now):
            self._framed[camera.name] = now, frame.stamp_ns
            make = partial(self._entries, partial(frame_messages, frame), camera.name)
            self._write(_Item(make, 0, 'frames'))

    def _awaits_depth(self, name: str, frame: Frame, now: float) -> bool:
        """Whether the depth of a frame may still be on its way: the camera has depth, and this frame is young."""
        if frame.depth is not None:
            self._deep.add(name)
        elif name in self._deep and now - self._waiting.setdefault(name, now) < DEPTH_SECONDS:
            return True
        self._waiting.pop(name, None)
        return False

    def _finish(self) -> None:
        bag, self._bag = self._bag, None
        if bag is None:
            return
        problem = self.state.problem
        try:
            bag.close()
        except OSError as error:
            bag.abandon()
            problem = f'{bag.folder} has no index: {error}; run: cooper record --repair {bag.folder}'
        self.state = replace(self.state, bag='', problem=problem)

    def _stop(self, error: Exception) -> None:
        """Give up until the parameter is set anew. A full disk leaves no place for the index."""
        if isinstance(error, NoRoom):
            self._finish()
        bag, self._bag = self._bag, None
        if bag is not None:
            bag.abandon()
        reason = str(error) or type(error).__name__
        place = f'{bag.folder}: ' if bag is not None else ''
        self.state = replace(self.state, bag='', problem=f'{place}{reason}')
