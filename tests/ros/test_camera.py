"""The camera process, heard by a subscriber in this process."""

from __future__ import annotations

import json
import os
import threading
import zlib
from dataclasses import fields
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image as PillowImage

pytest.importorskip('rclpy')

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import String

from cooper_ros.bags import CameraBag, Recorded
from cooper_ros.camera_parameters import CameraParameters
from cooper_ros.client import CooperClient
from cooper_ros.conversions import stamp_to_ns
from cooper_ros.encodings import colour_from_compressed, colour_from_image, depth_from_image
from cooper_ros.playback import BagPlayer
from cooper_ros.processes import RosProcess
from cooper_ros.readings import intrinsics_from_message
from cooper_ros.sources import Prefetch, Shot, SourceError, folder_shots, kind_of, video_shots
from tests.ros.compressed_depth import compressed_depth
from tests.ros.scribe import SECOND, Scribe

TOPICS = {
    'image_raw': Image,
    'image_raw/compressed': CompressedImage,
    'camera_info': CameraInfo,
    'depth_registered/image_rect': Image,
    'depth_registered/image_rect/compressedDepth': CompressedImage,
}


class Audience:
    """Subscribes to a camera in a namespace and keeps what comes."""

    def __init__(self, client, namespace, qos=None):
        self.heard = {name: [] for name in (*TOPICS, 'camera/truth')}
        self.states = []
        self.prefix = namespace.strip('/')
        qos = qos or QoSProfile(depth=50)
        for name, kind in TOPICS.items():
            client.node.create_subscription(kind, f'{namespace}/{name}', self.heard[name].append, qos)
        latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        client.node.create_subscription(
            String, f'{namespace}/camera/truth', self.heard['camera/truth'].append, latched
        )
        client.node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)

    def _on_diagnostics(self, message):
        for status in message.status:
            if status.name == f'{self.prefix}/camera: source':
                self.states.append({pair.key: pair.value for pair in status.values})

    @property
    def state(self):
        return self.states[-1]['state'] if self.states else ''

    def count(self, name):
        return len(self.heard[name])


@pytest.fixture
def play(tmp_path, request):
    """Return a function that starts a camera and gives the process and its audience."""
    opened = []

    def start(qos=None, subscribers=1, **parameters):
        namespace = f'/test_{os.getpid()}_{zlib.crc32(request.node.nodeid.encode())}'
        client = CooperClient(namespace=namespace)
        opened.append(client)
        audience = Audience(client, namespace, qos)
        parameters = {'wait_for_subscribers': subscribers, **parameters}
        process = RosProcess('cooper_ros.camera', parameters, tmp_path / 'camera.log', namespace)
        opened.append(process)
        return process, audience

    yield start
    for each in reversed(opened):
        each.stop() if isinstance(each, RosProcess) else each.close()


def test_the_simulated_camera_tells_its_calibration_depth_and_truth(play, tools):
    process, audience = play(width=320, height=240, seed=5, scene_period=0.5, questions=3)
    tools.wait_for(lambda: audience.count('camera/truth') >= 2 and audience.count('image_raw') >= 8, 'two scenes')
    assert process.stop() == 0
    images = {stamp_to_ns(m.header.stamp): m for m in audience.heard['image_raw']}
    infos = {stamp_to_ns(m.header.stamp): m for m in audience.heard['camera_info']}
    depths = {stamp_to_ns(m.header.stamp): m for m in audience.heard['depth_registered/image_rect']}
    common = sorted(set(images) & set(infos) & set(depths))
    assert common
    for stamp in common:
        assert images[stamp].encoding == 'rgb8'
        assert images[stamp].header == infos[stamp].header == depths[stamp].header
        assert images[stamp].header.frame_id == 'camera_optical_frame'
        assert infos[stamp].distortion_model == 'plumb_bob'
        assert not any(infos[stamp].d)
        camera = intrinsics_from_message(infos[stamp], 320, 240)
        assert camera.fx == camera.fy > 0
        depth = depth_from_image(depths[stamp])
        assert depth.shape == (240, 320)
        assert 0.05 < np.nanmin(depth) < np.nanmax(depth) < 20
    truths = [json.loads(m.data) for m in audience.heard['camera/truth']]
    assert [truth['scene']['seed'] for truth in truths[:2]] == [5, 6]
    assert truths[0]['stamp_ns'] in images
    for truth in truths:
        assert 1 <= len(truth['scene']['questions']) <= 3
        assert all(question['text'] and question['answer'] for question in truth['scene']['questions'])
    # The published depth is that of the objects that the truth names.
    first = truths[0]
    depth = depth_from_image(depths[common[0]])
    for item in first['scene']['objects']:
        left, top, right, bottom = item['box']
        inside = depth[top:bottom, left:right]
        assert np.nanmin(inside) - 0.05 <= item['depth'] <= np.nanmax(inside) + 0.05


