"""Start the COOPER node beside camera drivers, or with cameras of ours, and RViz where it is wanted.

``ros2 launch cooper_ros cooper.launch.py image_topic:=/camera/camera/color/image_raw
camera_info_topic:=/camera/camera/color/camera_info``

Several cameras: ``cameras:=front,rear image_topic:=/{camera}/color/image_raw``
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import yaml
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from cooper_ros.rviz import for_cameras

PACKAGE = 'cooper_ros'
SWITCH = ['true', 'false']
LEVELS = ['debug', 'info', 'warn', 'error', 'fatal']
BACKENDS = ['', 'auto', 'torch', 'onnx', 'tensorrt', 'remote']
TRANSPORTS = ['', 'raw', 'compressed']
DEPTH_TRANSPORTS = ['', 'raw', 'compressedDepth']
PARAMETERS = ['checkpoint', 'backend', 'target_frame', 'image_transport', 'depth_transport', 'record']
PLACE = '{camera}'
IMAGE, CAMERA_INFO, DEPTH = 'image_raw', 'camera_info', 'depth_registered/image_rect'
# RViz shows names from the root; each is made relative again, so that the namespace holds for RViz too.
RVIZ_TOPICS = ['depth/color', 'segmentation/overlay', 'points', 'markers']


def argument(name: str, default: object, description: str, choices: list[str] | None = None) -> DeclareLaunchArgument:
    """Return one thing that the user can set."""
    return DeclareLaunchArgument(name, default_value=default, description=description, choices=choices)


def in_share(*parts: str) -> PathJoinSubstitution:
    """Return the path of an installed file of this package."""
    return PathJoinSubstitution([FindPackageShare(PACKAGE), *parts])


def switch(name: str) -> ParameterValue:
    """Return a true-or-false argument as a parameter."""
    return ParameterValue(LaunchConfiguration(name), value_type=bool)


def value_of(context: LaunchContext, name: str) -> str:
    """Return what an argument was set to."""
    return LaunchConfiguration(name).perform(context)


def renamed(camera: str, targets: list[str]) -> list[tuple[str, str]]:
    """Return each topic of a camera, and how it is called where its driver publishes.

    With several cameras a target holds for all: ``{camera}`` in it stands for the name, and a relative one without it
    is below the name.

    :param camera: its name; empty for one without
    :param targets: of image, calibration and depth
    """
    rules = []
    for topic, target in zip((IMAGE, CAMERA_INFO, DEPTH), targets, strict=True):
        if camera and PLACE not in target:
            if target.startswith('/'):
                raise ValueError(f'{target!r} is one topic for several cameras; write {PLACE} into it')
            target = f'{PLACE}/{target}'
        rules.append((f'{camera}/{topic}'.lstrip('/'), target.replace(PLACE, camera)))
    return rules


def cameras_of(context: LaunchContext) -> dict[str, list[tuple[str, str]]]:
    """Return the renamed topics of each camera, where it publishes and the node listens, by its name."""
    targets = [value_of(context, name) for name in ('image_topic', 'camera_info_topic', 'depth_topic')]
    names = value_of(context, 'cameras').split(',')
    return {name.strip(): renamed(name.strip(), targets) for name in names}


def frame_of(camera: str) -> str:
    """Return the optical frame of a camera of ours."""
    return f'{camera or "camera"}_optical_frame'


def cooper_node(context: LaunchContext) -> list[Node]:
    """Return the COOPER node; an argument left empty lets the parameter file decide."""
    given = {name: value_of(context, name) for name in PARAMETERS}
    overrides = {name: ParameterValue(value, value_type=str) for name, value in given.items() if value}
    overrides['use_sim_time'] = switch('use_sim_time')
    cameras = cameras_of(context)
    if list(cameras) != ['']:
        overrides['cameras'] = list(cameras)
    return [
        Node(
            package=PACKAGE,
            executable='cooper_node',
            name='cooper',
            namespace=LaunchConfiguration('namespace'),
            parameters=[LaunchConfiguration('params_file'), overrides],
            remappings=[rule for rules in cameras.values() for rule in rules],
            arguments=['--ros-args', '--log-level', LaunchConfiguration('log_level')],
            respawn=value_of(context, 'use_respawn') == 'true',
            respawn_delay=3.0,
            output='screen',
        )
    ]


def camera_nodes(context: LaunchContext) -> list[Node]:
    """Return cameras of ours that publish where the COOPER node listens, if they were asked for."""
    source, namespace = value_of(context, 'camera'), value_of(context, 'namespace').strip('/')
    nodes = []
    for name, rules in cameras_of(context).items() if source else ():
        settings = {'source': ParameterValue(source, value_type=str), 'use_sim_time': switch('use_sim_time')}
        if name:
            settings['frame_id'] = frame_of(name)
        # In a namespace of its own, with relative topics as the COOPER node reads them.
        targets = [f'/{namespace}/{target}'.replace('//', '/') if target[0] != '/' else target for _, target in rules]
        nodes.append(
            Node(
                package=PACKAGE,
                executable='camera',
                name='camera',
                namespace=f'{namespace}/{name}'.strip('/'),
                parameters=[LaunchConfiguration('params_file'), settings],
                remappings=list(zip((IMAGE, CAMERA_INFO, DEPTH), targets, strict=True)),
                output='screen',
            )
        )
    return nodes


def rviz_file(path: str, cameras: list[str]) -> str:
    """Return a configuration of RViz for these cameras: the given one, or what was made of it for several."""
    if cameras == ['']:
        return path
    config = for_cameras(yaml.safe_load(Path(path).read_text(encoding='utf-8')), cameras)
    with tempfile.NamedTemporaryFile('w', encoding='utf-8', prefix='cooper-', suffix='.rviz', delete=False) as file:
        yaml.safe_dump(config, file, sort_keys=False)
    return file.name


def rviz_node(context: LaunchContext) -> list[Node]:
    """Return RViz on the topics of this namespace, if it was asked for."""
    if value_of(context, 'use_rviz') != 'true':
        return []
    cameras = cameras_of(context)
    frame = value_of(context, 'fixed_frame') or value_of(context, 'target_frame') or frame_of(next(iter(cameras)))
    # Image and calibration are where the driver publishes them.
    rules = [(f'/{topic}', target) for rules in cameras.values() for topic, target in rules[:2]]
    outputs = [f'cooper/{camera}/{name}'.replace('//', '/') for camera in cameras for name in RVIZ_TOPICS]
    return [
        Node(
            package='rviz2',
            executable='rviz2',
            name='rviz',
            namespace=LaunchConfiguration('namespace'),
            arguments=['-d', rviz_file(value_of(context, 'rviz_config'), list(cameras)), '-f', frame],
            parameters=[{'use_sim_time': switch('use_sim_time')}],
            remappings=rules + [(f'/{name}', name) for name in outputs],
            output='screen',
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Return everything that ``ros2 launch`` starts."""
    return LaunchDescription(
        [
            argument('namespace', '', 'Namespace of every node started here'),
            argument('use_sim_time', 'false', 'Follow /clock', SWITCH),
            argument('params_file', in_share('config', 'cooper.yaml'), 'Parameters of the nodes'),
            argument('log_level', 'info', 'Least severe messages that are logged', LEVELS),
            argument('checkpoint', '', 'Checkpoint folder; empty: that of params_file'),
            argument('backend', '', 'What computes the model; empty: that of params_file', BACKENDS),
            argument('target_frame', '', 'Frame of points, markers and objects; empty: that of params_file'),
            argument('cameras', '', 'Names of several cameras, by commas; empty: that of params_file'),
            argument('image_topic', IMAGE, 'Colour image to look at; {camera} stands for the name of each'),
            argument('camera_info_topic', CAMERA_INFO, 'Calibration of that camera'),
            argument('depth_topic', DEPTH, 'Measured depth registered to the image, where there is any'),
            argument('image_transport', '', 'Transport of the image; empty: that of params_file', TRANSPORTS),
            argument('depth_transport', '', 'Transport of the depth; empty: that of params_file', DEPTH_TRANSPORTS),
            argument('record', '', 'Folder that questions are recorded into; empty: that of params_file'),
            argument('camera', '', 'Also start a camera: sim, or a bag, video or image folder; empty: none'),
            argument('use_respawn', 'true', 'Restart the COOPER node when it dies', SWITCH),
            argument('use_rviz', 'false', 'Start RViz', SWITCH),
            argument('rviz_config', in_share('rviz', 'cooper.rviz'), 'What RViz shows'),
            argument('fixed_frame', '', 'Frame that RViz draws in; empty: target_frame, else that of the camera'),
            SetEnvironmentVariable('RCUTILS_LOGGING_BUFFERED_STREAM', '1'),
            OpaqueFunction(function=cooper_node),
            OpaqueFunction(function=camera_nodes),
            OpaqueFunction(function=rviz_node),
        ]
    )
