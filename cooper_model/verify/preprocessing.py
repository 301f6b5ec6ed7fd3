"""The section of published preprocessing: sizes, resized pictures, depth and label files, colours."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from PIL import Image

from cooper_model import transforms
from cooper_model.config import ResizeConfig
from cooper_model.network.vision import patch_rows
from cooper_model.verify.case import Case
from cooper_model.verify.record import LEVEL, Section


def verify_preprocess(case: Case, section: Section) -> None:
    """Resize, normalise, convert and colour everything that was recorded."""
    settings = case.json('preprocess')
    for entry in settings['sizes']:
        width, height = entry['in_wh']
        limits = ResizeConfig(entry['max_size'], entry['min_size'], entry['stride'])
        size = transforms.resized_size(height, width, limits, entry['img_num'], entry['max_pixels'])
        section.same(f'size of {entry}', list(size[::-1]), entry['out_wh'])
    _check_images(case, section, settings['tensors'])
    for entry in settings['depth']:
        _check_depth(section, entry)
    _check_modes(section)
    _check_colours(section)
    if 'segmentation_raw' in section:
        target = transforms.published_segmentation_target(
            section.array('segmentation_raw'), case.config.vae_transform
        )
        section.check('segmentation_train_channel0', target)


def _check_images(case: Case, section: Section, entries: list[dict[str, Any]]) -> None:
    """Compare the resized image, the normalised one and its patches, where each was recorded."""
    count: dict[int, int] = {}
    for entry in entries:
        number = entry['image']
        prefix = f'image{number}_t{count.setdefault(number, 0)}'
        count[number] += 1
        resized = transforms.resize(section.array(f'image{number}_uint8'), ResizeConfig(*entry['transform']))
        pixels = transforms.normalise(resized)
        section.same(f'{prefix} shape', list(pixels.shape), entry['out_chw'])
        section.check_known(f'{prefix}_resized_uint8', resized, LEVEL)
        section.check_known(f'{prefix}_tensor', pixels)
        if f'{prefix}_patches' in section:
            rows = patch_rows(torch.from_numpy(pixels)[None], case.config.vision.patch_size)
            section.check(f'{prefix}_patches', rows[0])


def _check_depth(section: Section, entry: dict[str, Any]) -> None:
    name = entry['dataset']
    recorded = (entry['scale_factor'], entry['min_depth'], entry['max_depth'])
    data = transforms.PUBLISHED_DEPTH.get(name)
    if data is None:
        data = transforms.PublishedDepth(recorded[0], recorded[1:], cropped=False)
    section.same(f'depth_{name} constants', (data.units, *data.depth_range), recorded)
    resized = transforms.published_depth_resize(
        section.array(f'depth_{name}_raw'), ResizeConfig(*entry['transform'])
    )
    metres = resized.astype(np.float32) / np.float32(data.units)
    mask = transforms.published_depth_mask(metres, data)
    section.check(f'depth_{name}_resized_raw', resized)
    section.check(f'depth_{name}_train_channel0', transforms.published_depth_target(resized, data))
    section.check(f'depth_{name}_eval_metres', metres)
    section.check(f'depth_{name}_eval_mask', mask)
    section.same(f'depth_{name} valid pixels', int(mask.sum()), entry['valid_pixels'])


def _check_modes(section: Section) -> None:
    for name in section.names():
        mode = re.fullmatch(r'rgb_from_(\w+)_in', name)
        if mode:
            pixels = section.array(name)
            image = Image.fromarray(pixels)
            section.check(f'rgb_from_{mode[1]}_out', transforms.published_to_rgb(image), LEVEL)


def _check_colours(section: Section) -> None:
    section.check('spectral_lut', transforms.spectral_colours())
    # The second ramp was coloured as indoor depth: in NYU's range, invalid pixels black.
    ranges = {'ramp': (0.0, 1.0), 'ramp2': transforms.PUBLISHED_DEPTH['nyu'].depth_range}
    for name, depth_range in ranges.items():
        if name in section:
            valid = section.array(f'{name}_valid') if f'{name}_valid' in section else None
            colours = transforms.colour_depth(section.array(name), depth_range, valid)
            section.check(f'{name}_colored', colours.transpose(2, 0, 1))
            section.check_known(f'{name}_colored_uint8', transforms.to_uint8(colours), LEVEL)