def test_one_scene_is_held_without_depth_for_best_effort_subscribers(play, tools):
    process, audience = play(
        qos_profile_sensor_data, width=64, height=48, hold=True, scene_period=0.2, publish_depth=False
    )
    tools.wait_for(lambda: audience.count('image_raw') >= 6, 'images')
    process.stop()
    pictures = [colour_from_image(message) for message in audience.heard['image_raw']]
    assert all(np.array_equal(picture, pictures[0]) for picture in pictures)
    assert not audience.heard['depth_registered/image_rect']


def test_a_bag_keeps_stamps_frames_and_bytes(play, tools, shared):
    path = shared / 'data' / 'bags' / 'tum_fr1_rpy_ros2'
    process, audience = play(source=str(path))
    tools.wait_for(lambda: audience.state == 'holding the last image', 'the end of the bag')
    tools.wait_for(lambda: audience.count('image_raw/compressed') >= 42, 'repetitions of the last image')
    process.stop()
    with CameraBag(path) as bag:
        recorded = [item.message for item in bag.messages() if item.role == 'image']
    heard = audience.heard['image_raw/compressed']
    assert not audience.heard['image_raw']
    for given, got in zip(recorded, heard, strict=False):
        assert stamp_to_ns(given.header.stamp) == stamp_to_ns(got.header.stamp)
        assert given.header.frame_id == got.header.frame_id == 'openni_rgb_optical_frame'
        assert given.data.tobytes() == bytes(got.data)
    # Once all are played, the last comes again and again, as it is.
    assert {stamp_to_ns(message.header.stamp) for message in heard[40:]} == {stamp_to_ns(recorded[-1].header.stamp)}
    assert colour_from_compressed(heard[0]).shape == (480, 640, 3)
    depth = audience.heard['depth_registered/image_rect'][0]
    assert depth.encoding == '16UC1'
    assert 0.3 < np.nanmedian(depth_from_image(depth)) < 5
    assert audience.heard['camera_info'][0].k[0] == pytest.approx(517.3, abs=0.1)


def test_compressed_depth_of_a_bag_is_played_as_it_is(play, tools, tmp_path):
    data = compressed_depth(np.full((6, 8), 2.0, np.float32), '32FC1')
    scribe = Scribe(tmp_path / 'bag', 'mcap')
    with scribe.writer:
        scribe.image('/camera/color', SECOND)
        scribe.compressed('/camera/aligned/compressedDepth', SECOND, data, '32FC1; compressedDepth png')
    process, audience = play(source=str(tmp_path / 'bag'))
    name = 'depth_registered/image_rect/compressedDepth'
    tools.wait_for(lambda: audience.count(name) and audience.count('image_raw'), 'depth and image')
    process.stop()
    depth = audience.heard[name][0]
    assert (bytes(depth.data), depth.format) == (data, '32FC1; compressedDepth png')
    assert depth.header.stamp == audience.heard['image_raw'][0].header.stamp
    assert not audience.heard['depth_registered/image_rect']


def test_the_native_bag_of_a_realsense_gets_its_calibration_under_the_image_s_header(play, tools, shared):
    process, audience = play(source=str(shared / 'data' / 'bags' / 'realsense_d435_sdk_native.bag'))
    tools.wait_for(lambda: audience.count('image_raw') >= 2 and audience.count('camera_info') >= 2, 'the image')
    assert process.stop() == 0
    image, info = audience.heard['image_raw'][0], audience.heard['camera_info'][0]
    assert image.header == info.header
    assert stamp_to_ns(image.header.stamp) == 360_713_523_000
    assert info.k[0] == pytest.approx(613.2, abs=0.1)
    assert len(colour_from_image(image)) == 480


def test_a_bag_ends_where_nothing_is_to_be_held(play, tools, shared):
    path = shared / 'data' / 'bags' / 'realsense_d435_ros2'
    process, audience = play(source=str(path), hold_last=False)
    tools.wait_for(lambda: process.returncode is not None, 'the end')
    assert process.returncode == 0
    assert '1 images published' in process.tail()


def test_a_folder_plays_each_image_once_in_order(play, tools, tmp_path):
    folder = tmp_path / 'folder'
    folder.mkdir()
    for index, size in enumerate(((40, 30), (31, 21), (16, 16))):
        PillowImage.new('RGB', size, (index * 100, 50, 200)).save(folder / f'{index}.png')
    process, audience = play(source=str(folder), rate=20.0, vertical_fov=60.0)
    tools.wait_for(lambda: audience.count('image_raw') >= 4, 'the images')
    process.stop()
    heard = audience.heard['image_raw']
    assert [(m.width, m.height) for m in heard[:4]] == [(40, 30), (31, 21), (16, 16), (16, 16)]
    assert [tuple(colour_from_image(m)[0, 0]) for m in heard[:3]] == [(0, 50, 200), (100, 50, 200), (200, 50, 200)]
    assert audience.heard['camera_info'][0].k[4] == pytest.approx(15 / np.tan(np.radians(30)))


