"""Image files in every common form come in as upright RGB; maps go out without loss."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from cooper_cli.pictures import load_frame, load_image, make_folder, millimetres, save_depth, save_segmentation
from cooper_model.perception import overlay
from cooper_model.types import DepthMap, Segmentation


@pytest.fixture
def rgb() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (30, 40, 3), dtype=np.uint8)


def test_png_comes_in_unchanged(tmp_path, rgb):
    Image.fromarray(rgb).save(tmp_path / 'a.png')
    assert (load_image(tmp_path / 'a.png') == rgb).all()


@pytest.mark.parametrize(
    'orientation, turns, mirrored', [(1, 0, False), (2, 0, True), (3, 2, False), (6, 3, False), (8, 1, False)]
)
def test_exif_orientation_is_undone(tmp_path, rgb, orientation, turns, mirrored):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(rgb).save(tmp_path / 'a.png', exif=exif)
    upright = np.rot90(rgb, turns)
    assert (load_image(tmp_path / 'a.png') == (upright[:, ::-1] if mirrored else upright)).all()


def test_transparency_is_composed_over_white(tmp_path, rgb):
    alpha = np.zeros((30, 40, 1), np.uint8)
    alpha[:10] = 255
    Image.fromarray(np.concatenate([rgb, alpha], axis=2)).save(tmp_path / 'a.png')
    image = load_image(tmp_path / 'a.png')
    assert (image[:10] == rgb[:10]).all() and (image[10:] == 255).all()


def test_16_bit_gray_keeps_its_upper_bits(tmp_path):
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(values).save(tmp_path / 'a.png')
    image = load_image(tmp_path / 'a.png')
    assert image.shape == (256, 256, 3) and (image[..., 1] == values >> 8).all()


@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'P', 'CMYK', 'YCbCr'])
def test_other_modes_become_rgb(tmp_path, rgb, mode):
    suffix = 'tiff' if mode in ('CMYK', 'YCbCr') else 'png'
    Image.fromarray(rgb).convert(mode).save(tmp_path / f'a.{suffix}')
    image = load_image(tmp_path / f'a.{suffix}')
    assert image.shape == rgb.shape and image.dtype == np.uint8


def test_what_is_no_image_is_named(tmp_path, rgb):
    with pytest.raises(FileNotFoundError, match=r'nothing\.png'):
        load_image(tmp_path / 'nothing.png')
    (tmp_path / 'text.png').write_text('hello')
    with pytest.raises(ValueError, match=r'text\.png is no image'):
        load_image(tmp_path / 'text.png')
    (tmp_path / 'empty.jpg').touch()
    with pytest.raises(ValueError, match='no image'):
        load_image(tmp_path / 'empty.jpg')
    Image.fromarray(rgb).save(tmp_path / 'whole.png')
    data = (tmp_path / 'whole.png').read_bytes()
    (tmp_path / 'half.png').write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r'half\.png'):
        load_image(tmp_path / 'half.png')
    Image.fromarray(rgb[..., 0].astype(np.float32)).save(tmp_path / 'float.tiff')
    with pytest.raises(ValueError, match=r'float\.tiff.*float'):
        load_image(tmp_path / 'float.tiff')


def test_field_of_view_gives_a_camera(tmp_path, rgb):
    Image.fromarray(rgb).save(tmp_path / 'a.png')
    assert load_frame(tmp_path / 'a.png', None).intrinsics is None
    camera = load_frame(tmp_path / 'a.png', 90.0).intrinsics
    assert (camera.fx, camera.cx, camera.cy) == pytest.approx((15.0, 19.5, 14.5))


def test_a_file_in_the_way_of_a_folder(tmp_path):
    (tmp_path / 'file').touch()
    for folder in (tmp_path / 'file', tmp_path / 'file' / 'below'):
        with pytest.raises(FileExistsError, match='give another folder'):
            make_folder(folder)


def test_millimetres():
    metres = np.array([[1.2344, np.nan, -1.0, 0.0, np.inf, 70.0]], np.float32)
    assert millimetres(metres).tolist() == [[1234, 0, 0, 0, 0, 65535]]


def test_metric_files_only_where_depth_is_metric(tmp_path):
    relative = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    color = np.zeros((3, 4, 3), np.uint8)
    assert set(save_depth(tmp_path, DepthMap(relative, None, color))) == {'depth_color', 'depth_relative'}
    files = save_depth(tmp_path, DepthMap(relative, relative * 4, color))
    stored = np.asarray(Image.open(files['depth_mm']))
    assert stored.dtype == np.uint16 and (stored == np.rint(relative * 4000)).all()
    assert (np.load(files['depth_m']) == relative * 4).all()


def test_masks_survive_and_the_overlay_touches_objects_alone(tmp_path, rgb):
    instances = np.zeros((30, 40), np.uint16)
    instances[5:15, 5:15] = 300
    labels = np.where(instances > 0, 2, 255).astype(np.uint8)
    color = np.full((30, 40, 3), 200, np.uint8)
    segmentation = Segmentation(labels, instances, np.ones((30, 40), np.float32), ('a', 'b', 'c'), color)
    files = save_segmentation(tmp_path, segmentation, rgb)
    assert (np.asarray(Image.open(files['instances'])) == instances).all()
    assert (np.asarray(Image.open(files['mask'])) == labels).all()
    picture = overlay(rgb, segmentation)
    assert (picture[20:] == rgb[20:]).all() and (picture[:4] == rgb[:4]).all()
    assert (picture[5, 5:15] == 255).all()
    assert abs(picture[10, 10].astype(int) - (rgb[10, 10].astype(int) + 200) / 2).max() <= 1
