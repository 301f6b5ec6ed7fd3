"""Messages of a camera and a cooper node as a Rerun recording: the same that RViz shows, and the thoughts as a log.

``world`` is the frame that points and markers come in; everything stands on one time line, the stamps of the images.
Of several cameras, each has its entities below its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import cv2
import numpy as np
import rerun as rr
import rerun.blueprint as rrb
from visualization_msgs.msg import Marker

from cooper_model.placement import RigidTransform
from cooper_model.types import CameraIntrinsics
from cooper_ros.encodings import depth_from_image, labels_from_image
from cooper_ros.readings import stamp_to_ns
from cooper_ros.topics import of_camera

TIMELINE = 'stamp'
MOST_POINTS = 20_000
_QUALITY = 85
_MILLIMETRES = 1000.0


def blueprint(cameras: Sequence[str] = ('',)) -> rrb.Blueprint:
    """Return how the windows are arranged at first: a tab for each camera, where there are several."""
    views = [_arrangement(camera) for camera in cameras]
    return rrb.Blueprint(views[0] if len(views) == 1 else rrb.Tabs(*views), collapse_panels=True)


def _arrangement(camera: str) -> rrb.Horizontal:
    def at(entity: str) -> str:
        return of_camera(entity, camera)

    pictures = (('camera', 'world/camera/image'), ('depth', 'depth/color'), ('segmentation', 'segmentation/overlay'))
    return rrb.Horizontal(
        rrb.Vertical(*(rrb.Spatial2DView(origin=at(origin), name=name) for name, origin in pictures)),
        # Depth and mask would hide the points that are made of them.
        rrb.Spatial3DView(
            origin=at('world'),
            contents=['$origin/**', '- $origin/camera/depth', '- $origin/camera/instances'],
            name='scene',
        ),
        rrb.Vertical(
            rrb.TextDocumentView(origin=at('answer'), name='answer'),
            rrb.TextDocumentView(origin=at('thinking'), name='thinking'),
            rrb.TextLogView(origin=at('thoughts'), name='thoughts'),
        ),
        column_shares=[2, 4, 2],
        name=camera or None,
    )


class RerunView:
    """Writes messages of one camera into a recording. Each method takes one kind of message.

    :param camera: name that its entities stand below; empty for none
    """

    def __init__(self, recording: rr.RecordingStream, camera: str = '') -> None:
        self._recording = recording
        self._camera = camera
        self._stamp = 0
        self._thinking = self._stage = ''
        self._axes: rr.ViewCoordinates | None = None

    def _log(self, entity: str, *shown: Any, static: bool = False) -> None:
        self._recording.log(of_camera(entity, self._camera), *shown, static=static)

    def _at(self, header: Any) -> None:
        self._stamp = max(self._stamp, stamp_to_ns(header.stamp))
        self._set_time(stamp_to_ns(header.stamp))

    def _set_time(self, stamp_ns: int) -> None:
        self._recording.set_time(TIMELINE, timestamp=np.datetime64(stamp_ns, 'ns'))

    # The camera and its maps

    def picture(self, path: str, image: np.ndarray, header: Any) -> None:
        """Show a picture ``(height, width, 3)`` uint8 RGB."""
        self._at(header)
        self._log(path, rr.Image(image).compress(jpeg_quality=_QUALITY))

    def lens(self, intrinsics: CameraIntrinsics, header: Any) -> None:
        """Show the camera's field of view, through which its pictures are seen."""
        self._at(header)
        pinhole = rr.Pinhole(
            focal_length=(intrinsics.fx, intrinsics.fy),
            # Rerun's pixels begin at their corner.
            principal_point=(intrinsics.cx + 0.5, intrinsics.cy + 0.5),
            resolution=(intrinsics.width, intrinsics.height),
            camera_xyz=rr.ViewCoordinates.RDF,
            image_plane_distance=0.5,
        )
        self._log('world/camera', pinhole)

    def pose(self, transform: RigidTransform | None, header: Any) -> None:
        """Put the camera where it stands in the frame of the geometry.

        :param transform: from the camera's optical frame; None where that is the frame
        """
        # Above is up in the picture, or in a frame of the robot along z (REP 103).
        axes = rr.ViewCoordinates.RDF if transform is None else rr.ViewCoordinates.FLU
        if axes is not self._axes:
            self._axes = axes
            self._log('world', axes, static=True)
        transform = transform or RigidTransform.identity()
        self._at(header)
        self._log('world/camera', rr.Transform3D(translation=transform.translation, mat3x3=transform.rotation))

    def depth(self, message: Any) -> None:
        """Show metric depth; it is kept in millimetres."""
        self._at(message.header)
        metres = np.nan_to_num(depth_from_image(message), nan=0.0)
        millimetres = np.clip(np.rint(metres * _MILLIMETRES), 0, np.iinfo(np.uint16).max).astype(np.uint16)
        _, data = cv2.imencode('.png', millimetres)
        image = rr.EncodedDepthImage(data.tobytes(), media_type='image/png', meter=_MILLIMETRES)
        self._log('world/camera/depth', image)

    def instances(self, message: Any) -> None:
        """Show the mask of the objects; their names come with :meth:`scene`."""
        self._at(message.header)
        numbers = labels_from_image(message).astype(np.uint16)
        self._log('world/camera/instances', rr.SegmentationImage(numbers))

    def scene(self, message: Any) -> None:
        """Name the objects of the mask."""
        self._at(message.header)
        names = [rr.AnnotationInfo(id=0, label='background', color=(0, 0, 0, 0))]
        names += [rr.AnnotationInfo(id=item.id, label=item.name) for item in message.objects]
        self._log('world/camera/instances', rr.AnnotationContext(names))

    # The scene in space

    def points(self, message: Any) -> None:
        """Show a cloud of fields x, y, z and rgb, thinned out."""
        self._at(message.header)
        words = np.frombuffer(message.data, '<f4').reshape(-1, message.point_step // 4)
        words = words[np.isfinite(words[:, :3]).all(axis=1)]
        words = words[:: max(1, len(words) // MOST_POINTS)]
        colours = words[:, 3].copy().view(np.uint8).reshape(-1, 4)[:, 2::-1]
        self._log('world/points', rr.Points3D(words[:, :3], colors=colours))

    def markers(self, message: Any) -> None:
        """Show boxes, names, arrows and the answer, as RViz does."""
        shown = [marker for marker in message.markers if marker.action == Marker.ADD]
        if message.markers:
            self._at(message.markers[0].header)
        by_name = {name: [m for m in shown if m.ns == name] for name in {m.ns for m in message.markers}}
        names = {marker.id: marker.text for marker in by_name.get('names', ())}
        predicates = {marker.id: marker.text for marker in by_name.get('predicates', ())}
        self._boxes(by_name.get('objects', ()), names)
        self._arrows(by_name.get('relations', ()), predicates)
        texts = by_name.get('answer', ())
        places = [_vector(marker.pose.position) for marker in texts]
        self._log('world/answer', rr.Points3D(places, labels=[marker.text for marker in texts], radii=0.01))

    def _boxes(self, markers: Sequence[Any], names: dict[int, str]) -> None:
        boxes = rr.Boxes3D(
            centers=[_vector(marker.pose.position) for marker in markers],
            sizes=[_vector(marker.scale) for marker in markers],
            colors=[_colour(marker.color) for marker in markers],
            labels=[names.get(marker.id, '') for marker in markers],
        )
        self._log('world/objects', boxes)

    def _arrows(self, markers: Sequence[Any], predicates: dict[int, str]) -> None:
        ends = np.array([[_vector(point) for point in marker.points] for marker in markers]).reshape(-1, 2, 3)
        arrows = rr.Arrows3D(
            origins=ends[:, 0],
            vectors=ends[:, 1] - ends[:, 0],
            colors=[_colour(marker.color) for marker in markers],
            labels=[predicates.get(marker.id, '') for marker in markers],
        )
        self._log('world/relations', arrows)

    # Words

    def thinking(self, stage: str, text: str) -> None:
        """Show what the model says, while it says it."""
        self._set_time(self._stamp)
        if stage != self._stage:
            self._stage = stage
            self._thinking += f'\n\n*{stage}*\n\n'
        self._thinking += text
        self._log('thinking', rr.TextDocument(self._thinking, media_type=rr.MediaType.MARKDOWN))

    def answer(self, record: Any) -> None:
        """Log a question with its thoughts and its answer."""
        self._at(record.header)
        self._thinking = self._stage = ''
        said = record.answer if record.success else f'no answer: {record.message}'
        self._say('question', record.question)
        for thought in record.thoughts:
            self._say('thought', thought.strip())
        self._say('answer' if record.success else 'failure', said)
        value = f'\n\n{record.value:.4g} {record.unit}' if record.success and record.unit else ''
        text = f'**{record.question}**\n\n{said}{value}\n\nconfidence {record.confidence:.2f}'
        self._log('answer', rr.TextDocument(text, media_type=rr.MediaType.MARKDOWN))

    def _say(self, kind: str, text: str) -> None:
        level = rr.TextLogLevel.ERROR if kind == 'failure' else rr.TextLogLevel.INFO
        self._log(f'thoughts/{kind}', rr.TextLog(text, level=level))


def _vector(place: Any) -> tuple[float, float, float]:
    return place.x, place.y, place.z


def _colour(colour: Any) -> Iterable[int]:
    return tuple(round(255 * part) for part in (colour.r, colour.g, colour.b, colour.a))
