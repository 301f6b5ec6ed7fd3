"""Images, cameras and clouds between ROS messages and arrays."""

from __future__ import annotations

import array
import math

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from cooper_model.types import CameraIntrinsics, Evidence, Frame, Relation, SceneObject
from cooper_ros import conversions, encodings, readings
from cooper_ros.client import relation_from_message
from cooper_ros.encodings import ConversionError, colour_from_compressed, colour_from_image, depth_from_image


def smooth(height: int = 15, width: int = 21) -> np.ndarray:
    """Return a picture that interpolation and chroma subsampling hardly change."""
    y, x = np.mgrid[0:height, 0:width]
    picture = np.stack([60 + 3 * x, 180 - 4 * y, 90 + 2 * x + 2 * y], axis=2)
    return picture.astype(np.uint8)


def message(encoding: str, rows: np.ndarray, size: tuple[int, int], padding: int = 0, bigendian: bool = False) -> Image:
    """Return an image message from its rows of bytes, with bytes of padding after each row."""
    packed = np.ascontiguousarray(rows).view(np.uint8).reshape(rows.shape[0], -1)
    padded = np.pad(packed, ((0, 0), (0, padding)), constant_values=171)
    image = Image(encoding=encoding, height=size[0], width=size[1], step=padded.shape[1], is_bigendian=int(bigendian))
    image.data = array.array('B', padded.tobytes())
    return image


PACKED = {
    'rgb8': lambda rgb: rgb,
    'bgr8': lambda rgb: rgb[..., ::-1],
    '8UC3': lambda rgb: rgb[..., ::-1],
    'rgba8': lambda rgb: np.dstack([rgb, np.full(rgb.shape[:2], 7, np.uint8)]),
    'bgra8': lambda rgb: np.dstack([rgb[..., ::-1], np.full(rgb.shape[:2], 7, np.uint8)]),
    '8UC4': lambda rgb: np.dstack([rgb[..., ::-1], np.full(rgb.shape[:2], 7, np.uint8)]),
}


@pytest.mark.parametrize('padding', [0, 5])
@pytest.mark.parametrize('encoding', PACKED)
def test_packed_colours_become_rgb(encoding, padding):
    rgb = smooth()
    decoded = colour_from_image(message(encoding, PACKED[encoding](rgb), rgb.shape[:2], padding))
    np.testing.assert_array_equal(decoded, rgb)
    assert decoded.flags.c_contiguous


@pytest.mark.parametrize('encoding', ['mono8', '8UC1'])
def test_grey_becomes_three_equal_channels(encoding):
    grey = smooth()[..., 0]
    decoded = colour_from_image(message(encoding, grey, grey.shape, padding=3))
    for channel in range(3):
        np.testing.assert_array_equal(decoded[..., channel], grey)


@pytest.mark.parametrize('bigendian', [False, True])
@pytest.mark.parametrize('encoding', ['mono16', 'rgb16', 'bgr16'])
def test_16_bits_keep_their_high_byte_in_either_byte_order(encoding, bigendian):
    rgb = smooth()
    wide = (rgb.astype(np.uint16) << 8 | 0x5A).astype('>u2' if bigendian else '<u2')
    wide = {'mono16': wide[..., 0], 'rgb16': wide, 'bgr16': wide[..., ::-1]}[encoding]
    decoded = colour_from_image(message(encoding, wide, rgb.shape[:2], padding=4, bigendian=bigendian))
    expected = np.repeat(rgb[..., :1], 3, axis=2) if encoding == 'mono16' else rgb
    np.testing.assert_array_equal(decoded, expected)


def mosaic(rgb: np.ndarray, pattern: str) -> np.ndarray:
    raw = np.empty(rgb.shape[:2], np.uint8)
    for position, colour in enumerate(pattern):
        row, column = divmod(position, 2)
        raw[row::2, column::2] = rgb[row::2, column::2, 'rgb'.index(colour)]
    return raw


@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
def test_bayer_patterns_are_interpolated(pattern, bits):
    rgb = smooth()
    raw = mosaic(rgb, pattern)
    if bits == 16:
        raw = (raw.astype(np.uint16) << 8).astype('>u2')
    decoded = colour_from_image(message(f'bayer_{pattern}{bits}', raw, rgb.shape[:2], padding=2, bigendian=bits == 16))
    error = np.abs(decoded[2:-2, 2:-2].astype(int) - rgb[2:-2, 2:-2])
    assert error.max() <= 4


