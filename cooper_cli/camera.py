"""``cooper camera``: a robot camera on machines that have none."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cooper_cli import options


def camera(
    source: Annotated[str, typer.Argument(help='sim, or a bag, video, image or folder of images.')] = 'sim',
    rate: Annotated[float, typer.Option(min=0.1, max=120.0, help='Images a second of sim and folders.')] = 10.0,
    speed: Annotated[float, typer.Option(min=0.01, max=100.0, help='Factor on the pace of bags and videos.')] = 1.0,
    loop: Annotated[bool, typer.Option('--loop', help='Start again at the end.')] = False,
    hold: Annotated[bool, typer.Option('--hold', help='Stay with one simulated scene.')] = False,
    scene_period: Annotated[float, typer.Option(min=0.1, help='Seconds of each simulated scene.')] = 5.0,
    world: options.World = 'eval',
    depth: Annotated[bool, typer.Option(help='Publish registered depth where there is any.')] = True,
    namespace: Annotated[str, typer.Option(help='ROS namespace.')] = '',
    seed: options.Seed = 0,
    ros_args: Annotated[
        list[str] | None,
        typer.Argument(help='More ROS arguments, after source and --: sim -- -r image_raw:=/front/image_raw'),
    ] = None,
) -> None:
    """Publish images until interrupted: simulated scenes, a bag, a video or a folder of images."""
    from cooper_ros.camera import main
    from cooper_ros.processes import ros_arguments

    parameters = {
        'source': source if source == 'sim' else str(Path(source).resolve()),
        'rate': rate,
        'speed': speed,
        'loop': loop,
        'hold': hold,
        'scene_period': scene_period,
        'distribution': world,
        'publish_depth': depth,
        'seed': seed,
    }
    raise typer.Exit(main([*ros_arguments(parameters, namespace), *(ros_args or [])]))
