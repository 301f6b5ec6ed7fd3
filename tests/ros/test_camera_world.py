"""What the simulated camera tells of its world beside the picture: masks with names, and where the camera is."""

from __future__ import annotations

import json
import os
import zlib

import numpy as np
import pytest

pytest.importorskip('rclpy')

from builtin_interfaces.msg import Time
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Header, String

from cooper_ros.client import CooperClient
from cooper_ros.conversions import stamp_to_ns, transform_message
from cooper_ros.encodings import labels_from_image
from cooper_ros.processes import RosProcess
from cooper_ros.readings import rotation_from_message
from cooper_ros.simulation import CLASSES
from cooper_sim.distribution import Distribution
from cooper_sim.scenes import generate_scene, look_at

TF = pytest.importorskip('tf2_msgs.msg', reason='tf2_msgs is not built').TFMessage


@pytest.mark.parametrize('place', [(1.0, 0.2, 1.5), (-2.0, 1.0, 0.4), (0.0, -3.0, 3.0)])
def test_a_pose_becomes_a_transform(place):
    pose = look_at(np.array(place), np.array((0.1, 0.0, 0.3)), 0.1)
    message = transform_message(pose, 'map', Header(stamp=Time(sec=3), frame_id='camera_optical_frame'))
    np.testing.assert_allclose(rotation_from_message(message.transform.rotation), pose[:3, :3], atol=1e-12)
    moved = message.transform.translation
    assert (moved.x, moved.y, moved.z) == pytest.approx(place)
    assert (message.header.frame_id, message.child_frame_id) == ('map', 'camera_optical_frame')
    assert message.header.stamp.sec == 3


def test_a_transform_that_does_not_turn():
    message = transform_message(np.eye(4), 'map', Header(frame_id='camera'))
    assert message.transform.rotation.w == 1.0 and message.transform.rotation.x == 0.0


def test_masks_names_and_transform_belong_to_the_picture(tmp_path, request, tools):
    namespace = f'/world_{os.getpid()}_{zlib.crc32(request.node.nodeid.encode())}'
    heard = {name: [] for name in ('image_raw', 'mask/instances', 'mask/classes', 'tf', 'names', 'truth')}
    latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    parameters = {'distribution': 'warehouse', 'width': 128, 'height': 96, 'hold': True, 'seed': 3}
    parameters |= {'wait_for_subscribers': 1, 'scene_period': 0.5}
    with CooperClient(namespace=namespace) as client:
        for name in ('image_raw', 'mask/instances', 'mask/classes'):
            client.node.create_subscription(Image, f'{namespace}/{name}', heard[name].append, QoSProfile(depth=50))
        client.node.create_subscription(TF, '/tf', heard['tf'].append, 50)
        for name, topic in (('names', 'mask/label_names'), ('truth', 'camera/truth')):
            client.node.create_subscription(String, f'{namespace}/{topic}', heard[name].append, latched)
        with RosProcess('cooper_ros.camera', parameters, tmp_path / 'camera.log', namespace) as process:
            tools.wait_for(lambda: all(len(messages) >= 1 for messages in heard.values()), 'all topics')
            tools.wait_for(lambda: len(heard['mask/classes']) >= 3, 'masks')
            assert process.stop() == 0
    stamps = {name: {stamp_to_ns(m.header.stamp): m for m in heard[name]} for name in heard if '/' in name}
    transforms = {stamp_to_ns(m.transforms[0].header.stamp): m.transforms[0] for m in heard['tf']}
    images = {stamp_to_ns(m.header.stamp) for m in heard['image_raw']}
    stamp = max(images & set(transforms) & set.intersection(*map(set, stamps.values())))
    instances, classes = (labels_from_image(stamps[name][stamp]) for name in ('mask/instances', 'mask/classes'))
    names = {int(number): name for number, name in json.loads(heard['names'][0].data).items()}
    assert names == CLASSES and len(names) == 96
    truth = json.loads(heard['truth'][0].data)['scene']
    assert truth['distribution'] == 'warehouse'
    for item in truth['objects']:
        rows, columns = np.nonzero(classes == next(n for n, name in names.items() if name == item['name']))
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert box == tuple(item['box'])
        assert len(np.unique(instances[rows, columns])) == 1
    assert ((instances > 0) == (classes > 0)).all()
    scene = generate_scene(3, Distribution.load('warehouse'))
    rotation = rotation_from_message(transforms[stamp].transform.rotation)
    np.testing.assert_allclose(rotation[2], scene.up, atol=1e-6)
    assert transforms[stamp].header.frame_id == 'map'
