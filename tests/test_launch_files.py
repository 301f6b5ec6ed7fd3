"""The launch file, the parameter file and the RViz configuration against the code that they speak of.

ROS's ``launch`` and RViz are not among the ROS wheels, so both files are read, not run; parameters are given to real
nodes.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from cooper_ros.rviz import for_cameras

ROOT = Path(__file__).parents[1]
ANNOTATIONS = annotations.compiler_flag
LAUNCH = ROOT / 'launch' / 'cooper.launch.py'
PARAMETERS = ROOT / 'config' / 'cooper.yaml'
RVIZ = ROOT / 'rviz' / 'cooper.rviz'
CAMERAS = ['front', 'rear']

# The properties that RViz 2 (Humble to Kilted) reads of each display; it ignores every other key without a word.
ANY_DISPLAY = {'Class', 'Enabled', 'Name', 'Value'}
DISPLAYS = {
    'Camera': 'Topic|Far Plane Distance|Image Rendering|Overlay Alpha|Visibility|Zoom Factor',
    'Grid': 'Alpha|Cell Size|Color|Line Style|Normal Cell Count|Offset|Plane|Plane Cell Count|Reference Frame',
    'Image': 'Topic|Max Value|Median window|Min Value|Normalize Range',
    'MarkerArray': 'Topic|Namespaces',
    'PointCloud2': (
        'Topic|Alpha|Autocompute Intensity Bounds|Autocompute Value Bounds|Axis|Channel Name|Color|Color Transformer|'
        'Decay Time|Invert Rainbow|Max Color|Max Intensity|Min Color|Min Intensity|Position Transformer|Selectable|'
        'Size (Pixels)|Size (m)|Style|Use Fixed Frame|Use rainbow'
    ),
    'TF': 'Frame Timeout|Frames|Marker Scale|Show Arrows|Show Axes|Show Names|Tree|Update Interval',
}
QOS = {
    'Depth': range(1, 1000),
    'Durability Policy': ('Volatile', 'Transient Local', 'System Default'),
    'History Policy': ('Keep Last', 'Keep All', 'System Default'),
    'Reliability Policy': ('Reliable', 'Best Effort', 'System Default'),
}
STYLES = {'Points', 'Squares', 'Flat Squares', 'Spheres', 'Boxes', 'Tiles'}
PANELS = {'Displays', 'Help', 'Selection', 'Time', 'Tool Properties', 'Transformation', 'Views'}
TOOLS = {'FocusCamera', 'Interact', 'Measure', 'MoveCamera', 'PublishPoint', 'Select', 'SetGoal', 'SetInitialPose'}
VIEWS = {'FPS', 'Orbit', 'ThirdPersonFollower', 'TopDownOrtho', 'XYOrbit'}


class LaunchFile:
    """What a launch file says, read from its syntax tree."""

    def __init__(self, path: Path) -> None:
        self.tree = ast.parse(path.read_text(encoding='utf-8'))
        self.constants = {}
        for node in self.tree.body:
            if isinstance(node, ast.Assign):
                target, value = node.targets[0], ast.literal_eval(node.value)
                names = target.elts if isinstance(target, ast.Tuple) else [target]
                values = value if isinstance(target, ast.Tuple) else [value]
                self.constants.update({name.id: each for name, each in zip(names, values, strict=True)})

    def value(self, node):
        """Return what a text or the name of a constant stands for."""
        return self.constants[node.id] if isinstance(node, ast.Name) else ast.literal_eval(node)

    def calls(self, function):
        nodes = ast.walk(self.tree)
        return [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) == function]

    def nodes(self):
        """Return the keyword arguments of each started node, by its name."""
        found = [{keyword.arg: keyword.value for keyword in call.keywords} for call in self.calls('Node')]
        return {self.value(keywords['name']): keywords for keywords in found}


def texts_in(folder):
    """Return every text that stands in a folder's programs."""
    nodes = [node for path in (ROOT / folder).rglob('*.py') for node in ast.walk(ast.parse(path.read_text('utf-8')))]
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def flattened(tree, prefix=''):
    """Return nested parameters under dotted names, as rcl reads them."""
    flat = {}
    for name, value in tree.items():
        flat.update(flattened(value, f'{prefix}{name}.') if isinstance(value, dict) else {f'{prefix}{name}': value})
    return flat


