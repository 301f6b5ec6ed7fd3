"""Which ONNX operators an exported graph may contain, so that TensorRT's parser takes it.

For each operator the oldest version of TensorRT whose documents list it, with the limits that matter here:

- the lists of supported operators of onnx-tensorrt (``docs/operators.md``) for TensorRT 8.4 and 10.15;
- the changelogs of onnx-tensorrt and TensorRT: layer and group normalisation came with 8.6, ``Attention`` with 10.14
  (4-D with a 4-D mask, without its own cache), ``RMSNormalization`` with 10.15;
- INT64 is a type of its own since 9.0, so that ``Range``, ``Less`` and ``Gather`` take it.

``Gelu`` and ``Reciprocal`` stand in the list for 10.15 but in no older one that could be read; graphs for older
versions spell them out (:mod:`cooper_model.export.rewrite`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir

Version = tuple[int, int]

# The oldest TensorRT that must read the graphs of an opset: that of JetPack 7.2, and that of JetPack 6.
TARGETS: dict[int, Version] = {23: (10, 16), 20: (10, 3)}

_OLD = (
    'Add Cast Concat Constant Conv ConvTranspose Cos DepthToSpace Div Expand Gather GatherND Gemm Identity '
    'InstanceNormalization Less LessOrEqual MatMul Mul Neg Not Pad Pow Range ReduceMean Reshape Resize Shape Sigmoid '
    'Sin Slice Softmax SpaceToDepth Split Sqrt Squeeze Sub Tanh Transpose Unsqueeze Where'
)
SINCE: dict[str, Version] = {
    **dict.fromkeys(_OLD.split(), (8, 4)),
    'LayerNormalization': (8, 6),
    'GroupNormalization': (8, 6),
    'Attention': (10, 14),
    'RMSNormalization': (10, 15),
    'Gelu': (10, 15),
    'Reciprocal': (10, 15),
}


def check_operators(model: onnx_ir.Model, opset: int) -> None:
    """Check every operator of a graph.

    :raises ValueError: one is not of ONNX itself, holds a graph of its own (control flow), or is unknown to the
        TensorRT that the opset is for
    """
    refused = sorted(
        {
            f'{node.domain}::{node.op_type}' if node.domain else node.op_type
            for node in model.graph.all_nodes()
            if node.domain or SINCE.get(node.op_type, (99, 0)) > TARGETS[opset]
        }
    )
    if refused or model.functions:
        wanted = '.'.join(map(str, TARGETS[opset]))
        raise ValueError(
            f'the graph {model.graph.name!r} of opset {opset} contains {", ".join(refused) or "functions"}, which '
            f'TensorRT {wanted} is not known to take; this is a fault of the exporter, please report it'
        )
