"""With the truth at hand, the maps that a reasoner looks at are the true ones, and only then."""

from __future__ import annotations

import numpy as np
import pytest

from bench.true_maps import Informed, measure, table
from cooper_model.loading import default_checkpoint, load
from cooper_model.types import Frame, ImageReady
from cooper_sim.distribution import Distribution
from cooper_sim.render import Renderer
from cooper_sim.sample import make_sample
from training.datasets.simulation import true_pictures


def test_maps_are_true_where_the_truth_is_given() -> None:
    own = load(default_checkpoint())
    reasoner = Informed(own.backend, own.tokenizer, own.prompts, sampler=own.sampler)
    sample = make_sample(0, Renderer(384, 288), Distribution.load('eval'))
    frame, truth = Frame(sample.image, sample.intrinsics), true_pictures(sample, own.backend.config)

    def drawn() -> dict[str, np.ndarray]:
        events = reasoner.perceive(frame, ('depth', 'segmentation'))
        return {event.modality: event.picture for event in events if isinstance(event, ImageReady)}

    generated = drawn()
    reasoner.truth = truth
    for modality, picture in drawn().items():
        true = getattr(truth, modality) / np.float32(255)
        np.testing.assert_array_equal(picture, true)
        assert 0.001 < np.abs(generated[modality] - true).mean() < 0.5


def test_the_table_compares_the_same_questions() -> None:
    record = {'checkpoint': 'nano', 'scenes': 2, 'seed': 0, 'machine': 'm', 'date': 'd'}
    record['by_mode'] = measure(default_checkpoint(), 2, 0)
    assert {mode: parts['all']['n'] for mode, parts in record['by_mode'].items()} == {'auto': 8, 'perception': 8}
    assert record['by_mode']['perception']['looked']['n'] == 8
    assert '| perception | all | 8 |' in table(record)


@pytest.mark.parametrize('kind', ['depth', 'segmentation'])
def test_true_pictures_are_of_the_models_size(kind: str) -> None:
    config = load(default_checkpoint()).backend.config
    sample = make_sample(1, Renderer(384, 288), Distribution.load('eval'))
    pictures = true_pictures(sample, config)
    assert getattr(pictures, kind).shape == pictures.image.shape
