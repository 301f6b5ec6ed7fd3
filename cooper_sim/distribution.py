"""The distribution that scenes are drawn from: one versioned JSON file each for evaluation and training.

Seeds of different distributions never meet: a scene's random stream starts from ``seed_offset + seed``, seeds
are below 2**32, and offsets of the committed files are multiples of 2**40.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

Range = tuple[float, float]
Color = tuple[float, float, float]
FOLDER = Path(__file__).parent / 'distributions'
MAX_SEED = 2**32


@dataclass(frozen=True)
class Arrangement:
    """One way to set up a scene.

    :param weight: relative frequency
    :param carrier: kind of furniture that carries things, empty for things on the floor
    :param count: smallest and largest number of objects beside the carrier
    :param kinds: relative frequency of each kind among these
    :param on_floor: probability that an object goes on the floor although there is a carrier
    :param spread: half width of the floor area that things are put on [m]
    :param scale: factor on the sizes of things that are not furniture
    :param distance: from the camera to the point that it looks at [m]
    :param pitch: downward tilt of the camera [deg]
    """

    name: str
    weight: float
    carrier: str
    count: tuple[int, int]
    kinds: dict[str, float]
    on_floor: float
    spread: Range
    scale: Range
    distance: Range
    pitch: Range


@dataclass(frozen=True)
class RoomStyle:
    """What floors and walls look like.

    :param floor_colors, wall_colors: RGB in 0..1
    :param floor_textures, wall_textures: names of textures
    """

    floor_colors: tuple[Color, ...]
    wall_colors: tuple[Color, ...]
    floor_textures: tuple[str, ...]
    wall_textures: tuple[str, ...]


@dataclass(frozen=True)
class Distribution:
    """Everything random about scenes.

    :param sizes: full extents of each kind: three ranges [m]; kinds of round outline use the first for both
        sides
    :param repeat_kind: probability that a new object repeats the kind of an earlier one (in another colour)
    :param stack: probability that an object is put on an earlier box or book
    :param gap: smallest distance between outlines [m]
    :param fov: vertical field of view [deg]
    :param roll: camera roll, standard deviation [deg]
    :param margin: distance from what matters in a scene to the walls [m]
    :param textured: probability of a texture on the floor, and on the walls
    :param shadows: probability that the main light casts shadows
    :param min_pixels: smallest unhidden outline of an object [px at 128x96]
    :param questions: relative weight of each category of questions
    :param room: None for that of a home
    :param tint: factor on the colours of objects
    :param fade: share of grey in the colours of objects
    """

    name: str
    version: str
    seed_offset: int
    arrangements: tuple[Arrangement, ...]
    sizes: dict[str, tuple[Range, Range, Range]]
    repeat_kind: float
    stack: float
    gap: float
    fov: Range
    roll: float
    margin: Range
    wall_height: float
    textured: Range
    light_strength: Range
    ambient: Range
    shadows: float
    min_pixels: float
    questions: dict[str, float]
    room: RoomStyle | None = None
    tint: Range = (0.9, 1.1)
    fade: float = 0.0

    @classmethod
    def load(cls, name: str = 'eval') -> Distribution:
        """Read a committed distribution.

        :raises ValueError: there is no such distribution, or its file lacks or adds fields
        """
        path = FOLDER / f'{name}.json'
        if not path.is_file():
            known = ', '.join(sorted(p.stem for p in FOLDER.glob('*.json')))
            raise ValueError(f'no distribution {name!r}, expected one of {known}')
        raw = json.loads(path.read_text())
        try:
            raw['arrangements'] = tuple(Arrangement(**_ranges(entry)) for entry in raw['arrangements'])
            raw['sizes'] = {kind: tuple(tuple(r) for r in ranges) for kind, ranges in raw['sizes'].items()}
            if raw.get('room') is not None:
                raw['room'] = _style(raw['room'])
            return cls(**_ranges(raw))
        except (TypeError, KeyError) as error:
            raise ValueError(f'{path}: not a distribution of scenes: {error}') from error

    def stream(self, seed: int) -> int:
        """Return the number that starts the random stream of scene ``seed``.

        :raises ValueError: the seed is outside 0 .. 2**32 - 1
        """
        if not 0 <= seed < MAX_SEED:
            raise ValueError(f'scene seed {seed} is outside 0..{MAX_SEED - 1}')
        return self.seed_offset + seed


def _ranges(entry: dict) -> dict:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}


def _style(entry: dict) -> RoomStyle:
    colors = {key: tuple(tuple(color) for color in value) for key, value in entry.items() if key.endswith('_colors')}
    return RoomStyle(**{**_ranges(entry), **colors})
