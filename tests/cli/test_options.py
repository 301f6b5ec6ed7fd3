"""Options that choose what computes: the same for every command, and for the node that a command starts."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cooper_cli.main import app, load_command
from cooper_cli.options import BackendName, ModelChoice, NumberType
from cooper_cli.session import node_parameters, open_reasoner
from cooper_model.config import CooperConfig

# Commands that compute, and the options that mean nothing to them.
COMPUTING = {
    'ask': set(),
    'perceive': set(),
    'eval': set(),
    'bench': {'server'},
    'demo': {'threads'},
    'node': {'threads'},
    'serve': {'threads', 'server', 'sampler'},
}


@pytest.mark.parametrize('name', COMPUTING)
def test_every_command_that_computes_has_the_same_options(name):
    options = {option.name: option for option in load_command(name).params}
    assert 'model' not in options
    for each in fields(ModelChoice):
        assert (each.name in options) == (each.name not in COMPUTING[name])
        if each.name in options:
            assert options[each.name].opts == [f'--{each.name}']


def depth_of(folder: Path, picture: Path, *options: object) -> np.ndarray:
    arguments = ('perceive', '--image', picture, '--out', folder, '--device', 'cpu', '--json', *options)
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return np.load(json.loads(done.stdout)['files']['depth_relative'])


def test_a_sampler_changes_what_is_drawn_and_its_own_settings_do_not(checkpoint, picture, tmp_path):
    own = CooperConfig.load(checkpoint).sampler
    as_it_is = depth_of(tmp_path / 'own', picture, '--checkpoint', checkpoint)
    named = f'{own.method},steps={own.num_timesteps - 1},shift={own.shift},text_scale={own.text_scale}'
    same = depth_of(tmp_path / 'same', picture, '--checkpoint', checkpoint, '--sampler', named)
    np.testing.assert_array_equal(same, as_it_is)
    for other in ('heun,steps=3', 'euler,steps=7', 'adams,steps=7,reuse=0.9'):
        drawn = depth_of(tmp_path / other, picture, '--checkpoint', checkpoint, '--sampler', other)
        assert abs(drawn - as_it_is).max() > 1e-4, other


def test_a_number_type_is_that_of_the_weights(checkpoint):
    for dtype in ('float32', 'bfloat16'):
        reasoner = open_reasoner(ModelChoice(checkpoint, device='cpu', dtype=NumberType(dtype)))
        assert reasoner.backend.model.dtype == getattr(torch, dtype)


def test_bench_takes_both_for_a_random_model():
    options = ('--random', 'tiny', '--dtype', 'bfloat16', '--sampler', 'heun', '--json')
    done = CliRunner().invoke(app, ['bench', *options])
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert (record['dtype'], record['sampler']) == ('bfloat16', 'heun')


@pytest.mark.parametrize(
    ('arguments', 'told'),
    [
        (('perceive', '--image', 'x', '--out', 'y', '--sampler', 'rk4'), "'rk4' is unknown; expected some of euler"),
        (('eval', '--sampler', 'steps=0'), "'steps=0' cannot be"),
        (('bench', '--sampler', 'heun,adams'), 'comes after another method'),
        (('node', '--sampler', 'reuse=much'), "'reuse=much' is no number"),
        (('demo', '--dtype', 'float8'), "'float8' is not one of"),
        (('ask', 'Where?', '--dtype', 'bfloat16', '--sampler', 'heun'), '--dtype, --sampler belong to --image'),
        (('eval', '--backend', 'remote', '--server', 'http://x:1', '--dtype', 'float32'), '--dtype belong to a model'),
        (('bench', '--random', 'tiny', '--quantise', 'int8'), '--random and --quantise exclude each other'),
        (('bench', '--full', '--dtype', 'float32'), 'goes without --dtype'),
    ],
)
def test_what_cannot_be_chosen_is_told_before_anything_is_loaded(arguments, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 2 and not done.stdout
    assert told in ' '.join(done.stderr.split()), done.stderr
    assert 'Traceback' not in done.stderr


def test_a_node_is_told_what_was_chosen_and_nothing_else(tmp_path):
    pytest.importorskip('rclpy', reason='needs ROS 2')
    from cooper_ros.parameters import SPECS

    assert node_parameters(ModelChoice()) == {}
    chosen = ModelChoice(
        tmp_path, BackendName.onnx, tmp_path / 'graphs', 'int8', NumberType.bfloat16, 'cpu', 2, 'http://x:1',
        'heun,steps=4,reuse=0,text_scale=1,guidance_period=2',
    )  # fmt: skip
    found = node_parameters(chosen)
    types = {spec.name: type(spec.default) for spec in SPECS}
    assert {name: type(value) for name, value in found.items()} == {name: types[name] for name in found}
    assert found['checkpoint'] == str(tmp_path) and found['backend'] == 'onnx' and found['dtype'] == 'bfloat16'
    assert found['sampler.method'] == 'heun' and found['sampler.num_timesteps'] == 5 and found['sampler.reuse'] == 0.0
    for unfit, told in (('renorm_min=0.5', 'a node has no sampler.renorm_min'), ('text_scale=0', 'means that of the')):
        with pytest.raises(ValueError, match=told):
            node_parameters(ModelChoice(sampler=unfit))


def test_a_batch_is_refused_before_ray_starts_where_the_back_end_has_none():
    done = CliRunner().invoke(app, ['serve', '--batch', '2', '--backend', 'onnx'])
    assert done.exit_code == 2
    assert 'the onnx back end computes one question at a time; use torch' in ' '.join(done.stderr.split())
