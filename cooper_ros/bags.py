"""Reading camera images out of robot bags: ROS 2 (sqlite3, MCAP) and ROS 1, without a ROS installation.

Which topics are the camera is found from what the messages hold (encoding, size, frame) before their names,
because vendors name topics as they like.
"""

from __future__ import annotations

import io
import sqlite3
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from apsw import Error as SqliteError
from PIL import Image, UnidentifiedImageError
from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.rosbag1 import ReaderError as Ros1ReaderError
from rosbags.rosbag2 import ReaderError as Ros2ReaderError
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, TypesysError, get_typestore

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdError
else:
    from backports.zstd import ZstdError

from cooper_ros.harvest.pixels import COMPRESSED_DEPTH, HEADER_BYTES
from cooper_ros.sources import SourceError

if TYPE_CHECKING:
    from rosbags.interfaces import Connection

Role = Literal['image', 'camera_info', 'depth']

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED = 'sensor_msgs/msg/CompressedImage'
CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'
DEPTH_ENCODINGS = ('16UC1', '32FC1')

# What damaged storage raises while it is opened or read.
DAMAGE = (
    AnyReaderError,
    Ros1ReaderError,
    Ros2ReaderError,
    SerdeError,
    TypesysError,
    ZstdError,
    sqlite3.Error,
    SqliteError,  # what rosbags reads sqlite3 with
    struct.error,
    EOFError,
    OSError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,  # rosbags, where a file ends and a record should begin
    OverflowError,  # lengths that are no lengths
    MemoryError,
    RuntimeError,  # lz4
)


class BagError(SourceError):
    """A bag cannot be read or holds no camera; the text names the file and the remedy."""


@dataclass(frozen=True)
class ImageTopic:
    """A recorded stream of images, described by its first message.

    :param name: topic
    :param compressed: sensor_msgs/CompressedImage instead of sensor_msgs/Image
    :param encoding: of the pixels; for a compressed image its format
    :param width, height: size [px]
    :param frame_id: frame of the first header
    :param count: number of messages
    """

    name: str
    compressed: bool
    encoding: str
    width: int
    height: int
    frame_id: str
    count: int

    @property
    def is_depth(self) -> bool:
        """Whether the pixels are distances."""
        if self.compressed:
            return COMPRESSED_DEPTH in self.encoding or self.encoding.startswith(DEPTH_ENCODINGS)
        return self.encoding in DEPTH_ENCODINGS or (self.encoding == 'mono16' and 'depth' in self.name.lower())

    @property
    def is_playable_depth(self) -> bool:
        """Whether the pixels are distances in a form that a node subscribes to."""
        return self.is_depth and (not self.compressed or COMPRESSED_DEPTH in self.encoding)

    @property
    def is_colour(self) -> bool:
        """Whether it is what a colour camera took, by its encoding and name."""
        colour = self.compressed or not self.encoding.startswith(('mono', '8UC1', '16UC1'))
        derived = ('infra', '/ir', 'overlay', 'mask', 'debug', 'segmentation')
        return colour and not any(word in self.name.lower() for word in derived)

    @property
    def rank(self) -> tuple[bool, bool, bool, int]:
        """Order of preference as the camera: a colour image, by name a colour camera, raw, many messages."""
        named = any(word in self.name.lower() for word in ('color', 'colour', 'rgb'))
        return self.is_colour, named, not self.compressed, self.count


@dataclass(frozen=True)
class CameraTopics:
    """The topics of one camera. ``depth`` is registered to the image; None where there is none."""

    image: ImageTopic
    camera_info: str | None
    depth: ImageTopic | None


@dataclass(frozen=True)
class Recorded:
    """One recorded message.

    :param role: what it is to the camera
    :param time_ns: when it was recorded [ns]
    :param message: the message as ``rosbags`` decodes it, fields as in the ROS definition
    """

    role: Role
    time_ns: int
    message: Any


