"""Parameters: described, limited, checked at the start and at run time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

import rclpy  # noqa: E402
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.lifecycle import LifecycleNode  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402

from cooper_model.config import SamplerConfig  # noqa: E402
from cooper_ros.cameras import Cameras  # noqa: E402
from cooper_ros.diagnostics import Diagnostics  # noqa: E402
from cooper_ros.parameters import SPECS, Parameters  # noqa: E402
from cooper_ros.pipeline import Pipeline  # noqa: E402
from cooper_ros.recording.recorder import RecordingState

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def context():
    context = rclpy.Context()
    context.init()
    yield context
    context.try_shutdown()


@pytest.fixture
def make(context):
    nodes = []

    def make(**overrides):
        node = Node(
            'parameters_test',
            context=context,
            parameter_overrides=[Parameter(name.replace('__', '.'), value=v) for name, v in overrides.items()],
        )
        nodes.append(node)
        return node, Parameters(node)

    yield make
    for node in nodes:
        node.destroy_node()


def set_one(node, name, value):
    return node.set_parameters([Parameter(name, value=value)])[0]


def test_every_parameter_has_its_default_a_description_and_limits(make):
    node, parameters = make()
    for spec in SPECS:
        value = parameters[spec.name]
        assert (list(value) if isinstance(spec.default, list) else value) == spec.default
        descriptor = node.describe_parameter(spec.name)
        assert len(descriptor.description) > 10
        if spec.choices:
            assert spec.choices[0] in descriptor.additional_constraints
        if isinstance(spec.default, (int, float)) and not isinstance(spec.default, bool):
            assert descriptor.integer_range or descriptor.floating_point_range, spec.name


def test_values_given_at_the_start_are_taken(make):
    _, parameters = make(perception_rate=5.0, sampler__num_timesteps=4, modalities=['depth'])
    assert parameters['perception_rate'] == 5.0
    assert parameters['sampler.num_timesteps'] == 4
    assert list(parameters['modalities']) == ['depth']


@pytest.mark.parametrize(
    ('name', 'value', 'says'),
    [
        ('perception_rate', -1.0, 'range'),
        ('perception_rate', 1000.0, 'range'),
        ('sampler__num_timesteps', -3, 'range'),
        ('sampler__num_timesteps', 1, '1 cannot be used; expected 2 or more points'),
        ('sampler__method', 'rk4', "'rk4' is unknown, expected auto | euler | heun | adams"),
        ('sampler__reuse', -0.5, '-0.5 is no change; expected 0 or more, or -1'),
        ('sampler__guidance_period', -1, 'range'),
        ('dtype', 'float8', "'float8' is unknown, expected auto | float32 | bfloat16"),
        ('query_timeout', 0.0, 'range'),
        ('backend', 'abacus', "'abacus' is unknown, expected auto | torch"),
        ('default_mode', 'guess', "'guess'"),
        ('modalities', ['depth', 'smell'], "'smell'"),
        ('image_transport', 'theora', "'theora'"),
    ],
)
def test_values_out_of_range_are_refused_at_the_start_and_later(make, name, value, says):
    with pytest.raises(InvalidParameterValueException, match=says.replace('|', r'\|')):
        make(**{name: value})
    node, parameters = make()
    before = parameters[name.replace('__', '.')]
    result = set_one(node, name.replace('__', '.'), value)
    assert not result.successful
    assert says in result.reason
    assert parameters[name.replace('__', '.')] == before


def test_the_sampler_is_the_checkpoint_s_but_for_what_is_set(make):
    node, parameters = make(sampler__method='heun', sampler__num_timesteps=5)
    assert parameters.sampler() == {'method': 'heun', 'num_timesteps': 5}
    assert set_one(node, 'sampler.reuse', 0.0).successful and set_one(node, 'sampler.method', 'auto').successful
    assert parameters.sampler() == {'num_timesteps': 5, 'reuse': 0.0}
    given = {'num_timesteps': 9, 'shift': 2.0, 'text_scale': 3.0, 'image_scale': 1.5, 'reuse': 0.1}
    given |= {'method': 'adams', 'guidance_period': 2}
    _, everything = make(**{f'sampler__{name}': value for name, value in given.items()})
    assert everything.sampler() == given
    assert SamplerConfig(**everything.sampler()) != SamplerConfig()


def test_a_value_of_another_type_is_refused(make):
    with pytest.raises(InvalidParameterTypeException):
        make(seed='lucky')


def test_what_is_loaded_cannot_change_under_a_configured_node(make):
    node, parameters = make()
    assert set_one(node, 'device', 'cpu').successful
    parameters.configured = True
    for spec in SPECS:
        result = set_one(node, spec.name, parameters[spec.name])
        assert result.successful != spec.fixed, spec.name
        if spec.fixed:
            assert 'unconfigured' in result.reason and 'cleanup' in result.reason


def test_the_pace_of_diagnostics_follows_its_parameter(context):
    node = LifecycleNode(
        'pace_test', context=context, parameter_overrides=[Parameter('diagnostics_period', value=0.1)]
    )
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    parameters = Parameters(node)
    pipeline = Pipeline(Cameras(node, parameters), parameters, lambda error: None)
    Diagnostics(node, parameters, pipeline, lambda: False, RecordingState, str)
    (timer,) = [timer for timer in node.timers if timer.timer_period_ns == 100_000_000]
    assert set_one(node, 'diagnostics_period', 40.0).successful
    while timer.timer_period_ns == 100_000_000:
        executor.spin_once(timeout_sec=5)
    assert timer.timer_period_ns == 40_000_000_000
    executor.shutdown()
    node.destroy_node()


def test_the_program_names_a_bad_value_and_ends():
    command = [sys.executable, '-m', 'cooper_ros.node', '--ros-args', '-p', 'backend:=abacus']
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert 'abacus' in ended.stderr
    assert 'Traceback' not in ended.stderr
