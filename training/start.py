"""What a stage starts with: its data, and weights of an earlier run or of a checkpoint such as the shipped one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from cooper_model.checkpoint import load_weights
from cooper_model.config import CooperConfig
from cooper_model.network.autoencoder import build_autoencoder
from cooper_model.network.model import Cooper
from cooper_model.prompts import Prompts
from cooper_model.tokenizer import Tokenizer
from training.datasets.base import ModelInput
from training.datasets.simulation import SimulatedScenes
from training.evaluation import HELD_OUT
from training.latents import LatentCache
from training.lora import load_merged
from training.state import SavedState, is_run, load_average


@dataclass(frozen=True)
class ModelStart:
    """A model with its frozen autoencoder.

    :param folder: architecture, tokenizer and prompts
    """

    folder: Path
    model: Cooper
    autoencoder: nn.Module


@dataclass(frozen=True)
class Start(ModelStart):
    """The same with simulated scenes.

    :param latents: of the scenes that are trained on, the first ones; the last are held out
    """

    scenes: SimulatedScenes
    latents: LatentCache


def prepare_model(
    architecture: str | Path,
    autoencoder: str | Path,
    start: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
) -> ModelStart:
    """Return the model of an architecture folder, with random weights unless there is a ``start``.

    :param dtype: of weights that come from a checkpoint
    :raises FileNotFoundError, ValueError: a folder is missing, or of another model
    """
    folder = Path(architecture)
    with naming('architecture'):
        config = CooperConfig.load(folder)
    # Nothing is drawn at random where a checkpoint brings it all.
    with torch.device('cpu' if start is None or is_run(start) else 'meta'):
        model = Cooper(config)
    coder = build_autoencoder(config.autoencoder)
    if start is not None:
        with naming('start'):
            start_model(start, model, dtype)
    with naming('autoencoder'):
        start_autoencoder(autoencoder, coder)
    return ModelStart(folder, model, coder)


@contextmanager
def naming(setting: str) -> Iterator[None]:
    """Let errors about a folder name the setting that it comes from."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f'{setting}: {error}') from error
    except ValueError as error:
        raise ValueError(f'{setting}: {error}') from error


def model_input(folder: Path, config: CooperConfig, max_tokens: int | None = None) -> ModelInput:
    """Return what data sets must know of a model: its sizes, its words and the longest sequence."""
    return ModelInput(config, Tokenizer.load(folder, config.tokens), Prompts.load(folder), max_tokens)


@dataclass(frozen=True)
class SceneSettings:
    """What a stage on simulated scenes names.

    :param architecture: folder with configuration, tokenizer and prompts
    :param autoencoder: folder of a run or a checkpoint; frozen
    :param scenes: folder of simulated scenes
    :param latents: file of their latents, written when absent
    :param limit: scenes to train on at most
    :param start: like ``autoencoder``, for the model's weights; None for random ones
    """

    architecture: Path
    autoencoder: Path
    scenes: Path
    latents: Path
    limit: int
    start: Path | None = None


def prepare(settings: SceneSettings, dtype: torch.dtype = torch.float32) -> Start:
    """Read what a stage on simulated scenes names.

    :raises FileNotFoundError, ValueError: a folder is missing, or of another model
    """
    start = prepare_model(settings.architecture, settings.autoencoder, settings.start, dtype)
    scenes = SimulatedScenes(settings.scenes, start.model.config)
    used = min(settings.limit, len(scenes) - HELD_OUT)
    if used < 1:
        raise ValueError(
            f'{settings.scenes} holds {len(scenes)} scenes, of which {HELD_OUT} are held out; none is left to train on'
        )
    latents = LatentCache(settings.latents, scenes, start.autoencoder, used)
    return Start(start.folder, start.model, start.autoencoder, scenes, latents)


def start_model(folder: str | Path, model: Cooper, dtype: torch.dtype = torch.float32) -> None:
    """Fill a model from a run's averaged weights, its adapters merged, or from a checkpoint, there in ``dtype``.

    :raises FileNotFoundError, ValueError: the folder is neither, or of another model
    """
    if not is_run(folder):
        load_weights(folder, model, None, dtype=dtype)
        return
    with SavedState(folder) as saved:
        if saved.lora is not None:
            start_model(saved.meta['start'], model)
            load_merged(saved, model)
            return
    load_average(folder, model)


def start_autoencoder(folder: str | Path, autoencoder: nn.Module) -> None:
    """Fill an autoencoder likewise."""
    if is_run(folder):
        load_average(folder, autoencoder)
    else:
        load_weights(folder, None, autoencoder)
