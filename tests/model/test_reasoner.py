"""The reasoner: what each mode puts before the model, in which order, and how it ends; then a real model."""

import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from cooper_model import loading
from cooper_model.backends.base import Guidance
from cooper_model.config import SamplerConfig
from cooper_model.conversation import ModelText
from cooper_model.perception import depth_map
from cooper_model.reasoner import MAX_QUESTION_TOKENS, Reasoner
from cooper_model.scene import assumed_intrinsics, describe_scene
from cooper_model.tokenizer import Tokenizer
from cooper_model.types import (
    MODES,
    AnswerReady,
    CameraIntrinsics,
    Cancelled,
    Frame,
    ImageProgress,
    ImageReady,
    ImageRequested,
    TextDelta,
    TurnDone,
)
from tests.model.scripted import ScriptedBackend
from tests.random_checkpoint import PROMPTS, tiny_config, tiny_tokenizer, write_random_checkpoint

CONFIG = tiny_config()
GUIDED = SamplerConfig(num_timesteps=3, text_scale=4.0, image_scale=2.0)
TOKENIZER = Tokenizer(tiny_tokenizer(), CONFIG.tokens)
FRAME = Frame(np.full((60, 80, 3), 7, np.uint8))
PHOTO = [('latents', '7-7-7'), ('vision', '7-7-7')]
RED = ('vision', '158-1-66')  # Spectral of depth 0
BLACK = ('vision', '0-0-0')
LOOK = '<think>how far?</think><depth-estimation>Estimate the depth.</depth-estimation>'
SEGMENT = '<think>which?</think><segmentation>Segment the objects.</segmentation>'
ANSWER = r'<think>it is near</think><answer>\boxed{1.5 m}</answer>'


def scripted(*script, sampler=None):
    backend = ScriptedBackend(replace(CONFIG, max_new_tokens=200), TOKENIZER, script)
    return backend, Reasoner(backend, TOKENIZER, PROMPTS, sampler=sampler)


def names(events):
    return [type(event).__name__ for event in events if not isinstance(event, TextDelta)]


def text_of(events, turn):
    return ''.join(event.text for event in events if isinstance(event, TextDelta) and event.turn == turn)


def longest(backend):
    return max(backend.contexts, key=len)


def test_direct_answer_needs_no_tags():
    backend, reasoner = scripted('left')
    events = list(reasoner.ask(FRAME, 'Where?', mode='direct'))
    assert longest(backend) == [('vision', '7-7-7'), ('text', 'Where?'), ('said', 'left')]
    answer = events[-1].answer
    assert (answer.text, answer.mode, answer.forced, answer.thoughts) == ('left', 'direct', False, ())
    assert math.isclose(answer.confidence, math.exp(-0.5))


@pytest.mark.parametrize('said', [ANSWER, '<think>it is near</think> 1.5 m'])
def test_text_mode_thinks_first(said):
    backend, reasoner = scripted(said)
    events = list(reasoner.ask(FRAME, 'How far?', mode='text'))
    context = [('text', 'Think.'), ('vision', '7-7-7'), ('text', 'How far?'), ('said', said)]
    assert longest(backend) == context
    answer = events[-1].answer
    assert (answer.text, answer.value, answer.unit) == ('1.5 m', 1.5, 'm')
    assert answer.thoughts == ('it is near',) and not answer.forced
    assert text_of(events, 0) == said


def test_perception_first_generates_both_maps_and_then_begins_the_answer():
    backend, reasoner = scripted('3}</answer>')
    events = list(reasoner.ask(FRAME, 'How many?', mode='perception'))
    asked = [('text', 'Look.'), *PHOTO, ('text', 'How many?')]
    depth, segmentation = ('text', PROMPTS.request_depth), ('text', PROMPTS.request_segmentation)
    said = ('said', r'<answer>\boxed{3}</answer>')
    assert longest(backend) == [*asked, depth, RED, segmentation, BLACK, said]
    assert backend.drawn == [Guidance([*asked, depth]), Guidance([*asked, depth, RED, segmentation])]
    generated = ['ImageRequested', 'ImageProgress', 'ImageProgress', 'ImageReady']
    assert names(events) == [*generated, *generated, 'TurnDone', 'AnswerReady']
    answer = events[-1].answer
    assert (answer.text, answer.value, answer.forced) == ('3', 3.0, False)
    assert answer.depth is not None and answer.segmentation is not None