@pytest.fixture(scope='module')
def launch():
    return LaunchFile(LAUNCH)


@pytest.fixture(scope='module')
def rviz():
    return yaml.safe_load(RVIZ.read_text(encoding='utf-8'))


@pytest.fixture(scope='module')
def given():
    """Return the parameters of each node in the parameter file."""
    tree = yaml.safe_load(PARAMETERS.read_text(encoding='utf-8'))
    return {pattern.removeprefix('/**/'): flattened(entry['ros__parameters']) for pattern, entry in tree.items()}


def test_launch_starts_programs_that_exist(launch):
    setup = ast.parse((ROOT / 'setup.py').read_text(encoding='utf-8'))
    scripts = next(
        ast.literal_eval(value)
        for node in ast.walk(setup)
        if isinstance(node, ast.Dict)
        for key, value in zip(node.keys, node.values, strict=True)
        if isinstance(key, ast.Constant) and key.value == 'console_scripts'
    )
    nodes = [node for node in launch.nodes().values() if launch.value(node['package']) == 'cooper_ros']
    ours = {launch.value(node['executable']) for node in nodes}
    assert ours == {'camera', 'cooper_node'}
    assert ours <= {script.partition(' = ')[0] for script in scripts}


def test_every_node_that_is_launched_follows_the_clock(launch):
    def calls(function, name):
        found = (node for node in ast.walk(function) if isinstance(node, ast.Call))
        return [call for call in found if ast.unparse(call.func) == name]

    starting = [each for each in launch.tree.body if isinstance(each, ast.FunctionDef) and calls(each, 'Node')]
    assert sum(len(calls(each, 'Node')) for each in starting) == len(launch.nodes()) == 3
    for each in starting:
        assert ['use_sim_time'] in [[arg.value for arg in call.args] for call in calls(each, 'switch')], each.name


def test_launch_uses_what_it_declares_and_nothing_else(launch):
    declared = {launch.value(call.args[0]) for call in launch.calls('argument')}
    calls = launch.calls('LaunchConfiguration') + launch.calls('switch') + launch.calls('value_of')
    named = {call.args[-1].value for call in calls if isinstance(call.args[-1], ast.Constant)}
    # Those that are read in a loop over their names.
    loops = [node for node in ast.walk(launch.tree) if isinstance(node, ast.comprehension)]
    iterated = [each for loop in loops for each in ast.walk(loop.iter)]
    texts = {each.value for each in iterated if isinstance(each, ast.Constant)}
    texts |= {text for each in iterated if isinstance(each, ast.Name) for text in launch.constants.get(each.id, ())}
    assert named | (texts & declared) == declared


@pytest.fixture(scope='module')
def functions(launch):
    """Return the functions of the launch file that need nothing of ROS, by name."""
    found = [node for node in launch.tree.body if getattr(node, 'name', '') in ('frame_of', 'renamed', 'rviz_file')]
    names = dict(launch.constants, Path=Path, for_cameras=for_cameras, tempfile=tempfile, yaml=yaml)
    exec(compile(ast.Module(found, []), LAUNCH.name, 'exec', dont_inherit=True, flags=ANNOTATIONS), names)
    return names


@pytest.fixture(scope='module')
def renamed(functions):
    return functions['renamed']


def test_topics_of_one_camera_are_renamed_as_they_are_given(renamed):
    given = ['/camera/color/image_raw', 'info', 'depth_registered/image_rect']
    assert renamed('', given) == [
        ('image_raw', '/camera/color/image_raw'),
        ('camera_info', 'info'),
        ('depth_registered/image_rect', 'depth_registered/image_rect'),
    ]


