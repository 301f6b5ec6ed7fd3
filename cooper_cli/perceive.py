"""``cooper perceive``: depth, segmentation and objects of one image file, written to a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cooper_cli import options
from cooper_cli.output import note, object_record, print_json, relation_record, say, table
from cooper_model.types import DepthMap, Frame, ImageReady, Segmentation


@options.takes_model()
def perceive(
    model: options.ModelChoice,
    image: Annotated[Path, typer.Option('--image', help='Image file.')],
    out: Annotated[Path, typer.Option('--out', help='Folder for the results.')],
    fov: options.Fov = None,
    json: options.Json = False,
    seed: options.Seed = 0,
) -> None:
    """Write the depth (16-bit mm PNG, colours, .npy), masks and an overlay of an image to a folder."""
    from cooper_cli.pictures import load_frame, make_folder
    from cooper_cli.session import open_reasoner

    frame = load_frame(image, fov)
    make_folder(out)
    reasoner = open_reasoner(model)
    ready = [event for event in reasoner.perceive(frame, ('depth', 'segmentation'), seed=seed)
             if isinstance(event, ImageReady)]  # fmt: skip
    record = write(out, frame, ready)
    if json:
        print_json(record)
    else:
        _show(record)


def write(out: Path, frame: Frame, ready: list[ImageReady]) -> dict[str, Any]:
    """Write generated maps and their objects to a folder that exists, and return what was written."""
    from cooper_cli.pictures import save_depth, save_segmentation
    from cooper_model.scene import describe_scene

    maps = {event.modality: event.image for event in ready}
    depth, segmentation = maps['depth'], maps['segmentation']
    assert isinstance(depth, DepthMap) and isinstance(segmentation, Segmentation)
    files = save_depth(out, depth) | save_segmentation(out, segmentation, frame.image)
    objects, relations = describe_scene(frame, depth, segmentation)
    return {
        'width': frame.image.shape[1],
        'height': frame.image.shape[0],
        'metric': depth.metres is not None,
        'names': segmentation.names,
        'files': {name: str(path) for name, path in files.items()},
        'objects': [object_record(item) for item in objects],
        'relations': [relation_record(item) for item in relations],
        'timings': {event.modality: event.seconds for event in ready},
    }


def _show(record: dict[str, Any]) -> None:
    rows = []
    for item in record['objects']:
        unit = 'm' if item['metric'] else 'of the range'
        distance = '-' if item['depth'] is None else f'{item["depth"]:.2f} {unit}'
        rows.append((item['name'], item['area'], distance, f'{item["confidence"]:.2f}'))
    say(table(('object', 'pixels', 'depth', 'confidence'), rows) if rows else 'no objects')
    for relation in record['relations']:
        say(f'{relation["subject"]} {relation["predicate"]} {relation["object"]}')
    for name, path in record['files'].items():
        note(f'{name}: {path}')
