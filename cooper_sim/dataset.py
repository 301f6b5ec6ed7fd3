"""Write data sets of simulated samples in several processes: ``python -m cooper_sim.dataset --out DIR ...``.

Work is cut into blocks; a block's objects are written last, so that an interrupted run goes on where it
stopped.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from cooper_sim.distribution import Distribution
from cooper_sim.questions import ask_questions
from cooper_sim.records import ARRAYS, describe_sample, open_array

log = logging.getLogger(__name__)
BLOCK = 256
QUESTIONS = 6  # a scene; more can be asked of a record


@dataclass(frozen=True)
class Job:
    """What a data set is made of; equal jobs give equal files."""

    count: int
    first_seed: int
    size: tuple[int, int]
    distribution: str


def write_dataset(
    folder: str | Path,
    count: int,
    first_seed: int,
    size: tuple[int, int] = (128, 96),
    distribution: str = 'train',
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write ``count`` samples of consecutive seeds into ``folder``; goes on with an interrupted folder.

    :param size: width, height [px]
    :param distribution: name of a committed distribution
    :param progress: called with the samples done and ``count``
    :raises ValueError: the folder holds another data set
    """
    job = Job(count, first_seed, tuple(size), distribution)
    folder = Path(folder)
    _prepare(folder, job)
    starts = range(0, count, BLOCK)
    waiting = [start for start in starts if not _part(folder, start).is_file()]
    done = count - sum(min(BLOCK, count - start) for start in waiting)
    # Spawned, because a rendering context does not survive a fork.
    with multiprocessing.get_context('spawn').Pool(workers, _start_worker) as pool:
        for made in pool.imap_unordered(_write_block, [(folder, job, start) for start in waiting]):
            done += made
            if progress is not None:
                progress(done, count)
    if not (folder / 'objects.jsonl').is_file():
        text = ''.join(_part(folder, start).read_text() for start in starts)
        (folder / 'objects.jsonl.new').write_text(text)
        (folder / 'objects.jsonl.new').rename(folder / 'objects.jsonl')


def _prepare(folder: Path, job: Job) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    meta = {
        'count': job.count,
        'first_seed': job.first_seed,
        'size': list(job.size),
        'distribution': job.distribution,
        'version': Distribution.load(job.distribution).version,
    }
    path = folder / 'meta.json'
    if path.is_file():
        found = json.loads(path.read_text())
        if {key: found.get(key) for key in meta} != meta:
            raise ValueError(
                f'{folder} holds another data set, {found}, expected {meta}; choose an empty folder'
            )
        return
    (folder / 'parts').mkdir(exist_ok=True)
    for name in ARRAYS:
        open_array(folder, name, job.count, job.size, 'w+').flush()
    path.write_text(json.dumps(meta, indent=2) + '\n')


def _part(folder: Path, start: int) -> Path:
    return folder / 'parts' / f'{start:08d}.jsonl'


def _start_worker() -> None:
    os.environ['LP_NUM_THREADS'] = '0'  # the software rasteriser's own threads only cost here


def _write_block(task: tuple[Path, Job, int]) -> int:
    # Imported here, so that MuJoCo starts in the worker and after its environment is set.
    import cv2

    from cooper_sim.render import Renderer
    from cooper_sim.sample import make_sample

    cv2.setNumThreads(1)
    folder, job, start = task
    distribution = Distribution.load(job.distribution)
    renderer = Renderer(*job.size)
    arrays = {name: open_array(folder, name, job.count, job.size, 'r+') for name in ARRAYS}
    lines = []
    stop = min(start + BLOCK, job.count)
    for index in range(start, stop):
        seed = job.first_seed + index
        sample = make_sample(seed, renderer, distribution)
        questions = [asdict(q) for q in ask_questions(sample, np.random.default_rng(seed), QUESTIONS)]
        arrays['images'][index], arrays['depths'][index], arrays['ids'][index] = (
            sample.image,
            sample.depth,
            sample.ids,
        )
        lines.append(json.dumps({**describe_sample(sample), 'questions': questions}) + '\n')
    for array in arrays.values():
        array.flush()
    fresh = _part(folder, start).with_suffix('.new')
    fresh.write_text(''.join(lines))
    fresh.rename(_part(folder, start))
    return stop - start


def main() -> None:
    """Read the command line and write a data set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--count', type=int, required=True)
    parser.add_argument('--first-seed', type=int, default=0)
    parser.add_argument('--size', type=int, nargs=2, default=(128, 96), metavar=('WIDTH', 'HEIGHT'))
    parser.add_argument('--distribution', default='train')
    parser.add_argument('--workers', type=int, default=2)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    try:
        write_dataset(
            options.out,
            options.count,
            options.first_seed,
            tuple(options.size),
            options.distribution,
            options.workers,
            lambda done, count: log.info('%d of %d samples', done, count),
        )
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == '__main__':
    main()
