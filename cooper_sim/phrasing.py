"""How questions are worded: several templates for each category and form.

``{a}``, ``{b}``, ``{c}`` stand for names of objects (the viewer, what is faced and what is asked about, in
situational questions), ``{thing}`` for what is counted or looked for.
"""

from __future__ import annotations

CHOICE: dict[str, tuple[str, ...]] = {
    'left_right': (
        'Is the {a} to the left or to the right of the {b}?',
        'On which side of the {b} is the {a}, left or right?',
        'Seen from the camera, is the {a} left or right of the {b}?',
        'Where is the {a} relative to the {b}: left or right?',
    ),
    'above_below': (
        'Is the {a} above or below the {b}?',
        'Relative to the {b}, is the {a} above or below?',
        'Where is the {a} compared with the {b}: above or below?',
        'Is the position of the {a} above or below that of the {b}?',
    ),
    'front_behind': (
        'Is the {a} in front of or behind the {b}?',
        'Seen from the camera, is the {a} in front of the {b} or behind it? Answer in front or behind.',
        'Where is the {a} relative to the {b}: in front or behind?',
        'Relative to the {b}, is the {a} in front or behind?',
    ),
    'situational': (
        'You stand at the {a} and face the {b}. Is the {c} on your left or right?',
        'If I stand at the {a} facing the {b}, is the {c} to my left or right?',
        'Imagine standing at the {a} and looking at the {b}. On which side is the {c}, left or right?',
        'From the {a}, looking towards the {b}, is the {c} left or right?',
    ),
    'occlusion': (
        'Is the {a} fully visible or partly hidden?',
        'Which describes the {a}: fully visible or partly hidden?',
    ),
    'closer': (
        'Which is closer to the camera, the {a} or the {b}?',
        'Which object is nearer to us: the {a} or the {b}?',
        'Between the {a} and the {b}, which one is closer to the camera?',
    ),
    'farther': (
        'Which is farther from the camera, the {a} or the {b}?',
        'Which object is more distant: the {a} or the {b}?',
        'Between the {a} and the {b}, which one is farther away?',
    ),
    'object_distance_relative': (
        'Which is closer to the {c}, the {a} or the {b}?',
        'Which object is nearer to the {c}: the {a} or the {b}?',
        'Is it the {a} or the {b} that is closer to the {c}?',
    ),
    'taller': (
        'Which is taller, the {a} or the {b}?',
        'Between the {a} and the {b}, which one is taller?',
        'Which object has the greater height: the {a} or the {b}?',
    ),
}
YES_NO: dict[str, tuple[str, ...]] = {
    'left': (
        'Is the {a} to the left of the {b}?',
        'Is the {a} left of the {b}?',
        'Seen from here, does the {a} stand left of the {b}?',
    ),
    'right': (
        'Is the {a} to the right of the {b}?',
        'Is the {a} right of the {b}?',
        'Seen from here, does the {a} stand right of the {b}?',
    ),
    'above': (
        'Is the {a} above the {b}?',
        'Is the {a} higher than the {b}?',
        'Is the {a} at a higher place than the {b}?',
    ),
    'below': (
        'Is the {a} below the {b}?',
        'Is the {a} lower than the {b}?',
        'Is the {a} at a lower place than the {b}?',
    ),
    'in front': ('Is the {a} in front of the {b}?', 'Seen from the camera, is the {a} before the {b}?'),
    'behind': ('Is the {a} behind the {b}?', 'Seen from the camera, is the {a} behind the {b}?'),
    'closer': ('Is the {a} closer to the camera than the {b}?', 'Is the {a} nearer to us than the {b}?'),
    'farther': ('Is the {a} farther from the camera than the {b}?', 'Is the {a} farther away than the {b}?'),
    'object_distance_relative': (
        'Is the {a} closer to the {c} than the {b} is?',
        'Compared with the {b}, is the {a} nearer to the {c}?',
    ),
    'taller': ('Is the {a} taller than the {b}?', 'Does the {a} have a greater height than the {b}?'),
    'occlusion': (
        'Is the {a} partly hidden by something?',
        'Does something cover part of the {a}?',
        'Is part of the {a} hidden behind another object?',
    ),
    'existence': (
        'Is there {thing}?',
        'Is there {thing} in the picture?',
        'Can you see {thing}?',
        'Does the scene contain {thing}?',
    ),
}
NUMBER: dict[str, tuple[str, ...]] = {
    'metric_distance': (
        'How far is the {a} from the camera, in metres?',
        'What is the distance from the camera to the {a} in metres?',
        'How many metres away is the {a}?',
    ),
    'metric_separation': (
        'How far apart are the {a} and the {b}, in metres?',
        'What is the distance between the {a} and the {b} in metres?',
        'How many metres lie between the centre of the {a} and that of the {b}?',
    ),
    'tall': ('How tall is the {a}, in metres?', 'What is the height of the {a} in metres?'),
    'wide': (
        'How wide is the {a} as seen from here, in metres?',
        'What is the width of the {a} in metres, from this view?',
    ),
    'counting': (
        'How many {thing} are there?',
        'How many {thing} can you see?',
        'Count the {thing}. How many are there?',
    ),
}


def with_article(name: str) -> str:
    """Return a name with ``a`` or ``an``."""
    return f'{"an" if name[0] in "aeiou" else "a"} {name}'


def plural(kind: str) -> str:
    """Return the plural of a kind of object."""
    if kind == 'shelf':
        return 'shelves'
    return f'{kind}es' if kind.endswith('x') else f'{kind}s'


def metres(value: float) -> str:
    """Return a length with about two digits: hundredths below one metre, tenths from there on."""
    return f'{value:.2f}' if round(value, 2) < 1 else f'{value:.1f}'
