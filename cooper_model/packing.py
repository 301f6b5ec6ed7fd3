"""Sequences as training sees them: segments with who-sees-whom, packed into tensors and run in one forward pass.

The same rules as a context's (positions, attention inside a segment), on whole sequences with a dense mask. Segments
form a tree: each names the earlier ones that it sees, so several continuations of one image share its tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from cooper_model.config import CooperConfig
from cooper_model.network.decoder import Streams, masked_attention
from cooper_model.network.model import Cooper

Kind = Literal['text', 'vision', 'latents', 'noise']
IGNORE = -100


@dataclass(frozen=True)
class Segment:
    """One segment of a sample.

    :param kind: text is causal, images are full; a ``noise`` image is seen by nobody else and consumes no position
    :param sees: indexes of the earlier segments of the sample that this one attends to
    :param ids: token ids of a text, control tokens included
    :param labels: what each text token must predict, ``IGNORE`` for none; empty for no loss at all
    :param image: which image of the batch, counted within its kind: ViT images for ``vision``, latents otherwise
    :param grid: rows and columns of an image in tokens
    """

    kind: Kind
    sees: tuple[int, ...] = ()
    ids: tuple[int, ...] = ()
    labels: tuple[int, ...] = ()
    image: int = -1
    grid: tuple[int, int] = (0, 0)

    @property
    def tokens(self) -> int:
        """Tokens including the two markers around an image."""
        return len(self.ids) if self.kind == 'text' else self.grid[0] * self.grid[1] + 2

    @property
    def advance(self) -> int:
        """Rotary positions consumed."""
        return {'text': len(self.ids), 'noise': 0}.get(self.kind, 1)


@dataclass(frozen=True)
class Packed:
    """A batch ready for :func:`packed_forward`; rows are padded, understanding tokens come first.

    :param ids: ``(batch, understanding)`` token ids; anything at the places of ViT tokens
    :param labels: ``(batch, understanding)`` next-token labels or ``IGNORE``
    :param positions: ``(batch, understanding + generation)``
    :param mask: ``(batch, tokens, tokens)`` bool, true where a row sees a column
    :param vision: flat places of each ViT image's tokens in ``ids``, in order of image number
    :param latents: flat places of each latent image's tokens in ``(batch, generation)``, likewise
    :param noisy: numbers of the latent images that are being generated
    """

    ids: Tensor
    labels: Tensor
    positions: Tensor
    mask: Tensor
    vision: tuple[Tensor, ...]
    latents: tuple[Tensor, ...]
    noisy: tuple[int, ...]


class Places(NamedTuple):
    """Where one segment's tokens stand in their streams."""

    understanding: slice
    generation: slice


