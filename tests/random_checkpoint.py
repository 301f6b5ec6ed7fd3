"""A tiny checkpoint folder of random weights, in the published form but for its sizes and its autoencoder.

It perceives and reasons nonsense, through the same code as a trained one.
"""

from __future__ import annotations

from pathlib import Path

import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers, trainers

from cooper_model.checkpoint import save_checkpoint
from cooper_model.config import (
    AutoencoderConfig,
    ColourCodeConfig,
    CooperConfig,
    DecoderConfig,
    ResizeConfig,
    SamplerConfig,
    SpecialTokens,
    VisionConfig,
)
from cooper_model.network.autoencoder import build_autoencoder
from cooper_model.network.model import Cooper
from cooper_model.prompts import Prompts
from cooper_model.tokenizer import CONTROL, FILE_NAME

VOCABULARY = 400
TAGS = (
    '<think>',
    '</think>',
    '<depth-estimation>',
    '</depth-estimation>',
    '<segmentation>',
    '</segmentation>',
)
TAGS += ('<answer>', '</answer>', '\\boxed{')
WORDS = 'Which is closer, the red ball or the blue box? The ball is left of the box, 1.25 m away. '
PROMPTS = Prompts(
    system_text='Think.',
    system_perception='Look.',
    system_cooper='Think or look.',
    request_depth='<depth-estimation>Estimate the depth.</depth-estimation>',
    request_segmentation='<segmentation>Segment the objects.</segmentation>',
    reflection='Here is the map.',
)


def tiny_config(sampler: SamplerConfig | None = None) -> CooperConfig:
    """Return a configuration of about 0.3 M parameters for images of up to 64 x 48 pixels."""
    return CooperConfig(
        decoder=DecoderConfig(64, 2, 4, 2, 128, VOCABULARY),
        vision=VisionConfig(64, 2, 4, 128, patch_size=16, max_side=8),
        autoencoder=AutoencoderConfig(form='patch', base_channels=16, z_channels=4, scale=1.0, shift=0.0),
        tokens=SpecialTokens(0, 1, 2, 3),
        max_latent_side=8,
        vae_transform=ResizeConfig(64, 48, 16),
        vit_transform=ResizeConfig(64, 48, 16),
        usable_vocab=None,
        depth_range=(0.0, 5.0),
        sampler=sampler or SamplerConfig(num_timesteps=3, shift=1.0, text_scale=1.0, image_scale=1.0),
        colour_code=ColourCodeConfig(
            names=('ball', 'box', 'table'), red_green=((255, 0), (0, 255), (255, 255)), blue=(0, 128, 255)
        ),
        max_new_tokens=24,
    )


def tiny_tokenizer() -> tokenizers.Tokenizer:
    """Return a byte-level tokenizer of at most ``VOCABULARY`` ids whose first four are the control tokens."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(CONTROL.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([WORDS], trainer)
    tokenizer.add_tokens(list(TAGS))
    return tokenizer


def write_random_checkpoint(folder: Path, seed: int = 0, config: CooperConfig | None = None) -> Path:
    """Write the checkpoint into ``folder`` and return it."""
    config = config or tiny_config()
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    save_checkpoint(folder, Cooper(config), build_autoencoder(config.autoencoder), dtype=torch.float32)
    tiny_tokenizer().save(str(folder / FILE_NAME))
    PROMPTS.save(folder)
    return folder