def describe_image(name: str, kind: str, message: Any, count: int) -> ImageTopic:
    """Return what an image topic holds, from its first message as ``rosbags`` decodes it."""
    frame = message.header.frame_id
    if kind == IMAGE:
        return ImageTopic(name, False, message.encoding, message.width, message.height, frame, count)
    data = message.data.tobytes()
    if COMPRESSED_DEPTH in message.format:
        data = data[HEADER_BYTES:]
    width, height = _compressed_size(data)
    return ImageTopic(name, True, message.format, width, height, frame, count)


class CameraBag:
    """An open bag and the camera found in it.

    :param path: a folder with ``metadata.yaml``, or a ``.bag``, ``.db3`` or ``.mcap`` file
    :param image_topic, camera_info_topic, depth_topic: take these instead of searching
    :raises BagError: the path is no bag, the bag is damaged, it has no such topic, or no image topic at all
    """

    def __init__(
        self, path: Path | str, image_topic: str = '', camera_info_topic: str = '', depth_topic: str = ''
    ) -> None:
        self.path = Path(path)
        self._wanted = {'image': image_topic, 'camera_info': camera_info_topic, 'depth': depth_topic}
        self._reader = self._open()
        try:
            self._connections = self._by_topic()
            self.topics = self._find_camera()
        except DAMAGE as error:
            self.close()
            raise self._explained(error) from error

    def __enter__(self) -> CameraBag:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        self._reader.close()

    @property
    def duration(self) -> float:
        """Seconds between the first and the last recorded message of any topic."""
        return self._reader.duration / 1e9

    def messages(self) -> Iterator[Recorded]:
        """Yield the camera's messages in the order of recording.

        :raises BagError: the file is damaged further on; what was readable has been yielded
        """
        topics = self.topics
        roles: dict[str, Role] = {topics.image.name: 'image'}
        if topics.depth is not None:
            roles[topics.depth.name] = 'depth'
        if topics.camera_info is not None:
            roles[topics.camera_info] = 'camera_info'
        connections = [connection for name in roles for connection in self._connections[name]]
        try:
            for connection, time_ns, raw in self._reader.messages(connections=connections):
                message = self._reader.deserialize(raw, connection.msgtype)
                yield Recorded(roles[connection.topic], time_ns, message)
        except DAMAGE as error:
            raise self._explained(error) from error

    def _open(self) -> AnyReader:
        path = self.path
        if not path.exists():
            raise BagError(f'bag {path} does not exist; check the path')
        if path.is_dir() and not (path / 'metadata.yaml').exists():
            raise BagError(
                f'bag {path} has no metadata.yaml (a recording that was cut off?); '
                f'run: ros2 bag reindex {path}, or name the .db3 or .mcap file itself'
            )
        try:
            # Humble's sqlite3 bags carry no message definitions; those of the distribution fill in.
            reader = AnyReader([path], default_typestore=get_typestore(Stores.ROS2_HUMBLE))
            reader.open()
        except DAMAGE as error:
            raise self._explained(error) from error
        return reader

    def _explained(self, error: BaseException) -> BagError:
        if isinstance(error, BagError):
            return error
        remedy = f'rosbag reindex {self.path}' if self.path.suffix == '.bag' else f'ros2 bag reindex {self.path}'
        return BagError(
            f'bag {self.path} is truncated, damaged or no bag ({type(error).__name__}: {error}); '
            f'copy it again, or try: {remedy}'
        )

    def _by_topic(self) -> dict[str, list[Connection]]:
        found: dict[str, list[Connection]] = {}
        for connection in self._reader.connections:
            found.setdefault(connection.topic, []).append(connection)
        return found

    def _find_camera(self) -> CameraTopics:
        images = [topic for name in self._connections if (topic := self._describe(name)) is not None]
        wanted = self._wanted
        cameras = sorted((topic for topic in images if not topic.is_depth), key=lambda topic: topic.rank)
        image = self._named(images, wanted['image']) if wanted['image'] else (cameras[-1] if cameras else None)
        if image is None:
            listed = ', '.join(f'{name} ({c[0].msgtype})' for name, c in sorted(self._connections.items())[:20])
            raise BagError(
                f'bag {self.path} has no camera images (sensor_msgs Image or CompressedImage); it holds: '
                f'{listed or "nothing"}; record the image topic too'
            )
        if wanted['depth']:
            depth: ImageTopic | None = self._named(images, wanted['depth'])
            if depth.compressed and not depth.is_playable_depth:
                raise BagError(
                    f'bag {self.path}: depth topic {depth.name!r} is compressed ({depth.encoding}), which is not '
                    f'played; name a topic of sensor_msgs/Image or of {COMPRESSED_DEPTH}, or none'
                )
        else:
            depth = _registered_depth(image, images)
        return CameraTopics(image, self._camera_info(image), depth)

    def _named(self, images: list[ImageTopic], name: str) -> ImageTopic:
        for topic in images:
            if topic.name == name:
                return topic
        raise BagError(
            f'bag {self.path} has no image topic {name!r}; image topics are: '
            f'{", ".join(sorted(topic.name for topic in images)) or "none"}'
        )

    def _first(self, name: str) -> Any | None:
        for connection, _, raw in self._reader.messages(connections=self._connections[name]):
            return self._reader.deserialize(raw, connection.msgtype)
        return None

    def _describe(self, name: str) -> ImageTopic | None:
        kind = self._connections[name][0].msgtype
        if kind not in (IMAGE, COMPRESSED):
            return None
        message = self._first(name)
        if message is None:
            return None
        return describe_image(name, kind, message, sum(each.msgcount for each in self._connections[name]))

    def _camera_info(self, image: ImageTopic) -> str | None:
        wanted = self._wanted['camera_info']
        infos = [name for name, c in self._connections.items() if c[0].msgtype == CAMERA_INFO]
        if wanted:
            if wanted not in infos:
                raise BagError(
                    f'bag {self.path} has no CameraInfo topic {wanted!r}; there are: {", ".join(infos) or "none"}'
                )
            return wanted
        fitting: list[tuple[int, str]] = []
        for name in infos:
            info = self._first(name)
            sizes_agree = info is not None and (
                not image.width or (info.width, info.height) == (image.width, image.height)
            )
            shared = kinship(image.name, name)
            if sizes_agree and shared:
                fitting.append((shared + (info.header.frame_id == image.frame_id != ''), name))
        return max(fitting)[1] if fitting else None


