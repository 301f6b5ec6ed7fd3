"""What every stage shares: optimiser, schedule, moving average, exact resume, curves and a progress bar.

A stage gives a loss for step *n*; batches are drawn from ``(seed, n, process)`` alone, so a resumed run sees just the
batches that an uninterrupted one would have seen. Started by ``torchrun``, each process draws its own batch and
gradients are averaged; on a CPU two processes of one thread do more than one of two.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import yaml
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)
STATE = 'state.safetensors'
ADAM_STATE = ('step', 'exp_avg', 'exp_avg_sq')
MUON_STATE = ('momentum_buffer',)


@dataclass(frozen=True)
class LoopConfig:
    """How a run is driven.

    :param steps: optimiser steps in all
    :param learning_rate: peak, reached after ``warmup`` steps and held until the last ``decay`` steps, which lower
        it along a half cosine to zero
    :param ema: decay of the moving average of the weights; early on ``(1 + step) / (10 + step)`` where smaller
    :param save_every, evaluate_every, log_every: in steps
    :param bf16: autocast to bfloat16
    :param muon: orthogonalised momentum (Jordan et al. 2024) for the matrices of layers, with the step size of AdamW;
        embeddings, output layers and vectors stay with AdamW
    """

    steps: int
    learning_rate: float
    warmup: int = 100
    decay: int = 0
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.02
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    save_every: int = 500
    evaluate_every: int = 500
    log_every: int = 20
    bf16: bool = True
    muon: bool = False


def rate(step: int, config: LoopConfig) -> float:
    """Return the learning rate of a step, counted from 0."""
    up = min(1.0, (step + 1) / max(config.warmup, 1))
    left = config.steps - step
    down = 0.5 * (1 - math.cos(math.pi * min(1.0, left / config.decay))) if config.decay else 1.0
    return config.learning_rate * up * down


def batch_rng(seed: int, step: int, process: int = 0) -> np.random.Generator:
    """Return the random stream of one step in one process."""
    return np.random.default_rng((seed, step, process))


def read_config(path: str | Path) -> dict:
    """Read a stage's YAML file.

    :raises FileNotFoundError, ValueError: it is missing, or not a mapping
    """
    values = yaml.safe_load(Path(path).read_text(encoding='utf-8'))
    if not isinstance(values, dict):
        raise ValueError(f'{path} holds {type(values).__name__}, expected a mapping of settings')
    return values


class Run:
    """A model in training, its average, its optimiser and where it stands."""

    def __init__(self, model: nn.Module, config: LoopConfig, folder: str | Path) -> None:
        self.model, self.config, self.folder = model, config, Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.processes = int(os.environ.get('WORLD_SIZE', '1'))
        self.process = int(os.environ.get('RANK', '0'))
        if self.processes > 1 and not dist.is_initialized():
            dist.init_process_group('nccl' if torch.cuda.is_available() else 'gloo')
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.optimizers = _optimizers(self.parameters, config)
        self.average = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.step = 0
        if (self.folder / STATE).is_file():
            self._resume()

    def train(
        self,
        loss: Callable[[int, np.random.Generator], Mapping[str, Tensor]],
        evaluate: Callable[[int], Mapping[str, float]] | None = None,
    ) -> None:
        """Train to the last step. ``loss`` returns named parts; ``total`` is what is minimised."""
        first = self.process == 0
        writer = SummaryWriter(str(self.folder / 'curves')) if first else None
        columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, disable=not first) as bar:
            task = bar.add_task('training', total=self.config.steps, completed=self.step)
            while self.step < self.config.steps:
                parts = self._update(loss)
                bar.advance(task)
                if not first:
                    continue
                if self.step % self.config.log_every == 0:
                    shown = {name: float(value.detach()) for name, value in parts.items()}
                    self._log(writer, 'train', shown)
                    bar.update(task, description=f'loss {shown["total"]:.4f}')
                last = self.step == self.config.steps
                if evaluate and (last or self.step % self.config.evaluate_every == 0):
                    with self.averaged():
                        self._log(writer, 'held out', evaluate(self.step))
                if last or self.step % self.config.save_every == 0:
                    self.save()
        if writer:
            writer.close()

    def _update(self, loss: Callable[[int, np.random.Generator], Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
        config = self.config
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group['lr'] = rate(self.step, config)
        torch.manual_seed((config.seed * 1_000_003 + self.step) * self.processes + self.process)
        with torch.autocast(next(self.model.parameters()).device.type, torch.bfloat16, enabled=config.bf16):
            parts = loss(self.step, batch_rng(config.seed, self.step, self.process))
        if not torch.isfinite(parts['total']):
            value = float(parts['total'].detach())
            raise FloatingPointError(f'loss is {value} at step {self.step}; lower the learning rate')
        for p in self.parameters.values():
            p.grad = None
        parts['total'].backward()
        self._share_gradients()
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), config.clip)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        decay = min(config.ema, (1 + self.step) / (10 + self.step))
        current = [p.detach() for p in self.parameters.values()]
        torch._foreach_lerp_(list(self.average.values()), current, 1 - decay)
        return parts

    def _share_gradients(self) -> None:
        if self.processes == 1:
            return
        for p in self.parameters.values():
            # A process whose batch did not touch a weight still takes part.
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        flat = torch.cat([p.grad.flatten() for p in self.parameters.values()])
        dist.all_reduce(flat)
        flat /= self.processes
        for p, part in zip(
            self.parameters.values(), flat.split([p.numel() for p in self.parameters.values()]), strict=True
        ):
            p.grad.copy_(part.view_as(p))

    def averaged(self) -> _Averaged:
        """Return a context in which the model has its averaged weights."""
        return _Averaged(self)

    def _log(self, writer: SummaryWriter, group: str, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            writer.add_scalar(f'{group}/{name}', value, self.step)
        with open(self.folder / 'log.jsonl', 'a', encoding='utf-8') as file:
            file.write(json.dumps({'step': self.step, 'group': group, **values}) + '\n')

    def save(self) -> None:
        """Write everything that a resumed run needs; the last good state survives a kill at any moment."""
        tensors = {f'model.{name}': p.detach() for name, p in self.parameters.items()}
        tensors |= {f'average.{name}': p for name, p in self.average.items()}
        for name, p in self.parameters.items():
            for optimizer in self.optimizers:
                for key, value in optimizer.state.get(p, {}).items():
                    tensors[f'{key}.{name}'] = value
        unfinished = self.folder / (STATE + '.part')
        meta = {'step': str(self.step), 'config': json.dumps(asdict(self.config))}
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, unfinished, meta)
        os.replace(unfinished, self.folder / STATE)

    def _resume(self) -> None:
        with safe_open(self.folder / STATE, 'pt') as file:
            self.step = int(file.metadata()['step'])
            state: dict[str, dict[str, Tensor]] = {name: {} for name in self.parameters}
            for key in file.keys():  # noqa: SIM118 - not a dict
                kind, name = key.split('.', 1)
                if kind == 'model':
                    self.parameters[name].data.copy_(file.get_tensor(key))
                elif kind == 'average':
                    self.average[name].copy_(file.get_tensor(key))
                else:
                    state[name][kind] = file.get_tensor(key)
        for optimizer in self.optimizers:
            names = MUON_STATE if isinstance(optimizer, torch.optim.Muon) else ADAM_STATE
            own = {p for group in optimizer.param_groups for p in group['params']}
            for name, p in self.parameters.items():
                if p in own and set(names) <= set(state[name]):
                    kept = {key: state[name][key] for key in names}
                    optimizer.state[p] = {k: v.to(p.device) if k != 'step' else v for k, v in kept.items()}
        log.info('resumed %s at step %d', self.folder, self.step)


def _optimizers(parameters: Mapping[str, nn.Parameter], config: LoopConfig) -> list[torch.optim.Optimizer]:
    inner = {name: p for name, p in parameters.items() if config.muon and p.ndim == 2 and '.layers.' in name}
    rest = [p for name, p in parameters.items() if name not in inner]
    groups = [
        {'params': [p for p in rest if p.ndim > 1]},
        {'params': [p for p in rest if p.ndim <= 1], 'weight_decay': 0.0},
    ]
    adamw = torch.optim.AdamW(
        groups, config.learning_rate, betas=config.betas, weight_decay=config.weight_decay, fused=True
    )
    if not inner:
        return [adamw]
    muon = torch.optim.Muon(
        inner.values(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        adjust_lr_fn='match_rms_adamw',
    )
    return [muon, adamw]


class _Averaged:
    """Swaps the averaged weights in and back."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def __enter__(self) -> None:
        self.kept = {name: p.detach().clone() for name, p in self.run.parameters.items()}
        for name, p in self.run.parameters.items():
            p.data.copy_(self.run.average[name])

    def __exit__(self, *error: object) -> None:
        for name, p in self.run.parameters.items():
            p.data.copy_(self.kept[name])


def load_average(folder: str | Path, model: nn.Module) -> None:
    """Give ``model`` the averaged weights of a run.

    :raises FileNotFoundError: the folder holds no run
    """
    path = Path(folder) / STATE
    if not path.is_file():
        raise FileNotFoundError(f'{path} is missing; run the earlier stage first, or name its folder')
    with safe_open(path, 'pt') as file:
        names = [key.split('.', 1)[1] for key in file.keys() if key.startswith('average.')]  # noqa: SIM118
        missing, unexpected = model.load_state_dict(
            {name: file.get_tensor(f'average.{name}') for name in names}, strict=False
        )
    buffers = {name for name, _ in model.named_buffers()}
    if unexpected or set(missing) - buffers:
        raise ValueError(f'{path} is of another model: missing {sorted(set(missing) - buffers)}, extra {unexpected}')
