"""What several tests of the model share."""

from __future__ import annotations

from pathlib import Path

import pytest

from cooper_model.loading import default_checkpoint


@pytest.fixture(scope='session')
def nano_graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the exported graphs of the shipped checkpoint."""
    from cooper_model.export.onnx import export_onnx

    folder = tmp_path_factory.mktemp('nano_graphs')
    export_onnx(default_checkpoint(), folder)
    return folder
