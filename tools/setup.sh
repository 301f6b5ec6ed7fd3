#!/bin/sh
# Makes .venv in this checkout ready: Python packages, ROS 2, the cooper_msgs interfaces and the cooper command.
# Ends at once where nothing has changed since the last time. PYTHON=... chooses the interpreter (3.11 to 3.13).
set -eu
cd "$(dirname "$0")/.."
root=$(pwd -P)
venv=$root/.venv
extras=ros,interfaces,sim,onnx,train,bags,viewer,fleet,test
supported='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'

# What a sourced ROS installation or a user's own settings would mix into the environment.
unset PYTHONPATH PYTHONHOME AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH _ROS_WHEELS_BOOTSTRAP_COMPLETE
export PYTHONNOUSERSITE=1 PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

say() { echo "setup: $*" >&2; }
fail() { say "$@"; exit 1; }
digest() { sha256sum | cut -d ' ' -f 1; }

find_python() {
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if "$candidate" -c "$supported" 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    fail "no Python 3.11 to 3.13 among: ${PYTHON:-python3 python3.13 python3.12 python3.11}; name one with PYTHON=..."
}

# Installs Debian packages where that is allowed, otherwise prints the line to run.
system_packages() {
    line="apt-get install -y --no-install-recommends $*"
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "$line"
        export DEBIAN_FRONTEND=noninteractive
        { apt-get update -qq && $line -qq; } >&2 && return
        fail "that failed; run it by hand, then make again: apt-get update && $line"
    fi
    fail "system packages are missing; run this, then make again: sudo $line"
}

check_system() {
    python=$1
    version=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
    headers=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
    missing=
    "$python" -c 'import ensurepip, venv' 2>/dev/null || missing="$missing $version-venv"
    [ -f "$headers/Python.h" ] || missing="$missing $version-dev"
    command -v cc >/dev/null && command -v c++ >/dev/null || missing="$missing gcc g++"
    "$python" -c 'import ctypes; ctypes.CDLL("libEGL.so.1"); ctypes.CDLL("libGL.so.1")' 2>/dev/null ||
        missing="$missing libegl1 libgl1 libgl1-mesa-dri"
    [ -z "$missing" ] || system_packages $missing
}

# The simulated camera draws without a screen: through EGL, or OSMesa where there is no driver for it.
renders() {
    for library in egl osmesa; do
        if MUJOCO_GL=$library "$venv/bin/python" -c 'import mujoco; mujoco.GLContext(8, 8).make_current()' \
            >/dev/null 2>&1; then
            echo $library >"$venv/.mujoco-gl"
            return
        fi
    done
    return 1
}

# An environment that was moved, or whose Python was replaced, cannot be repaired: its programs name the old place.
venv_is_ours() {
    [ -x "$venv/bin/python" ] && "$venv/bin/python" -c "import pip; $supported" 2>/dev/null || return 1
    ! grep -q '^command = ' "$venv/pyvenv.cfg" || grep -q "^command = .*$venv\$" "$venv/pyvenv.cfg"
}

packages_key=$(echo "$root $extras" | cat - constraints.txt setup.py setup.cfg tools/setup.sh | digest)
interfaces_key=$(find cooper_msgs tools/build_interfaces.py tools/tf2_msgs -type f | LC_ALL=C sort | xargs cat | cat - constraints.txt | digest)
packages_stamp=$venv/.packages-$packages_key
interfaces_stamp=$venv/.interfaces-$interfaces_key
[ -f "$packages_stamp" ] && [ -f "$interfaces_stamp" ] && venv_is_ours && exit

if [ ! -f "$packages_stamp" ] || ! venv_is_ours; then
    if venv_is_ours; then
        check_system "$venv/bin/python"
    else
        python=$(find_python)
        check_system "$python"
        say "new virtual environment .venv with $("$python" --version)"
        "$python" -m venv --clear "$venv"
    fi
    say 'installing packages (the first time downloads about a gigabyte)'
    rm -f "$venv"/.packages-*
    # Named before everything that needs it, so that no other build of torch is taken for a dependency.
    "$venv/bin/python" -m pip install -qq -c constraints.txt "$(grep '^torch==' constraints.txt)" setuptools
    "$venv/bin/python" -m pip install -qq -c constraints.txt --no-build-isolation -e ".[$extras]"
    # Type stubs alone, and aside: the package would bring the library, and as a module it would hide that it is missing.
    "$venv/bin/python" -m pip install -qq --no-deps --upgrade --target "$venv/stubs" "$(grep '^tensorrt-stubs==' constraints.txt)"
    renders || system_packages libegl1 libgl1 libgl1-mesa-dri libosmesa6
    renders || fail 'MuJoCo draws neither through EGL nor through OSMesa: is a graphics driver half installed?'
    touch "$packages_stamp"
fi
if [ ! -f "$interfaces_stamp" ]; then
    say 'building cooper_msgs and tf2_msgs'
    rm -f "$venv"/.interfaces-*
    "$venv/bin/python" tools/build_interfaces.py
    touch "$interfaces_stamp"
fi
