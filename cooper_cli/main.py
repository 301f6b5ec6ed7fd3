"""The ``cooper`` command: a table of subcommands, each imported when called, and how errors are told."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

# Name of the command, where it stands, and its line in the list.
COMMANDS: dict[str, tuple[str, str]] = {
    'demo': ('cooper_cli.demo:demo', 'Start node and camera, ask questions over ROS, show what came back.'),
    'node': ('cooper_cli.node:node', 'Run the ROS 2 node.'),
    'camera': ('cooper_cli.camera:camera', 'Publish the simulated robot camera.'),
    'ask': ('cooper_cli.ask:ask', 'Ask a spatial question about an image, or of a running node.'),
    'perceive': ('cooper_cli.perceive:perceive', 'Write depth, masks and objects of an image to a folder.'),
    'verify': ('cooper_cli.verify:verify', 'Replay a golden case and compare every number.'),
    'eval': ('cooper_cli.evaluate:evaluate', 'Measure depth, masks and answers on fresh simulated scenes.'),
    'export': ('cooper_cli.export:export', 'Write ONNX graphs, or build TensorRT engines.'),
    'plan': ('cooper_cli.plan:plan', 'Tell which precision, image size and caches fit a memory.'),
    'record': ('cooper_cli.record:record', 'Record what a running node is asked into bags.'),
    'correct': ('cooper_cli.correct:correct', 'Tell the right answers to recorded questions, also in the browser.'),
    'bag2data': ('cooper_cli.bag2data:bag2data', 'Turn bags of a robot into a folder to train on.'),
    'retrain': ('cooper_cli.retrain:retrain', 'Train a checkpoint on a folder of a robot; install it if it is better.'),
    'serve': ('cooper_cli.serve:serve', 'Serve the model to a fleet of robots over HTTP.'),
    'bench': ('cooper_cli.bench:bench', 'Measure speed and memory on fixed workloads.'),
}
BAD_INPUT, FAILURE, INTERRUPTED = 2, 1, 130
BAD_INPUTS = (ValueError, FileNotFoundError, NotADirectoryError, IsADirectoryError, FileExistsError)


def load_command(name: str) -> TyperCommand:
    """Import a subcommand and return it ready to run."""
    place, line = COMMANDS[name]
    module, _, function = place.partition(':')
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command(name, short_help=line)(_function(module, function))
    return typer.main.get_command(single)


def _function(module: str, name: str) -> Callable[..., Any]:
    return getattr(importlib.import_module(module), name)


class LazyGroup(TyperGroup):
    """Lists the table without importing it, and turns errors into one line and an exit code."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, (_, line) in COMMANDS.items():
            self.add_command(TyperCommand(name, callback=None, help=line))

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, load_command(name) if command is not None and name in COMMANDS else command, rest

    def main(self, *args: Any, **settings: Any) -> Any:
        try:
            return super().main(*args, **settings)
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)
        except BAD_INPUTS as error:
            fail(error, BAD_INPUT)
        except Exception as error:  # noqa: BLE001 - the end of the program: told, never swallowed
            fail(error, FAILURE)


def fail(error: Exception, code: int) -> NoReturn:
    """Say on standard error, in one line, what went wrong, and leave."""
    if os.environ.get('COOPER_DEBUG', '') not in ('', '0'):
        traceback.print_exception(error)
    text = ' '.join(str(error).split())
    if isinstance(error, ModuleNotFoundError):
        text += '; install that package, or the extra of cooper_ros that brings it'
    elif not text or not isinstance(error, (ValueError, OSError, RuntimeError, ImportError)):
        text = f'{type(error).__name__}: {text}; run `cooper --debug ...` for the traceback'
    sys.stderr.write(f'cooper: {text}\n')
    sys.exit(code)


app = typer.Typer(
    name='cooper', cls=LazyGroup, no_args_is_help=True, add_completion=False, rich_markup_mode=None,
    pretty_exceptions_enable=False, context_settings={'help_option_names': ['-h', '--help']},
)  # fmt: skip


def _debug(wanted: bool) -> None:
    if wanted:
        os.environ['COOPER_DEBUG'] = '1'


Debug = Annotated[
    bool,
    typer.Option('--debug', callback=_debug, is_eager=True, help='Show tracebacks, as COOPER_DEBUG=1 does.'),
]


@app.callback()
def cooper(debug: Debug = False) -> None:
    """COOPER for ROS 2: depth, segmentation and spatial answers from one camera."""


if __name__ == '__main__':
    app()
