"""The page for corrections: over HTTP, and in a real browser where one is installed."""

from __future__ import annotations

import base64
import json
import shutil
import threading
import time
from http.client import HTTPConnection

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')
pytest.importorskip('rosbags', reason='needs the extra bags')

from rclpy.serialization import serialize_message

from cooper_model.types import Answer, DepthMap, Frame, SceneObject, Segmentation
from cooper_ros.recording.bag_writer import BagWriter
from cooper_ros.recording.corrections import CorrectionError, CorrectionStore
from cooper_ros.recording.definitions import Definitions
from cooper_ros.recording.desk import Desk
from cooper_ros.recording.messages import Asked, question_messages, topic_names
from cooper_ros.web.server import CorrectionServer

TOPICS = topic_names(lambda name: name.replace('~', '/cooper') if name.startswith('~') else f'/{name}')
SIZE = (48, 64)
BALL = np.zeros(SIZE, bool)
BALL[10:20, 12:30] = True


def asked(query_id, question, choices=(), problem=''):
    image = np.full((*SIZE, 3), 90, np.uint8)
    image[BALL] = (200, 30, 30)
    color = np.where(BALL[:, :, None], np.uint8(250), np.uint8(0)).repeat(3, 2)
    segmentation = Segmentation(
        np.where(BALL, np.uint8(0), np.uint8(255)), BALL.astype(np.uint16), BALL.astype(np.float32), ('ball',), color
    )
    depth = DepthMap(np.zeros(SIZE, np.float32), None, np.full((*SIZE, 3), (10, 20, 30), np.uint8))
    answer = Answer(
        'left', 'perception', thoughts=('First I look at <b>depth</b>.', 'The ball is left.'), depth=depth,
        segmentation=segmentation, objects=(SceneObject(1, 'red ball', 0.9, (12, 10, 30, 20), 180),),
    )  # fmt: skip
    frame = Frame(image, stamp_ns=7, frame_id='optical')
    return Asked(query_id, question, choices, 'perception', frame, True, None if problem else answer, problem)


@pytest.fixture
def folder(tmp_path):
    """Return a folder with two bags of recorded questions."""
    day = tmp_path / 'day'
    day.mkdir()
    bags = {
        'cooper_1': [asked('id0', 'Left or right?', ('left', 'right'))],
        'cooper_2': [asked('id1', 'How many balls?'), asked('id2', 'Why?', problem='no answer in time')],
    }
    for number, (name, questions) in enumerate(bags.items()):
        writer = BagWriter(day / name, Definitions())
        for index, each in enumerate(questions):
            for role, message in question_messages(each, '').items():
                package, kind = type(message).__module__.split('.')[:2]
                data = serialize_message(message)
                time_ns = 1_700_000_000_000_000_000 + 10 * number + index
                writer.write(TOPICS[role], f'{package}/{kind}/{type(message).__name__}', time_ns, data)
        writer.close()
    return day


@pytest.fixture
def server(folder):
    with CorrectionServer(Desk(folder)) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


def call(server, method, path, body=None, **headers):
    connection = HTTPConnection('127.0.0.1', server.server_address[1], timeout=20)
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    if data is not None:
        headers.setdefault('Content-Type', 'application/json')
    connection.request(method, path, data, {name.replace('_', '-'): value for name, value in headers.items()})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    is_json = response.getheader('Content-Type') == 'application/json'
    return response.status, json.loads(content) if is_json else content


def picture(server, path):
    status, data = call(server, 'GET', path)
    assert status == 200, data
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


def data_url(mask):
    return 'data:image/png;base64,' + base64.b64encode(cv2.imencode('.png', mask)[1]).decode()


def test_all_questions_of_a_folder_are_listed(server):
    status, told = call(server, 'GET', '/questions')
    assert status == 200
    assert [each['query_id'] for each in told['questions']] == ['id0', 'id1', 'id2']
    first, _, last = told['questions']
    assert (first['answer'], first['choices'], first['bag']) == ('left', ['left', 'right'], 'cooper_1')
    assert first['objects'] == [{'id': 1, 'name': 'red ball'}] and first['thoughts'][1] == 'The ball is left.'
    assert (last['answer'], last['problem']) == ('', 'no answer in time')


