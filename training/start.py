"""Weights to go on from: those of an earlier run, or those of a checkpoint folder such as the shipped one."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from cooper_model.checkpoint import load_weights
from cooper_model.network.autoencoder import build_autoencoder
from cooper_model.network.model import Cooper
from training.loop import STATE, load_average


def start_model(folder: str | Path, model: Cooper) -> None:
    """Fill a model from a run's averaged weights or from a checkpoint.

    :raises FileNotFoundError, ValueError: the folder is neither, or of another model
    """
    if (Path(folder) / STATE).is_file():
        load_average(folder, model)
    else:
        load_weights(folder, model, build_autoencoder(model.config.autoencoder))


def start_autoencoder(folder: str | Path, autoencoder: nn.Module, model: Cooper) -> None:
    """Fill an autoencoder likewise; ``model`` is of the same configuration and keeps its weights."""
    if (Path(folder) / STATE).is_file():
        load_average(folder, autoencoder)
    else:
        load_weights(folder, Cooper(model.config), autoencoder)
