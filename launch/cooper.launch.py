"""Start the COOPER node beside a camera driver, or with a camera of ours, and RViz where it is wanted.

``ros2 launch cooper_ros cooper.launch.py image_topic:=/camera/camera/color/image_raw
camera_info_topic:=/camera/camera/color/camera_info``
"""

from __future__ import annotations

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

PACKAGE = 'cooper_ros'
SWITCH = ['true', 'false']
LEVELS = ['debug', 'info', 'warn', 'error', 'fatal']
BACKENDS = ['', 'auto', 'torch', 'onnx', 'tensorrt', 'remote']
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


def camera_topics() -> list[tuple[str, LaunchConfiguration]]:
    """Return how the camera's topics are renamed, where it publishes and where the node listens."""
    return [
        (IMAGE, LaunchConfiguration('image_topic')),
        (CAMERA_INFO, LaunchConfiguration('camera_info_topic')),
        (DEPTH, LaunchConfiguration('depth_topic')),
    ]


def cooper_node(context: LaunchContext) -> list[Node]:
    """Return the COOPER node; an argument left empty lets the parameter file decide."""
    given = {name: LaunchConfiguration(name).perform(context) for name in ('checkpoint', 'backend')}
    overrides = {name: ParameterValue(value, value_type=str) for name, value in given.items() if value}
    overrides['use_sim_time'] = switch('use_sim_time')
    return [
        Node(
            package=PACKAGE,
            executable='cooper_node',
            name='cooper',
            namespace=LaunchConfiguration('namespace'),
            parameters=[LaunchConfiguration('params_file'), overrides],
            remappings=camera_topics(),
            arguments=['--ros-args', '--log-level', LaunchConfiguration('log_level')],
            respawn=LaunchConfiguration('use_respawn').perform(context) == 'true',
            respawn_delay=3.0,
            output='screen',
        )
    ]


def camera_node(context: LaunchContext) -> list[Node]:
    """Return a camera that publishes where the COOPER node listens, if one was asked for."""
    source = LaunchConfiguration('camera').perform(context)
    node = Node(
        package=PACKAGE,
        executable='camera',
        name='camera',
        namespace=LaunchConfiguration('namespace'),
        parameters=[LaunchConfiguration('params_file'), {'source': ParameterValue(source, value_type=str)}],
        remappings=camera_topics(),
        output='screen',
    )
    return [node] if source else []


def rviz_node() -> Node:
    """Return RViz on the topics of this namespace."""
    return Node(
        package='rviz2',
        executable='rviz2',
        name='rviz',
        namespace=LaunchConfiguration('namespace'),
        arguments=['-d', LaunchConfiguration('rviz_config'), '-f', LaunchConfiguration('fixed_frame')],
        parameters=[{'use_sim_time': switch('use_sim_time')}],
        remappings=[
            (f'/{IMAGE}', LaunchConfiguration('image_topic')),
            (f'/{CAMERA_INFO}', LaunchConfiguration('camera_info_topic')),
            *[(f'/cooper/{name}', f'cooper/{name}') for name in RVIZ_TOPICS],
        ],
        condition=IfCondition(LaunchConfiguration('use_rviz')),
        output='screen',
    )


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
            argument('image_topic', IMAGE, 'Colour image to look at'),
            argument('camera_info_topic', CAMERA_INFO, 'Calibration of that camera'),
            argument('depth_topic', DEPTH, 'Measured depth registered to the image, where there is any'),
            argument('camera', '', 'Also start a camera: sim, or a bag, video or image folder; empty: none'),
            argument('use_respawn', 'true', 'Restart the COOPER node when it dies', SWITCH),
            argument('use_rviz', 'false', 'Start RViz', SWITCH),
            argument('rviz_config', in_share('rviz', 'cooper.rviz'), 'What RViz shows'),
            argument('fixed_frame', 'camera_optical_frame', 'Frame that RViz draws in'),
            SetEnvironmentVariable('RCUTILS_LOGGING_BUFFERED_STREAM', '1'),
            OpaqueFunction(function=cooper_node),
            OpaqueFunction(function=camera_node),
            rviz_node(),
        ]
    )
