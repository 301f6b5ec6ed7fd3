"""The state of a run on disk: whole after a kill at any moment, in one file or in one part for each process."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

STATE = 'state.safetensors'
_PART = re.compile(r'state-(\d+)-(\d+)-of-(\d+)\.safetensors')
_SHOWN = 4


class StateNotWrittenError(OSError):
    """The state could not be written; the one before is whole."""


@dataclass(frozen=True)
class Writer:
    """Which part of a state this process writes, and how it hears of the others.

    :param part, parts: number of this process's part, and how many there are: one where weights are not split
    :param all_of: whether something is true in every process; each must ask
    """

    folder: Path
    part: int
    parts: int
    all_of: Callable[[bool], bool]

    def write(self, tensors: Mapping[str, Tensor], step: int, meta: Mapping[str, Any]) -> None:
        """Write a state, then delete the one before.

        :raises StateNotWrittenError: in every process, where one of them could not; the state before is whole
        """
        name = STATE if self.parts == 1 else f'state-{step:08d}-{self.part:03d}-of-{self.parts:03d}.safetensors'
        path = self.folder / name
        _beside(path).unlink(missing_ok=True)
        # Parts are alike and share a disk. All look before any writes: better than to find out at the end, with a disk
        # that is full for all others too.
        needed = self.parts * _bytes(tensors)
        if not self.all_of(shutil.disk_usage(self.folder).free >= needed):
            raise StateNotWrittenError(_remedy(path, needed, os.strerror(errno.ENOSPC)))
        fault = None
        try:
            _write_beside(path, tensors, {'step': str(step), 'meta': json.dumps(meta)})
        except (OSError, SafetensorError) as error:
            fault = error
        if not self.all_of(fault is None):
            _beside(path).unlink(missing_ok=True)
            raise StateNotWrittenError(_remedy(path, needed, fault or 'another process could not write')) from fault
        os.replace(_beside(path), path)
        # Parts of an older step go when every process has its new one.
        self.all_of(True)
        if self.part == 0:
            current = {path} if self.parts == 1 else set(self.folder.glob(f'state-{step:08d}-*-of-{self.parts:03d}.*'))
            for old in {self.folder / STATE, *self.folder.glob('state-*.safetensors*')} - current:
                old.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(path.name + '.part')


def _bytes(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _write_beside(path: Path, tensors: Mapping[str, Tensor], meta: dict[str, str]) -> None:
    beside = _beside(path)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, beside, meta)
    with open(beside, 'rb+') as file:
        os.fsync(file.fileno())


def _remedy(path: Path, needed: int, why: Exception | str) -> str:
    free = shutil.disk_usage(path.parent).free
    return f'{path} was not written ({why}); it needs {needed:,} bytes, {free:,} are free; the state before is kept'


def is_run(folder: str | Path) -> bool:
    """Return whether a folder holds the state of a run."""
    return bool(_find(Path(folder)))


def _find(folder: Path) -> list[Path]:
    """Return the files of the newest state that is complete."""
    sets: dict[tuple[int, int], list[Path]] = {}
    for path in sorted(folder.glob('state-*.safetensors')):
        if match := _PART.fullmatch(path.name):
            step, _, parts = map(int, match.groups())
            sets.setdefault((step, parts), []).append(path)
    whole = {step: paths for (step, parts), paths in sets.items() if len(paths) == parts}
    single = folder / STATE
    if single.is_file():
        with _open(single) as file:
            whole[int(file.metadata()['step'])] = [single]
    return whole[max(whole)] if whole else []


def _open(path: Path) -> Any:
    try:
        return safe_open(path, 'pt')
    except SafetensorError as error:
        raise ValueError(f'{path} is damaged ({error}); delete it to start anew') from error


class SavedState:
    """A state on disk; tensors that lie in parts are put together as they are read.

    :raises FileNotFoundError: the folder holds no run
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        paths = _find(self.folder)
        if not paths:
            raise FileNotFoundError(
                f'{self.folder / STATE} is missing; run the earlier stage first, or name its folder'
            )
        with ExitStack() as stack:
            self._files = [stack.enter_context(_open(path)) for path in paths]
            self._stack = stack.pop_all()
        found = self._files[0].metadata()
        self.step = int(found['step'])
        self.meta: dict[str, Any] = json.loads(found.get('meta', '{}'))

    @property
    def lora(self) -> dict[str, Any] | None:
        """Settings of the adapters that were trained in place of the weights."""
        return self.meta.get('config', {}).get('lora')

    def __enter__(self) -> SavedState:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def names(self, kind: str) -> list[str]:
        """Return the names of weights that have a tensor of a kind."""
        keys = self._files[0].keys()
        return [key.split('.', 1)[1] for key in keys if key.split('.', 1)[0] == kind]

    def get(self, kind: str, name: str) -> Tensor:
        """Return a whole tensor."""
        parts = [file.get_tensor(f'{kind}.{name}') for file in self._files]
        return torch.cat(parts) if len(parts) > 1 and parts[0].ndim else parts[0]

    def shape(self, kind: str, name: str) -> tuple[int, ...]:
        """Return the shape of a whole tensor."""
        shapes = [tuple(file.get_slice(f'{kind}.{name}').get_shape()) for file in self._files]
        return (sum(shape[0] for shape in shapes), *shapes[0][1:]) if shapes[0] else ()

    def check(self, kind: str, expected: Mapping[str, tuple[int, ...]]) -> None:
        """Raise where weights of a kind are not those of a model.

        :raises ValueError: names the first tensors that differ, with shapes
        """
        found = {name: self.shape(kind, name) for name in self.names(kind)}
        faults = [f'{name} of shape {shape} is missing' for name, shape in expected.items() if name not in found]
        faults += [f'{name} of shape {shape} is unknown' for name, shape in found.items() if name not in expected]
        faults += [
            f'{name} has shape {found[name]}, expected {shape}'
            for name, shape in expected.items()
            if found.get(name, shape) != shape
        ]
        if faults:
            more = f' and {len(faults) - _SHOWN} more' if len(faults) > _SHOWN else ''
            raise ValueError(
                f'{self.folder} holds a run of another model: {"; ".join(faults[:_SHOWN])}{more} '
                '(give the architecture that it was trained with, or another folder)'
            )

    @torch.no_grad()
    def fill(self, kind: str, weights: Mapping[str, Tensor]) -> None:
        """Copy all tensors of a kind into weights.

        :raises ValueError: as :meth:`check`
        """
        self.check(kind, {name: tuple(p.shape) for name, p in weights.items()})
        for name, p in weights.items():
            p.copy_(self.get(kind, name))


def load_average(folder: str | Path, model: nn.Module) -> None:
    """Give ``model`` the averaged weights of a run, and those that the run kept frozen.

    :raises FileNotFoundError, ValueError: the folder holds no run, or one of another model, or adapters alone
    """
    weights = dict(model.named_parameters())
    with SavedState(folder) as saved:
        if saved.lora is not None:
            raise ValueError(f'{folder} holds adapters alone; name it as the start of a stage or of training.export')
        frozen = saved.names('frozen')
        saved.fill('frozen', {name: weights[name] for name in frozen if name in weights})
        saved.fill('average', {name: p for name, p in weights.items() if name not in frozen})
