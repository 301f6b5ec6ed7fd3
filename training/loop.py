"""What every stage shares: batches by step, gradients over processes, moving average, exact resume, evaluation.

A stage gives a loss; its batches are drawn from ``(seed, step, slot)`` alone, where slots count the batches of a step
over processes and accumulation, so a resumed run sees just the batches that an uninterrupted one would have seen, and
two processes those of one that accumulates two. On a CPU two processes of one thread do more than one of two.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import broadcast
from torch import Tensor, nn

from training.config import LoopConfig
from training.curves import Curves, Parts
from training.division import Division
from training.lora import add_adapters
from training.optimizers import build_optimizers, muon_matrices, optimizer_tensors, rate, restore_optimizers
from training.processes import start_processes
from training.sharding import Root, checkpoint_layers, local, master_weights, own_part, shard, whole
from training.state import SavedState, StateNotWrittenError, Writer, is_run

log = logging.getLogger(__name__)
Loss = Callable[[int, np.random.Generator], Parts]


def batch_rng(seed: int, step: int, slot: int = 0) -> np.random.Generator:
    """Return the random stream of one batch of a step."""
    return np.random.default_rng((seed, step, slot))


class Run:
    """A model in training, its average, its optimiser and where it stands.

    :param start: what the weights began as; needed to use adapters later without the run's own settings
    :raises ValueError: the folder holds a run of another model, ``freeze`` names no module,
        or there are to be adapters without a start
    """

    def __init__(
        self, model: nn.Module, config: LoopConfig, folder: str | Path, start: str | Path | None = None
    ) -> None:
        if config.lora and start is None:
            raise ValueError('lora: adapters need weights to start from; name a start')
        self.model, self.config, self.folder, self.start = model, config, Path(folder), start
        self.folder.mkdir(parents=True, exist_ok=True)
        self.accelerator = start_processes()
        self.processes, self.process = self.accelerator.num_processes, self.accelerator.process_index
        self.sharded = config.shard and self.processes > 1
        self.root = self._prepare()
        named = dict(model.named_parameters())
        self.parameters = {name: p for name, p in named.items() if p.requires_grad}
        self.frozen = {name: p for name, p in named.items() if not p.requires_grad and not config.lora}
        if self.processes > 1 and not self.sharded:
            # Weights drawn at random would differ from process to process.
            for p in self.parameters.values():
                broadcast(p.data)
        self.division = None
        if config.muon and self.processes > 1 and not self.sharded:
            self.division = Division(muon_matrices(self.parameters, config), self.process, self.processes)
        self.optimizers = build_optimizers(self.parameters, config, self.division)
        self.average = {name: local(p).clone() for name, p in self.parameters.items()}
        self.step = self.skipped = self.skipped_in_row = 0
        if is_run(self.folder):
            self._resume()

    def _prepare(self) -> Root:
        """Freeze, adapt, place and split the model as the settings say."""
        model, config = self.model, self.config
        for name in config.freeze:
            try:
                model.get_submodule(name).requires_grad_(False)
            except AttributeError as error:
                raise ValueError(f'freeze: the model has no module {name!r}; {error}') from error
        if config.lora:
            add_adapters(model, config.lora, config.seed)
        if config.checkpoint_layers:
            checkpoint_layers(model)
        root = Root(model)
        if self.sharded:
            shard(root, self.processes, config.bf16)
        else:
            master_weights(model.to(self.accelerator.device))
        return root

    def train(
        self,
        loss: Loss,
        evaluate: Callable[[int], Mapping[str, float]] | None = None,
        prepare: Callable[[int], None] | None = None,
    ) -> None:
        """Train to the last step.

        :param loss: given step and random stream, returns named parts of which ``total`` is minimised; ``tokens``
            and ``scenes``, where there, count work
        :param evaluate: given the step, returns scores of the averaged weights; called in the first process
        :param prepare: called before each step in every process, outside the loss
        :raises FloatingPointError: more than ``max_skipped`` steps in a row had no finite loss and gradient, or the
            last weights give none
        :raises StateNotWrittenError: the last state could not be written
        """
        config = self.config
        with Curves(self.folder, self.step, config.steps, self.accelerator) as curves:
            while self.step < config.steps:
                if prepare:
                    prepare(self.step)
                batches, more = self._update(loss)
                curves.count(self.step, batches)
                last = self.step == config.steps
                if self.step % config.log_every == 0:
                    curves.report(self.step, batches, more)
                if evaluate and (last or self.step % config.evaluate_every == 0):
                    self._evaluate(evaluate, curves)
                if last or self.step % config.save_every == 0:
                    self._save_or_go_on(loss, last)
                    curves.restart()

    def _update(self, loss: Loss) -> tuple[list[Parts], dict[str, float]]:
        """Make one step; returns the parts of each batch, and values of the step."""
        config = self.config
        learning_rate = rate(self.step, config)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group['lr'] = learning_rate
        batches = [self._backward(loss, slot) for slot in range(config.accumulate)]
        # As float32 in every process, whatever its batch was made of.
        total = torch.stack([torch.as_tensor(parts['total']).float() for parts in batches]).mean()
        total = self.accelerator.reduce(total, 'mean')
        norm = self._share_gradients()
        self.step += 1
        if bool(torch.isfinite(norm) & torch.isfinite(total)):
            self.skipped_in_row = 0
            torch.nn.utils.clip_grads_with_norm_(self.parameters.values(), config.clip, norm)
            for optimizer in self.optimizers:
                optimizer.step()
            if self.division:
                self.division.exchange()
            decay = min(config.ema, (1 + self.step) / (10 + self.step))
            current = [local(p) for p in self.parameters.values()]
            torch._foreach_lerp_(list(self.average.values()), current, 1 - decay)
        else:
            self._skip(float(total), float(norm))
        # Freed before evaluation and sampling, which gather weights.
        for p in self.parameters.values():
            p.grad = None
        return batches, {'learning_rate': learning_rate, 'gradient_norm': float(norm), 'skipped': self.skipped}

    def _backward(self, loss: Loss, number: int) -> Parts:
        config = self.config
        slots = self.processes * config.accumulate
        slot = self.process * config.accumulate + number
        torch.manual_seed((config.seed * 1_000_003 + self.step) * slots + slot)
        with torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=config.bf16):
            parts = self.root(partial(loss, self.step, batch_rng(config.seed, self.step, slot)))
        (parts['total'] / config.accumulate).backward()
        return {name: value.detach() if isinstance(value, Tensor) else value for name, value in parts.items()}

    def _share_gradients(self) -> Tensor:
        """Average gradients over processes; returns their norm, the same in each.

        Not left to DistributedDataParallel: a loss enters the model at several places and touches other weights from
        batch to batch, for which that would search the graph at each step. Sharded weights share theirs by themselves.
        """
        parameters = list(self.parameters.values())
        for p in parameters:
            # A process whose batch did not touch a weight still takes part.
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        if self.processes > 1 and not self.sharded:
            flat = self.accelerator.reduce(torch.cat([p.grad.flatten() for p in parameters]), 'mean')
            for p, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
                p.grad.copy_(part.view_as(p))
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
        return norm.full_tensor() if self.sharded else norm

    def _skip(self, total: float, norm: float) -> None:
        self.skipped += 1
        self.skipped_in_row += 1
        log.warning('step %d is left out: its loss is %g and its gradient norm %g', self.step, total, norm)
        if self.skipped_in_row > self.config.max_skipped:
            raise self._spoilt(
                f'{self.skipped_in_row} steps in a row, up to step {self.step}, had no finite loss and gradient (last '
                f'loss {total}, gradient norm {norm})'
            )

    def _spoilt(self, what: str) -> FloatingPointError:
        good = f'the state in {self.folder} is the last good one' if is_run(self.folder) else 'no state was saved'
        return FloatingPointError(f'{what}; {good}; lower learning_rate or look at the data')

    @torch.no_grad()
    def _sound(self, loss: Loss) -> bool:
        """Return whether the weights as they are give a finite loss, on another batch than the last."""
        rng = batch_rng(self.config.seed, self.step, self.process * self.config.accumulate)
        with self.whole(), torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=self.config.bf16):
            total = torch.as_tensor(loss(self.step - 1, rng)['total']).float()
        return bool(torch.isfinite(self.accelerator.reduce(total.detach().clone(), 'mean')))

    def whole(self) -> AbstractContextManager[None]:
        """Return a context in which the model may be called outside a loss; every process must enter it."""
        return whole(self.root) if self.sharded else nullcontext()

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Give the model its averaged weights for the time of the block; every process must enter it."""
        kept = {name: local(p).clone() for name, p in self.parameters.items()}
        self._set_weights(self.average)
        try:
            with self.whole():
                yield
        finally:
            self._set_weights(kept)

    @torch.no_grad()
    def _set_weights(self, values: Mapping[str, Tensor]) -> None:
        for name, p in self.parameters.items():
            local(p).copy_(values[name])

    def _evaluate(self, evaluate: Callable[[int], Mapping[str, float]], curves: Curves) -> None:
        with self.averaged():
            if curves.first:
                curves.write('held out', evaluate(self.step), self.step)
            self.accelerator.wait_for_everyone()
        curves.restart()

    def _save_or_go_on(self, loss: Loss, last: bool) -> None:
        """Save unless weights may be spoilt; where there is no room go on, and try again at the next save."""
        if self.skipped_in_row and not last:
            log.warning('step %d is not saved: the last %d steps were left out', self.step, self.skipped_in_row)
            return
        if not self._sound(loss):
            if last:
                raise self._spoilt(f'the weights of step {self.step}, the last, give no finite loss and are not saved')
            log.warning('step %d is not saved: its weights give no finite loss', self.step)
            return
        try:
            self.save()
        except StateNotWrittenError as error:
            if last:
                raise
            log.error('%s; trying again at the next save', error)

    def save(self) -> None:
        """Write everything that a resumed run needs; the last good state survives a kill at any moment.

        :raises StateNotWrittenError: there is no room; the state before is whole
        """
        state = optimizer_tensors(self.optimizers, self.parameters, self.division)
        if self.process and not self.sharded:
            return
        tensors = {f'model.{name}': local(p) for name, p in self.parameters.items()}
        tensors |= {f'frozen.{name}': local(p) for name, p in self.frozen.items()}
        tensors |= {f'average.{name}': value for name, value in self.average.items()}
        tensors |= state
        start = None if self.start is None else str(self.start)
        meta = {'config': asdict(self.config), 'start': start, 'skipped': self.skipped}
        part, parts = (self.process, self.processes) if self.sharded else (0, 1)
        Writer(self.folder, part, parts, self._all_of if self.sharded else bool).write(tensors, self.step, meta)

    def _all_of(self, true: bool) -> bool:
        votes = torch.tensor(float(true), device=self.accelerator.device)
        return int(self.accelerator.reduce(votes, 'sum')) == self.processes

    @torch.no_grad()
    def _resume(self) -> None:
        with SavedState(self.folder) as saved:
            for kind in ('model', 'average'):
                saved.check(kind, {name: tuple(p.shape) for name, p in self.parameters.items()})
            for name, p in self.parameters.items():
                local(p).copy_(own_part(saved.get('model', name), p))
                self.average[name].copy_(own_part(saved.get('average', name), p))
            restore_optimizers(self.optimizers, self.parameters, saved)
            self.step, self.skipped = saved.step, saved.meta.get('skipped', 0)
        log.info('resumed %s at step %d', self.folder, self.step)
