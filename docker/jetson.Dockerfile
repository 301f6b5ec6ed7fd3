# COOPER on a Jetson: JetPack 7 as it stands, JetPack 6 with build arguments; see docs/install.md.
ARG BASE=ubuntu:24.04
FROM ${BASE}

ARG ROS_DISTRO=jazzy
# What pip takes for PyTorch: a name and version, or the address of a wheel built for this JetPack.
ARG TORCH=torch

ENV DEBIAN_FRONTEND=noninteractive LANG=C.UTF-8 PIP_BREAK_SYSTEM_PACKAGES=1 PIP_NO_CACHE_DIR=1
SHELL ["/bin/bash", "-o", "pipefail", "-c"]

RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates curl \
    && curl -fsSL https://raw.githubusercontent.com/ros/rosdistro/master/ros.key -o /usr/share/keyrings/ros.gpg \
    && . /etc/os-release \
    && echo "deb [signed-by=/usr/share/keyrings/ros.gpg] http://packages.ros.org/ros2/ubuntu ${UBUNTU_CODENAME} main" \
        > /etc/apt/sources.list.d/ros2.list \
    && apt-get update \
    && apt-get install -y --no-install-recommends \
        g++ python3-colcon-common-extensions python3-dev python3-pip python3-rosdep \
        libegl1 libgl1 libgl1-mesa-dri \
        "ros-${ROS_DISTRO}-ros-base" \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /ws/src/cooper
COPY package.xml ./
COPY cooper_msgs/package.xml cooper_msgs/
RUN apt-get update && rosdep init && rosdep update --rosdistro "${ROS_DISTRO}" \
    && rosdep install -iy --rosdistro "${ROS_DISTRO}" --from-paths . cooper_msgs \
    && rm -rf /var/lib/apt/lists/*

# The messages of a distribution are compiled for its NumPy.
RUN python3 -m pip install "${TORCH}" 'numpy<2' \
    && python3 -m pip install transformers tokenizers safetensors diffusers huggingface-hub matplotlib typer rich \
        mujoco mcap rosbags rosbags-image

COPY . .
RUN . "/opt/ros/${ROS_DISTRO}/setup.bash" && colcon build --base-paths . cooper_msgs

ENV ROS_DISTRO=${ROS_DISTRO} MUJOCO_GL=egl FASTDDS_BUILTIN_TRANSPORTS=DEFAULT?sockets_size=8MB
ENTRYPOINT ["/bin/bash", "-c", ". /opt/ros/${ROS_DISTRO}/setup.bash && . install/setup.bash && exec \"$@\"", "--"]
CMD ["ros2", "launch", "cooper_ros", "cooper.launch.py"]
