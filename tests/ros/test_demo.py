"""``cooper demo`` as a user runs it, on tiny random weights: whether all works does not hang on good answers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rerun.chunk import RrdReader

pytest.importorskip('rclpy')

from rclpy.node import Node

from cooper_cli.demo_report import Asked, Report, check
from cooper_cli.demo_run import Demo, DemoSettings, uninterrupted
from cooper_ros.client import Question, Reply
from cooper_ros.processes import ProcessFailed, RosProcess, ros_arguments

ROOT = Path(__file__).parents[2]
MODES = ('auto', 'direct', 'text', 'perception')


def run_demo(*arguments, timeout=170):
    environment = {key: value for key, value in os.environ.items() if key != 'ROS_DOMAIN_ID'}
    command = [sys.executable, '-m', 'cooper_cli.main', 'demo', '--json', *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout)


def processes_of(folder):
    """Return the command lines of processes that a demo with this folder started, found by their log files."""
    found = []
    for entry in Path('/proc').glob('[0-9]*'):
        try:
            if os.readlink(entry / 'fd' / '1').startswith(str(folder)):
                found.append((entry / 'cmdline').read_text().replace('\0', ' '))
        except OSError:
            continue
    return found


def check_run(done, out):
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout)
    assert summary['passed']
    assert summary['problems'] == []
    assert summary['headers']['checked'] > 0
    assert summary['headers']['foreign'] == {}
    frames = summary['frames']
    assert frames['received'] - frames['used'] - frames['dropped'] in (0, 1)
    assert frames['received'] + frames['lost_in_transport'] == summary['camera']['published']
    assert frames['perceived'] > 0
    modes = [asked['mode'] for asked in summary['questions']]
    assert modes[:6] == ['auto', 'direct', 'auto', 'text', 'auto', 'perception']
    assert set(modes[6:]) <= {'auto'}
    assert {asked['via'] for asked in summary['questions'] if asked['mode'] == 'auto'} == {'service', 'action'}
    assert processes_of(out) == []
    for path in map(Path, summary['files']):
        assert path.stat().st_size > 0
        if path.suffix == '.png':
            assert np.asarray(Image.open(path)).std() > 0
    assert {'summary.json', 'thoughts.txt', 'frame0.png'} <= {Path(path).name for path in summary['files']}
    return summary


def test_the_demo_with_the_simulated_camera(tmp_path, random_checkpoint):
    out = tmp_path / 'demo'
    done = run_demo('--checkpoint', random_checkpoint, '--seconds', 4, '--out', out, '--viewer', 'rerun')
    summary = check_run(done, out)
    agreement = summary['agreement']
    verdicts = [asked['right'] for asked in summary['questions'] if asked['right'] is not None]
    assert (agreement['judged'], agreement['right']) == (len(verdicts), sum(verdicts))
    assert sum(mode['judged'] for mode in agreement['by_mode'].values()) == len(verdicts)
    assert any(asked['truth'] for asked in summary['questions'])
    assert all(asked['success'] for asked in summary['questions'])
    shown = {chunk.entity_path for chunk in RrdReader(out / 'demo.rrd').stream().collect().stream()}
    assert {'/world/camera/image', '/world/points', '/depth/color', '/thinking', '/thoughts/answer'} <= shown
    assert str(out / 'demo.rrd') in summary['files']


def test_the_demo_with_a_real_bag(tmp_path, random_checkpoint, shared):
    bag = shared / 'data' / 'bags' / 'tum_fr1_rpy_ros2'
    summary = check_run(
        run_demo('--checkpoint', random_checkpoint, '--seconds', 2, '--out', tmp_path, '--camera', bag), tmp_path
    )
    assert summary['camera']['recorded'] == 40
    assert summary['frames']['distinct'] == 40
    assert summary['camera']['published'] >= 40


def test_a_checkpoint_that_is_none_fails_with_the_node_s_words(tmp_path):
    (tmp_path / 'empty').mkdir()
    done = run_demo('--checkpoint', tmp_path / 'empty', '--out', tmp_path / 'out')
    assert done.returncode == 1
    problems = json.loads(done.stdout)['problems']
    assert 'the node did not start' in problems[0]
    assert str(tmp_path / 'empty') in problems[0]
    assert processes_of(tmp_path) == []


def test_a_camera_that_is_none_is_refused_at_once(tmp_path):
    done = run_demo('--camera', tmp_path / 'nothing', '--out', tmp_path / 'out')
    assert done.returncode == 2
    assert done.stdout == ''
    assert 'nothing' in done.stderr
    assert 'does not exist' in done.stderr


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_no_process(tmp_path, random_checkpoint, number):
    command = [sys.executable, '-m', 'cooper_cli.main', 'demo', '--out', str(tmp_path)]
    environment = {key: value for key, value in os.environ.items() if key != 'ROS_DOMAIN_ID'}
    demo = subprocess.Popen(
        [*command, '--checkpoint', str(random_checkpoint)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        # A test run in the background of a shell ignores SIGINT, and its children would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    end = time.monotonic() + 60
    while len(processes_of(tmp_path)) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    assert len(processes_of(tmp_path)) == 2
    demo.send_signal(number)
    assert demo.wait(60) == 130
    assert processes_of(tmp_path) == []


def test_an_interrupt_while_subscriptions_are_made_ends_the_demo(tmp_path, random_checkpoint, monkeypatch):
    add, raised = Node.add_waitable, []

    def interrupted(node, waitable):
        # Of the watcher's: rclpy has appended the subscription, but not yet this handler of its events.
        if len(processes_of(tmp_path)) == 2 and not raised:
            raised.append(waitable)
            signal.raise_signal(signal.SIGINT)
        add(node, waitable)

    monkeypatch.delenv('ROS_DOMAIN_ID', raising=False)
    monkeypatch.setenv('COOPER_CHECKPOINT', str(random_checkpoint))
    monkeypatch.setattr(Node, 'add_waitable', interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            Demo(DemoSettings('sim', 1.0, tmp_path), lambda line: None).run()
    finally:
        signal.signal(signal.SIGINT, before)
    assert raised
    assert processes_of(tmp_path) == []


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_waits_until_a_started_process_is_known(number):
    known = []
    before = signal.signal(number, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), uninterrupted():
            signal.raise_signal(number)
            known.append('process')
        assert known and signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)


def test_a_process_that_ends_shows_its_log(tmp_path):
    with RosProcess('cooper_ros.camera', {'source': '/nope'}, tmp_path / 'log') as process:
        end = time.monotonic() + 60
        while process.returncode is None and time.monotonic() < end:
            time.sleep(0.05)
        with pytest.raises(ProcessFailed, match=r"(?s)cooper_ros.camera ended with status 1.*'/nope' does not exist"):
            process.require_alive()
    assert process.stop() == 1


def test_arguments_keep_the_type_of_each_value():
    arguments = ros_arguments({'source': '12', 'rate': 2.0, 'loop': True}, 'robot/')
    assert arguments == [
        '--ros-args', '-p', 'source:="12"', '-p', 'rate:=2.0', '-p', 'loop:=true', '-r', '__ns:=/robot',
    ]  # fmt: skip


def asked(mode='direct', success=True, message='', answer='2', truth=None):
    reply = Reply(success, message, 'id', answer, None, '', 0.5, (), None, None, (), (), 1, 'camera', 0.1)
    return Asked(Question('How many?', mode=mode), truth=truth, via='service', reply=reply)


def good_report(kind='sim'):
    report = Report('sim', kind, asked=[asked(mode) for mode in MODES])
    report.received, report.used, report.dropped, report.perceived_headers = 10, 4, 6, 4
    report.outputs = {'depth/color': 4, 'depth/image': 0, 'segmentation/mask': 4}
    report.camera_status = report.node_status = 0
    return report


def problems_of(report):
    check(report)
    return ' | '.join(report.problems)


def test_the_report_passes_what_is_good_and_finds_each_fault():
    assert problems_of(good_report()) == ''
    report = good_report()
    report.outputs['segmentation/mask'] = 0
    assert 'nothing was published on segmentation/mask' in problems_of(report)
    report = good_report()
    report.foreign_headers = {"(5, 'camera')": ['depth/color']}
    assert "headers that no camera image had: {\"(5, 'camera')\"" in problems_of(report)
    report = good_report()
    report.dropped = 3
    assert '10 images were received, but 4 used and 3 dropped' in problems_of(report)
    report = good_report()
    del report.asked[2]
    assert 'no question was asked in mode text' in problems_of(report)
    report = good_report()
    report.node_status = -11
    assert 'the node ended with status -11' in problems_of(report)


def test_a_simulated_picture_must_be_answered_a_real_one_may_fail_with_a_reason():
    for kind, passes in (('sim', False), ('bag', True)):
        report = good_report(kind)
        report.asked.append(asked(success=False, message='too dark'))
        assert (problems_of(report) == '') is passes
    report = good_report('bag')
    report.asked.append(asked(success=False))
    assert 'no reason given' in problems_of(report)
    report = good_report('bag')
    report.asked = [asked(mode, success=False, message='too dark') for mode in MODES]
    assert 'no question was answered' in problems_of(report)


def test_answers_are_judged_by_the_rules_of_the_evaluation():
    truth = {'answer': '2', 'value': 2.0, 'unit': '', 'choices': [], 'category': 'counting'}
    assert asked(answer='two', truth=truth).right is True
    assert asked(answer='3', truth=truth).right is False
    assert asked(answer='3').right is None
    assert asked(success=False, truth=truth).right is None


def test_agreement_is_told_by_mode():
    truth = {'answer': '2', 'value': 2.0, 'unit': '', 'choices': [], 'category': 'counting'}
    report = good_report()
    assert report.agreement_line() == ''
    report.asked += [asked('auto', truth=truth), asked('auto', truth=truth), asked('auto', answer='3', truth=truth)]
    report.asked += [asked('text', answer='3', truth=truth), asked('direct', success=False, truth=truth)]
    assert report.agreement_line() == '2 of 4 answers agree with the simulation: auto 2 of 3, text 0 of 1'
    assert report.record()['agreement'] == {
        'judged': 4,
        'right': 2,
        'by_mode': {'auto': {'judged': 3, 'right': 2}, 'text': {'judged': 1, 'right': 0}},
    }
