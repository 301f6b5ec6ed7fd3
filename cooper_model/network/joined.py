"""The decoder's layers as inference computes them: the linears of one input are one product over one weight.

The results are those of :class:`cooper_model.network.decoder.DecoderLayer`, up to rounding. Queries and keys are
normed and turned together, and weights lie as the device reads them fastest:

- rows: as they are stored; for GPUs.
- columns: transposed in memory. A CPU reads them twice as fast for one token at a time in float32, and up to twice as
  fast again where each thread multiplies its own share of the inputs.
- packed: a copy in blocks, made by oneDNN. On a CPU a fifth faster for many tokens at once, and in bfloat16 twice as
  fast for one.

What layers add up stays in float32 in every number type: rounded to bfloat16 after each addition, it would be where
most of the error comes from.

Weights must not change afterwards; moving or converting the decoder undoes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cooper_model.network.decoder import GENERATION, SUFFIXES, Attend, Decoder, DecoderLayer, Rotary, Streams

MOST_PACKED = 2**31  # bytes of copies that are worth their speed
TOKENS = 256  # at once, that packing is made for
WORTH_SPLITTING = 2**20  # bytes of a weight

Form = Literal['rows', 'columns', 'packed']
Product = Callable[[Tensor], Tensor]
Norm = Callable[[Tensor], Tensor]


def join(decoder: Decoder) -> None:
    """Let a decoder compute by joined layers, whose weights its linears go on to share."""
    decoder.joined = None
    with torch.no_grad():
        decoder.joined = JoinedLayers(decoder)


def lay_out(linear: nn.Linear) -> None:
    """Lay the weight of a single linear where one token at a time reads it fastest, and let it be read so."""
    if _form(linear.weight, '') == 'columns':
        linear.weight.data = linear.weight.data.t().contiguous().t()
        linear.forward = lambda x: _split_product(linear.weight, linear.bias, x)


class JoinedLayers:
    """All layers of a decoder, called as one."""

    def __init__(self, decoder: Decoder) -> None:
        packs = sum(p.nbytes for p in decoder.layers.parameters()) <= MOST_PACKED
        self._layers = [_Layer(layer, packs) for layer in decoder.layers]

    def __call__(self, streams: Streams, turn: Rotary, attend: Attend) -> Streams:
        first, second = turn.sin.chunk(2, dim=-1)
        turn = Rotary(turn.cos, torch.cat([-first, second], dim=-1))
        given = [x.dtype for x in streams if x is not None][0]
        streams = _converted(streams, torch.promote_types(given, torch.float32))
        for number, layer in enumerate(self._layers):
            streams = layer(streams, turn, attend, number)
        return _converted(streams, given)


def _converted(streams: Streams, dtype: torch.dtype) -> Streams:
    return Streams(*(None if x is None else x.to(dtype) for x in streams))


class _Layer:
    def __init__(self, layer: DecoderLayer, packs: bool) -> None:
        self._experts = tuple(_Expert(layer, suffix, packs) for suffix in SUFFIXES)

    def __call__(self, streams: Streams, turn: Rotary, attend: Attend, number: int) -> Streams:
        present = [(x, expert) for x, expert in zip(streams, self._experts, strict=True) if x is not None]
        projected = [expert.project(x) for x, expert in present]
        both, values = (_sequence(parts) for parts in zip(*projected, strict=True))
        queries, keys = _rotate(both, turn).to(values.dtype).split(present[0][1].sizes[:2], dim=2)
        mixed = attend(number, queries, keys, values).flatten(2)
        parts = mixed.split([x.shape[1] for x, _ in present], dim=1)
        done = iter([expert.finish(x, part) for (x, expert), part in zip(present, parts, strict=True)])
        return Streams(*(None if x is None else next(done) for x in streams))


def _sequence(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(tuple(parts), dim=1)


class _Expert:
    """One expert of a layer.

    :ivar sizes: numbers of query, key and value heads
    """

    def __init__(self, layer: DecoderLayer, suffix: str, packs: bool) -> None:
        attention, mlp = layer.self_attn, getattr(layer, 'mlp' + suffix)
        q, k, v, out = (getattr(attention, f'{name}_proj{suffix}') for name in 'qkvo')
        self._head_dim = attention.head_dim
        self.sizes = tuple(linear.out_features // self._head_dim for linear in (q, k, v))
        form = _form(q.weight, suffix, packs)
        outer = [getattr(layer, name + suffix) for name in ('input_layernorm', 'post_attention_layernorm')]
        self._dtype = q.weight.dtype
        self._enter, self._leave = (_norm(norm.weight, norm.eps) for norm in outer)
        self._qkv, self._out = _product([q, k, v], form), _product([out], form)
        self._widen = _product([mlp.gate_proj, mlp.up_proj], form)
        self._narrow = _product([mlp.down_proj], form)
        norms = [getattr(attention, name + suffix) for name in ('q_norm', 'k_norm')]
        self._norm: Norm | None = None
        if not isinstance(norms[0], nn.Identity):
            weights = [norm.weight.expand(count, -1) for norm, count in zip(norms, self.sizes, strict=False)]
            self._norm = _norm(torch.cat(weights), norms[0].eps)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return queries and keys (normed, not yet turned), and values, each ``(batch, tokens, heads, head_dim)``.

        :param x: float32, as norms are; values are of the weights' type
        """
        queries, keys, values = self.sizes
        mixed = self._qkv(self._enter(x).to(self._dtype)).view(*x.shape[:2], -1, self._head_dim)
        both, own = mixed.split([queries + keys, values], dim=2)
        return both if self._norm is None else self._norm(both), own

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Return the layer's output for ``x``, given what attention mixed; float32."""
        x = x + self._out(mixed)
        gate, up = self._widen(self._leave(x).to(self._dtype)).chunk(2, dim=-1)
        return self._narrow(F.silu(gate).mul_(up)) + x