def test_auto_lets_the_model_choose_and_reflect():
    backend, reasoner = scripted(LOOK, SEGMENT, ANSWER)
    events = list(reasoner.ask(FRAME, 'How far?'))
    asked = [('text', 'Think or look.'), *PHOTO, ('text', 'How far?')]
    reflection = ('text', 'Here is the map.')
    first = [*asked, ('said', LOOK)]
    second = [*first, RED, reflection, ('said', SEGMENT)]
    assert longest(backend) == [*second, BLACK, reflection, ('said', ANSWER)]
    assert backend.drawn == [Guidance(first), Guidance(second)]
    modalities = [(e.turn, e.modality) for e in events if isinstance(e, ImageRequested)]
    assert modalities == [(0, 'depth'), (1, 'segmentation')]
    assert [e.parsed.action for e in events if isinstance(e, TurnDone)] == ['depth', 'segmentation', 'answer']
    answer = events[-1].answer
    assert answer.thoughts == ('how far?', 'which?', 'it is near') and not answer.forced
    assert set(answer.timings) == {
        'context', 'decode', 'generate_depth', 'generate_segmentation', 'first_token', 'total'
    }  # fmt: skip


def test_guidance_branches_lack_the_request_or_the_photo_and_nothing_else():
    backend, reasoner = scripted(LOOK, SEGMENT, ANSWER, sampler=GUIDED)
    list(reasoner.ask(FRAME, 'How far?'))
    head, question, reflection = (
        ('text', 'Think or look.'),
        ('text', 'How far?'),
        ('text', 'Here is the map.'),
    )
    first, second = backend.drawn
    assert first.full == [head, *PHOTO, question, ('said', LOOK)]
    assert first.no_text == [head, *PHOTO, question, ('text', '<think>how far?</think>')]
    assert first.no_image == [head, question, ('text', LOOK)]
    past = [head, *PHOTO, question, ('said', LOOK), RED, reflection]
    assert second.full == [*past, ('said', SEGMENT)]
    assert second.no_text == [*past, ('text', '<think>which?</think>')]
    assert second.no_image == [head, question, ('text', LOOK), RED, reflection, ('text', SEGMENT)]


def test_guidance_of_perception_drops_the_request():
    for ask in (True, False):
        backend, reasoner = scripted('3}</answer>', sampler=GUIDED)
        list(reasoner.ask(FRAME, 'How many?', mode='perception') if ask else reasoner.perceive(FRAME))
        head, question = ([('text', 'Look.')], [('text', 'How many?')]) if ask else ([], [])
        depth, segmentation = ('text', PROMPTS.request_depth), ('text', PROMPTS.request_segmentation)
        past, blind = ([depth, RED], [depth, RED]) if ask else ([], [])
        base = [*head, *PHOTO, *question]
        assert backend.drawn == [
            Guidance([*base, depth], base, [*head, *question, depth]),
            Guidance([*base, *past, segmentation], [*base, *past], [*head, *question, *blind, segmentation]),
        ]


def test_image_scale_alone_switches_its_branch():
    backend, reasoner = scripted(sampler=SamplerConfig(num_timesteps=3, text_scale=2.0, image_scale=1.0))
    list(reasoner.perceive(FRAME, ('depth',)))
    assert backend.drawn[0].no_text == PHOTO and backend.drawn[0].no_image is None


def test_branches_that_are_off_cost_nothing():
    backend, reasoner = scripted(LOOK, ANSWER)
    list(reasoner.ask(FRAME, 'How far?'))
    # system prompt, photo (2), question, map, reflection, two denoising steps; the rest is decoded tokens
    decoded = sum(len(TOKENIZER.encode(text)) for text in (LOOK, ANSWER))
    assert backend.steps - decoded == 8


def test_the_turn_limit_forces_an_answer_after_the_last_thought():
    backend, reasoner = scripted(LOOK, LOOK, SEGMENT, '2 m}</answer>')
    events = list(reasoner.ask(FRAME, 'How far?'))
    assert len(backend.drawn) == 2
    forced = r'<think>which?</think><answer>\boxed{2 m}</answer>'
    (ended,) = (context for context in backend.contexts if ('said', forced) in context)
    assert ended[-3:] == [RED, ('text', 'Here is the map.'), ('said', forced)]
    assert text_of(events, 3) == forced
    answer = events[-1].answer
    assert (answer.text, answer.forced) == ('2 m', True)
    assert answer.thoughts == ('how far?', 'how far?', 'which?')


@pytest.mark.parametrize('mode', ['auto', 'text'])
def test_a_turn_without_a_tag_forces_an_answer(mode):
    _, reasoner = scripted('I wonder', 'left}</answer>')
    events = list(reasoner.ask(FRAME, 'Where?', mode=mode))
    assert (events[-1].answer.text, events[-1].answer.forced) == ('left', True)
    assert text_of(events, 1) == r'<answer>\boxed{left}</answer>'


