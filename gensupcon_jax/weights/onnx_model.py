"""Writes a jax function of images as an ONNX model: its program is traced, and each operation translated."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx

from gensupcon_jax import __version__
from gensupcon_jax.errors import UserError
from gensupcon_jax.weights.onnx_graph import Graph, Tensor, Untranslated, constant
from gensupcon_jax.weights.onnx_operators import OPERATORS

INPUT, OUTPUT = "images", "features"
# Of 2022: what every onnxruntime since 1.14 reads, and enough for all operators in the table.
OPSET, IR_VERSION = 17, 8
_CALLS = ("jaxpr", "call_jaxpr", "fun_jaxpr")  # parameters in which an operation holds a program
_INLINED = {"jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"}
_INLINED |= {"remat", "remat2", "checkpoint", "custom_lin"}


def onnx_model(
    function: Callable[[jax.Array], jax.Array], images: jax.ShapeDtypeStruct, metadata: Mapping[str, str]
) -> bytes:
    """The ONNX model, as bytes, of a function of images [batch, height, width, channel] -> float32 features [batch, feature].

    images: their type, with a symbol of `jax.export.symbolic_shape` for the batch.  metadata: texts to store in the model.
    Raises UserError for an operation that has no translation, by its name.
    """
    closed = jax.jit(function).trace(images).jaxpr
    sizes = images.shape[1:]
    graph = Graph(INPUT)
    try:
        (features,) = _translate(
            graph, closed.jaxpr, closed.consts, [Tensor(INPUT, None, (0, 1, 2, 3), tuple(images.shape))]
        )
        (output,) = closed.out_avals
        name = graph.full(features, output.shape)
    except Untranslated as error:
        raise UserError(
            f"the network cannot be written as ONNX: it has {error}, which is not among the operations of "
            "gensupcon_jax.weights.onnx_operators; allowed for any network: --format stablehlo"
        ) from error
    graph.nodes.append(onnx.helper.make_node("Identity", [name], [OUTPUT], name=OUTPUT))
    described = onnx.helper.make_graph(
        graph.nodes,
        "encoder",
        [
            onnx.helper.make_tensor_value_info(
                INPUT, onnx.helper.np_dtype_to_tensor_dtype(images.dtype), ["batch", *sizes]
            )
        ],
        [onnx.helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, ["batch", output.shape[1]])],
        graph.initializers,
    )
    opsets = [onnx.helper.make_opsetid("", OPSET)]
    model = onnx.helper.make_model(described, opset_imports=opsets, producer_name="gensupcon_jax")
    model.ir_version, model.producer_version = IR_VERSION, __version__
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def library_version() -> str:
    """The version of the package onnx."""
    return onnx.__version__


def _translate(graph: Graph, jaxpr: Any, consts: Sequence[Any], inputs: Sequence[Tensor]) -> list[Tensor]:
    """Add the equations of a program to the graph; returns its outputs."""
    known: dict[Any, Tensor] = dict(zip(jaxpr.invars, inputs, strict=True))
    known |= {variable: constant(np.asarray(value)) for variable, value in zip(jaxpr.constvars, consts, strict=True)}

    def read(variable: Any) -> Tensor:
        return constant(np.asarray(variable.val)) if hasattr(variable, "val") else known[variable]

    for equation in jaxpr.eqns:
        outputs = _equation(graph, equation, [read(variable) for variable in equation.invars])
        known |= zip(equation.outvars, outputs, strict=True)
    return [read(variable) for variable in jaxpr.outvars]


def _equation(graph: Graph, equation: Any, inputs: Sequence[Tensor]) -> list[Tensor]:
    name = equation.primitive.name
    if name in _INLINED:
        inner = next(equation.params[key] for key in _CALLS if key in equation.params)
        if hasattr(inner, "consts"):
            return _translate(graph, inner.jaxpr, inner.consts, inputs)
        return _translate(graph, inner, (), inputs)
    if name == "platform_index":  # which of the branches below is for the platform: that of all others is written
        return [constant(np.int32(0))]
    if name == "cond" and equation.params.get("branches_platforms"):
        usual = equation.params["branches"][equation.params["branches_platforms"].index(None)]
        return _translate(graph, usual.jaxpr, usual.consts, inputs[1:])
    folded = _folded(equation, inputs)
    if folded is not None:
        return folded
    if name not in OPERATORS:
        raise Untranslated(f"the operation {name}")
    outputs = OPERATORS[name](graph, inputs, equation)
    return outputs if isinstance(outputs, list) else [outputs]


def _folded(equation: Any, inputs: Sequence[Tensor]) -> list[Tensor] | None:
    """The outputs of an operation on constants, computed here; None for others, and for repetition, which is not written."""
    shapes = [variable.aval.shape for variable in (*equation.invars, *equation.outvars)]
    static = all(isinstance(size, int) for shape in shapes for size in shape)
    if not static or equation.primitive.name == "broadcast_in_dim" or any(tensor.array is None for tensor in inputs):
        return None
    arrays = [
        np.broadcast_to(np.asarray(tensor.array), variable.aval.shape)
        for tensor, variable in zip(inputs, equation.invars, strict=True)
    ]
    found = equation.primitive.bind(*map(jnp.asarray, arrays), **equation.params)
    return [constant(np.asarray(value)) for value in (found if equation.primitive.multiple_results else [found])]