@pytest.mark.parametrize(
    ('parameters', 'said'),
    [
        ({'source': '/no/such/place'}, "camera source '/no/such/place' does not exist; give sim"),
        ({'rate': 0.0}, 'out of range'),
        ({'reliability': 'perfect'}, "reliability: 'perfect' is unknown, expected best_effort"),
        ({'distribution': 'mars'}, "no distribution 'mars', expected one of"),
        ({'seed': 'seven'}, "parameter 'seed'"),
    ],
)
def test_bad_settings_end_the_camera_with_a_reason(play, tools, parameters, said):
    process, _ = play(**parameters)
    tools.wait_for(lambda: process.returncode is not None, 'the end')
    assert process.returncode == 1
    assert said in process.log.read_text()
    assert 'Traceback' not in process.log.read_text()


def test_every_parameter_has_a_description():
    assert all(field.metadata['description'] for field in fields(CameraParameters))


def test_kinds_of_sources(tmp_path):
    for name, kind in {'a.bag': 'bag', 'a.mcap': 'bag', 'a.MP4': 'video', 'a.JPG': 'images'}.items():
        (tmp_path / 'files').mkdir(exist_ok=True)
        (tmp_path / 'files' / name).touch()
        assert kind_of(str(tmp_path / 'files' / name)) == kind
    assert kind_of('sim') == 'sim'
    assert kind_of(str(tmp_path / 'files')) == 'images'
    (tmp_path / 'files' / 'metadata.yaml').touch()
    assert kind_of(str(tmp_path / 'files')) == 'bag'
    (tmp_path / 'empty').mkdir()
    with pytest.raises(SourceError, match='is a folder without images'):
        kind_of(str(tmp_path / 'empty'))
    (tmp_path / 'a.txt').touch()
    with pytest.raises(SourceError, match="unknown suffix '.txt'"):
        kind_of(str(tmp_path / 'a.txt'))


def test_a_video_plays_at_its_own_rate(tmp_path):
    path = tmp_path / 'video.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 25, (64, 48))
    for red in (0, 100, 200):
        writer.write(np.full((48, 64, 3), (10, 20, red), np.uint8))
    writer.release()
    shots = list(video_shots(path))
    assert [shot.seconds for shot in shots] == pytest.approx([0.04] * 3)
    assert [int(shot.image[20, 20, 0]) for shot in shots] == pytest.approx([0, 100, 200], abs=4)
    path.write_bytes(b'no video at all')
    with pytest.raises(SourceError, match='video .*video.avi cannot be opened'):
        list(video_shots(path))


def test_a_truncated_image_is_named(tmp_path):
    PillowImage.effect_noise((64, 64), 50).convert('RGB').save(tmp_path / 'cut.jpg')
    (tmp_path / 'cut.jpg').write_bytes((tmp_path / 'cut.jpg').read_bytes()[:700])
    with pytest.raises(SourceError, match='cut.jpg cannot be read'):
        list(folder_shots(tmp_path, 1.0))


def test_16_bit_images_of_a_folder_keep_their_upper_bits(tmp_path):
    PillowImage.fromarray(np.full((4, 4), 20_000, np.uint16)).save(tmp_path / 'deep.png')
    (shot,) = folder_shots(tmp_path, 1.0)
    assert (shot.image == 20_000 >> 8).all()


def test_a_bag_of_one_image_is_repeated_at_a_bearable_pace():
    header = SimpleNamespace(stamp=SimpleNamespace(sec=3, nanosec=0), frame_id='camera')
    data = np.zeros(3, np.uint8)
    image = SimpleNamespace(header=header, height=1, width=1, encoding='rgb8', is_bigendian=0, step=3, data=data)

    class Bag:
        topics = SimpleNamespace(image=SimpleNamespace(compressed=False))

        def messages(self):
            yield Recorded('image', 0, image)

    class Stop(threading.Event):
        waited = 0.0

        def wait(self, timeout=None):
            Stop.waited += timeout
            return Stop.waited >= 2

    published = []

    def publish(role, message):
        published.append(message)
        assert len(published) <= 50

    outlet = SimpleNamespace(
        publish=publish,
        wait_for_subscribers=lambda compressed: None,
        report=lambda state: None,
    )
    BagPlayer(Bag(), CameraParameters(loop=True, hold_last=False), outlet, Stop()).play()
    assert len(published) >= 2


def test_prefetching_hands_on_shots_and_errors():
    shots = [Shot(np.full((2, 2, 3), value, np.uint8), 1.0) for value in range(3)]

    def make():
        yield from shots
        raise SourceError('the disk is on fire')

    prefetch = Prefetch(make)
    assert [next(prefetch) for _ in shots] == shots
    for _ in range(2):
        with pytest.raises(SourceError, match='the disk is on fire'):
            next(prefetch)
    prefetch.close()
    assert list(Prefetch(lambda: iter(shots))) == shots
