"""How much memory inference takes, worked out from the sizes of a model on the meta device, and what fits where.

Weights are counted tensor by tensor. Caches and working memory follow from formulas that stand with their functions
and hold for the torch backend in bfloat16; a test compares them with tensors that really live at the same time. What
the operating system and libraries take is assumed, see ``SHARES``. GB are 1e9 bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import torch
from torch import nn

from cooper_model.backends.token_step import capacity_for
from cooper_model.config import CooperConfig
from cooper_model.network.autoencoder import build_autoencoder
from cooper_model.network.decoder import SUFFIXES
from cooper_model.network.joined import MOST_PACKED
from cooper_model.network.model import Cooper
from cooper_model.quantise import FULL, GROUPS, Quantisation, filled, linear_bytes, part_of
from cooper_model.transforms import resized_size

GB = 1e9
AUTOENCODER = 'autoencoder'
ITEM, WIDE = 2, 4  # bytes of a number in bfloat16, in float32
PROMPT, REFLECTION, THOUGHT = 512, 64, 512  # tokens: instructions with the question; words after a map; a turn

Device = Literal['jetson', 'desktop', 'cpu']


@dataclass(frozen=True)
class Share:
    """What is gone before the model is there, as an assumption [bytes].

    :param system: a Jetson's memory is that of its processor too: operating system, ROS and camera, without a
        desktop; on a card what a screen takes
    :param runtime: CUDA context, libraries with their work spaces, and blocks that torch's allocator holds unused.
        The same model in bfloat16 was seen to peak 0.9 GB above its weights for one small image (30.07 against
        29.21 GB, DFloat11's page); with caches and activations, 2 to 4 GB is the usual advice
    """

    system: int
    runtime: int


SHARES: dict[Device, Share] = {
    'jetson': Share(2_500_000_000, 1_000_000_000),
    'desktop': Share(500_000_000, 1_000_000_000),
    'cpu': Share(2_500_000_000, 500_000_000),
}
# Eight bits for denoising: Orin has no fp8, cards since Ada do.
EIGHT_BITS: dict[Device, str] = {'jetson': 'w8a8', 'desktop': 'fp8', 'cpu': 'w8a8'}
PACKED_OUTPUTS, PACKED_INPUTS = 64, 32  # that oneDNN fills blocks up to, in bfloat16 with AVX-512


# Weights


@lru_cache(maxsize=8)
def _tensors(config: CooperConfig) -> tuple[tuple[str, tuple[int, ...], bool], ...]:
    """Return name, shape, and whether it is a weight that can be quantised, of every tensor."""
    with torch.device('meta'):
        model, autoencoder = Cooper(config), build_autoencoder(config.autoencoder)
    linears = {f'{name}.weight' for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    found = [(name, tuple(value.shape), name in linears) for name, value in model.state_dict().items()]
    found += [(f'{AUTOENCODER}.{name}', tuple(value.shape), False) for name, value in autoencoder.state_dict().items()]
    return tuple(found)


def weight_bytes(config: CooperConfig, quantisation: Quantisation) -> dict[str, int]:
    """Return the bytes of weights by part, bfloat16 where they are not quantised, scales included."""
    total: Counter[str] = Counter()
    for name, shape, is_linear in _tensors(config):
        part = AUTOENCODER if name.startswith(f'{AUTOENCODER}.') else part_of(name)
        form = getattr(quantisation, part, FULL) if is_linear else FULL
        if form == FULL:
            total[part] += ITEM * torch.Size(shape).numel()
        else:
            total[part] += linear_bytes(form, shape[0], shape[1], quantisation.group)
    return dict(total)


def joined_bytes(config: CooperConfig) -> int:
    """Return the bytes that joined layers hold beside the weights, which they share with the linears.

    In each expert of a layer: the joined biases of queries, keys and values, and in float32 its two norms and one for
    each query and key head. Quantised weights are not joined.
    """
    decoder = config.decoder
    turned = (decoder.num_heads + decoder.num_kv_heads) * decoder.head_dim
    biases = turned + decoder.num_kv_heads * decoder.head_dim
    norms = 2 * decoder.hidden_size + (turned if decoder.qk_norm else 0)
    return decoder.num_layers * len(SUFFIXES) * (ITEM * biases + WIDE * norms)


def packed_bytes(config: CooperConfig) -> int:
    """Return the bytes of the copies that joined layers keep on a CPU in bfloat16; 0 where they are not worth it.

    Blocks are filled up, so that sizes which are no multiples of them take more than the weights themselves.
    """
    decoder = config.decoder
    width, inside = decoder.hidden_size, decoder.intermediate_size
    layers = (shape for name, shape, _ in _tensors(config) if name.startswith('language_model.model.layers.'))
    if sum(ITEM * torch.Size(shape).numel() for shape in layers) > MOST_PACKED:
        return 0
    joined = width + 2 * decoder.num_kv_heads * decoder.head_dim
    products = ((joined, width), (width, width), (2 * inside, width), (width, inside))
    numbers = sum(filled(rows, PACKED_OUTPUTS) * filled(columns, PACKED_INPUTS) for rows, columns in products)
    return ITEM * decoder.num_layers * len(SUFFIXES) * numbers


# Caches


@dataclass(frozen=True)
class Use:
    """What is asked of the model.

    :param image: ``(height, width)`` of pictures that are shown and generated [px]
    :param branches: 3 with guidance by text and image, 1 without
    :param thought: tokens that the model writes in a turn
    """

    image: tuple[int, int]
    branches: int = 3
    thought: int = THOUGHT


def latent_tokens(config: CooperConfig, image: tuple[int, int]) -> int:
    """Return the tokens of a picture as latents, markers included."""
    return image[0] // config.latent_stride * (image[1] // config.latent_stride) + 2


def vision_tokens(config: CooperConfig, image: tuple[int, int]) -> int:
    """Return the tokens of a picture through the ViT, markers included."""
    height, width = resized_size(*image, config.vit_transform)
    patch = config.vision.patch_size
    return height // patch * (width // patch) + 2


def conversation_tokens(config: CooperConfig, use: Use) -> int:
    """Return the tokens of a conversation in which every turn but the last draws a map.

    Instructions and question; the photo as latents and through the ViT; a thought each turn; after each map the map
    through the ViT and the words that follow it.
    """
    turns, seen = config.max_turns, vision_tokens(config, use.image)
    photo = latent_tokens(config, use.image) + seen
    return PROMPT + photo + turns * (use.thought + 2) + (turns - 1) * (seen + REFLECTION)


def token_bytes(config: CooperConfig) -> int:
    """Return the bytes of a token's keys and values: two, in every layer, for every key/value head."""
    decoder = config.decoder
    return 2 * ITEM * decoder.num_layers * decoder.num_kv_heads * decoder.head_dim


def cache_tokens(config: CooperConfig, use: Use) -> int:
    """Return the tokens that the caches of a conversation make room for.

    With guidance there is a twin of the context without the photo, and a third branch that shares all but the last
    thought. A block that is full is followed by one as large as all before it, hence room for up to twice as many.
    """
    full = conversation_tokens(config, use)
    if use.branches == 1:
        return 2 * full
    photo = latent_tokens(config, use.image) + vision_tokens(config, use.image)
    return 2 * (2 * full - photo) + max(use.thought, 512)


def step_tokens(config: CooperConfig, use: Use) -> int:
    """Return the capacity of the cache from which a CUDA graph decodes the last turn of a conversation."""
    return capacity_for(conversation_tokens(config, use) - use.thought + config.max_new_tokens)


def step_bytes(config: CooperConfig, capacity: int) -> int:
    """Return what the captured step of a token holds for good: keys, values, and which places are not filled yet.

    A place is a number of 8 bytes and a mark of one; token, position and length are one number each.
    """
    return capacity * (token_bytes(config) + 8 + 1) + 3 * 8


def step_pool_bytes(config: CooperConfig, capacity: int) -> int:
    """Return the working memory of that step, which stays with its graph.

    Of every query head scores over all places: as they come, in float32, scaled, and without those not filled; then
    the logits.
    """
    decoder = config.decoder
    scores = decoder.num_heads * capacity * (ITEM + 3 * WIDE)
    return layer_bytes(config, 1) + scores + ITEM * decoder.vocab_size


def captured_bytes(config: CooperConfig, capacity: int) -> int:
    """Return all that decoding by a CUDA graph holds."""
    return step_bytes(config, capacity) + step_pool_bytes(config, capacity)


# Working memory


def layer_bytes(config: CooperConfig, tokens: int) -> int:
    """Return the bytes alive at the worst moment of a decoder layer over ``tokens`` tokens of all rows together.

    In the MLP, a token has four vectors of the model's width (what entered the decoder, queries, mixed values, the norm
    of the sum) and four in float32 (what entered the decoder and the layer, the sum so far, its norm), keys, values,
    and three vectors of the MLP's width (gate, up, product). While queries turn, four float32 copies of them stand in
    for those three.
    """
    decoder = config.decoder
    width, kv = decoder.hidden_size, decoder.num_kv_heads * decoder.head_dim
    inside = max(3 * ITEM * decoder.intermediate_size, 4 * WIDE * width)
    return tokens * ((ITEM + WIDE) * 4 * width + ITEM * 3 * kv + inside + 2 * WIDE * decoder.head_dim)


def attention_bytes(config: CooperConfig, new: int, context: int, masked: bool) -> int:
    """Return the bytes of one row's attention of ``new`` tokens over ``context`` earlier ones and themselves.

    Keys and values are joined. With a mask torch has no fused kernel for shared key/value heads: each query head gets
    keys and values of its own in float32, and there are float32 scores and their softmax.
    """
    decoder = config.decoder
    seen = context + new
    joined = 2 * ITEM * seen * decoder.num_kv_heads * decoder.head_dim
    if not masked:
        return joined
    heads = decoder.num_heads
    return joined + 2 * WIDE * heads * seen * decoder.head_dim + 2 * WIDE * heads * new * seen


def denoising_bytes(config: CooperConfig, use: Use) -> int:
    """Return the working memory of a denoising step: every branch is a row of one batch, nothing is masked."""
    rows = latent_tokens(config, use.image)
    return layer_bytes(config, use.branches * rows) + attention_bytes(
        config, rows, conversation_tokens(config, use), masked=False
    )


def prefill_bytes(config: CooperConfig, use: Use) -> int:
    """Return the working memory of the larger of prefilling a text (masked) and showing a picture (not masked)."""
    context = conversation_tokens(config, use)
    picture = max(latent_tokens(config, use.image), vision_tokens(config, use.image))
    return max(
        layer_bytes(config, PROMPT) + attention_bytes(config, PROMPT, context, masked=True),
        layer_bytes(config, picture) + attention_bytes(config, picture, context, masked=False),
    )


def decode_picture_bytes(config: CooperConfig, image: tuple[int, int]) -> int:
    """Return the working memory of the autoencoder's decoder.

    Flux form: in the first block at full size three maps of the second level's width (skip, norm, its activation)
    and one of the first's. Patch form: four maps of the first width at a quarter of the size, and three pictures.
    """
    settings, pixels = config.autoencoder, image[0] * image[1]
    base = settings.base_channels
    if settings.form == 'patch':
        return ITEM * (pixels // 16 * 4 * base + 9 * pixels)
    first, second = (*settings.multipliers, settings.multipliers[-1])[:2]
    return ITEM * pixels * base * (3 * second + first)


def working_bytes(config: CooperConfig, use: Use) -> int:
    """Return the most of what prefill, denoising and decoding a picture need, which follow each other."""
    return max(
        prefill_bytes(config, use), denoising_bytes(config, use), decode_picture_bytes(config, use.image)
    )


# What fits


@dataclass(frozen=True)
class Plan:
    """One configuration, and the bytes that it needs.

    :param step: what decoding by a CUDA graph holds: its own cache and working memory
    :param capacity: tokens of one context that there is room for, at most those of the longest conversation
    :param refused: what was preferred and does not fit, with the bytes that it lacks
    """

    memory: int
    device: Device
    quantisation: Quantisation
    use: Use
    weights: dict[str, int]
    caches: int
    working: int
    step: int
    capacity: int = 0
    refused: tuple[tuple[str, int], ...] = ()

    @property
    def needed(self) -> int:
        """Bytes of everything, system and runtime included."""
        share = SHARES[self.device]
        return sum(self.weights.values()) + self.caches + self.working + self.step + share.system + share.runtime

    @property
    def free(self) -> int:
        """Bytes that are left; negative where it does not fit."""
        return self.memory - self.needed

    @property
    def label(self) -> str:
        """Return the configuration in words."""
        height, width = self.use.image
        precision = 'bfloat16' if self.quantisation == Quantisation() else self.quantisation
        return f'{precision}, {self.use.branches} branches, {width}x{height}'


def make_plan(config: CooperConfig, memory: int, device: Device, camera: tuple[int, int] = (480, 640)) -> Plan:
    """Return the best configuration that fits, or the smallest where none does (``free`` is negative).

    Precision is given up before guidance, and guidance before the size at which the checkpoint sees the camera.

    :param memory: of the whole device [bytes]
    :param camera: ``(height, width)`` of the camera [px]
    :raises ValueError: the memory or the camera has no size
    """
    if memory <= 0:
        raise ValueError(f'{memory / GB:g} GB of memory hold nothing; give the size of the device, for example 16')
    refused: list[tuple[str, int]] = []
    found = None
    for quantisation, use in _preferences(config, device, camera):
        found = _plan(config, memory, device, quantisation, use)
        if found.free >= 0:
            break
        refused.append((found.label, -found.free))
    assert found is not None, 'there is always something to prefer'
    return replace(found, capacity=_capacity(config, found), refused=tuple(refused))


def _preferences(
    config: CooperConfig, device: Device, camera: tuple[int, int]
) -> Iterator[tuple[Quantisation, Use]]:
    own = resized_size(*camera, config.vae_transform)
    eight = EIGHT_BITS[device]
    group = _group(config)
    ladder = [
        Quantisation(),
        Quantisation('int8'),
        Quantisation('int8', eight),
        Quantisation('int8', eight, 'int8'),
    ]
    if group is not None and device != 'cpu':
        ladder += [
            Quantisation('int4', eight, 'int8', group),
            Quantisation('int4', 'int4', 'int8', group),
            Quantisation('int4', 'int4', 'int4', group),
        ]
    for quarters in (4, 3, 2):
        sides = (max(side * quarters // 4 // config.latent_stride, 1) * config.latent_stride for side in own)
        height, width = sides
        for branches in (3, 1):
            for quantisation in ladder:
                yield quantisation, Use((height, width), branches)


def _group(config: CooperConfig) -> int | None:
    """Return the usual group size of int4, a smaller one where that does not divide the widths, None without any."""
    widths = config.decoder.hidden_size, config.decoder.intermediate_size
    usual = Quantisation().group
    fitting = [size for size in GROUPS if size <= usual and not any(width % size for width in widths)]
    return max(fitting, default=None)


def _plan(config: CooperConfig, memory: int, device: Device, quantisation: Quantisation, use: Use) -> Plan:
    caches = token_bytes(config) * cache_tokens(config, use)
    weights = weight_bytes(config, quantisation)
    on_cpu = device == 'cpu'
    if quantisation == Quantisation():
        weights['joined'] = joined_bytes(config) + (packed_bytes(config) if on_cpu else 0)
    capacity = step_tokens(config, use)
    step = 0 if on_cpu else captured_bytes(config, capacity)
    return Plan(memory, device, quantisation, use, weights, caches, working_bytes(config, use), step)


def _capacity(config: CooperConfig, plan: Plan) -> int:
    """Return the tokens of the full context if the caches also had what is free."""
    usual = conversation_tokens(config, plan.use)
    longest = conversation_tokens(config, replace(plan.use, thought=config.max_new_tokens))
    contexts = 2 if plan.use.branches > 1 else 1
    more = plan.free // (2 * contexts * token_bytes(config))
    return max(min(usual + more, longest), 0)
