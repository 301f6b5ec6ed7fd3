# make demo, make test, make lint: each does all its own set-up in .venv. PYTHON=... chooses the interpreter,
# ARGS=... is handed on, for example: make demo ARGS='--camera my_bag', make test ARGS='tests/model -k flow'.

.PHONY: demo lint setup test
.DEFAULT_GOAL := demo

# The environment is complete in itself: nothing of a sourced ROS installation or of the user's site gets in.
unexport PYTHONPATH PYTHONHOME AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH _ROS_WHEELS_BOOTSTRAP_COMPLETE
ifdef ROS_DISTRO
unexport LD_LIBRARY_PATH RMW_IMPLEMENTATION ROS_DISTRO
endif
export PYTHONNOUSERSITE := 1
# Several processes share few cores: threads that wait must not spin.
export OMP_NUM_THREADS ?= 2
export OMP_WAIT_POLICY ?= PASSIVE
export PYTHON
# The library that set-up found to draw without a screen.
RENDER = MUJOCO_GL=$${MUJOCO_GL:-$$(cat .venv/.mujoco-gl)}

setup:
	@tools/setup.sh

demo: setup
	$(RENDER) .venv/bin/cooper demo $(ARGS)

lint: setup
	.venv/bin/ruff check .

test: lint
	$(RENDER) .venv/bin/python -m pytest $(ARGS)
