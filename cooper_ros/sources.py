"""Where a camera's pictures come from when no camera is there: simulation, a video, a folder. Knows no ROS.

Bags are read by `cooper_ros.bags`, because their messages are passed on as recorded.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cooper_model.transforms import to_rgb
from cooper_model.types import CameraIntrinsics

SourceKind = Literal['sim', 'bag', 'video', 'images']
BAG_SUFFIXES = ('.bag', '.mcap', '.db3')
IMAGE_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')
VIDEO_SUFFIXES = ('.avi', '.m4v', '.mjpeg', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.ogv', '.webm')


class SourceError(ValueError):
    """A source cannot be opened or read; the text names it and the remedy."""


@dataclass(frozen=True)
class Masks:
    """What stands where in a picture, each ``(height, width)`` uint8, 0 for no object.

    :param instances: number of each object in this picture
    :param classes: number of its class, a key of ``names``
    """

    instances: np.ndarray
    classes: np.ndarray
    names: dict[int, str]


@dataclass(frozen=True)
class Shot:
    """One picture and how long the camera shows it.

    :param image: ``(height, width, 3)`` uint8 RGB
    :param seconds: until the next picture
    :param intrinsics: None where the camera is unknown
    :param depth: ``(height, width)`` float32 [m], where it is known
    :param truth: JSON text on what is in the picture, empty where nobody knows
    :param masks: where they are known
    :param pose: ``(4, 4)`` map from optical frame [m], where it is known
    """

    image: np.ndarray
    seconds: float
    intrinsics: CameraIntrinsics | None = None
    depth: np.ndarray | None = None
    truth: str = ''
    masks: Masks | None = None
    pose: np.ndarray | None = None


def kind_of(source: str) -> SourceKind:
    """Return what kind of source a command-line word names.

    :raises SourceError: there is no such file, or it is none of the known kinds
    """
    if source == 'sim':
        return 'sim'
    path = Path(source)
    if not path.exists():
        raise SourceError(f'camera source {source!r} does not exist; give sim, a bag, a video or a folder of images')
    suffix = path.suffix.lower()
    if suffix in BAG_SUFFIXES or (path / 'metadata.yaml').exists():
        return 'bag'
    if suffix in IMAGE_SUFFIXES:
        return 'images'
    if suffix in VIDEO_SUFFIXES:
        return 'video'
    if path.is_dir():
        names = {entry.suffix.lower() for entry in path.iterdir()}
        if names & set(IMAGE_SUFFIXES):
            return 'images'
        if names & set(BAG_SUFFIXES):
            return 'bag'
        raise SourceError(
            f'camera source {source} is a folder without images ({", ".join(IMAGE_SUFFIXES)}) or metadata.yaml; '
            'give the folder that holds them'
        )
    raise SourceError(
        f'camera source {source} has the unknown suffix {suffix!r}; bags end in {", ".join(BAG_SUFFIXES)}, '
        f'videos in {", ".join(VIDEO_SUFFIXES)}, images in {", ".join(IMAGE_SUFFIXES)}'
    )


def image_files(path: Path) -> list[Path]:
    """Return the images of a folder in the order of their names, or the one file."""
    if path.is_file():
        return [path]
    return sorted(entry for entry in path.iterdir() if entry.suffix.lower() in IMAGE_SUFFIXES)


def read_image(path: Path) -> np.ndarray:
    """Return an image file as ``(height, width, 3)`` uint8 RGB, turned as its EXIF data says.

    16-bit images keep their upper eight bits; transparency is composed over white.

    :raises SourceError: the file is no image or is cut off
    """
    try:
        with Image.open(path) as picture:
            return to_rgb(ImageOps.exif_transpose(picture))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise SourceError(f'image {path} cannot be read ({error}); replace it or take it out of the folder') from error


def folder_shots(path: Path, seconds: float, vertical_fov: float = 0.0) -> Iterator[Shot]:
    """Yield each image of a folder for ``seconds``.

    :param vertical_fov: of the camera [deg]; 0 where unknown
    """
    for file in image_files(path):
        image = read_image(file)
        yield Shot(image, seconds, _intrinsics(image, vertical_fov))


def video_shots(path: Path, vertical_fov: float = 0.0) -> Iterator[Shot]:
    """Yield each picture of a video, shown as long as the video's own rate says.

    :param vertical_fov: of the camera [deg]; 0 where unknown
    :raises SourceError: OpenCV cannot read the file, or no picture is in it
    """
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise SourceError(f'video {path} cannot be opened; convert it, e.g.: ffmpeg -i {path.name} video.mp4')
        rate = capture.get(cv2.CAP_PROP_FPS)
        seconds = 1 / rate if 0.1 <= rate <= 1000 else 1 / 30
        found = False
        while True:
            ok, picture = capture.read()
            if not ok:
                break
            found = True
            image = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
            yield Shot(image, seconds, _intrinsics(image, vertical_fov))
        if not found:
            raise SourceError(f'video {path} holds no picture that can be decoded; copy it again or convert it')
    finally:
        capture.release()


def shots_of(kind: SourceKind, path: Path, seconds: float, vertical_fov: float) -> Iterator[Shot]:
    """Return the pictures of a file or folder that :func:`kind_of` knows.

    :param seconds: how long a picture is shown that brings no time of its own
    :param vertical_fov: of the camera [deg]; 0 where unknown
    """
    return video_shots(path, vertical_fov) if kind == 'video' else folder_shots(path, seconds, vertical_fov)


def _intrinsics(image: np.ndarray, vertical_fov: float) -> CameraIntrinsics | None:
    if not vertical_fov:
        return None
    return CameraIntrinsics.from_vertical_fov(vertical_fov, image.shape[1], image.shape[0])


class Prefetch(Iterator[Shot]):
    """Runs an iterator of shots in a thread, one shot ahead, so that slow rendering does not stall the camera.

    An exception of the iterator is raised to the reader.
    """

    def __init__(self, make: Callable[[], Iterator[Shot]]) -> None:
        self._make = make
        self._queue: queue.Queue[Shot | BaseException | None] = queue.Queue(maxsize=1)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name='prefetch', daemon=True)
        self._thread.start()

    def __next__(self) -> Shot:
        item = self._queue.get()
        if isinstance(item, Shot):
            return item
        # Whoever asks again gets the same end.
        self._queue.put(item)
        if item is None:
            raise StopIteration
        raise item

    def close(self) -> None:
        """Stop the thread after the shot that it is at."""
        self._stopped.set()
        while not self._queue.empty():
            self._queue.get_nowait()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        end: BaseException | None = None
        try:
            for shot in self._make():
                if not self._offer(shot):
                    return
        except Exception as error:  # noqa: BLE001 - handed to the reader, which raises it
            end = error
        self._offer(end)

    def _offer(self, item: Shot | BaseException | None) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False
