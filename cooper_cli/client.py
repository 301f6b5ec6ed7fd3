"""A client of the running node that a command names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cooper_ros.client import CooperClient

NODE = 'cooper'
_NAME = re.compile(r'([A-Za-z_]\w*/)*[A-Za-z_]\w*', re.ASCII)
NodeName = Annotated[
    str, typer.Option('--node', metavar='NAME', help='Name of the node, such as cooper or /robot1/cooper.')
]
Namespace = Annotated[str, typer.Option('--namespace', help='ROS namespace of the node.')]


def open_client(name: str, namespace: str) -> CooperClient:
    """Return a client of a node; a context manager.

    :param name: with its whole namespace where it begins with ``/``, otherwise within ``namespace``
    :raises ValueError: nothing can have this name, or the two name different places
    """
    from cooper_ros.client import CooperClient

    if name.startswith('/') and namespace:
        raise ValueError(f'--node {name} holds its namespace; leave --namespace {namespace} out')
    full = f'{namespace.strip("/")}/{name.strip("/")}'.lstrip('/')
    if not _NAME.fullmatch(full):
        raise ValueError(f'no node is called {full!r}; give words of letters, digits and _, such as /robot1/{NODE}')
    place, _, own = full.rpartition('/')
    return CooperClient(own, f'/{place}')