def _registered_depth(image: ImageTopic, images: list[ImageTopic]) -> ImageTopic | None:
    """Return depth that lies on the image's pixels: same size, and the same frame or a name that says so."""
    fitting = []
    for topic in images:
        if not topic.is_playable_depth or (topic.width, topic.height) != (image.width, image.height):
            continue
        named = any(word in topic.name for word in ('aligned', 'registered'))
        # The RealSense SDK calls every frame '0', so a frame counts only where it is a name.
        same_frame = topic.frame_id == image.frame_id and not image.frame_id.isdigit() and image.frame_id != ''
        if named or same_frame:
            fitting.append((named, not topic.compressed, topic.count, topic))
    return max(fitting, key=lambda item: item[:3])[3] if fitting else None


def kinship(first: str, second: str) -> int:
    """Return how near two topics are: the parts that their names begin with in common, and one more for siblings."""
    shared = int(first.rpartition('/')[0] == second.rpartition('/')[0])
    for a, b in zip(first.strip('/').split('/'), second.strip('/').split('/'), strict=False):
        if a != b:
            break
        shared += 1
    return shared


def _compressed_size(data: bytes) -> tuple[int, int]:
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return picture.size
    except (UnidentifiedImageError, OSError):
        # Of depth in RVL; a broken first frame is the node's to refuse.
        return 0, 0
