"""What the documents name exists: files, headings, commands and options, ROS names, parameters, figures."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from bench.run import MEASUREMENTS
from cooper_cli.main import COMMANDS, load_command

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([ROOT / 'README.md', *(ROOT / 'docs').glob('*.md'), ROOT / 'bench' / 'README.md'])
LINK = re.compile(r'\]\(([^)\s]+)\)')
FENCE = re.compile(r'^```(\w*)\n(.*?)^```$', re.MULTILINE | re.DOTALL)
CODE = re.compile(r'`([^`\n]+)`')
MODULE = re.compile(r'-m ((?:training|cooper_sim|bench)\.\w+)(.*)')
USAGE_ERROR = typer.BadParameter.__base__  # of click, which some versions of typer carry inside
LAUNCH_FILE = ROOT / 'launch' / 'cooper.launch.py'


def read(path: Path) -> str:
    return path.read_text(encoding='utf-8')


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


every_document = pytest.mark.parametrize('document', DOCUMENTS, ids=name_of)


def prose(text: str) -> str:
    return FENCE.sub('', text)


def shell_lines(text: str) -> Iterator[str]:
    for language, block in FENCE.findall(text):
        if language == 'sh':
            yield from block.splitlines()


def anchors(path: Path) -> set[str]:
    headings = re.findall(r'^#+ (.+)$', prose(read(path)), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


def rows(text: str, heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, without its head."""
    section = f'\n{text}'.partition(f'\n{heading}\n')[2]
    table = re.search(r'(?:^\|.*\n)+', section, re.MULTILINE)
    assert table, f'no table below {heading!r}'
    return [[cell.strip() for cell in line.strip('|').split('|')] for line in table[0].splitlines()[2:]]


def launch_arguments() -> set[str]:
    calls = (node for node in ast.walk(ast.parse(LAUNCH_FILE.read_text())) if isinstance(node, ast.Call))
    named = (call for call in calls if isinstance(call.func, ast.Name) and call.func.id == 'argument')
    return {call.args[0].value for call in named}


# Links


@every_document
def test_links_lead_somewhere(document):
    wrong = []
    for link in LINK.findall(prose(read(document))):
        if link.startswith(('http://', 'https://')):
            continue
        place, _, anchor = link.partition('#')
        target = (document.parent / place).resolve() if place else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    assert not wrong


def test_every_document_is_reached_from_the_readme():
    linked = set(LINK.findall(read(ROOT / 'README.md')))
    missing = [name_of(path) for path in DOCUMENTS if name_of(path) not in linked]
    assert missing == ['README.md']


def test_the_house_is_all_there():
    text = read(ROOT / 'README.md')
    block = text.partition('\n## The house\n')[2].split('```')[1]
    named = re.findall(r'^(?:[a-z_]+/ ?)+', block, re.MULTILINE)
    folders = {folder for line in named for folder in line.split()}
    assert folders and all((ROOT / folder).is_dir() for folder in folders)
    inner = re.findall(r'^  ([a-z_]+/)', block, re.MULTILINE)
    assert inner and all((ROOT / 'cooper_model' / folder).is_dir() for folder in inner)


# Commands


def refusal(arguments: list[str]) -> str:
    """Return why ``cooper`` would not take these arguments, empty where it would."""
    name, *rest = arguments
    if name not in COMMANDS:
        return f'no command {name}'
    try:
        load_command(name).make_context(name, rest)
    except USAGE_ERROR as error:
        return error.format_message()
    return ''


@every_document
def test_commands_are_taken_as_written(document):
    text = read(document)
    wrong = []
    for line in shell_lines(text):
        words = shlex.split(line, comments=True)
        if words[:1] == ['cooper'] and (reason := refusal(words[1:])):
            wrong.append(f'{line}: {reason}')
    for arguments in re.findall(r"make demo ARGS='([^']*)'", text):
        if reason := refusal(['demo', *shlex.split(arguments)]):
            wrong.append(f'make demo {arguments}: {reason}')
    assert not wrong


@every_document
def test_commands_in_sentences_exist(document):
    wrong = []
    for code in CODE.findall(prose(read(document))):
        words = code.split()
        if words[0] == 'cooper' and len(words) > 1:
            parameters = load_command(words[1]).params if words[1] in COMMANDS else ()
            known = {option for parameter in parameters for option in parameter.opts}
            if not parameters or not {word for word in words if word.startswith('--')} <= known | {'--'}:
                wrong.append(code)
    assert not wrong


@every_document
def test_programs_and_their_files_exist(document):
    wrong = []
    for line in re.split(r'[`\n]', read(document)):
        match = MODULE.search(line)
        if match is None:
            continue
        source = ROOT / f'{match[1].replace(".", "/")}.py'
        words = match[2].partition('#')[0].split()
        options = [word for word in words if word.startswith('--')]
        taken = read(source) if source.is_file() else ''
        taken += "'--config'" if 'config_argument(' in taken else ''
        if not taken or not all(f"'{option}'" in taken for option in options):
            wrong.append(line)
        wrong += [word for word in words if word.startswith('training/') and not (ROOT / word).exists()]
    assert not wrong


