"""What a run tells while it goes on: a bar with the time left, TensorBoard curves and ``log.jsonl``."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from accelerate import Accelerator
from accelerate.utils import gather_object
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)
# Parts of a loss that are no losses but amounts of work: added up, and shown by the second.
COUNTS = ('tokens', 'scenes')
LOG = 'log.jsonl'
Parts = Mapping[str, Tensor | float]


class Curves:
    """Values of a run; the first process writes them down."""

    def __init__(self, folder: Path, done: int, steps: int, accelerator: Accelerator) -> None:
        self.folder, self.first = folder, accelerator.is_main_process
        self._writer: SummaryWriter | None = None
        if self.first:
            _forget_after(folder / LOG, done)
        columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, disable=not self.first)
        self._task = self._bar.add_task('training', completed=done, total=steps)
        self.restart()

    def __enter__(self) -> Curves:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        self._close()

    def restart(self) -> None:
        """Measure throughput from now on; what takes time beside training is left out that way."""
        self._since = time.perf_counter()
        self._counts = dict.fromkeys(COUNTS, 0.0)

    def count(self, step: int, batches: Sequence[Parts]) -> None:
        """Take note of a step's work."""
        self._bar.update(self._task, completed=step)
        for parts in batches:
            for name in self._counts.keys() & parts.keys():
                self._counts[name] += float(parts[name])

    def report(self, step: int, batches: Sequence[Parts], more: Mapping[str, float]) -> None:
        """Write a step's values, averaged over all batches that have them; every process must call this."""
        own = [{name: float(value) for name, value in parts.items() if name not in COUNTS} for parts in batches]
        everyone = gather_object([(own, self._counts, time.perf_counter() - self._since)])
        found: dict[str, list[float]] = {}
        for batch in (batch for each, _, _ in everyone for batch in each):
            for name, value in batch.items():
                found.setdefault(name, []).append(value)
        shown = {name: sum(values) / len(values) for name, values in found.items()}
        for name in COUNTS:
            if done := sum(counts[name] for _, counts, _ in everyone):
                shown[f'{name}_per_second'] = done / max(seconds for _, _, seconds in everyone)
        if self.first:
            self.write('train', shown | dict(more), step)
            speeds = {name: shown.get(f'{name}_per_second') for name in COUNTS}
            speed = ''.join(f', {value:,.1f} {name}/s' for name, value in speeds.items() if value is not None)
            self._bar.update(self._task, description=f'loss {shown["total"]:.4f}{speed}')
        self.restart()

    def write(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Write values of the first process; a disk that is full costs no more than those of the time that it is."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(self.folder / LOG, 'a', encoding='utf-8') as file:
                file.write(json.dumps({'step': step, 'group': group, **values}) + '\n')
            if self._writer is None:
                # A run that goes on does again what it had done since its state was saved.
                self._writer = SummaryWriter(str(self.folder / 'curves'), purge_step=step)
            for name, value in values.items():
                self._writer.add_scalar(f'{group}/{name}', value, step)
        except OSError as error:
            log.warning('curves of step %d were not written to %s: %s', step, self.folder, error)
            self._close()

    def _close(self) -> None:
        """Close TensorBoard's file: one that could not be written once says so for ever."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            writer.close()
        except OSError as error:
            log.warning('the curves in %s are not whole: %s', self.folder, error)


def _forget_after(path: Path, done: int) -> None:
    """Drop what a log says of steps that will be done again, and a line that a killed process left unfinished."""
    if not path.is_file():
        return
    lines = path.read_text(encoding='utf-8').splitlines()
    kept = [line for line in lines if line.endswith('}') and json.loads(line)['step'] <= done]
    if len(kept) == len(lines):
        return
    fresh = path.with_suffix('.new')
    try:
        fresh.write_text(''.join(f'{line}\n' for line in kept), encoding='utf-8')
        fresh.replace(path)
    except OSError as error:
        log.warning('%s tells of steps after %d, which are done again: %s', path, done, error)
