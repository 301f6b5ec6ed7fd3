"""Generated depth and masks on real images: errors after alignment, and a picture to look at.

    python -m bench.real_images [--data ../shared/data] [--checkpoint DIR] [--out runs/real]
    python -m bench.real_images --out runs/real --table docs/results.md

Writes ``real.json``, ``real.jpg`` (image, measured depth, generated depth, masks) and ``real.md``, which says where
every row comes from and under which licence. AbsRel is taken at the sensor's resolution over the pixels that it
measured, after the one scale and shift of each image that fit best by least squares: in depth (Ke et al. 2024,
Marigold, arXiv 2312.02145) and in inverse depth (Ranftl et al. 2020, MiDaS, arXiv 1907.01341). ``constant`` is what the
mean of an image's measured depth scores.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.real_data import Shot, bag_frames, pairs, photos
from bench.real_pictures import Row, caption, grid
from bench.tables import fill_marks
from cooper_cli.machine import describe_machine
from cooper_cli.options import ModelChoice
from cooper_cli.output import plain
from cooper_cli.session import open_reasoner
from cooper_model.reasoner import Reasoner
from cooper_model.types import DepthMap, ImageReady, Segmentation
from cooper_sim.scoring import DepthScore, depth_score, rate
from training.datasets.scores import aligned

SETS = ('ycb_table', 'arc2017_bin')
RANGE = (1e-3, 10.0)  # of indoor depth sensors, as of NYUv2 [m]
WAYS = {
    'aligned': 'aligned in depth',
    'aligned_inverse': 'aligned in inverse depth',
    'as_generated': 'as generated',
    'constant': 'mean of the measured',
}


def fitted(depth: DepthMap, measured: np.ndarray) -> dict[str, np.ndarray | None]:
    """Return generated depth [m] in each of ``WAYS``, ``as_generated`` None where it is not metric.

    :param measured: ``(height, width)`` [m], NaN where unknown
    """
    drawn = depth.relative if depth.metres is None else depth.metres
    # Nearer than a hundredth of the middle would outweigh all else in inverse depth.
    inverse = 1 / np.maximum(drawn, 0.01 * np.median(drawn) + 1e-9)
    with np.errstate(divide='ignore'):
        turned = 1 / np.maximum(aligned(inverse, 1 / measured), 1 / RANGE[1])
    return {
        'aligned': aligned(drawn, measured).clip(*RANGE),
        'aligned_inverse': turned.clip(*RANGE),
        'as_generated': depth.metres,
        'constant': np.full_like(measured, np.nanmean(measured)),
    }


def look(reasoner: Reasoner[Any], shot: Shot, seed: int) -> tuple[DepthMap, Segmentation]:
    """Return both maps of an image."""
    # Without the measured depth, which a reasoner would take over where it has it.
    events = reasoner.perceive(replace(shot.frame, depth=None), ('depth', 'segmentation'), seed=seed)
    maps = {event.modality: event.image for event in events if isinstance(event, ImageReady)}
    return maps['depth'], maps['segmentation']


def summarise(scores: Sequence[tuple[str, dict[str, DepthScore | None]]]) -> dict[str, Any]:
    """Return the mean of every figure for every group and way, ``NAME_95`` its interval over images."""
    found: dict[str, Any] = {}
    for group in dict.fromkeys(name for name, _ in scores):
        own = [ways for name, ways in scores if name == group]
        found[group] = {'n': len(own)}
        for way in WAYS:
            listed = [asdict(ways[way]) for ways in own if ways[way] is not None]
            found[group][way] = {}
            for name in ('abs_rel', 'delta1', 'rmse') if listed else ():
                mean = rate([entry[name] for entry in listed], [1.0] * len(listed))
                found[group][way] |= {name: mean.mean, f'{name}_95': [mean.low, mean.high]}
    return found


def table(record: dict[str, Any]) -> str:
    """Return a record as Markdown."""
    rows = ['| images | depth | AbsRel | delta1 |', '|---|---|---|---|']
    for group, entry in record['groups'].items():
        for way, label in WAYS.items():
            if entry[way]:
                cells = ' | '.join(_figure(entry[way], name) for name in ('abs_rel', 'delta1'))
                rows.append(f'| {group} ({entry["n"]}) | {label} | {cells} |')
    where = f'{record["checkpoint"]}; {record["machine"]}; {record["date"]}'
    return '\n'.join([*rows, '', f'`python -m bench.real_images`; {where}'])


def _figure(entry: dict[str, Any], name: str) -> str:
    low, high = entry[f'{name}_95']
    return f'{entry[name]:.3f}' + ('' if None in (low, high) else f' ({low:.3f} to {high:.3f})')


def run(shots: Sequence[Shot], scored: Sequence[str], reasoner: Reasoner[Any], seed: int, out: Path) -> dict[str, Any]:
    """Look at images, score those of some groups, and write pictures and captions; returns the figures."""
    scores, rows, images = [], [], []
    for shot in shots:
        depth, masks = look(reasoner, shot, seed)
        measured = shot.frame.depth
        ways = None if measured is None or not np.isfinite(measured).any() else fitted(depth, measured)
        rows.append(Row(shot, depth, masks, None if ways is None else ways['aligned']))
        if ways is not None and shot.group in scored:
            own = {way: None if map_ is None else depth_score(map_, measured) for way, map_ in ways.items()}
            scores.append((shot.group, own))
            told = {way: None if score is None else asdict(score) for way, score in own.items()}
            images.append({'name': shot.name, 'group': shot.group, 'licence': shot.licence, **told})
    out.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grid(rows)).save(out / 'real.jpg', quality=88)
    (out / 'real.md').write_text(caption(rows), encoding='utf-8')
    return {'groups': summarise(scores), 'images': images}


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = Path(os.environ.get('COOPER_SHARED', '../shared')) / 'data'
    parser.add_argument('--data', type=Path, default=shared, help='folder with rgbd, photos and bags')
    parser.add_argument('--sets', nargs='+', default=SETS, help='folders of rgbd to score')
    parser.add_argument('--photos', type=int, default=4)
    parser.add_argument('--bag-frames', type=int, default=1, help='of each bag under --data')
    parser.add_argument('--checkpoint', type=Path, metavar='DIR', help='default the shipped nano')
    parser.add_argument('--steps', type=int, help="sampling steps; default the checkpoint's own")
    parser.add_argument('--device')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', type=Path, default=Path('runs/real'))
    parser.add_argument('--table', type=Path, metavar='DOCUMENT', help='write what --out holds there, measure nothing')
    given = parser.parse_args(arguments)
    path = given.out / 'real.json'
    try:
        if not given.table:
            path.write_text(json.dumps(plain(_measure(given)), indent=1) + '\n', encoding='utf-8')
        record = json.loads(path.read_text(encoding='utf-8'))
        if given.table:
            document = given.table.read_text(encoding='utf-8')
            given.table.write_text(fill_marks(document, {'real_images': table(record)}), encoding='utf-8')
        else:
            sys.stdout.write(table(record) + '\n')
    except (OSError, ValueError) as error:
        parser.error(str(error))


def _measure(given: argparse.Namespace) -> dict[str, Any]:
    bags = sorted(path.parent for path in (given.data / 'bags').glob('*/metadata.yaml'))
    shots = [*pairs(given.data, given.sets), *photos(given.data, given.photos)]
    shots += [shot for bag in bags for shot in bag_frames(bag, given.bag_frames)]
    reasoner = open_reasoner(ModelChoice(given.checkpoint, device=given.device))
    if given.steps is not None:
        reasoner.sampler = replace(reasoner.sampler, num_timesteps=given.steps + 1)
    record = run(shots, given.sets, reasoner, given.seed, given.out)
    told = {'checkpoint': 'nano' if given.checkpoint is None else str(given.checkpoint), 'seed': given.seed}
    return {**told, 'steps': reasoner.sampler.num_timesteps - 1, **record, **describe_machine()}


if __name__ == '__main__':
    main()