def test_the_readme_begins_with_the_demo():
    lines = read(ROOT / 'README.md').splitlines()
    assert any(line.startswith('make demo') for line in lines[:10])
    targets = re.findall(r'^(\w+):', (ROOT / 'Makefile').read_text(), re.MULTILINE)
    assert {'demo', 'test'} <= set(targets)


def test_both_paths_of_the_workspace_are_named():
    for place in ('docs/install.md', 'docker/jetson.Dockerfile'):
        text = read(ROOT / place)
        assert 'colcon build --base-paths . cooper_msgs' in text
        assert re.search(r'rosdep install -iy .*--from-paths . cooper_msgs', text)


def test_packages_for_a_workspace_are_those_of_setup():
    tree = ast.parse(read(ROOT / 'setup.py'))
    texts = {str(node.value) for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    known = {re.split(r'[\[<>=]', text)[0] for text in texts}
    line = re.search(r'^python3 -m pip install (torch .*)$', read(ROOT / 'docs' / 'install.md'), re.MULTILINE)
    assert line and set(line[1].split()) <= known
    container = read(ROOT / 'docker' / 'jetson.Dockerfile').replace('\\\n', ' ')
    others = re.search(r'pip install (transformers .*)$', container, re.MULTILINE)[1]
    assert set(line[1].split()) == {'torch', *others.split()}


def test_extras_that_are_named_exist():
    tree = ast.parse(read(ROOT / 'setup.py'))
    call = next(node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == 'setup')
    extras = {each.value for word in call.keywords if word.arg == 'extras_require' for each in word.value.keys}
    text = read(ROOT / 'docs' / 'install.md')
    listed = {name for row in rows(text, '## By pip alone') for name in CODE.findall(row[0])}
    assert listed == extras
    assert set(re.search(r"'\.\[(.*)\]'", text)[1].split(',')) <= extras


def test_the_container_is_built_as_the_page_says():
    lines = read(ROOT / 'docker' / 'jetson.Dockerfile').splitlines()
    taken = {line.split()[1].partition('=')[0] for line in lines if line.startswith('ARG ')}
    text = read(ROOT / 'docs' / 'install.md')
    assert set(re.findall(r'--build-arg (\w+)=', text)) == taken
    assert all((ROOT / file).is_file() for file in re.findall(r'docker build -f (\S+)', text))
    copied = [word for line in lines if line.startswith('COPY ') for word in line.split()[1:-1]]
    assert copied and all((ROOT / path).exists() for path in copied)


@every_document
def test_python_imports_what_exists(document):
    for language, block in FENCE.findall(read(document)):
        if language != 'python':
            continue
        imports = [node for node in ast.parse(block).body if isinstance(node, (ast.Import, ast.ImportFrom))]
        assert imports
        exec(compile(ast.Module(imports, []), name_of(document), 'exec'), {})


@every_document
def test_launch_arguments_exist(document):
    known = launch_arguments()
    lines = [line for line in shell_lines(read(document)) if line.startswith('ros2 launch')]
    given = {word.partition(':=')[0] for line in lines for word in line.split() if ':=' in word}
    assert given <= known
    assert all('cooper_ros cooper.launch.py' in line for line in lines)


def test_every_launch_argument_is_explained():
    table = rows(read(ROOT / 'docs' / 'ros.md'), '### Launch file')
    assert {name for row in table for name in CODE.findall(row[0])} == launch_arguments()


# ROS names


def interface() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for kind, name, *_ in rows(read(ROOT / 'README.md'), '## ROS interface'):
        found.setdefault(kind, set()).update(CODE.findall(name))
    return found


def test_outputs_are_those_of_the_node():
    pytest.importorskip('rclpy')
    from cooper_ros.topics import ANSWERS, OUTPUTS

    published = {f'~/{name}' for name in (*OUTPUTS, ANSWERS)} | {'~/segmentation/label_info', '/diagnostics'}
    assert interface()['out'] == published


def test_inputs_and_requests_are_those_of_the_node():
    pytest.importorskip('rclpy')
    from cooper_ros.topics import INPUTS

    def literals(name):
        tree = ast.parse((ROOT / 'cooper_ros' / name).read_text())
        return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}

    heard = set(INPUTS.values())
    assert interface()['in'] == heard | {f'{INPUTS["image"]}/compressed', f'{INPUTS["depth"]}/compressedDepth'}
    served = literals('requests.py') | literals('recording/service.py')
    requests = {name for name in served if re.fullmatch(r'~/\w+', str(name))}
    assert interface()['service'] | interface()['action'] == requests
    assert interface()['action'] == {'~/ask'}


