"""``cooper bag2data``: bags of a robot into a folder to train on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from cooper_cli import options
from cooper_cli.output import note, print_json, say

if TYPE_CHECKING:
    from cooper_ros.harvest.report import BagReport

def bag2data(
    bags: Annotated[list[Path], typer.Argument(help='Bags of ROS 2 or ROS 1, or folders that were recorded into.')],
    out: Annotated[Path, typer.Option(help='Folder of the data; an earlier one is gone on with.')],
    camera: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help='A camera of bags with several, may be repeated; all for all. Default: the best.'),
    ] = None,
    image_topic: Annotated[str, typer.Option(help='Camera images; default: searched for.')] = '',
    info_topic: Annotated[str, typer.Option(help='Calibration; default: the one beside the images.')] = '',
    depth_topic: Annotated[str, typer.Option(help='Depth registered to the images; default: searched for.')] = '',
    mask_topic: Annotated[str, typer.Option(help='Masks of objects or classes; default: searched for.')] = '',
    labels: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help='JSON object with the name of each number of the masks.'),
    ] = None,
    novelty: Annotated[
        float, typer.Option(min=0.0, max=1.5, help='How new a frame must be: 0 takes all, 1.4 nearly none.')
    ] = 0.7,
    tolerance: Annotated[
        float, typer.Option(min=0.0, help='Largest seconds between image and depth or mask.')
    ] = 0.05,
    level_frame: Annotated[str, typer.Option(help='Frame whose z points up; default: map, odom, base_link, ...')] = '',
    questions: Annotated[int, typer.Option(min=0, max=50, help='Questions a frame.')] = 4,
    json: options.Json = False,
) -> None:
    """Choose frames that show something new, with depth, masks, questions and corrections; report what was left out."""
    from cooper_cli.bag2data_folder import ALL, DataFolder, Wishes
    from cooper_cli.bag2data_objects import read_labels
    from cooper_ros.harvest.frames import Options
    from cooper_ros.harvest.streams import Wanted
    from cooper_ros.recording.desk import bags_in

    cameras = tuple(dict.fromkeys(camera or ()))
    if image_topic and cameras:
        raise typer.BadParameter('--image-topic names a camera by its topic; leave it or --camera out')
    if (info_topic or depth_topic or mask_topic) and (len(cameras) > 1 or ALL in cameras):
        raise typer.BadParameter('topics are those of one camera; run once for each --camera, or leave the topics out')
    wanted = Wanted(image=image_topic, camera_info=info_topic, depth=depth_topic, mask=mask_topic)
    choice = Options(wanted, novelty, tolerance, level_frame)
    names = read_labels(labels) if labels is not None else {}
    paths = [path for each in bags for path in bags_in(each.absolute())]
    reports = DataFolder(out, Wishes(choice, names, questions, note, cameras)).add(paths)
    if json:
        print_json({'out': str(out), 'bags': [report.record() for report in reports]})
    else:
        for report in reports:
            _tell(report)
    if not any(report.counts['chosen'] or report.counts['corrected'] for report in reports):
        problems = '; '.join(each for report in reports for each in report.problems)
        raise RuntimeError(f'nothing could be used: {problems}')


def _tell(report: BagReport) -> None:
    say(f'{report.bag}, camera {report.camera}' if report.camera else report.bag)
    lines = {
        'topics': [f'{role}: {topic}' for role, topic in report.topics.items()],
        'used': [f'{name}: {count}' for name, count in report.counts.items() if count],
        'seconds from image, at most ' + f'{report.tolerance:g}': [
            f'{role}: median {found["median"]:+.3f}, largest {found["largest"]:+.3f}'
            for role, found in report.offsets.items()
        ],
        'left out': [f'{count} x {reason}' for reason, count in report.left_out.most_common()],
        'topics not used': [f'{topic}: {reason}' for topic, reason in report.unused.items()],
        'PROBLEMS': report.problems,
    }
    for title, entries in lines.items():
        if entries:
            say(f'  {title}')
            for entry in entries:
                say(f'    {entry}')
