"""ROS processes of our own: start them with their output in a log file, watch them, end them for sure."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

STOP_SECONDS = 20.0
TAIL_LINES = 25


class ProcessFailed(RuntimeError):
    """A process ended when it should not; the text holds the end of its log."""


def ros_arguments(parameters: Mapping[str, Any], namespace: str = '', remap: Sequence[str] = ()) -> list[str]:
    """Return command-line arguments that set ROS parameters. Texts are quoted, so a folder named 1 stays a text.

    :param namespace: of the node; empty for none
    :param remap: rules such as ``image_raw:=/camera/image_raw``
    """
    arguments = ['--ros-args']
    for name, value in parameters.items():
        arguments += ['-p', f'{name}:={json.dumps(value, ensure_ascii=False)}']
    if namespace.strip('/'):
        arguments += ['-r', f'__ns:=/{namespace.strip("/")}']
    for rule in remap:
        arguments += ['-r', rule]
    return arguments


class RosProcess:
    """A module of ours that runs as a ROS process. A context manager that ends it.

    :param module: as after ``python -m``
    :param parameters: ROS parameters
    :param log: file that takes its output
    :param namespace: of the node
    :param remap: rules for names
    """

    def __init__(
        self, module: str, parameters: Mapping[str, Any], log: Path, namespace: str = '', remap: Sequence[str] = ()
    ) -> None:
        self.module = module
        self.log = log
        command = [sys.executable, '-m', module, *ros_arguments(parameters, namespace, remap)]
        with log.open('wb') as output:
            # A session of its own: Ctrl-C at the terminal reaches this process alone, which then ends its children.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> RosProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit status, None while it runs."""
        return self._process.poll()

    def require_alive(self) -> None:
        """Check that the process runs.

        :raises ProcessFailed: it has ended
        """
        if self.returncode is not None:
            raise ProcessFailed(
                f'{self.module} ended with status {self.returncode}; its log {self.log}:\n{self.tail()}'
            )

    def tail(self) -> str:
        """Return the last lines of the log."""
        lines = self.log.read_text(encoding='utf-8', errors='replace').splitlines()
        return '\n'.join(lines[-TAIL_LINES:])

    def stop(self) -> int:
        """Interrupt the process, and kill it where that does not help; return its exit status."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            if self.returncode is not None:
                break
            os.killpg(self.pid, number)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                continue
        return self._process.wait()
