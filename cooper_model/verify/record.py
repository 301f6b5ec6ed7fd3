"""Comparing what the model computes with the tensors of a golden file, and reading values inside the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file
from torch import Tensor, nn

from cooper_model.network.decoder import Streams


class Tolerance(NamedTuple):
    """Allowed error: ``absolute + relative * |expected|``."""

    absolute: float
    relative: float = 0.0


EXACT = Tolerance(0.0)
LEVEL = Tolerance(1.0)  # 8-bit pictures
CALL = Tolerance(5e-5, 2e-5)  # everything up to one call of the model
FEATURES = Tolerance(2e-5)  # the tower: tight enough to tell the two GELUs apart
GENERATED = Tolerance(1e-4)
TRAINED = Tolerance(0.0, 1e-4)


@dataclass(frozen=True)
class SectionResult:
    """The outcome of one section.

    :param max_error: worst absolute error of a real number; where something failed, that of the worst failure
    :param tolerance: what was allowed at that place, ``atol + rtol * |expected|``
    :param worst: the tensor that ``max_error`` belongs to
    :param compared: number of tensors and recorded facts that were compared
    :param failures: one line each
    :param unchecked: tensors of the file that nothing here read
    """

    max_error: float
    tolerance: float
    passed: bool
    worst: str = ''
    compared: int = 0
    failures: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()


class Section:
    """One golden file: gives inputs out, takes results in, keeps the worst error and what was never touched."""

    def __init__(self, path: Path, tolerance: Tolerance) -> None:
        self.path = path
        self.tolerance = tolerance
        self._tensors = _read(path)
        self._untouched = set(self._tensors)
        self._worst = (0.0, tolerance.absolute, '')
        self._worst_ratio = 0.0
        self._compared = 0
        self._failures: list[str] = []

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def names(self) -> list[str]:
        return sorted(self._tensors)

    def array(self, name: str) -> np.ndarray:
        """Return a tensor of the file.

        :raises ValueError: the file lacks it
        """
        if name not in self._tensors:
            raise ValueError(f'{self.path} lacks tensor {name}; this is no complete golden case')
        self._untouched.discard(name)
        return self._tensors[name]

    def tensor(self, name: str) -> Tensor:
        return torch.from_numpy(np.array(self.array(name)))

    def check(self, name: str, actual: Any, tolerance: Tolerance | None = None) -> None:
        """Compare with a tensor of the file; whole numbers must be equal unless a tolerance is given."""
        expected = self.array(name)
        if tolerance is None:
            tolerance = self.tolerance if expected.dtype.kind == 'f' else EXACT
        self.close(name, actual, expected, tolerance)

    def check_known(self, name: str, actual: Any, tolerance: Tolerance | None = None) -> None:
        """As :meth:`check` where the file has the tensor; nothing otherwise."""
        if name in self:
            self.check(name, actual, tolerance)

    def close(self, name: str, actual: Any, expected: Any, tolerance: Tolerance | None = None) -> None:
        """Compare two arrays of one shape."""
        tolerance = tolerance or self.tolerance
        self._compared += 1
        actual, expected = _as_array(actual), _as_array(expected)
        if actual.shape != expected.shape:
            self._fail(name, float('inf'), 0.0, f'shape {actual.shape}, expected {expected.shape}')
            return
        if not actual.size:
            return
        error = np.abs(actual - expected)
        allowed = tolerance.absolute + tolerance.relative * np.abs(expected)
        # Written so that NaN fails.
        wrong = ~(error <= allowed)
        if wrong.any():
            place = int(np.argmax(np.where(wrong, np.nan_to_num(error, nan=np.inf) / np.maximum(allowed, 1e-30), 0)))
            text = f'{int(wrong.sum())} of {wrong.size} values beyond tolerance'
            self._fail(name, float(error.flat[place]), float(allowed.flat[place]), text)
        elif tolerance not in (EXACT, LEVEL) and not self._failures:
            place = int(np.argmax(error))
            if error.flat[place] > self._worst[0]:
                self._worst = (float(error.flat[place]), float(allowed.flat[place]), name)

    def same(self, name: str, actual: Any, expected: Any) -> None:
        """Compare facts (sizes, names, lists of whole numbers), which must be equal."""
        self._compared += 1
        if actual != expected:
            self._fail(name, float('inf'), 0.0, f'{_short(actual)}, expected {_short(expected)}')

    def _fail(self, name: str, error: float, allowed: float, text: str) -> None:
        self._failures.append(f'{name}: {text}')
        ratio = error / max(allowed, 1e-30) if error == error else float('inf')
        if ratio >= self._worst_ratio:
            self._worst_ratio = ratio
            self._worst = (error, allowed, name)

    def result(self) -> SectionResult:
        error, allowed, name = self._worst
        return SectionResult(
            error,
            allowed,
            not self._failures,
            name,
            self._compared,
            tuple(self._failures),
            tuple(sorted(self._untouched)),
        )


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f'{path} is damaged or no safetensors file ({error}); copy it again') from error


def _as_array(value: Any) -> np.ndarray:
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    return np.asarray(value, dtype=np.float64)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 100 else f'{text[:97]}...'


class Call(NamedTuple):
    """One call of a module."""

    arguments: tuple[Any, ...]
    output: Any


@contextmanager
def recorded(**modules: nn.Module) -> Iterator[Mapping[str, list[Call]]]:
    """Record every call of some modules, by the name given here, while the block runs."""
    calls: dict[str, list[Call]] = {name: [] for name in modules}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
            calls[name].append(Call(arguments, output))

        return hook

    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def in_sequence(streams: Streams, row: int = 0) -> Tensor:
    """Return one segment's rows ``(tokens, dim)`` in the order of the sequence.

    The model keeps understanding tokens first; in a latent segment those are the two markers around the latents.
    """
    understanding, generation = streams
    if generation is None:
        return understanding[row]
    return torch.cat([understanding[row, :1], generation[row], understanding[row, 1:]])


def sequence_order(latents: int | None, tokens: int) -> list[int]:
    """Return where each token of a segment, in the order of the sequence, stands in the model's order."""
    if latents is None:
        return list(range(tokens))
    return [0, *range(2, 2 + latents), 1]