def pack(samples: Sequence[Sequence[Segment]], config: CooperConfig, multiple: int = 1) -> Packed:
    """Lay samples out as one padded batch.

    :param multiple: understanding tokens are padded to a multiple of this, so that few shapes are compiled
    """
    laid = [_lay_out(segments) for segments in samples]
    width_u = -(-max(places[-1].understanding.stop for places in laid) // multiple) * multiple
    width_g = max(places[-1].generation.stop for places in laid)
    batch, width = len(samples), width_u + width_g
    ids = torch.full((batch, width_u), config.tokens.end)
    labels = torch.full((batch, width_u), IGNORE)
    positions = torch.zeros(batch, width, dtype=torch.long)
    # Padding sees itself, so that its softmax is defined; nothing else sees it.
    mask = torch.eye(width, dtype=torch.bool).repeat(batch, 1, 1)
    images: dict[str, dict[int, Tensor]] = {'vision': {}, 'latents': {}}
    noisy: list[int] = []
    for row, (segments, places) in enumerate(zip(samples, laid, strict=True)):
        columns = [_columns(place, width_u) for place in places]
        starts = _positions(segments)
        for number, segment in enumerate(segments):
            place, own = places[number], columns[number]
            positions[row, own] = starts[number]
            for other in segment.sees:
                mask[row, own[:, None], columns[other]] = True
            square = torch.ones(len(own), len(own), dtype=torch.bool)
            if segment.kind == 'text':
                positions[row, own] += torch.arange(len(own))
                square = square.tril()
                ids[row, place.understanding] = torch.tensor(segment.ids)
                if segment.labels:
                    labels[row, place.understanding] = torch.tensor(segment.labels)
            else:
                first = place.understanding.start
                last = place.understanding.stop - 1
                ids[row, first], ids[row, last] = config.tokens.image_start, config.tokens.image_end
                if segment.kind == 'vision':
                    images['vision'][segment.image] = row * width_u + torch.arange(first + 1, last)
                else:
                    inner = torch.arange(place.generation.start, place.generation.stop)
                    images['latents'][segment.image] = row * width_g + inner
                    if segment.kind == 'noise':
                        noisy.append(segment.image)
            mask[row, own[:, None], own] = square
    ordered = {kind: tuple(found[n] for n in sorted(found)) for kind, found in images.items()}
    return Packed(ids, labels, positions, mask, ordered['vision'], ordered['latents'], tuple(sorted(noisy)))


def _lay_out(segments: Sequence[Segment]) -> list[Places]:
    places = []
    u = g = 0
    for segment in segments:
        inner = segment.tokens - 2
        routed = segment.kind in ('latents', 'noise')
        place = Places(slice(u, u + (2 if routed else segment.tokens)), slice(g, g + (inner if routed else 0)))
        u, g = place.understanding.stop, place.generation.stop
        places.append(place)
    return places


def _columns(place: Places, width_u: int) -> Tensor:
    u, g = place
    return torch.cat([torch.arange(u.start, u.stop), width_u + torch.arange(g.start, g.stop)])


def _positions(segments: Sequence[Segment]) -> list[int]:
    """Return the first rotary position of each segment: behind the last of those that it sees."""
    starts: list[int] = []
    for segment in segments:
        starts.append(max((starts[i] + segments[i].advance for i in segment.sees), default=0))
    return starts


class Output(NamedTuple):
    """What :func:`packed_forward` returns.

    :param understanding: final hidden states, ``(batch, understanding, hidden)``
    :param velocities: ``(tokens, latent_dim)`` of each noisy image, in order of ``Packed.noisy``
    """

    understanding: Tensor
    velocities: tuple[Tensor, ...]


@dataclass(frozen=True)
class PackedImages:
    """The pictures of a batch.

    :param vision: normalised ViT images, each ``(3, height, width)``
    :param latents: latent tokens, each ``(tokens, latent_dim)``: clean ones, and noisy ones already mixed
    :param times: one time for each latent image, 0 for clean ones
    :param grids: rows and columns of each latent image
    """

    vision: Sequence[Tensor] = field(default_factory=list)
    latents: Sequence[Tensor] = field(default_factory=list)
    times: Sequence[float] | Tensor = field(default_factory=list)
    grids: Sequence[tuple[int, int]] = field(default_factory=list)


def packed_forward(model: Cooper, batch: Packed, images: PackedImages) -> Output:
    """Run a packed batch through the model."""
    dim = model.config.decoder.hidden_size
    device = model.device
    u = model.embed_text(batch.ids.to(device))
    if batch.vision:
        features = _by_shape(images.vision, lambda same: model.embed_vision(torch.stack(same)))
        u = _place(u, batch.vision, features)
    g = None
    rows = batch.ids.shape[0]
    width_g = batch.positions.shape[1] - batch.ids.shape[1]
    if width_g:
        times = torch.as_tensor(images.times, dtype=torch.float32, device=device)
        embedded = _embed_latents(model, images, times)
        g = torch.zeros(rows, width_g, dim, device=device, dtype=embedded[0].dtype)
        g = _place(g, batch.latents, embedded)
    attend = masked_attention(batch.mask.to(device), fused=device.type == 'cuda')
    hidden = model(Streams(u, g), batch.positions.to(device), attend)
    velocities: tuple[Tensor, ...] = ()
    if batch.noisy:
        flat = hidden.generation.flatten(0, 1)
        places = [batch.latents[n].to(device) for n in batch.noisy]
        joined = model.velocity(flat[torch.cat(places)])
        velocities = joined.split([len(place) for place in places])
    return Output(hidden.understanding, velocities)


def _embed_latents(model: Cooper, images: PackedImages, times: Tensor) -> list[Tensor]:
    """Embed latent images of one grid together."""
    found: list[Tensor] = [torch.empty(0)] * len(images.latents)
    for grid in set(images.grids):
        numbers = [n for n, other in enumerate(images.grids) if other == grid]
        stacked = torch.stack([images.latents[n] for n in numbers])
        for n, rows in zip(numbers, model.embed_latents(stacked, grid, times[numbers]), strict=True):
            found[n] = rows
    return found


def _by_shape(pictures: Sequence[Tensor], run: Callable[[list[Tensor]], Tensor]) -> list[Tensor]:
    """Run pictures of one shape together."""
    found: list[Tensor] = [torch.empty(0)] * len(pictures)
    for shape in {picture.shape for picture in pictures}:
        numbers = [n for n, picture in enumerate(pictures) if picture.shape == shape]
        for n, rows in zip(numbers, run([pictures[n] for n in numbers]), strict=True):
            found[n] = rows
    return found


def _place(stream: Tensor, places: Sequence[Tensor], values: Sequence[Tensor]) -> Tensor:
    flat = stream.flatten(0, 1)
    index = torch.cat(list(places)).to(flat.device)
    return flat.index_copy(0, index, torch.cat(list(values)).to(flat.dtype)).view_as(stream)
