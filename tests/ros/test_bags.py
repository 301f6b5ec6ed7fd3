"""Finding the camera in bags: real ones, small ones written here in each format, and damaged ones."""

from __future__ import annotations

import shutil
import struct

import numpy as np
import pytest

from cooper_ros.bags import BagError, CameraBag
from tests.ros.compressed_depth import compressed_depth
from tests.ros.scribe import SECOND, Scribe


@pytest.fixture(params=['sqlite3', 'mcap', 'ros1'])
def scribe(request, tmp_path):
    """Return a scribe and the path that its bag has once the writer is closed."""
    path = tmp_path / ('bag.bag' if request.param == 'ros1' else 'bag')
    scribe = Scribe(path, request.param)
    with scribe.writer:
        yield scribe, path


def closed(scribe, path):
    scribe.writer.close()
    # The fixture closes again; a closed writer refuses.
    scribe.writer.close = lambda: None
    return CameraBag(path)


def test_the_camera_is_found_by_content(scribe):
    scribe, path = scribe
    for index in range(3):
        ns = (10 + index) * SECOND
        scribe.image('/stereo/infra1/image', ns, 'mono8')
        scribe.image('/stereo/infra1/image', ns + 1, 'mono8')
        scribe.image('/cam/picture', ns)
        scribe.info('/stereo/infra1/camera_info', ns, focal=99.0)
        scribe.info('/cam/camera_info', ns)
        scribe.info('/cam/binned/camera_info', ns, size=(4, 3))
        scribe.image('/cam/distance', ns, '16UC1')
        scribe.image('/stereo/distance', ns, '16UC1', frame='stereo_optical')
    with closed(scribe, path) as bag:
        assert bag.topics.image.name == '/cam/picture'
        assert (bag.topics.image.width, bag.topics.image.height, bag.topics.image.count) == (8, 6, 3)
        assert bag.topics.camera_info == '/cam/camera_info'
        assert bag.topics.depth.name == '/cam/distance'
        messages = list(bag.messages())
    assert [message.role for message in messages].count('image') == 3
    assert [message.time_ns for message in messages] == sorted(message.time_ns for message in messages)
    pictures = [message for message in messages if message.role == 'image']
    assert [picture.message.header.stamp.sec for picture in pictures] == [10, 11, 12]
    assert pictures[0].message.header.frame_id == 'camera_optical'


def test_depth_of_another_view_is_not_taken_for_registered(scribe):
    scribe, path = scribe
    scribe.image('/device/color', SECOND, frame='0')
    scribe.image('/device/depth', SECOND, 'mono16', frame='0')
    with closed(scribe, path) as bag:
        assert bag.topics.image.name == '/device/color'
        assert bag.topics.depth is None
        assert bag.topics.camera_info is None


def test_a_named_topic_wins_and_a_missing_one_is_told(tmp_path):
    scribe = Scribe(tmp_path / 'bag', 'sqlite3')
    with scribe.writer:
        scribe.image('/color', SECOND)
        scribe.image('/grey', SECOND, 'mono8')
    with CameraBag(tmp_path / 'bag', image_topic='/grey') as bag:
        assert bag.topics.image.name == '/grey'
    with pytest.raises(BagError, match="no image topic '/gray'; image topics are: /color, /grey"):
        CameraBag(tmp_path / 'bag', image_topic='/gray')
    with pytest.raises(BagError, match="no CameraInfo topic '/info'"):
        CameraBag(tmp_path / 'bag', camera_info_topic='/info')


def bag_of_compressed_depth(path, form, data):
    """Write a bag of one colour image and one compressed depth image that is registered to it."""
    scribe = Scribe(path, 'sqlite3')
    with scribe.writer:
        scribe.image('/color', SECOND)
        scribe.write(
            '/aligned_depth', 'sensor_msgs/msg/CompressedImage', SECOND, header=scribe.header(SECOND, 'camera'),
            format=form, data=np.frombuffer(data, np.uint8),
        )  # fmt: skip
    return path


def test_compressed_depth_of_the_image_s_size_is_found(tmp_path):
    values = compressed_depth(np.full((6, 8), 2.0, np.float32), '16UC1')
    with CameraBag(bag_of_compressed_depth(tmp_path / 'bag', '16UC1; compressedDepth png', values)) as bag:
        assert (bag.topics.depth.name, bag.topics.depth.compressed) == ('/aligned_depth', True)
        assert (bag.topics.depth.width, bag.topics.depth.height) == (8, 6)
        assert [item.role for item in bag.messages()] == ['image', 'depth']
    other = compressed_depth(np.full((8, 8), 2.0, np.float32), '16UC1')
    with CameraBag(bag_of_compressed_depth(tmp_path / 'other', '16UC1; compressedDepth png', other)) as bag:
        assert bag.topics.depth is None