def test_pictures_are_those_of_the_question(server):
    whole = asked('id0', '').frame.image
    np.testing.assert_array_equal(picture(server, '/pictures/id0/image')[:, :, ::-1], whole)
    assert tuple(picture(server, '/pictures/id0/depth')[0, 0][::-1]) == (10, 20, 30)
    overlay = picture(server, '/pictures/id0/segmentation')[:, :, ::-1]
    np.testing.assert_array_equal(overlay[~BALL], whole[~BALL])
    assert tuple(overlay[12, 14]) == ((200 + 250) // 2, (30 + 250) // 2, (30 + 250) // 2)
    np.testing.assert_array_equal(picture(server, '/pictures/id0/mask-red%20ball') > 0, BALL)
    for path in ('/pictures/id2/depth', '/pictures/id0/mask-cup', '/pictures/id0/nothing', '/etc/passwd'):
        assert call(server, 'GET', path)[0] == 404
    assert call(server, 'GET', '/pictures/nobody/image')[0] == 400


def test_a_correction_is_kept_beside_its_own_bag(server, folder):
    mask = np.zeros(SIZE, np.uint8)
    mask[30:40] = 255
    status, told = call(server, 'POST', '/questions/id1', {'answer': '1', 'object': 'red ball', 'mask': data_url(mask)})
    assert (status, told['new'], told['question']['masks']) == (200, True, ['red ball'])
    verdict = CorrectionStore(folder / 'cooper_2').verdicts()['id1']
    assert verdict.answer == '1' and not (folder / 'cooper_1' / 'corrections.jsonl').exists()
    np.testing.assert_array_equal(picture(server, '/pictures/id1/mask-red%20ball'), mask)
    assert not call(server, 'POST', '/questions/id1', {'answer': '1'})[1]['new']
    assert call(server, 'POST', '/questions/id0', {'useless': True})[1]['question']['verdict']['useless']


@pytest.mark.parametrize(
    ('path', 'body', 'reason'),
    [
        ('/questions/nobody', {'answer': 'x'}, 'no question'),
        ('/questions/id0', {}, 'says nothing'),
        ('/questions/id0', [], 'send an object'),
        ('/questions/id0', b'{"answer": ', 'Expecting value'),
        ('/questions/id0', {'answer': 3}, 'wrong type'),
        ('/questions/id0', {'useless': 'yes'}, 'wrong type'),
        ('/questions/id0', {'mask': 'data:image/png;base64,AAAA', 'object': 'x'}, 'no picture'),
        ('/questions/id0', {'mask': '?', 'object': 'x'}, ''),
        ('/questions/id0', {'mask': data_url(np.full((4, 4), 255, np.uint8)), 'object': 'x'}, '4 x 4 pixels'),
        ('/questions/id0', {'mask': data_url(np.full(SIZE, 255, np.uint8))}, 'name what it shows'),
    ],
)
def test_nonsense_is_refused_with_a_reason(server, path, body, reason):
    status, told = call(server, 'POST', path, body)
    assert status == 400 and reason in told['problem']


def test_other_pages_and_machines_are_refused(server):
    assert server.server_address[0] == '127.0.0.1'
    assert call(server, 'GET', '/questions', Host='evil.example')[0] == 400
    assert call(server, 'POST', '/questions/id0', {'answer': 'x'}, Origin='http://evil.example')[0] == 400
    assert call(server, 'POST', '/questions/id0', b'answer=x', Content_Type='text/plain')[0] == 400
    assert 'http://' not in call(server, 'GET', '/')[1].decode()


def test_a_bag_that_is_gone_meanwhile_is_told(server, folder):
    assert call(server, 'GET', '/pictures/id1/image')[0] == 200
    shutil.rmtree(folder / 'cooper_2')
    status, told = call(server, 'GET', '/pictures/id2/image')
    assert status == 400 and 'does not exist' in told['problem']
    for body in ({'answer': '1'}, {'object': 'red ball', 'mask': data_url(np.full(SIZE, 255, np.uint8))}):
        status, told = call(server, 'POST', '/questions/id2', body)
        assert status == 400 and ('is gone' in told['problem'] or 'does not exist' in told['problem'])
    assert [each.name for each in folder.iterdir()] == ['cooper_1']


def test_a_bag_that_cannot_be_read_does_not_hide_the_others(folder):
    (folder / 'cooper_0').mkdir()
    (folder / 'cooper_0' / 'x.mcap').write_bytes(b'nothing')
    desk = Desk(folder)
    assert len(desk.entries()) == 3
    assert 'nothing in it can be read' in desk.damages[folder / 'cooper_0']
    with pytest.raises(CorrectionError, match='no question'):
        desk.pictures('id9')


@pytest.fixture
def page(server):
    """Return the page in a real browser."""
    playwright = pytest.importorskip('playwright.sync_api', reason='needs: pip install playwright')
    program = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
    if program is None:
        pytest.skip('needs a browser: apt-get install chromium')
    quiet = ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update']
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=quiet)
        page = browser.new_page(viewport={'width': 1300, 'height': 900})
        page.problems = []
        page.on('pageerror', lambda error: page.problems.append(str(error)))
        page.on('console', lambda message: message.type == 'error' and page.problems.append(message.text))
        page.goto(server.url)
        page.wait_for_selector('nav button')
        yield page
        browser.close()


