"""A graph of ONNX under construction: nodes, constants, and tensors whose axes are permuted and repeated only when needed."""

import hashlib
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx

Size = Any  # of an axis: int, or jax's symbol of the batch
Order = tuple[int, ...]


class Untranslated(Exception):  # noqa: N818  (a program that has no translation)
    """A program of jax that cannot be written as ONNX; the message says which part."""


class Tensor(NamedTuple):
    """A value of the program, stored in ONNX with its axes in another order and without repetitions.

    name: in the graph; "" for constants, which are in `array`.  order: stored axis i is axis order[i] of the program.
    shape: by axis of the program; 1 where the value is the same along an axis that the program repeats.
    """

    name: str
    array: np.ndarray | None
    order: Order
    shape: tuple[Size, ...]

    def stored_at(self, axis: int) -> int:
        """The stored axis of an axis of the program."""
        return self.order.index(axis)


def constant(array: Any) -> Tensor:
    """The tensor of a constant array or number."""
    return Tensor("", np.asarray(array), tuple(range(np.ndim(array))), np.shape(array))


class Graph:
    """The nodes and constants of a graph; its methods add what is needed and return names or tensors.

    Convolutions of ONNX have the channels first, those of the program mostly last. As a tensor knows its order, a transposition
    costs nothing until an operator needs another order: between convolutions there are none.
    """

    def __init__(self, input_name: str):
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._input_name = input_name
        self._constants: dict[str, str] = {}
        self._batch_name = ""

    def emit(self, operator: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add a node with one output; returns the name of the output."""
        name = f"{operator}_{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def initializer(self, array: np.ndarray) -> str:
        """The name of a constant; equal ones are stored once."""
        array = np.ascontiguousarray(array).reshape(np.shape(array))  # the first makes a scalar a vector
        key = f"{array.shape} {array.dtype} {hashlib.sha256(array.tobytes()).hexdigest()}"
        if key not in self._constants:
            self._constants[key] = f"constant_{len(self._constants)}"
            self.initializers.append(onnx.numpy_helper.from_array(array, self._constants[key]))
        return self._constants[key]

    def integers(self, *values: int | np.integer) -> str:
        """The name of a vector of int64, as shapes and axes are."""
        return self.initializer(np.array(values, np.int64))

    def name_of(self, tensor: Tensor, order: Order | None = None) -> str:
        """The name of a tensor with its axes stored in this order; None: that of the program."""
        order = tuple(range(len(tensor.order))) if order is None else tuple(order)
        if tensor.array is not None:
            return self.initializer(tensor.array.transpose(order))
        if order == tensor.order:
            return tensor.name
        return self.emit("Transpose", [tensor.name], perm=[tensor.stored_at(axis) for axis in order])

    def full(self, tensor: Tensor, shape: Sequence[Size], order: Order | None = None) -> str:
        """The name of a tensor with all its repetitions."""
        order = tuple(range(len(shape))) if order is None else tuple(order)
        name = self.name_of(tensor, order)
        if same_shape(tensor.shape, shape):
            return name
        return self.emit("Expand", [name, self.sizes([shape[axis] for axis in order])])

    def repeated(self, tensor: Tensor, shape: Sequence[Size]) -> Tensor:
        """The tensor with all its repetitions, in the order that it has."""
        if same_shape(tensor.shape, shape):
            return tensor
        return Tensor(self.full(tensor, shape, tensor.order), None, tensor.order, tuple(shape))

    def sizes(self, shape: Sequence[Size]) -> str:
        """The name of a vector of sizes, with that of the batch taken from the input."""
        if all(isinstance(size, int) for size in shape):
            return self.integers(*shape)
        parts = [self.integers(size) if isinstance(size, int) else self._batch(size) for size in shape]
        return self.emit("Concat", parts, axis=0)

    def reshaped(self, name: str, shape: Sequence[Size]) -> str:
        """The name of a tensor in another shape."""
        if sum(not isinstance(size, int) for size in shape) > 1:
            raise Untranslated(f"a shape {tuple(shape)} with two sizes that depend on the batch")
        return self.emit("Reshape", [name, self.integers(*(size if isinstance(size, int) else -1 for size in shape))])

    def _batch(self, size: Size) -> str:
        if not str(size).isidentifier():
            raise Untranslated(f"an axis of size {size}")
        if not self._batch_name:
            shape = self.emit("Shape", [self._input_name])
            self._batch_name = self.emit("Slice", [shape, self.integers(0), self.integers(1)])
        return self._batch_name


def same_shape(first: Sequence[Size], second: Sequence[Size]) -> bool:
    """Whether all sizes are equal."""
    return len(first) == len(second) and all(str(one) == str(other) for one, other in zip(first, second, strict=True))


def product(sizes: Sequence[Size]) -> Size:
    """The number of elements; with the symbol of the batch it stays a symbol."""
    return math.prod(sizes)