@pytest.mark.parametrize('mode', ['direct', 'text'])
def test_a_mode_without_maps_generates_none(mode):
    backend, reasoner = scripted(LOOK, 'near}</answer>')
    events = list(reasoner.ask(FRAME, 'How far?', mode=mode))
    assert not backend.drawn
    assert (events[-1].answer.text, events[-1].answer.forced) == ('near', True)


def test_decoding_stops_at_the_end_of_the_answer():
    backend, reasoner = scripted(ANSWER + ' and so on and on')
    list(reasoner.ask(FRAME, 'How far?'))
    assert longest(backend)[-1] == ('said', ANSWER)


def test_the_answer_is_one_of_the_choices_where_the_model_names_one():
    for said, text in (('B', 'a table'), ('A Table', 'a table'), ('under it', 'under it')):
        _, reasoner = scripted(rf'<answer>\boxed{{{said}}}</answer>')
        events = list(reasoner.ask(FRAME, 'Where is it?', mode='direct', choices=('a box', 'a table')))
        assert events[-1].answer.text == text


def test_system_prompts_are_computed_once():
    backend, reasoner = scripted(ANSWER, ANSWER)
    list(reasoner.ask(FRAME, 'How far?', mode='text'))
    first = backend.steps
    list(reasoner.ask(FRAME, 'How far?', mode='text'))
    assert backend.steps - first == first - 1


@pytest.mark.parametrize('mode', MODES)
def test_cancelling_works_between_any_two_steps(mode):
    script = {'auto': (LOOK, ANSWER), 'perception': ('3}</answer>',)}.get(mode, (ANSWER,))
    backend, reasoner = scripted(*script, sampler=GUIDED)
    list(reasoner.ask(FRAME, 'How far?', mode=mode))
    for limit in range(0, backend.steps, 5):
        backend, reasoner = scripted(*script, sampler=GUIDED)
        with pytest.raises(Cancelled):
            list(
                reasoner.ask(FRAME, 'How far?', mode=mode, cancelled=lambda b=backend, n=limit: b.steps >= n)
            )
        assert backend.steps <= limit + 1


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'question': '  '}, 'the question is empty'),
        ({'question': 'is it near? ' * 9000}, f'at most {MAX_QUESTION_TOKENS} are taken; ask a shorter'),
        ({'question': 'Where?', 'mode': 'fast'}, "mode is 'fast', expected one of auto, direct"),
        ({'question': 'Where?', 'choices': ('', 'a')}, 'choice 1 of 2 is empty'),
    ],
)
def test_bad_questions_are_refused_by_the_call_itself(arguments, message):
    _, reasoner = scripted()
    with pytest.raises(ValueError, match=message):
        reasoner.ask(FRAME, **arguments)


@pytest.mark.parametrize('modalities', [(), ('depth', 'normals')])
def test_unknown_maps_are_refused(modalities):
    with pytest.raises(ValueError, match='expected some of depth, segmentation'):
        scripted()[1].perceive(FRAME, modalities)


def test_confidence_counts_the_tokens_of_the_answer_alone():
    written = ModelText('ab left</a>', [1, 2, 3, 4], [-9.0, -0.1, -0.3, -9.0], [3, 5, 7, 11])
    assert math.isclose(written.confidence('left'), math.exp(-0.2))
    assert math.isclose(written.confidence('absent'), math.exp(-18.4 / 4))
    assert ModelText('', []).confidence('') == 0.0


# A real model of random weights


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return write_random_checkpoint(tmp_path_factory.mktemp('random'))


@pytest.fixture(scope='module')
def reasoner(checkpoint):
    torch.set_num_threads(1)
    return loading.load(checkpoint, device='cpu')


PHOTOGRAPH = Frame(np.random.default_rng(0).integers(0, 255, (90, 121, 3), dtype=np.uint8))


def test_a_real_model_perceives_at_the_size_of_the_frame(reasoner):
    events = list(reasoner.perceive(PHOTOGRAPH))
    ready = [event for event in events if isinstance(event, ImageReady)]
    assert [event.modality for event in ready] == ['depth', 'segmentation']
    assert ready[0].image.metres.shape == ready[1].image.labels.shape == (90, 121)
    progress = [(e.modality, e.step, e.steps) for e in events if isinstance(e, ImageProgress)]
    assert progress == [(name, step, 2) for name in ('depth', 'segmentation') for step in (1, 2)]


