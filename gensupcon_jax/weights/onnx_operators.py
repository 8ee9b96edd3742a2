"""What the operations of jax are in ONNX: a table from the name of a primitive to the function that writes it."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx

from gensupcon_jax.weights.onnx_graph import Graph, Order, Size, Tensor, Untranslated, constant, product, same_shape

# A writer gets the graph, the inputs, the equation's parameters and its input and output types.
Writer = Callable[[Graph, Sequence[Tensor], Any], Tensor]

_MOST = 2**63 - 1  # "to the end" of an axis


def _elementwise(graph: Graph, operator: str, tensors: Sequence[Tensor], **attributes: Any) -> Tensor:
    """An operator on corresponding elements: the result has the order of the first tensor that is no constant."""
    rank = max(len(tensor.shape) for tensor in tensors)
    orders = [tensor.order for tensor in tensors if tensor.array is None and len(tensor.shape) == rank]
    order = orders[0] if orders else tuple(range(rank))
    names = [graph.name_of(tensor, order if tensor.shape else ()) for tensor in tensors]
    shapes = [tensor.shape for tensor in tensors if tensor.shape]
    shape = tuple(_common(sizes) for sizes in zip(*shapes, strict=True))
    return Tensor(graph.emit(operator, names, **attributes), None, order, shape)


def _common(sizes: Sequence[Size]) -> Size:
    return next((size for size in sizes if str(size) != "1"), 1)


def _same(operator: str) -> Writer:
    """The operator of ONNX on the same inputs."""
    return lambda graph, inputs, equation: _elementwise(graph, operator, inputs)


def _chain(*operators: str) -> Writer:
    """Operators of one input, one after the other."""

    def write(graph, inputs, equation):
        (tensor,) = inputs
        for operator in operators:
            tensor = _elementwise(graph, operator, [tensor])
        return tensor

    return write


def _with_constant(operator: str, value: float | int, *, first: bool = False) -> Writer:
    """An operator of the input and a number of its type."""

    def write(graph, inputs, equation):
        number = constant(np.asarray(value, equation.invars[0].aval.dtype))
        return _elementwise(graph, operator, [number, *inputs] if first else [*inputs, number])

    return write


def _identity(graph: Graph, inputs: Sequence[Tensor], equation: Any) -> Tensor:
    return inputs[0]


def _is_all(tensor: Tensor, value: float | int) -> bool:
    return tensor.array is not None and bool((tensor.array == value).all())


def _subtract(graph: Graph, inputs: Sequence[Tensor], equation: Any) -> Tensor:
    """Of a constant: its negative is added, which runtimes fuse with a convolution before it."""
    tensor, other = inputs
    if other.array is not None and np.issubdtype(other.array.dtype, np.floating):
        return _elementwise(graph, "Add", [tensor, constant(-other.array)])
    return _elementwise(graph, "Sub", inputs)


def _maximum(graph: Graph, inputs: Sequence[Tensor], equation: Any) -> Tensor:
    for tensor, other in (inputs, inputs[::-1]):
        if _is_all(other, -np.inf):
            return tensor
        if _is_all(other, 0) and not other.shape:
            return _elementwise(graph, "Relu", [tensor])
    return _elementwise(graph, "Max", inputs)


def _square(graph: Graph, inputs: Sequence[Tensor], equation: Any) -> Tensor:
    return _elementwise(graph, "Mul", [inputs[0], inputs[0]])


def _integer_power(graph: Graph, inputs: Sequence[Tensor], equation: Any) -> Tensor:
    exponent = equation.params["y"]
    if exponent == 2:
        return _square(graph, inputs, equation)
    return _with_constant("Pow", exponent)(graph, inputs, equation)


def _erfc(graph: Graph, inputs: Sequence[Tensor], equation: Any) -> Tensor:
    erf = _elementwise(graph, "Erf", inputs)
    return _with_constant("Sub", 1.0, first=True)(graph, [erf], equation)


def _not_equal(graph: Graph, inputs: Sequence[Tensor], equation: Any) -> Tensor:
    return _elementwise(graph, "Not", [_elementwise(graph, "Equal", inputs)])


def _clamp(graph: Graph, inputs: Sequence[Tensor], equation: Any) -> Tensor:
    low, tensor, high = inputs
    return _elementwise(graph, "Min", [_elementwise(graph, "Max", [tensor, low]), high])


def _select(graph: Graph, inputs: Sequence[Tensor], equation: Any) -> Tensor:
    which, *cases = inputs
    if len(cases) != 2 or equation.invars[0].aval.dtype != np.bool_:
        raise Untranslated("a choice among more than two values")
    return _elementwise(graph, "Where", [which, cases[1], cases[0]])


def _cast(graph: Graph, inputs: Sequence[Tensor], equation: Any) -> Tensor:
    dtype = np.dtype(equation.params["new_dtype"])
    if dtype == equation.invars[0].aval.dtype:
        return inputs[0]
    return _elementwise(graph, "Cast", inputs, to=onnx.helper.np_dtype_to_tensor_dtype(dtype))


def _transpose(graph: Graph, inputs: Sequence[Tensor], equation: Any) -> Tensor:
    """Nothing is written: only the order changes."""
    (tensor,), permutation = inputs, tuple(int(axis) for axis in equation.params["permutation"])
    return _permuted(tensor, permutation)


def _permuted(tensor: Tensor, permutation: Order) -> Tensor:
    shape = tuple(tensor.shape[axis] for axis in permutation)
    if tensor.array is not None:
        return constant(tensor.array.transpose(permutation))
    return Tensor(tensor.name, None, tuple(permutation.index(axis) for axis in tensor.order), shape)


def _broadcast(graph: Graph, inputs: Sequence[Tensor], equation: Any) -> Tensor:
    """Only the new axes are written, with size 1; the repetition follows where an operator needs it."""
    if len(inputs) > 1:
        raise Untranslated("a shape that is computed")
    (tensor,), places = inputs, [int(axis) for axis in equation.params["broadcast_dimensions"]]
    rank = len(equation.params["shape"])
    shape = [1] * rank
    for axis, size in zip(places, tensor.shape, strict=True):
        shape[axis] = size
    if tensor.array is not None:
        return constant(tensor.array.reshape(shape))
    if len(places) == rank:
        return tensor
    new = [axis for axis in range(rank) if axis not in places]
    name = graph.emit("Unsqueeze", [graph.name_of(tensor), graph.integers(*new)])
    return Tensor(name, None, tuple(range(rank)), tuple(shape))


def _reshape(graph: Graph, inputs: Sequence[Tensor], equation: Any) -> Tensor:
    if equation.params["dimensions"] is not None:
        raise Untranslated("a reshape in another order of the axes")
    before, shape = equation.invars[0].aval.shape, tuple(equation.params["new_sizes"])
    if same_shape(before, shape):
        return inputs[0]
    name = graph.reshaped(graph.full(inputs[0], before), shape)
    return Tensor(name, None, tuple(range(len(shape))), shape)


def _without(tensor: Tensor, axes: Sequence[int], name: str) -> Tensor:
    """The tensor called name that has lost these axes of the program."""
    kept = [axis for axis in range(len(tensor.shape)) if axis not in axes]
    order = tuple(kept.index(axis) for axis in tensor.order if axis in kept)
    return Tensor(name, None, order, tuple(tensor.shape[axis] for axis in kept))


def _squeeze(graph: Graph, inputs: Sequence[Tensor], equation: Any) -> Tensor:
    return _squeezed(graph, inputs[0], [int(axis) for axis in equation.params["dimensions"]])


def _squeezed(graph: Graph, tensor: Tensor, axes: Sequence[int]) -> Tensor:
    if not axes:
        return tensor
    stored = graph.integers(*(tensor.stored_at(axis) for axis in axes))
    return _without(tensor, axes, graph.emit("Squeeze", [graph.name_of(tensor, tensor.order), stored]))


def _reduce(operator: str) -> Writer:
    def write(graph, inputs, equation):
        axes = [int(axis) for axis in equation.params["axes"]]
        tensor = graph.repeated(inputs[0], equation.invars[0].aval.shape)
        stored = [tensor.stored_at(axis) for axis in axes]
        if operator == "ReduceSum":  # the only one whose axes are an input in this version of the operators
            name = graph.emit(operator, [tensor.name, graph.integers(*stored)], keepdims=0)
        else:
            name = graph.emit(operator, [tensor.name], axes=stored, keepdims=0)
        return _without(tensor, axes, name)

    return write


def _concatenate(graph: Graph, inputs: Sequence[Tensor], equation: Any) -> Tensor:
    names = [graph.full(tensor, given.aval.shape) for tensor, given in zip(inputs, equation.invars, strict=True)]
    shape = equation.outvars[0].aval.shape
    name = graph.emit("Concat", names, axis=equation.params["dimension"])
    return Tensor(name, None, tuple(range(len(shape))), shape)


def _sliced(graph: Graph, tensor: Tensor, parts: dict[int, tuple[Any, Any, Any]]) -> Tensor:
    """The tensor with axis: (start, stop, step) cut."""
    if not parts:
        return tensor
    shape = list(tensor.shape)
    for axis, (start, stop, step) in parts.items():
        shape[axis] = len(range(int(start), int(stop), int(step)))
    columns = [graph.integers(*column) for column in zip(*parts.values(), strict=True)]
    axes = graph.integers(*(tensor.stored_at(axis) for axis in parts))
    name = graph.emit("Slice", [graph.name_of(tensor, tensor.order), columns[0], columns[1], axes, columns[2]])
    return Tensor(name, None, tensor.order, tuple(shape))


def _slice(graph: Graph, inputs: Sequence[Tensor], equation: Any) -> Tensor:
    sizes = equation.invars[0].aval.shape
    params = equation.params
    steps = params["strides"] or (1,) * len(sizes)
    bounds = zip(params["start_indices"], params["limit_indices"], steps, strict=True)
    cut = {axis: part for axis, part in enumerate(bounds) if str(part) != str((0, sizes[axis], 1))}
    if not all(isinstance(value, int) for part in cut.values() for value in part):
        raise Untranslated("a slice of the batch")
    return _sliced(graph, graph.repeated(inputs[0], sizes), cut)


def _split(graph: Graph, inputs: Sequence[Tensor], equation: Any) -> list[Tensor]:
    axis, sizes = equation.params["axis"], equation.params["sizes"]
    tensor = graph.repeated(inputs[0], equation.invars[0].aval.shape)
    stops = np.cumsum(sizes).tolist()
    return [_sliced(graph, tensor, {axis: (stop - size, stop, 1)}) for size, stop in zip(sizes, stops, strict=True)]


def _gather(graph: Graph, inputs: Sequence[Tensor], equation: Any) -> Tensor:
    """Indexing with constants: x[:, 0], x[:, 1:], x[:, ::2, ::2], x[:, [2, 0], 1:]."""
    tensor, indices = graph.repeated(inputs[0], equation.invars[0].aval.shape), inputs[1].array
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    axes, dropped = [*map(int, numbers.start_index_map)], [*map(int, numbers.collapsed_slice_dims)]
    whole = all(str(sizes[axis]) == str(tensor.shape[axis]) for axis in range(len(sizes)) if axis not in axes)
    if indices is None or not whole or not set(dropped) <= set(axes) or numbers.operand_batching_dims:
        raise Untranslated("indexing of this kind (gather)")
    cut = {}
    for number, axis in enumerate(axes):
        starts = indices[..., number]
        if axis not in dropped or indices.ndim == 1:
            if (starts != starts.flat[0]).any():
                raise Untranslated("indexing of this kind (gather)")
            cut[axis] = (int(starts.flat[0]), int(starts.flat[0]) + sizes[axis], 1)
    tensor = _sliced(graph, tensor, cut)
    if indices.ndim == 1:  # one position
        return _squeezed(graph, tensor, dropped)
    indexed = [axis for axis in axes if axis in dropped]
    for axis, chosen in zip(indexed, _by_axis(indices[..., [axes.index(axis) for axis in indexed]]), strict=True):
        tensor = _taken(graph, tensor, axis, chosen)
    others, taken = iter([axis for axis in range(len(sizes)) if axis not in dropped]), iter(indexed)
    places = range(len(sizes))
    return _permuted(tensor, tuple(next(others if place in numbers.offset_dims else taken) for place in places))


def _by_axis(indices: np.ndarray) -> list[np.ndarray]:
    """Indices [size 1, ..., size n, n] of a grid -> the indices along each of its n axes."""
    vectors = []
    for number in range(indices.shape[-1]):
        along = np.moveaxis(indices[..., number], number, 0) if indices.ndim == indices.shape[-1] + 1 else None
        if along is None or (along != along.reshape(len(along), -1)[:, 0].reshape(-1, *[1] * (along.ndim - 1))).any():
            raise Untranslated("indexing with positions that are no grid: gather")
        vectors.append(along.reshape(len(along), -1)[:, 0])
    return vectors


def _taken(graph: Graph, tensor: Tensor, axis: int, indices: np.ndarray) -> Tensor:
    """The tensor at these indices of an axis: a slice where they are equally spaced."""
    first, last = int(indices[0]), int(indices[-1])
    step = int(indices[1]) - first if len(indices) > 1 else 1
    if step > 0 and indices.tolist() == list(range(first, last + 1, step)):
        return _sliced(graph, tensor, {axis: (first, last + 1, step)})
    stored = tensor.stored_at(axis)
    name = graph.emit("Gather", [tensor.name, graph.integers(*indices.tolist())], axis=stored)
    shape = (*tensor.shape[:axis], len(indices), *tensor.shape[axis + 1 :])
    return Tensor(name, None, tensor.order, shape)


def _dynamic_slice(graph: Graph, inputs: Sequence[Tensor], equation: Any) -> Tensor:
    tensor, *starts = inputs
    if any(start.array is None for start in starts):
        raise Untranslated("a slice at a computed position: dynamic_slice")
    sizes = equation.invars[0].aval.shape
    tensor = graph.repeated(tensor, sizes)
    cut = {}
    for axis, (start, size) in enumerate(zip(starts, equation.params["slice_sizes"], strict=True)):
        if str(size) != str(sizes[axis]):
            first = min(max(int(np.asarray(start.array)), 0), sizes[axis] - size)
            cut[axis] = (first, first + size, 1)
    return _sliced(graph, tensor, cut)


def _reverse(graph: Graph, inputs: Sequence[Tensor], equation: Any) -> Tensor:
    tensor = graph.repeated(inputs[0], equation.invars[0].aval.shape)
    axes = equation.params["dimensions"]
    ones = [graph.integers(*[value] * len(axes)) for value in (-1, -_MOST)]
    stored = graph.integers(*(tensor.stored_at(axis) for axis in axes))
    return tensor._replace(name=graph.emit("Slice", [tensor.name, *ones, stored, graph.integers(*[-1] * len(axes))]))


def _pad(graph: Graph, inputs: Sequence[Tensor], equation: Any) -> Tensor:
    value, config = inputs[1], equation.params["padding_config"]
    if any(low < 0 or high < 0 or between for low, high, between in config):
        raise Untranslated("padding that cuts or spreads")
    tensor = graph.repeated(inputs[0], equation.invars[0].aval.shape)
    stored = [config[axis] for axis in tensor.order]
    pads = graph.integers(*(low for low, _, _ in stored), *(high for _, high, _ in stored))
    name = graph.emit("Pad", [tensor.name, pads, graph.name_of(value)])
    return Tensor(name, None, tensor.order, tuple(equation.outvars[0].aval.shape))


def _convolution(graph: Graph, inputs: Sequence[Tensor], equation: Any) -> Tensor:
    params, (images, kernel) = equation.params, inputs
    numbers = params["dimension_numbers"]
    if any(factor != 1 for factor in params["lhs_dilation"]) or params["batch_group_count"] != 1:
        raise Untranslated("a transposed convolution")
    pads = [low for low, _ in params["padding"]] + [high for _, high in params["padding"]]
    if min(pads) < 0:
        raise Untranslated("a convolution with negative padding")
    name = graph.emit(
        "Conv",
        [
            graph.full(images, equation.invars[0].aval.shape, numbers.lhs_spec),
            graph.full(kernel, equation.invars[1].aval.shape, numbers.rhs_spec),
        ],
        strides=list(params["window_strides"]),
        pads=pads,
        dilations=list(params["rhs_dilation"]),
        group=params["feature_group_count"],
        kernel_shape=[equation.invars[1].aval.shape[axis] for axis in numbers.rhs_spec[2:]],
    )
    return Tensor(name, None, tuple(numbers.out_spec), tuple(equation.outvars[0].aval.shape))


def _pool(operator: str) -> Writer:
    def write(graph, inputs, equation):
        params = equation.params
        windows = list(zip(params["window_dimensions"], params["window_strides"], params["padding"], strict=True))
        pooled = [axis for axis, window in enumerate(windows) if window != (1, 1, (0, 0))]
        others = [axis for axis in range(len(windows)) if axis not in pooled]
        dilated = operator == "AveragePool" and any(factor != 1 for factor in params["window_dilation"])
        if len(others) != 2 or dilated or any(factor != 1 for factor in params["base_dilation"]):
            raise Untranslated("pooling over these axes")
        order = inputs[0].order
        if set(order[:2]) != set(others):
            order = (others[0], others[1], *pooled)
        sides = [windows[axis] for axis in order[2:]]
        attributes: dict[str, Any] = {
            "kernel_shape": [size for size, _, _ in sides],
            "strides": [step for _, step, _ in sides],
            "pads": [low for _, _, (low, _) in sides] + [high for _, _, (_, high) in sides],
        }
        if operator == "MaxPool":
            attributes["dilations"] = [params["window_dilation"][axis] for axis in order[2:]]
        else:
            attributes["count_include_pad"] = 1
        name = graph.emit(operator, [graph.full(inputs[0], equation.invars[0].aval.shape, order)], **attributes)
        shape = tuple(equation.outvars[0].aval.shape)
        return Tensor(name, None, order, shape)

    return write


def _sum_pool(graph: Graph, inputs: Sequence[Tensor], equation: Any) -> Tensor:
    mean = _pool("AveragePool")(graph, inputs, equation)
    size = float(np.prod(equation.params["window_dimensions"]))
    return _with_constant("Mul", size)(graph, [mean], equation)


def _product(graph: Graph, inputs: Sequence[Tensor], equation: Any) -> Tensor:
    """A sum of products over some axes: a convolution where channels come first, else a matrix product."""
    (summed, _), (batched, _) = equation.params["dimension_numbers"]
    shapes = [given.aval.shape for given in equation.invars]
    tensors = [graph.repeated(tensor, shape) for tensor, shape in zip(inputs, shapes, strict=True)]
    out = tuple(equation.outvars[0].aval.shape)
    last = len(shapes[0]) - 1
    of_matrix = len(shapes[1]) == 2 and len(summed) == 1 and not batched
    if of_matrix and last == 3 and tuple(summed) == (3,) and tensors[0].order[1] == 3:
        return _pointwise(graph, tensors, equation, out)
    sides = [
        _matrix(graph, tensor, shape, [*map(int, axes)], [*map(int, shared)], left=number == 0)
        for number, (tensor, shape, axes, shared) in enumerate(
            zip(tensors, shapes, *equation.params["dimension_numbers"], strict=True)
        )
    ]
    name = graph.emit("MatMul", sides)
    sizes = [len(shape) - len(axes) - len(batched) for shape, axes in zip(shapes, (summed, summed), strict=True)]
    if sizes != [1, 1] and not (not batched and sizes[1] == 1 and len(summed) == 1):
        name = graph.reshaped(name, out)
    return Tensor(name, None, tuple(range(len(out))), out)


def _pointwise(graph: Graph, tensors: Sequence[Tensor], equation: Any, out: tuple[Size, ...]) -> Tensor:
    """Images with channels first times a matrix: a convolution with a kernel of 1 x 1."""
    images, matrix = tensors
    (_, (summed,)), _ = equation.params["dimension_numbers"]
    order = (1 - summed, summed)  # [new channel, channel]
    if matrix.array is None:
        kernel = graph.emit("Unsqueeze", [graph.name_of(matrix, order), graph.integers(2, 3)])
    else:
        kernel = graph.initializer(matrix.array.transpose(order)[:, :, None, None])
    name = graph.emit("Conv", [images.name, kernel], kernel_shape=[1, 1])
    return Tensor(name, None, images.order, out)


def _matrix(
    graph: Graph, tensor: Tensor, shape: Sequence[Size], summed: list[int], batched: list[int], *, left: bool
) -> str:
    """One side of a product as [batch axes, rows, columns], where the summed axes are the columns (left) or the rows."""
    free = [axis for axis in range(len(shape)) if axis not in summed and axis not in batched]
    groups = (free, summed) if left else (summed, free)
    name = graph.name_of(tensor, (*batched, *groups[0], *groups[1]))
    plain = not batched and len(summed) == 1 and (left or len(free) == 1)
    if plain or all(len(group) == 1 for group in groups):
        return name
    sizes = [product([shape[axis] for axis in group]) for group in groups]
    return graph.reshaped(name, [*(shape[axis] for axis in batched), *sizes])


# Name of jax's primitive -> what it is in ONNX.
OPERATORS: dict[str, Callable[..., Tensor | list[Tensor]]] = {
    **{
        name: _same(name.capitalize())
        for name in ("add", "mul", "div", "pow", "min", "exp", "log", "sin", "cos", "tanh")
    },
    **{
        name: _same(name.capitalize())
        for name in ("neg", "abs", "sign", "sqrt", "floor", "ceil", "erf", "round", "and", "or", "not")
    },
    "lt": _same("Less"),
    "gt": _same("Greater"),
    "eq": _same("Equal"),
    "ne": _not_equal,
    "le": _same("LessOrEqual"),
    "ge": _same("GreaterOrEqual"),
    "logistic": _same("Sigmoid"),
    "sub": _subtract,
    "max": _maximum,
    "rsqrt": _chain("Sqrt", "Reciprocal"),
    "square": _square,
    "integer_pow": _integer_power,
    "exp2": _with_constant("Pow", 2.0, first=True),
    "erfc": _erfc,
    "log1p": lambda graph, inputs, equation: _chain("Log")(
        graph, [_with_constant("Add", 1.0)(graph, inputs, equation)], equation
    ),
    "expm1": lambda graph, inputs, equation: _with_constant("Sub", 1.0)(
        graph, [_chain("Exp")(graph, inputs, equation)], equation
    ),
    "clamp": _clamp,
    "select_n": _select,
    "convert_element_type": _cast,
    **dict.fromkeys(("copy", "stop_gradient", "optimization_barrier", "sharding_constraint"), _identity),
    "transpose": _transpose,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "squeeze": _squeeze,
    "reduce_sum": _reduce("ReduceSum"),
    "reduce_max": _reduce("ReduceMax"),
    "reduce_min": _reduce("ReduceMin"),
    "reduce_prod": _reduce("ReduceProd"),
    "concatenate": _concatenate,
    "slice": _slice,
    "split": _split,
    "dynamic_slice": _dynamic_slice,
    "gather": _gather,
    "rev": _reverse,
    "pad": _pad,
    "conv_general_dilated": _convolution,
    "dot_general": _product,
    "reduce_window_max": _pool("MaxPool"),
    "reduce_window_sum": _sum_pool,
}