def test_depth_compressed_otherwise_is_refused_where_it_is_named(tmp_path):
    path = bag_of_compressed_depth(tmp_path / 'bag', '16UC1; png compressed', bytes(20))
    with CameraBag(path) as bag:
        assert bag.topics.depth is None
    with pytest.raises(BagError, match="'/aligned_depth' is compressed .* name a topic of sensor_msgs/Image or of"):
        CameraBag(path, depth_topic='/aligned_depth')


def test_a_bag_without_images_is_told_with_what_it_holds(tmp_path):
    scribe = Scribe(tmp_path / 'bag', 'mcap')
    with scribe.writer:
        scribe.info('/camera_info', SECOND)
    with pytest.raises(BagError, match=r'no camera images.*/camera_info \(sensor_msgs/msg/CameraInfo\)'):
        CameraBag(tmp_path / 'bag')


def test_paths_that_are_no_bag(tmp_path):
    with pytest.raises(BagError, match='does not exist'):
        CameraBag(tmp_path / 'nothing')
    with pytest.raises(BagError, match='no metadata.yaml.*ros2 bag reindex'):
        CameraBag(tmp_path)
    (tmp_path / 'empty.bag').touch()
    with pytest.raises(BagError, match='empty.bag is truncated, damaged or no bag.*rosbag reindex'):
        CameraBag(tmp_path / 'empty.bag')
    (tmp_path / 'text.mcap').write_text('this is no bag')
    with pytest.raises(BagError, match='text.mcap is truncated, damaged or no bag.*ros2 bag reindex'):
        CameraBag(tmp_path / 'text.mcap')


@pytest.mark.parametrize('storage', ['sqlite3', 'mcap', 'ros1'])
@pytest.mark.parametrize('part', [0.02, 0.3, 0.6, 0.95])
def test_a_truncated_bag_is_told_and_never_crashes(tmp_path, storage, part):
    path = tmp_path / ('bag.bag' if storage == 'ros1' else 'bag')
    scribe = Scribe(path, storage)
    with scribe.writer:
        for index in range(20):
            scribe.image('/color', index * SECOND, size=(64, 48))
    file = path if storage == 'ros1' else next(entry for entry in path.iterdir() if entry.suffix != '.yaml')
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * part)])
    with pytest.raises(BagError, match=f'bag {path} is truncated.*copy it again'), CameraBag(path) as bag:
        list(bag.messages())


def test_garbage_on_one_page_of_a_database_is_told(tmp_path):
    scribe = Scribe(tmp_path / 'bag', 'sqlite3')
    with scribe.writer:
        for index in range(40):
            scribe.image('/cam/picture', (10 + index) * SECOND, size=(96, 72))
    file = next((tmp_path / 'bag').glob('*.db3'))
    data = bytearray(file.read_bytes())
    page = len(data) * 7 // 10 // 4096 * 4096
    data[page : page + 4096] = b'\xff' * 4096
    file.write_bytes(data)
    with pytest.raises(BagError, match='damaged'), CameraBag(tmp_path / 'bag') as bag:
        list(bag.messages())


def test_garbage_inside_a_message_is_told(tmp_path):
    scribe = Scribe(tmp_path / 'bag', 'sqlite3')
    with scribe.writer:
        scribe.image('/color', SECOND)
        # A message that claims more pixels than it has bytes.
        scribe.writer.write(scribe.connections['/color'], 2 * SECOND, b'\x00\x01\x00\x00' + struct.pack('<II', 1, 2))
    with CameraBag(tmp_path / 'bag') as bag, pytest.raises(BagError, match='damaged'):
        list(bag.messages())


EXPECTED = {
    'realsense_d435_ros2': (
        '/camera/color/image_raw', 1, '/camera/color/camera_info', '/camera/aligned_depth_to_color/image_raw',
    ),
    'tum_fr1_rpy_ros2': (
        '/camera/rgb/image_color/compressed', 40, '/camera/rgb/camera_info', '/camera/depth_registered/image_raw',
    ),
    'realsense_d435_sdk_native.bag': (
        '/device_0/sensor_1/Color_0/image/data', 1, '/device_0/sensor_1/Color_0/info/camera_info', None,
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', EXPECTED)
def test_real_bags(shared, name):
    image, count, info, depth = EXPECTED[name]
    with CameraBag(shared / 'data' / 'bags' / name) as bag:
        found = bag.topics
        assert (found.image.name, found.image.count, found.camera_info) == (image, count, info)
        assert (found.depth.name if found.depth else None) == depth
        assert (found.image.width, found.image.height) == (640, 480)
        pictures = [item for item in bag.messages() if item.role == 'image']
    assert len(pictures) == count


def test_the_file_of_a_bag_will_do_where_its_metadata_is_lost(shared, tmp_path):
    source = shared / 'data' / 'bags' / 'realsense_d435_ros2' / 'realsense_d435_ros2.db3'
    shutil.copyfile(source, tmp_path / 'lone.db3')
    with CameraBag(tmp_path / 'lone.db3') as bag:
        assert bag.topics.image.name == '/camera/color/image_raw'