def test_interface_types_of_ours_exist():
    text = read(ROOT / 'README.md')
    names = re.findall(r'`cooper_msgs/(\w+)`', text)
    assert names and all(list((ROOT / 'cooper_msgs').glob(f'*/{name}.*')) for name in names)


def test_parameters_are_those_of_the_node():
    pytest.importorskip('rclpy')
    from cooper_ros.parameters import SPECS

    def written(value):
        if isinstance(value, list):
            return f'[{", ".join(map(written, value))}]'
        return str(value).lower() if isinstance(value, bool) else str(value) or "''"

    told = {}
    for names, default, meaning in rows(read(ROOT / 'docs' / 'ros.md'), '## Parameters'):
        for name in CODE.findall(names):
            told[name] = (CODE.findall(default)[0], 'fixed' in re.findall(r'\w+', meaning))
    assert told == {spec.name: (written(spec.default), spec.fixed) for spec in SPECS}


def test_camera_parameters_exist():
    pytest.importorskip('rclpy')
    from dataclasses import fields

    from cooper_ros.camera_parameters import CameraParameters

    text = read(ROOT / 'docs' / 'ros.md')
    sentence = re.search(r'The camera process has its own, among them (.*?):', text, re.DOTALL)[1]
    assert set(CODE.findall(sentence)) <= {field.name for field in fields(CameraParameters)}


def test_encodings_are_those_that_are_read():
    from cooper_ros.encodings import COLOUR_ENCODINGS

    text = read(ROOT / 'docs' / 'ros.md')
    section = text.partition('\n## Encodings\n')[2].partition('\n## ')[0]
    words = set(re.findall(r'[\w]+', section))
    assert {name for name in COLOUR_ENCODINGS if not name.startswith('bayer')} - words == {'yuv422_yuy2'}


# Figures and settings


@every_document
def test_marks_of_measurements_are_closed_and_known(document):
    text = read(document)
    opened = re.findall(r'<!-- bench:(\w+) -->\n', text)
    # Of programs in bench/, each with its own table.
    programs = {'backends', 'experiment', 'fits', 'full', 'number_types', 'quantisation'}
    programs |= {'real_images', 'retrain', 'samplers', 'sampling_steps', 'together', 'training'}
    programs |= {'true_maps', 'true_maps_sft'}
    assert set(opened) - {'NAME'} <= programs | set(MEASUREMENTS)
    assert len(opened) == text.count('<!-- /bench -->')


def test_the_model_card_counts_what_is_shipped():
    import torch

    from cooper_model.config import CooperConfig
    from cooper_model.network.autoencoder import build_autoencoder
    from cooper_model.network.model import Cooper

    config = CooperConfig.load(ROOT / 'training' / 'configs' / 'nano')
    with torch.device('meta'):
        model, autoencoder = Cooper(config), build_autoencoder(config.autoencoder)

    def count(module, part=''):
        return sum(value.numel() for name, value in module.named_parameters() if part in name)

    language, vision = count(model.language_model), count(model.vit_model)
    expert = count(model.language_model, 'moe_gen')
    counts = [language, expert, vision, count(model) - language - vision, count(model), count(autoencoder)]
    table = rows(read(ROOT / 'docs' / 'model_card.md'), '## Architecture')
    assert [int(row[-1].strip('*').replace(',', '')) for row in table] == counts


def test_the_model_card_names_the_classes():
    from cooper_model.config import CooperConfig

    names = CooperConfig.load(ROOT / 'training' / 'configs' / 'nano').colour_code.names
    assert f'Classes: {", ".join(names)}.' in read(ROOT / 'docs' / 'model_card.md')


def test_settings_of_a_checkpoint_are_read():
    text = read(ROOT / 'docs' / 'verify.md')
    sentence = text.partition('What `case_config.json` can say:')[2].partition('[config.py]')[0]
    source = (ROOT / 'cooper_model' / 'config.py').read_text()
    named = CODE.findall(sentence)
    assert len(named) > 10 and all(f"'{name}'" in source for name in named)


def test_sections_of_verify_are_those_of_the_code():
    pytest.importorskip('torch')
    from cooper_model.verify import SECTIONS

    table = rows(read(ROOT / 'docs' / 'verify.md'), '# Is the model computed exactly?')
    assert [CODE.findall(row[0])[0] for row in table] == list(SECTIONS)


def test_stages_have_their_configs():
    text = read(ROOT / 'docs' / 'training.md') + read(ROOT / 'docs' / 'retrain.md')
    configs = {path.name for path in (ROOT / 'training' / 'configs' / 'nano').glob('*.yaml')}
    assert configs == set(re.findall(r'training/configs/nano/(\w+\.yaml)', text))
