"""Turns on the one model: fair however often somebody asks, and never lost."""

from __future__ import annotations

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

from cooper_model.types import Cancelled
from cooper_ros.turns import Turns


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def turns(clock):
    return Turns(clock)


def take(turns):
    with turns.turn() as name:
        return name


def test_nobody_waits_before_asking(turns):
    assert not turns.waiting and take(turns) is None and not turns.waiting


def test_a_fast_camera_cannot_starve_slow_ones(turns, clock):
    served = []
    for step in range(300):  # the model takes 0.1 s a turn, front sends at 10 Hz, left and rear at 1 Hz
        clock.now = 100 + step / 10
        assert turns.ask('front', 60.0)
        if step % 10 == 3:
            turns.ask('rear', 60.0)
            turns.ask('left', 60.0)
        served.append((step, take(turns)))
    for name in ('rear', 'left'):
        steps = [step for step, each in served if each == name]
        assert len(steps) == 30  # every frame had its turn
        assert all(step % 10 in (3, 4, 5) for step in steps)  # and waited for two others at most


def test_a_higher_rate_holds_at_once(turns, clock):
    for _ in range(2):
        assert turns.ask('front', 0.01) and take(turns) == 'front'
    clock.now += 1
    assert not turns.ask('front', 0.01) and turns.ask('front', 10.0)


def test_all_that_always_wait_get_the_same(turns, clock):
    served = []
    for step in range(30):
        clock.now = 100 + step
        for name in ('a', 'b', 'c'):
            turns.ask(name, 5.0)
        served.append(take(turns))
    assert served == ['a', 'b', 'c'] * 10


def test_nobody_gets_more_turns_than_the_rate(turns, clock):
    count = 0
    for step in range(1000):  # 10 s at 100 Hz
        clock.now = 100 + step / 100
        turns.ask('a', 2.0)
        count += take(turns) is not None
    assert 20 <= count <= 22


def test_a_turn_that_gave_way_to_a_question_is_given_again(turns, clock):
    turns.ask('a', 1.0)
    clock.now += 0.01
    turns.ask('b', 1.0)
    with pytest.raises(Cancelled), turns.turn() as name:
        assert name == 'a' and turns.waiting
        raise Cancelled('a question came')
    assert [take(turns), take(turns), take(turns)] == ['b', 'a', None]


def test_a_turn_that_failed_is_over(turns, clock):
    turns.ask('broken', 1.0)
    turns.ask('whole', 1.0)
    with pytest.raises(ValueError), turns.turn():
        raise ValueError('not an image')
    assert [take(turns), take(turns)] == ['whole', None]


def test_who_asks_during_its_turn_waits_for_the_next(turns, clock):
    turns.ask('a', 1.0)
    with turns.turn():
        clock.now += 2
        assert turns.ask('a', 1.0)
    assert take(turns) == 'a'
