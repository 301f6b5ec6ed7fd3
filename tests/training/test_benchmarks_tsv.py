"""Hand-made benchmark files: what is read, what is skipped, and what is said about it."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.benchmarks import images
from training.benchmarks.tsv import read_benchmark

COLUMNS = ('index', 'question', 'image', 'image_path', 'A', 'B', 'C', 'D', 'answer', 'category', 'hint', 'l2-category')


def png(colour: tuple[int, int, int], size: tuple[int, int] = (8, 6)) -> bytes:
    data = io.BytesIO()
    Image.new('RGB', size, colour).save(data, 'png')
    return data.getvalue()


RED, BLUE = (base64.b64encode(png(colour)).decode() for colour in ((255, 0, 0), (0, 0, 255)))
LONG = base64.b64encode(png((255, 0, 0), (320, 200))).decode()  # longer than a file name may be, shorter than a path


def write(path: Path, *rows: dict[str, str], columns: tuple[str, ...] = COLUMNS) -> Path:
    lines = ['\t'.join(columns)]
    lines += ['\t'.join(row.get(name, '') for name in columns) for row in rows]
    path.write_text('\n'.join(lines) + '\n', encoding='utf-8')
    return path


def question(index: str, **cells: str) -> dict[str, str]:
    return {'index': index, 'question': 'Which?', 'image': RED, 'A': 'mug', 'B': 'box', 'answer': 'B', **cells}


def test_a_row_becomes_a_question(tmp_path):
    row = question('7', hint='Look twice.', category='size', **{'l2-category': 'height'})
    benchmark = read_benchmark(write(tmp_path / 'bench.tsv', row))
    (item,) = benchmark.items
    assert (item.row, item.index, item.category, item.scoring) == (1, '7', 'size', 'choice')
    assert item.question == 'Look twice.\nWhich?'
    assert item.choices == item.truth.options == ('mug', 'box')
    assert item.truth.answer == 'B'
    assert item.groups == {'l2-category': 'height'}
    assert not benchmark.skipped and benchmark.name == 'bench'
    (shown,) = images.load(item, [])
    assert shown.shape == (6, 8, 3) and (shown == (255, 0, 0)).all()


def test_images_in_every_form(tmp_path):
    (tmp_path / 'a b.png').write_bytes(png((0, 255, 0)))
    rows = [
        question('1'),
        question('2', image='1'),  # the image of row 1
        question('3', image=f"['{RED}', '{BLUE}']"),
        question('4', image='', image_path='a b.png'),
        question('5', image='', image_path="['a b.png', 'a b.png']"),
        question('6', image='', image_path='a b.png, a b.png'),
        question('7', image=f'data:image/png;base64,{BLUE}'),
        question('8', image='a b.png'),
        question('9', image=LONG),
    ]
    benchmark = read_benchmark(write(tmp_path / 'bench.tsv', *rows))
    assert 255 < len(LONG) < images.LONGEST_PATH
    shown = [images.load(item, [tmp_path]) for item in benchmark.items]
    assert [len(found) for found in shown] == [1, 1, 2, 1, 2, 2, 1, 1, 1]
    colours = [tuple(int(v) for v in found[-1][0, 0]) for found in shown]
    red, green, blue = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    assert colours == [red, red, blue, green, green, green, blue, green, red]


def test_several_images_are_joined_at_one_height():
    joined = images.join([np.zeros((10, 20, 3), np.uint8), np.full((20, 20, 3), 7, np.uint8)])
    assert joined.shape == (10, 20 + images.GAP + 10, 3)
    assert (joined[:, :20] == 0).all() and (joined[:, -10:] == 7).all()
    alone = np.ones((4, 5, 3), np.uint8)
    assert (images.join([alone]) == alone).all()


def test_malformed_rows_are_skipped_with_number_and_reason(tmp_path):
    path = write(
        tmp_path / 'bench.tsv',
        question('1'),
        question('2', question=''),
        question('1'),
        question('4', answer='Z'),
        question('5', B='', C='chair'),
        question('6', image='99'),
        question('7', image=''),
        question('8', image=f"['{RED}'"),
        question('9', image='', image_path="['a.png'"),
    )
    with path.open('a', encoding='utf-8') as file:
        file.write('10\ttoo\tfew\n\n')
        file.write('\t'.join(['11'] * (len(COLUMNS) + 2)) + '\n')
        file.write('\t'.join(question('12').get(name, '') for name in COLUMNS) + '\n')
    benchmark = read_benchmark(path)
    assert [item.index for item in benchmark.items] == ['1', '8', '9', '12']
    told = {row.row: (row.index, row.reason) for row in benchmark.skipped}
    assert sorted(told) == [2, 3, 4, 5, 6, 7, 10, 12]
    assert told[2] == ('2', 'the question is empty')
    assert 'that of row 1 too' in told[3][1]
    assert "'Z' is no option" in told[4][1]
    assert 'option B is empty' in told[5][1]
    assert "names row '99'" in told[6][1]
    assert told[7][1] == 'there is no image'
    assert told[10] == ('10', f'3 cells (up to line 11), the header has {len(COLUMNS)}')
    broken = [item for item in benchmark.items if item.index in ('8', '9')]
    for item in broken:  # found out when the image is wanted
        with pytest.raises(ValueError, match=r'no base64|is not under'):
            images.load(item, [tmp_path])


def test_broken_images_are_named(tmp_path):
    (tmp_path / 'cut.png').write_bytes(png((1, 2, 3), (400, 300))[:200])
    (tmp_path / 'text.png').write_bytes(b'no image')
    rows = [question(str(n), image='', image_path=name) for n, name in enumerate(('cut.png', 'text.png', 'gone.png'))]
    rows.append(question('3', image=base64.b64encode(b'no image' * 10).decode()))
    items = read_benchmark(write(tmp_path / 'bench.tsv', *rows)).items
    reasons = ('cannot be read', 'are no image', "'gone.png' is not under", 'are no image')
    for item, reason in zip(items, reasons, strict=True):
        with pytest.raises(ValueError, match=reason):
            images.load(item, [tmp_path])


def test_quoted_cells_may_hold_tabs_lines_and_quotes(tmp_path):
    path = tmp_path / 'bench.tsv'
    cells = ['1', '"Which,\n""the\tred""?"', RED, 'yes']
    path.write_text('index\tquestion\timage\tanswer\n' + '\t'.join(cells) + '\n')
    (item,) = read_benchmark(path).items
    assert item.question == 'Which,\n"the\tred"?'
    assert (item.scoring, item.choices) == ('yes_no', ())


def test_files_of_other_kinds_are_refused(tmp_path):
    path = tmp_path / 'bench.tsv'
    with pytest.raises(FileNotFoundError, match='is not a file'):
        read_benchmark(path)
    path.write_text('index,question,answer,image\n')
    with pytest.raises(ValueError, match='no column question'):
        read_benchmark(path)
    path.write_text('')
    with pytest.raises(ValueError, match='its header is: nothing'):
        read_benchmark(path)
    path.write_text('index\tquestion\tanswer\n')
    with pytest.raises(ValueError, match='no column image or image_path'):
        read_benchmark(path)
    path.write_bytes(b'index\tquestion\tanswer\timage\n1\t\xff\xfe\tA\tx\n')
    with pytest.raises(ValueError, match='UTF-8'):
        read_benchmark(path)
    with pytest.raises(ValueError, match="no scoring 'guess'"):
        read_benchmark(path, 'guess')


def test_a_scoring_may_be_asked_for(tmp_path):
    path = write(tmp_path / 'bench.tsv', question('1', A='', B='', answer='yes'))
    assert read_benchmark(path).items[0].scoring == 'yes_no'
    assert read_benchmark(path, 'text').items[0].scoring == 'text'