def until(condition, what):
    """Poll from here: the page's security policy lets nothing be evaluated in it."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, f'waited 30 s for {what}'
        time.sleep(0.05)


def said(page, text):
    until(lambda: page.inner_text('#said').startswith(text), f'the page to say {text}')


def test_a_person_corrects_in_the_browser(page, folder):
    assert page.locator('nav button').count() == 3
    assert page.inner_text('#question') == 'Left or right?'
    assert page.locator('#thoughts li').all_inner_texts()[0] == 'First I look at <b>depth</b>.'
    for name in ('image', 'depth', 'segmentation'):
        until(lambda name=name: page.locator(f'#{name}').evaluate('each => each.naturalWidth') == 64, f'picture {name}')
    page.click('button.choice:has-text("right")')
    said(page, 'Saved')
    page.fill('#note', 'seen from behind')
    page.click('#save')
    said(page, 'Saved')
    verdict = CorrectionStore(folder / 'cooper_1').verdicts()['id0']
    assert (verdict.answer, verdict.note) == ('right', 'seen from behind')
    page.click('nav button[data-id=id2]')
    assert page.inner_text('#problem') == 'no answer in time'
    page.click('#useless')
    said(page, 'Saved')
    assert CorrectionStore(folder / 'cooper_2').verdicts()['id2'].useless
    # id2 has no generated pictures: the browser reports those two, and nothing else. Asking the page lets it report.
    until(lambda: page.locator('nav').count() and len(page.problems) == 2, 'two pictures to be missing')
    assert all('404' in problem for problem in page.problems)


def test_a_mask_is_painted_in_the_browser(page, folder, tmp_path):
    def painted():
        ink = 'each => Array.from(each.getContext("2d").getImageData(0, 0, each.width, each.height).data)'
        return np.array(page.locator('#paint').evaluate(ink)).reshape(-1, 4)[:, 3]

    until(lambda: np.array_equal(painted(), BALL.ravel() * 255), 'the generated mask to be laid')
    box = page.locator('#paint').bounding_box()
    scale = box['width'] / 64
    page.locator('#size').fill('4')
    page.mouse.move(box['x'] + 40 * scale, box['y'] + 30 * scale)
    page.mouse.down()
    page.mouse.move(box['x'] + 55 * scale, box['y'] + 30 * scale, steps=5)
    page.mouse.up()
    page.click('#keep')
    said(page, 'Saved')
    store = CorrectionStore(folder / 'cooper_1')
    mask = store.mask(store.verdicts()['id0'], 'red ball')
    assert mask[BALL].all() and mask[30, 40:55].all() and not mask[45, 5] and not mask[5, 55]
    # A picture from elsewhere replaces it.
    upload = np.zeros(SIZE, np.uint8)
    upload[:, :20] = 255
    cv2.imwrite(str(tmp_path / 'mask.png'), upload)
    page.fill('#object', 'wall')
    page.set_input_files('#file', tmp_path / 'mask.png')
    until(lambda: np.array_equal(painted(), upload.ravel()), 'the uploaded mask to be laid')
    page.click('#keep')
    until(lambda: 'wall' in store.verdicts()['id0'].masks, 'the second mask to be kept')
    verdict = store.verdicts()['id0']
    np.testing.assert_array_equal(store.mask(verdict, 'wall'), upload > 0)
    assert set(verdict.masks) == {'red ball', 'wall'} and not page.problems