def test_topics_of_several_cameras_hold_for_each(renamed):
    given = ['/{camera}/{camera}/color/image_raw', 'color/camera_info', 'depth_registered/image_rect']
    assert renamed('rear', given) == [
        ('rear/image_raw', '/rear/rear/color/image_raw'),
        ('rear/camera_info', 'rear/color/camera_info'),
        ('rear/depth_registered/image_rect', 'rear/depth_registered/image_rect'),
    ]
    with pytest.raises(ValueError, match='one topic for several cameras'):
        renamed('rear', ['/camera/image_raw', 'camera_info', 'depth'])


def test_launch_overrides_parameters_of_the_node(launch):
    from cooper_cli.options import BackendName
    from cooper_ros import parameters

    specs = {spec.name: spec for spec in parameters.SPECS}
    assert set(launch.constants['PARAMETERS']) <= set(specs)
    for name, known in (('image_transport', 'TRANSPORTS'), ('depth_transport', 'DEPTH_TRANSPORTS')):
        assert set(launch.constants[known]) - {''} == set(specs[name].choices)
    assert set(launch.constants['BACKENDS']) - {''} == set(specs['backend'].choices)
    assert [each.value for each in BackendName] == list(specs['backend'].choices)


def test_launch_renames_topics_of_the_code(launch):
    renamed = {launch.constants[name] for name in ('IMAGE', 'CAMERA_INFO', 'DEPTH')}
    assert renamed <= texts_in('cooper_ros')


def test_launch_renames_every_topic_that_rviz_shows(launch, rviz):
    shown = {display['Topic']['Value'] for display in rviz['Visualization Manager']['Displays'] if 'Topic' in display}
    renamed = {f'/cooper/{name}' for name in launch.constants['RVIZ_TOPICS']} | {f'/{launch.constants["IMAGE"]}'}
    assert shown == renamed


def test_parameter_file_holds_every_parameter_of_the_node_with_its_default(given):
    from cooper_ros import parameters

    assert given['cooper'] == {spec.name: spec.default for spec in parameters.SPECS}


def test_parameter_file_holds_defaults_of_the_camera(given):
    from cooper_ros.camera_parameters import CameraParameters

    defaults = asdict(CameraParameters())
    assert given['camera'].items() <= defaults.items()


def test_parameters_reach_a_node_in_a_namespace(tmp_path):
    # As ros2 launch does it: the file first, then a second one with what was given on the command line.
    changed, overrides = tmp_path / 'changed.yaml', tmp_path / 'overrides.yaml'
    overrides.write_text('/robot/front/cooper:\n  ros__parameters: {backend: torch}\n')
    text = PARAMETERS.read_text(encoding='utf-8')
    assert 'perception_rate: 2.0' in text
    changed.write_text(text.replace('perception_rate: 2.0', 'perception_rate: 7.5'))
    program = (
        'import sys, rclpy\n'
        'from rclpy.node import Node\n'
        'from cooper_ros.parameters import Parameters\n'
        'rclpy.init(args=sys.argv)\n'
        "parameters = Parameters(Node('cooper'))\n"
        "print(parameters['perception_rate'], *parameters['modalities'], parameters['backend'])\n"
        'rclpy.shutdown()\n'
    )
    files = ['--params-file', str(changed), '--params-file', str(overrides)]
    command = [sys.executable, '-c', program, '--ros-args', *files, '-r', '__ns:=/robot/front']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split()) == (0, ['7.5', 'depth', 'segmentation', 'torch']), done.stderr


def rviz_problems(config):
    """Return what RViz would ignore, refuse or read as garbage in a configuration."""
    manager, window = config.get('Visualization Manager', {}), config.get('Window Geometry', {})
    problems = [f'no {key}' for key in ('Hide Left Dock', 'Hide Right Dock') if not isinstance(window.get(key), bool)]
    problems += [] if manager.get('Global Options', {}).get('Fixed Frame') else ['no Fixed Frame']
    classes = [('rviz_common', PANELS, panel['Class']) for panel in config.get('Panels', [])]
    classes += [('rviz_default_plugins', TOOLS, tool['Class']) for tool in manager.get('Tools', [])]
    classes += [('rviz_default_plugins', VIEWS, manager.get('Views', {}).get('Current', {}).get('Class', ''))]
    problems += [f'unknown {name}' for library, known, name in classes if name not in {f'{library}/{k}' for k in known}]
    displays = manager.get('Displays', [])
    names = [display.get('Name') for display in displays]
    problems += [f'{name} stands twice' for name in set(names) if names.count(name) > 1]
    return problems + [problem for display in displays for problem in display_problems(display)]


