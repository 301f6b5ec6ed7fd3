"""Where a measurement ran: device, number format, versions, memory."""

from __future__ import annotations

import os
import platform
import resource
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cooper_model.backends.base import Backend

PACKAGES = ('cooper_ros', 'torch', 'numpy', 'transformers', 'diffusers', 'onnxruntime')


def describe_machine() -> dict[str, Any]:
    """Return processor, cores, Python and package versions, and today's date (UTC)."""
    return {
        'date': datetime.now(timezone.utc).date().isoformat(),
        'machine': _processor(),
        'cores': len(os.sched_getaffinity(0)),
        'versions': {'python': platform.python_version(), **_versions()},
    }


def describe_backend(backend: Backend, threads: int) -> dict[str, Any]:
    """Return name, device, number format and threads of a back end."""
    model = getattr(backend, 'model', backend)
    device = str(getattr(model, 'device', 'cpu'))
    if device.startswith('cuda'):
        import torch

        device = f'{device} ({torch.cuda.get_device_name(device)})'
    dtype = str(getattr(model, 'dtype', '')).removeprefix('torch.')
    return {'backend': backend.name, 'device': device, 'dtype': dtype, 'threads': threads}


def peak_memory_mb(backend: Backend) -> dict[str, float]:
    """Return the largest resident memory of this process so far, and of its torch CUDA tensors, in MB (1e6 bytes)."""
    unit = 1 if sys.platform == 'darwin' else 1024
    peaks = {'peak_memory_mb': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6}
    if _on_cuda(backend):
        import torch

        peaks['peak_device_memory_mb'] = torch.cuda.max_memory_allocated(_device(backend)) / 1e6
    return peaks


def finisher(backend: Backend) -> Callable[[], None]:
    """Return a function that waits until the back end's device has done its work."""
    if _on_cuda(backend):
        import torch

        return partial(torch.cuda.synchronize, _device(backend))
    return lambda: None


def _on_cuda(backend: Backend) -> bool:
    return str(_device(backend)).startswith('cuda')


def _device(backend: Backend) -> Any:
    return getattr(getattr(backend, 'model', backend), 'device', 'cpu')


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    except OSError:
        lines = []
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.processor() or platform.machine()
