"""Image files in, generated maps out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cooper_model.perception import overlay
from cooper_model.transforms import to_rgb
from cooper_model.types import CameraIntrinsics, DepthMap, Frame, Modality, Segmentation

MAX_DEPTH_MM = 65535


def load_image(path: Path) -> np.ndarray:
    """Read an image file as ``(height, width, 3)`` uint8 RGB, upright as its EXIF orientation says.

    Transparency is composed over white; 16-bit images keep their upper eight bits.

    :raises FileNotFoundError: there is no such file
    :raises ValueError: the file is no image, is cut off, or has no fixed range
    """
    if not path.is_file():
        raise FileNotFoundError(f'{path} is not a file; give the path of an image')
    try:
        with Image.open(path) as image:
            image.load()
            return to_rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError as error:
        raise ValueError(f'{path} is no image that can be read; give a PNG or JPEG file') from error
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f'{path} cannot be read: {error}; it may be cut off, save it again') from error
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error


def load_frame(path: Path, fov: float | None) -> Frame:
    """Read an image file as a frame.

    :param fov: vertical field of view of the camera [deg], 1..179, None where unknown
    :raises FileNotFoundError, ValueError: see `load_image`
    """
    image = load_image(path)
    height, width = image.shape[:2]
    camera = CameraIntrinsics.from_vertical_fov(fov, width, height) if fov is not None else None
    return Frame(image, camera)


def make_folder(folder: Path) -> None:
    """Make an output folder.

    :raises FileExistsError: a file is in the way
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise FileExistsError(f'{folder} is, or lies under, a file; give another folder') from error


def save_array(path: Path, pixels: np.ndarray) -> Path:
    """Write ``(height, width)`` uint8 or uint16, or RGB uint8, as a PNG file; returns its path."""
    Image.fromarray(np.ascontiguousarray(pixels)).save(path)
    return path


def save_depth(folder: Path, depth: DepthMap) -> dict[str, Path]:
    """Write a depth map: colours, relative values and, where it is metric, metres and 16-bit millimetres.

    Invalid depth is 0 in the millimetre image and NaN in the arrays.
    """
    files = {
        'depth_color': save_array(folder / 'depth_color.png', depth.color),
        'depth_relative': folder / 'depth_relative.npy',
    }
    np.save(files['depth_relative'], depth.relative.astype(np.float32))
    if depth.metres is not None:
        files['depth_m'] = folder / 'depth_m.npy'
        np.save(files['depth_m'], depth.metres.astype(np.float32))
        files['depth_mm'] = save_array(folder / 'depth_mm.png', millimetres(depth.metres))
    return files


def millimetres(metres: np.ndarray) -> np.ndarray:
    """Return depth [m] as uint16 [mm]: 0 where invalid, 65535 from 65.535 m on."""
    valid = np.isfinite(metres) & (metres > 0)
    scaled = np.rint(np.where(valid, metres, 0) * 1000.0)
    return np.minimum(scaled, MAX_DEPTH_MM).astype(np.uint16)


def save_segmentation(folder: Path, segmentation: Segmentation, image: np.ndarray) -> dict[str, Path]:
    """Write a segmentation: class ids, instance ids, confidence, the model's picture, and an overlay."""
    confidence = np.rint(segmentation.confidence.clip(0, 1) * 255).astype(np.uint8)
    return {
        'mask': save_array(folder / 'mask.png', segmentation.labels),
        'instances': save_array(folder / 'instances.png', segmentation.instances.astype(np.uint16)),
        'confidence': save_array(folder / 'confidence.png', confidence),
        'segmentation': save_array(folder / 'segmentation.png', segmentation.color),
        'overlay': save_array(folder / 'overlay.png', overlay(image, segmentation)),
    }


def save_map(folder: Path, modality: Modality, number: int, picture: DepthMap | Segmentation) -> Path:
    """Write the coloured picture of one generated map, numbered in the order of generation."""
    return save_array(folder / f'{number}_{modality}.png', picture.color)