def yuv(rgb: np.ndarray) -> np.ndarray:
    """Return Y, U, V in the limited range of BT.601, from the standard's own coefficients."""
    scaled = rgb.astype(float) @ np.array(
        [[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]
    ).T
    return np.rint(scaled / 255 + [16, 128, 128]).astype(np.uint8)


@pytest.mark.parametrize('width', [20, 21])
@pytest.mark.parametrize('encoding', ['yuv422', 'uyvy', 'yuv422_yuy2', 'yuyv'])
def test_packed_yuv_is_decoded_also_at_odd_widths(encoding, width):
    rgb = smooth(width=width)
    planes = yuv(rgb)
    chroma = planes[..., 1].copy()
    chroma[:, 1::2] = planes[:, 0:width - 1:2, 2][:, : chroma[:, 1::2].shape[1]]
    pair = [chroma, planes[..., 0]] if encoding in ('yuv422', 'uyvy') else [planes[..., 0], chroma]
    decoded = colour_from_image(message(encoding, np.stack(pair, axis=2), rgb.shape[:2], padding=6))
    assert decoded.shape == rgb.shape
    assert np.abs(decoded.astype(int) - rgb).max() <= 12


@pytest.mark.parametrize('encoding', ['nv12', 'nv21'])
def test_planar_yuv_is_decoded(encoding):
    rgb = smooth(14, 20)
    planes = yuv(rgb)
    first, second = (1, 2) if encoding == 'nv12' else (2, 1)
    chroma = np.stack([planes[::2, ::2, first], planes[::2, ::2, second]], axis=2).reshape(7, 20)
    rows = np.concatenate([planes[..., 0], chroma])
    decoded = colour_from_image(message(encoding, rows, (14, 20), padding=4))
    assert np.abs(decoded.astype(int) - rgb).max() <= 12


def test_last_row_may_lack_its_padding_and_step_may_be_zero():
    rgb = smooth()
    image = message('rgb8', rgb, rgb.shape[:2], padding=8)
    image.data = image.data[:-8]
    np.testing.assert_array_equal(colour_from_image(image), rgb)
    image = message('rgb8', rgb, rgb.shape[:2])
    image.step = 0
    np.testing.assert_array_equal(colour_from_image(image), rgb)


@pytest.mark.parametrize(
    ('change', 'says'),
    [
        ({'data': array.array('B', bytes(100))}, 'truncated: 100 bytes'),
        ({'data': array.array('B')}, 'truncated: 0 bytes'),
        ({'encoding': 'rgb9'}, "'rgb9' is unknown"),
        ({'encoding': ''}, "'' is unknown"),
        ({'encoding': '16UC1'}, 'holds depth'),
        ({'width': 0}, 'size is 0 x 15'),
        ({'height': 0}, 'size is 21 x 0'),
        ({'step': 10}, 'step is 10 bytes'),
        ({'width': 2**31, 'height': 2**31, 'step': 0}, 'truncated'),
        ({'encoding': 'bayer_rggb8', 'width': 2}, 'too few'),
        ({'encoding': 'yuv422', 'width': 1}, 'width of 2'),
        ({'encoding': 'nv21'}, 'even width'),
    ],
)
def test_broken_images_name_the_value(change, says):
    image = message('rgb8', smooth(), (15, 21))
    for name, value in change.items():
        setattr(image, name, value)
    with pytest.raises(ConversionError, match=says):
        colour_from_image(image)


@pytest.mark.parametrize('name', encodings.COLOUR_ENCODINGS)
def test_every_encoding_refuses_truncated_data(name):
    image = Image(encoding=name, height=16, width=16, step=0, data=array.array('B', bytes(16)))
    with pytest.raises(ConversionError, match='truncated'):
        colour_from_image(image)


@pytest.mark.parametrize('bigendian', [False, True])
def test_depth_becomes_metres_with_nan_where_invalid(bigendian):
    order = '>' if bigendian else '<'
    millimetres = np.array([[0, 1500], [65535, 1]], f'{order}u2')
    depth = depth_from_image(message('16UC1', millimetres, (2, 2), padding=2, bigendian=bigendian))
    np.testing.assert_allclose(depth, [[np.nan, 1.5], [65.535, 0.001]], rtol=1e-6)
    metres = np.array([[np.inf, 1.5], [-1, np.nan]], f'{order}f4')
    depth = depth_from_image(message('32FC1', metres, (2, 2), bigendian=bigendian))
    np.testing.assert_allclose(depth, [[np.nan, 1.5], [np.nan, np.nan]])
    assert depth.dtype == np.float32


def test_depth_refuses_colour():
    with pytest.raises(ConversionError, match="'rgb8' is unknown"):
        depth_from_image(message('rgb8', smooth(), (15, 21)))


def compressed(extension: str, rgb: np.ndarray) -> CompressedImage:
    _, data = cv2.imencode(extension, rgb[..., ::-1])
    return CompressedImage(format=f'rgb8; {extension[1:]} compressed bgr8', data=array.array('B', data.tobytes()))


def test_compressed_pictures_are_decoded():
    rgb = smooth()
    np.testing.assert_array_equal(colour_from_compressed(compressed('.png', rgb)), rgb)
    assert np.abs(colour_from_compressed(compressed('.jpg', rgb)).astype(int) - rgb).max() <= 12


@pytest.mark.parametrize('extension', ['.png', '.jpg'])
@pytest.mark.parametrize('kept', [0.1, 0.5, 0.99])
def test_truncated_compressed_pictures_are_refused(extension, kept):
    image = compressed(extension, smooth(60, 80))
    image.data = image.data[: int(len(image.data) * kept)]
    with pytest.raises(ConversionError, match='truncated'):
        colour_from_compressed(image)


def test_other_compressed_data_is_refused():
    with pytest.raises(ConversionError, match='no data'):
        colour_from_compressed(CompressedImage(format='jpeg'))
    with pytest.raises(ConversionError, match='no picture'):
        colour_from_compressed(CompressedImage(format='jpeg', data=array.array('B', b'not a picture at all')))
    with pytest.raises(ConversionError, match='holds depth'):
        colour_from_compressed(CompressedImage(format='16UC1; compressedDepth png', data=array.array('B', b'1')))


def camera_info(**changes) -> CameraInfo:
    info = CameraInfo(width=640, height=480, k=[500.0, 0.0, 319.5, 0.0, 510.0, 239.5, 0.0, 0.0, 1.0])
    for name, value in changes.items():
        setattr(info, name, value)
    return info


def test_intrinsics_are_read_from_k_and_scaled_to_the_image():
    camera = readings.intrinsics_from_message(camera_info(), 640, 480)
    assert camera == CameraIntrinsics(500, 510, 319.5, 239.5, 640, 480)
    half = readings.intrinsics_from_message(camera_info(), 320, 240)
    assert half == CameraIntrinsics(250, 255, 159.5, 119.5, 320, 240)


def test_region_of_interest_and_binning_are_applied():
    info = camera_info(binning_x=2, binning_y=2)
    info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = 100, 40, 400, 300
    camera = readings.intrinsics_from_message(info, 200, 150)
    # The pixel of the sensor that a ray hits, from both descriptions.
    sensor = 319.5 + 500 * 0.2
    assert (camera.fx * 0.2 + camera.cx + 0.5) * 2 - 0.5 + 100 == pytest.approx(sensor)
    assert camera.fy == pytest.approx(255)


@pytest.mark.parametrize('value', [0.0, math.nan, math.inf, -1.0])
def test_uncalibrated_cameras_are_refused(value):
    info = camera_info(k=[value, 0.0, 319.5, 0.0, 510.0, 239.5, 0.0, 0.0, 1.0])
    with pytest.raises(ConversionError, match='not calibrated'):
        readings.intrinsics_from_message(info, 640, 480)


def test_calibration_of_another_camera_is_refused():
    with pytest.raises(ConversionError, match='640 x 480 pixels, the image has 640 x 640'):
        readings.intrinsics_from_message(camera_info(), 640, 640)


def test_camera_info_survives_the_way_out_and_back():
    camera = CameraIntrinsics(500, 510, 300.25, 200.75, 640, 480)
    assert readings.intrinsics_from_message(conversions.camera_info_message(camera, Header()), 640, 480) == camera


@pytest.mark.parametrize('nanoseconds', [0, 1, 1_700_000_000_123_456_789, 999_999_999])
def test_stamps_are_exact_both_ways(nanoseconds):
    stamp = conversions.stamp_from_ns(nanoseconds)
    assert conversions.stamp_to_ns(stamp) == nanoseconds


def test_header_of_a_frame_is_the_one_it_came_with():
    image = message('rgb8', smooth(), (15, 21))
    image.header = Header(stamp=conversions.stamp_from_ns(5_000_000_007), frame_id='camera_optical_frame')
    frame = conversions.frame_from_message(image)
    assert conversions.header_of(frame) == image.header


@pytest.mark.parametrize('encoding', ['rgb8', 'mono8', 'mono16', '32FC1', '16UC1'])
def test_images_out_have_exact_layout(encoding):
    kind = {'mono16': '<u2', '16UC1': '<u2', '32FC1': '<f4'}.get(encoding, 'u1')
    shape = (5, 7, 3) if encoding == 'rgb8' else (5, 7)
    values = np.arange(np.prod(shape)).reshape(shape)
    image = conversions.image_message(values, encoding, Header(frame_id='camera'))
    assert (image.height, image.width, image.encoding) == (5, 7, encoding)
    assert image.header.frame_id == 'camera'
    assert image.step * 5 == len(image.data) == values.size * np.dtype(kind).itemsize
    np.testing.assert_array_equal(np.frombuffer(image.data, kind).reshape(shape), values)


def test_cloud_is_organised_with_colours_packed_for_rviz():
    points = np.zeros((2, 3, 3), np.float32)
    points[..., 2] = [[1, 2, np.nan], [4, 5, 6]]
    colours = np.zeros((2, 3, 3), np.uint8)
    colours[0, 1] = (255, 128, 1)
    cloud = conversions.point_cloud_message(points, colours, Header())
    assert (cloud.height, cloud.width, cloud.is_dense) == (2, 3, False)
    assert len(cloud.data) == cloud.row_step * cloud.height == cloud.point_step * 6
    assert [field.name for field in cloud.fields] == ['x', 'y', 'z', 'rgb']
    offset = cloud.fields[2].offset
    z = [np.frombuffer(cloud.data, '<f4', 1, i * cloud.point_step + offset)[0] for i in range(6)]
    np.testing.assert_array_equal(z, [1, 2, np.nan, 4, 5, 6])
    packed = np.frombuffer(cloud.data, '<u4', 1, cloud.point_step + cloud.fields[3].offset)[0]
    assert packed == 0xFF8001


def test_objects_without_depth_have_nan_lengths():
    item = SceneObject(id=3, name='red ball', confidence=0.5, box=(2, 3, 10, 9), area=20)
    sent = conversions.object_message(item)
    assert (sent.box.x_offset, sent.box.y_offset, sent.box.width, sent.box.height) == (2, 3, 8, 6)
    assert all(math.isnan(value) for value in (sent.center.x, sent.size.z, sent.depth))
    relation = conversions.relation_message(Relation(3, 'red ball', 'left of', 4, 'box', math.nan, 0.9))
    assert (relation.subject_id, relation.predicate, relation.object) == (3, 'left of', 'box')
    assert math.isnan(relation.distance)
    assert relation.subject_evidence.pixels == 0 and math.isnan(relation.subject_evidence.depth)


def test_evidence_goes_with_a_relation_and_comes_back():
    seen = (Evidence((20, 15), 180, 1.5, 0.25), Evidence((40, 12), 0, None, 0.0))
    sent = conversions.relation_message(Relation(3, 'red ball', 'left of', 4, 'box', 0.5, 0.75, seen))
    assert (sent.subject_evidence.x, sent.subject_evidence.y, sent.subject_evidence.pixels) == (20, 15, 180)
    assert (sent.subject_evidence.depth, sent.subject_evidence.measured) == (1.5, 0.25)
    assert math.isnan(sent.object_evidence.depth)
    assert relation_from_message(sent).evidence == seen


def test_frame_takes_measured_depth():
    depth = np.ones((15, 21), np.float32)
    frame = conversions.frame_from_message(message('rgb8', smooth(), (15, 21)), depth=depth)
    assert isinstance(frame, Frame)
    np.testing.assert_array_equal(frame.depth, depth)
