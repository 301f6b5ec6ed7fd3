"""A demo run as a recording for the Rerun viewer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cooper_cli.demo_report import Report


def save_recording(report: Report, path: Path) -> Path:
    """Write the kept pictures and the questions on their time line; open it with ``rerun demo.rrd``.

    :raises ModuleNotFoundError: rerun-sdk is not installed
    """
    import rerun as rr

    recording = rr.RecordingStream('cooper_demo')
    recording.save(path)
    for picture in report.pictures:
        recording.set_time('camera', timestamp=picture.stamp_ns / 1e9)
        for name, image in (
            ('camera', picture.camera),
            ('depth', picture.depth),
            ('segmentation', picture.overlay),
        ):
            recording.log(name, rr.Image(image).compress(jpeg_quality=90))
    for asked in report.asked:
        if asked.reply is None:
            continue
        recording.set_time('camera', timestamp=asked.reply.stamp_ns / 1e9)
        lines = [*asked.reply.thoughts, f'{asked.question.text} -> {asked.reply.answer or asked.message}']
        recording.log('answers', rr.TextLog('\n'.join(lines)))
    recording.flush()
    recording.disconnect()
    return path