def display_problems(display):
    """Return what is wrong with one display: unknown or missing keys, impossible values."""
    library, _, kind = display.get('Class', '').partition('/')
    if library != 'rviz_default_plugins' or kind not in DISPLAYS:
        return [f'unknown display {display.get("Class")}']
    keys = set(DISPLAYS[kind].split('|'))
    problems = [f'{kind}: no property {key}' for key in set(display) - ANY_DISPLAY - keys]
    problems += [f'{kind}: {key} is missing' for key in ANY_DISPLAY - set(display)]
    if 'Style' in display and display['Style'] not in STYLES:
        problems.append(f'{kind}: style {display["Style"]}')
    if 'Topic' not in keys:
        return problems
    topic = dict(display.get('Topic', {}))
    problems += [] if topic.pop('Value', None) else [f'{kind}: no topic']
    if kind == 'PointCloud2':
        topic.pop('Filter size', None)
    problems += [f'{kind}: topic {key}' for key in QOS if topic.pop(key, None) not in QOS[key]]
    return problems + [f'{kind}: topic has no property {key}' for key in topic]


def test_rviz_understands_its_configuration(rviz):
    assert not rviz_problems(rviz)


@pytest.fixture(scope='module')
def several(functions):
    """Return what RViz is started with for several cameras, as it stands in the file."""
    path = Path(functions['rviz_file'](str(RVIZ), CAMERAS))
    try:
        return yaml.safe_load(path.read_text(encoding='utf-8'))
    finally:
        path.unlink()


def displays_of(config, kind=''):
    displays = config['Visualization Manager']['Displays']
    return [display for display in displays if display['Class'].rpartition('/')[2] == kind or not kind]


def test_rviz_is_started_with_the_given_file_for_one_camera(functions):
    assert functions['rviz_file'](str(RVIZ), ['']) == str(RVIZ)


def test_for_several_cameras_rviz_shows_everything_of_each(rviz, several, offered):
    assert not rviz_problems(several)
    of_one = [display for display in displays_of(rviz) if 'Topic' in display]
    common = len(displays_of(rviz)) - len(of_one)
    assert len(displays_of(several)) == len(CAMERAS) * len(of_one) + common
    topics = {display['Topic']['Value']: display for display in displays_of(several) if 'Topic' in display}
    cameras = {f'/{camera}/image_raw' for camera in CAMERAS}
    assert cameras <= set(topics)
    for topic in set(topics) - cameras:
        assert offered[topic][0].rpartition('/')[2] == topics[topic]['Class'].rpartition('/')[2]
    names = {display['Name'] for display in displays_of(several)}
    docked = {display['Name'] for kind in ('Camera', 'Image') for display in displays_of(several, kind)}
    assert docked <= set(several['Window Geometry'])
    assert not {display['Name'] for display in of_one} & (names | set(several['Window Geometry']))
    sources = {panel['SyncSource'] for panel in several['Panels'] if 'SyncSource' in panel}
    assert sources <= names


def test_each_camera_s_picture_shows_its_own_markers_alone(several):
    for camera in displays_of(several, 'Camera'):
        seen = dict(camera['Visibility'])
        assert seen.pop('Value') is True
        assert set(seen) == {display['Name'] for display in displays_of(several)} - {camera['Name']}
        (markers,) = [name for name, visible in seen.items() if visible]
        (display,) = [display for display in displays_of(several, 'MarkerArray') if display['Name'] == markers]
        name = camera['Topic']['Value'].split('/')[1]
        assert display['Topic']['Value'] == f'/cooper/{name}/markers'