@pytest.mark.parametrize('sampler', [CONFIG.sampler, GUIDED], ids=['plain', 'guided'])
def test_perceiving_equals_the_same_steps_by_hand(reasoner, sampler):
    backend = reasoner.backend
    request = TOKENIZER.encode(PROMPTS.request_depth)
    full, blind = backend.new_context(), backend.new_context()
    backend.append_image(full, PHOTOGRAPH.image, latents=True, vision=True)
    before = backend.fork(full)
    backend.append_text(full, request)
    backend.append_text(blind, request)
    size = backend.image_size(90, 121)
    noise = backend.noise(*size, 3)
    *_, picture = backend.generate(Guidance(full, before, blind), *size, sampler, noise)
    expected = depth_map(picture, (90, 121), CONFIG.depth_range)
    model = Reasoner(backend, TOKENIZER, PROMPTS, sampler=sampler)
    *_, ready = model.perceive(PHOTOGRAPH, ('depth',), seed=3)
    np.testing.assert_allclose(ready.image.relative, expected.relative, atol=1e-5)


@pytest.mark.parametrize('mode', MODES)
def test_a_real_model_answers_in_every_mode_and_repeats_itself(reasoner, mode):
    one, other = (list(reasoner.ask(PHOTOGRAPH, 'Which is closer?', mode=mode, seed=5)) for _ in range(2))
    assert isinstance(one[-1], AnswerReady)
    assert one[-1].answer.text == other[-1].answer.text
    assert [e for e in one if isinstance(e, TextDelta)] == [e for e in other if isinstance(e, TextDelta)]
    assert 0 < one[-1].answer.confidence <= 1


def test_a_dropped_generator_leaves_the_model_usable(reasoner):
    whole = list(reasoner.ask(PHOTOGRAPH, 'Where?', mode='direct'))
    events = reasoner.ask(PHOTOGRAPH, 'Where?', mode='direct')
    next(events)
    events.close()
    again = list(reasoner.ask(PHOTOGRAPH, 'Where?', mode='direct'))
    assert again[-1].answer.text == whole[-1].answer.text


def test_lengths_are_metres_only_with_a_known_camera(reasoner):
    maps = {e.modality: e.image for e in reasoner.perceive(PHOTOGRAPH) if isinstance(e, ImageReady)}
    calibrated = replace(PHOTOGRAPH, intrinsics=CameraIntrinsics(100, 100, 60, 45, 121, 90))
    for frame, metric in ((PHOTOGRAPH, False), (calibrated, True)):
        objects, _ = describe_scene(frame, maps['depth'], maps['segmentation'])
        assert objects and all(thing.metric == metric for thing in objects)
    assert describe_scene(PHOTOGRAPH, maps['depth'], None) == ((), ())


def test_a_measured_depth_gives_its_metres_to_the_generated_one(reasoner):
    *_, alone = reasoner.perceive(PHOTOGRAPH, ('depth',), seed=3)
    measured = (2 * alone.image.metres + 0.1).astype(np.float32)
    expected = measured.copy()
    measured[20:40, 30:70] = np.nan
    *_, ready = reasoner.perceive(replace(PHOTOGRAPH, depth=measured), ('depth',), seed=3)
    np.testing.assert_allclose(ready.image.metres, expected, rtol=1e-3)
    assert ready.image.alignment.scale == pytest.approx(2, rel=1e-3)


def test_a_longer_lens_sees_the_same_picture_farther_away(reasoner):
    """Depth of a checkpoint that states a focal length is scaled to the camera's."""
    config = replace(reasoner.backend.config, depth_focal=1.0)
    near, far = (CameraIntrinsics(f, f, 60, 45, 121, 90) for f in (90.0, 180.0))
    assert config.depth_range_of(near) == config.depth_range_of(None) == config.depth_range
    assert config.depth_range_of(far) == tuple(2 * end for end in config.depth_range)
    with pytest.raises(ValueError, match='depth_focal'):
        replace(config, depth_focal=0.0)


def test_the_assumed_camera_sees_sixty_degrees():
    camera = assumed_intrinsics(640, 480)
    assert math.isclose(math.degrees(2 * math.atan(320 / camera.fx)), 60)
    assert (camera.cx, camera.cy) == (319.5, 239.5)


# Loading


def test_a_backend_that_is_not_there_is_named(checkpoint):
    with pytest.raises(ValueError, match="backend 'remote' is not available; available: auto, tensorrt, onnx, torch"):
        loading.load(checkpoint, 'remote')


@pytest.mark.parametrize('device', ['cuda:0', 'cuda:77'])
def test_a_gpu_that_is_not_there_is_named(checkpoint, device, monkeypatch):
    if device == 'cuda:0':
        monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    with pytest.raises(ValueError, match=f"device '{device}' is not there: torch finds .* GPU"):
        loading.load(checkpoint, device=device)


def test_a_folder_that_is_no_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='give the folder of a COOPER checkpoint'):
        loading.load(tmp_path / 'nothing')


def test_reasoning_needs_no_torch():
    code = "import sys, cooper_model.loading; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0
