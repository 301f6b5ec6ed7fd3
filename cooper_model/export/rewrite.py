"""Operators that older runtimes may lack, spelled out in older ones."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

_GELU_CUBE = 0.044715


def spell_out(model: ir.Model) -> None:
    """Replace ``Gelu`` (its tanh form) and ``Reciprocal`` by arithmetic, in place.

    :raises ValueError: a ``Gelu`` is of the other form
    """
    for node in list(model.graph):
        if node.op_type == 'Reciprocal':
            _replace(model, node, _reciprocal(node.inputs[0]))
        elif node.op_type == 'Gelu':
            form = node.attributes.get_string('approximate', 'none')
            if form != 'tanh':
                raise ValueError(f'a Gelu of form {form!r} cannot be spelled out, expected tanh')
            _replace(model, node, _gelu(node.inputs[0]))


class _Tape:
    """Nodes one after the other, and the constants that they need."""

    def __init__(self, like: ir.Value) -> None:
        self.nodes: list[ir.Node] = []
        self._dtype = like.dtype

    def constant(self, value: float) -> ir.Value:
        array = np.array(value, np.float32).astype(self._dtype.numpy())
        node = ir.node('Constant', [], attributes={'value': ir.tensor(array)})
        self.nodes.append(node)
        return node.outputs[0]

    def run(self, operator: str, *inputs: ir.Value) -> ir.Value:
        node = ir.node(operator, inputs)
        self.nodes.append(node)
        return node.outputs[0]


def _reciprocal(x: ir.Value) -> list[ir.Node]:
    tape = _Tape(x)
    tape.run('Div', tape.constant(1.0), x)
    return tape.nodes


def _gelu(x: ir.Value) -> list[ir.Node]:
    """Return ``x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))``, Hendrycks and Gimpel 2016, arXiv 1606.08415."""
    tape = _Tape(x)
    cube = tape.run('Mul', tape.run('Mul', x, x), x)
    inner = tape.run('Add', x, tape.run('Mul', cube, tape.constant(_GELU_CUBE)))
    bent = tape.run('Tanh', tape.run('Mul', inner, tape.constant(math.sqrt(2 / math.pi))))
    tape.run('Mul', tape.run('Mul', x, tape.constant(0.5)), tape.run('Add', bent, tape.constant(1.0)))
    return tape.nodes


def _replace(model: ir.Model, node: ir.Node, nodes: list[ir.Node]) -> None:
    old, new = node.outputs[0], nodes[-1].outputs[0]
    new.shape, new.type = old.shape, old.type
    ir.convenience.replace_nodes_and_values(model.graph, node, [node], nodes, [old], [new])
