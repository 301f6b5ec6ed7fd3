"""``cooper node``, ``cooper camera`` and ``cooper ask``, each a process, as a user types them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('rclpy')

from cooper_cli.client import open_client

ROOT = Path(__file__).parents[2]
# Another domain than that of the other tests: the command asks the node of the plain name.
ENVIRONMENT = {**os.environ, 'ROS_DOMAIN_ID': str(1 + (int(os.environ['ROS_DOMAIN_ID']) + 50) % 100)}


def start(log, *arguments):
    command = [sys.executable, '-m', 'cooper_cli.main', *map(str, arguments)]
    with open(log, 'w') as output:
        return subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stdout=output, stderr=subprocess.STDOUT)


def ask(*arguments):
    command = [sys.executable, '-m', 'cooper_cli.main', 'ask', *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope='module')
def running(tmp_path_factory, random_checkpoint, tools):
    folder = tmp_path_factory.mktemp('logs')
    old = ('--', '-p', 'max_image_age:=0.0')  # a camera that waits for its turn sends nothing new
    node = start(folder / 'node', 'node', '--checkpoint', random_checkpoint, '--rate', '0', *old)
    camera = start(folder / 'camera', 'camera', '--hold', '--seed', '3', '--rate', '5')
    processes = {'node': node, 'camera': camera}
    try:
        for name, said in (('node', 'active: waits for images'), ('camera', 'playing')):
            tools.wait_for(lambda name=name, said=said: said in (folder / name).read_text(), said, 90)
        # The camera plays, but its first image may still be on the way.
        tools.wait_for(lambda: ask('Ready?', '--mode', 'direct').returncode == 0, 'an answer', 60)
        yield folder
    finally:
        for process in processes.values():
            process.send_signal(signal.SIGINT)
        statuses = {name: process.wait(60) for name, process in processes.items()}
    assert statuses == {'node': 0, 'camera': 0}
    assert 'Traceback' not in (folder / 'node').read_text() + (folder / 'camera').read_text()


def test_asking_the_running_node(running, tmp_path):
    done = ask('Which object is closest?', '--mode', 'perception', '--json', '--out', tmp_path)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert {'answer', 'mode', 'thoughts', 'images', 'relations', 'timings'} <= set(said)
    assert said['mode'] == 'perception'
    assert [image['modality'] for image in said['images']] == ['depth', 'segmentation']
    assert all(Path(image['path']).is_file() for image in said['images'])
    assert said['frame_id'] == 'camera_optical_frame'
    # Thoughts and pictures were told on the way, on the other stream.
    assert '[depth finished]' in done.stderr


def test_asking_in_plain_text(running):
    done = ask('What is that?', '--mode', 'direct')
    assert done.returncode == 0, done.stderr
    assert 'Answer: ' in done.stdout


@pytest.mark.parametrize(
    ('options', 'node'),
    [
        (['--namespace', '/nowhere'], '/nowhere/cooper'),
        (['--namespace', 'nowhere/', '--node', 'copper'], '/nowhere/copper'),
        (['--node', '/far/nowhere/cooper'], '/far/nowhere/cooper'),
    ],
)
def test_asking_where_no_node_is(options, node):
    done = ask('Anyone?', *options, '--timeout', '0.3')
    assert done.returncode == 1
    assert f'no node {node} after 0.3 s' in done.stderr
    assert 'Traceback' not in done.stderr


@pytest.mark.parametrize(
    ('name', 'namespace', 'node'),
    [('cooper', '', '/cooper'), ('arm/eye', '/robot1/', '/robot1/arm/eye'), ('/robot1/eye', '', '/robot1/eye')],
)
def test_a_node_is_named_with_or_without_its_namespace(name, namespace, node):
    with open_client(name, namespace) as client:
        assert client.target == node


@pytest.mark.parametrize(
    ('name', 'namespace', 'reason'),
    [
        ('/far/cooper', 'near', 'leave --namespace near out'),
        ('my robot', '', "no node is called 'my robot'; give words of letters"),
        ('cooper', '/1st', "no node is called '1st/cooper'"),
        ('/', '', "no node is called ''"),
    ],
)
def test_a_name_that_is_none_is_told(name, namespace, reason):
    with pytest.raises(ValueError, match=reason):
        open_client(name, namespace)