@pytest.mark.parametrize(
    ('right', 'wrong'),
    [
        ('Reliability Policy: Best Effort', 'Reliability Policy: BestEffort'),
        ('Reliability Policy: Reliable', 'Reliability: Reliable'),
        ('Style: Points', 'Style: Dots'),
        ('Use rainbow: true', 'Use Rainbow: true'),
        ('Name: Depth', 'Name: Segmentation'),
        ('rviz_default_plugins/Image', 'rviz/Image'),
        ('rviz_default_plugins/Orbit', 'rviz_default_plugins/Circle'),
        ('Hide Left Dock: false', 'Hide The Dock: false'),
        ('Fixed Frame: camera_optical_frame', 'Frame: camera_optical_frame'),
    ],
)
def test_a_slip_in_the_rviz_configuration_is_found(right, wrong):
    text = RVIZ.read_text(encoding='utf-8')
    assert right in text
    assert rviz_problems(yaml.safe_load(text.replace(right, wrong, 1)))


@pytest.fixture(scope='module')
def offered():
    """Return type and reliability of each topic that a real node with our publishers offers, as ROS tells them."""
    program = (
        'import json, rclpy, time\n'
        'from rclpy.lifecycle import LifecycleNode\n'
        'from cooper_ros.placer import Placer\n'
        'from cooper_ros.publishers import Publishers\n'
        'rclpy.init()\n'
        "node = LifecycleNode('cooper')\n"
        f'publishers = [Publishers(node, Placer(node, ""), name) for name in {["", *CAMERAS]}]\n'
        'def told(topic):\n'
        '    while True:\n'  # ROS tells of a publisher a moment after it was made
        '        for each in node.get_publishers_info_by_topic(topic):\n'
        '            if each.node_name == node.get_name():\n'
        '                return each.topic_type, each.qos_profile.reliability.name\n'
        '        time.sleep(0.01)\n'
        'print(json.dumps({each.topic_name: told(each.topic_name) for each in node.publishers}))\n'
        'rclpy.shutdown()\n'
    )
    done = subprocess.run([sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_rviz_shows_topics_of_the_node_by_their_type(rviz, offered):
    displays = [display for display in rviz['Visualization Manager']['Displays'] if 'Topic' in display]
    topics = {display['Topic']['Value']: display for display in displays}
    del topics['/image_raw']
    cameras = [display for display in displays if display['Topic']['Value'] == '/image_raw']
    assert {display['Class'].rpartition('/')[2] for display in cameras} == {'Camera', 'Image'}
    assert {display['Topic']['Reliability Policy'] for display in cameras} == {'Best Effort'}
    for topic, display in topics.items():
        kind, reliability = offered[topic]
        assert kind.rpartition('/')[2] == display['Class'].rpartition('/')[2]
        assert reliability == 'RELIABLE' == display['Topic']['Reliability Policy'].upper()


def test_rviz_shows_all_markers_and_nothing_else_over_the_picture(rviz):
    pytest.importorskip('rclpy', reason='needs ROS 2')
    from cooper_ros.markers import NAMESPACES

    displays = {display['Class'].rpartition('/')[2]: display for display in rviz['Visualization Manager']['Displays']}
    assert displays['MarkerArray']['Namespaces'] == dict.fromkeys(NAMESPACES, True)
    seen = dict(displays['Camera']['Visibility'])
    assert seen.pop('Value') is True
    names = {display['Name'] for display in rviz['Visualization Manager']['Displays']} - {displays['Camera']['Name']}
    assert set(seen) == names
    assert [name for name, visible in seen.items() if visible] == [displays['MarkerArray']['Name']]


def test_everything_starts_in_one_frame(launch, functions, rviz, given):
    defaults = {launch.value(call.args[0]): call.args[1] for call in launch.calls('argument')}
    fixed = rviz['Visualization Manager']['Global Options']['Fixed Frame']
    assert launch.value(defaults['fixed_frame']) == launch.value(defaults['target_frame']) == ''
    assert functions['frame_of']('') == fixed == given['camera']['frame_id']
