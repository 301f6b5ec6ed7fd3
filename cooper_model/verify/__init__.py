"""Replaying a golden case: everything that was recorded is computed again by the product's own path."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from cooper_model.checkpoint import AUTOENCODER_STEMS, MODEL_STEMS
from cooper_model.verify.blocks import verify_text, verify_vae, verify_vit
from cooper_model.verify.case import Case
from cooper_model.verify.generation import verify_context, verify_flow, verify_generate
from cooper_model.verify.preprocessing import verify_preprocess
from cooper_model.verify.record import CALL, GENERATED, Section, SectionResult, Tolerance
from cooper_model.verify.training import verify_train

SECTIONS: dict[str, tuple[Tolerance, Callable[[Case, Section], None]]] = {
    'vae': (CALL, verify_vae),
    'vit': (CALL, verify_vit),
    'text': (CALL, verify_text),
    'context': (CALL, verify_context),
    'flow': (CALL, verify_flow),
    'generate': (GENERATED, verify_generate),
    'train': (CALL, verify_train),
    'preprocess': (CALL, verify_preprocess),
}

_WEIGHTS = re.compile(rf'({"|".join((*MODEL_STEMS, *AUTOENCODER_STEMS))})(-\d+-of-\d+)?')


def verify(folder: str | Path, device: str = 'cpu') -> dict[str, SectionResult]:
    """Replay every section that a golden case folder holds, in float32.

    Sizes, texts, shapes and names are read from the folder. A file of tensors that belongs to no known section
    appears as a section of its own in which everything is unchecked.

    :raises FileNotFoundError: the folder, its weights or a file that a section needs is missing
    :raises ValueError: the folder holds no section, or a file is damaged or incomplete
    """
    folder = Path(folder)
    present = [name for name in SECTIONS if (folder / f'{name}.safetensors').is_file()]
    if folder.is_dir() and not present:
        raise ValueError(
            f'{folder} is no golden case: none of {", ".join(SECTIONS)} (.safetensors) is there; '
            'give a folder such as tests/golden/alpha'
        )
    case = Case(folder, device)
    results = {}
    for name in present:
        tolerance, replay = SECTIONS[name]
        section = case.section(name, tolerance)
        replay(case, section)
        results[name] = section.result()
    for path in sorted(folder.glob('*.safetensors')):
        if path.stem not in results and not _WEIGHTS.fullmatch(path.stem):
            names = Section(path, CALL).names()
            results[path.stem] = SectionResult(0.0, 0.0, passed=True, unchecked=tuple(names))
    return results


__all__ = ['SECTIONS', 'SectionResult', 'verify']