def _norm(weight: Tensor, eps: float) -> Norm:
    """Return an RMS norm over the last axis as a function; its result is float32.

    :param weight: ``(..., width)``
    """
    wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
    if weight.device.type != 'cpu':
        return partial(_fused_norm, wide, eps)
    width = weight.shape[-1]
    return partial(_length_norm, wide * width**0.5, torch.tensor((width * eps) ** 0.5, dtype=wide.dtype))


def _fused_norm(weight: Tensor, eps: float, x: Tensor) -> Tensor:
    if weight.ndim == 1:
        return F.rms_norm(x, weight.shape, weight, eps)
    return F.rms_norm(x, weight.shape[-1:], None, eps) * weight


def _length_norm(scale: Tensor, least: Tensor, x: Tensor) -> Tensor:
    # A CPU finds the length of a row faster than the mean of its squares: of short rows ten times as fast.
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=scale.dtype)
    return (x * scale).div_(torch.hypot(length, least))


def _rotate(x: Tensor, turn: Rotary) -> Tensor:
    # Halves change places, and the sine of the first is negative: what ``rotate`` does in fewer steps.
    return x * turn.cos + x.roll(x.shape[-1] // 2, dims=-1) * turn.sin


def _form(weight: Tensor, suffix: str, packs: bool = True) -> Form:
    if weight.device.type != 'cpu':
        return 'rows'
    if weight.dtype == torch.float32 and suffix != GENERATION:
        return 'columns'
    known = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, '_linear_pointwise')
    return 'packed' if packs and known and weight.dtype in (torch.float32, torch.bfloat16) else 'rows'


def _product(linears: Sequence[nn.Linear], form: Form) -> Product:
    """Return the joined outputs of linears of one input as a function of it."""
    weight = torch.cat([linear.weight for linear in linears]) if len(linears) > 1 else linears[0].weight.detach()
    biases = [linear.bias for linear in linears]
    bias = None if biases[0] is None else torch.cat(biases)
    if form == 'columns' and weight.shape[0] < weight.shape[1]:
        form = 'rows'  # long rows are read faster as they are
    if form == 'packed':
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, TOKENS)
        return partial(_packed_product, packed, bias)
    if form == 'columns':
        weight = weight.t().contiguous().t()
    if len(linears) > 1 or form == 'columns':
        # Not a second copy: the linears see parts of the joined one.
        for linear, part in zip(linears, weight.split([linear.out_features for linear in linears]), strict=True):
            linear.weight.data = part
    return partial(_split_product if weight.device.type == 'cpu' else _rows_product, weight, bias)


def _rows_product(weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    return F.linear(x, weight, bias)


def _split_product(weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    """Return the same, on a CPU: of a single token, each thread multiplies a share of the inputs with their weights."""
    shares = _shares(weight.shape[1]) if x.numel() == weight.shape[1] and weight.nbytes >= WORTH_SPLITTING else 1
    if shares == 1:
        return F.linear(x, weight, bias)
    parts = torch.bmm(x.reshape(shares, 1, -1), weight.t().unflatten(0, (shares, -1)))
    result = parts.sum(0).view(*x.shape[:-1], -1)
    return result if bias is None else result.add_(bias)


def _shares(inputs: int) -> int:
    """Return the largest number of equal shares that is no more than there are threads."""
    return next(count for count in range(torch.get_num_threads(), 0, -1) if inputs % count == 0)


def _packed_product(weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, 'none', [], '')
