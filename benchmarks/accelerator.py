"""What one GPU does with this package, in one command: whether its numbers are right, speed, memory, and methods compared.

    python -m benchmarks.accelerator --arrays fashion_mnist.npz         everything, in at most 8 minutes
    python -m benchmarks.accelerator --only step torch --minutes 5      some parts
    python -m benchmarks.accelerator --skip evidence
    python -m benchmarks.accelerator --write-arrays fashion_mnist.npz   where TensorFlow is: the images, for a machine without it
    python -m benchmarks.accelerator --tiny                             all of it in small, on any CPU, within 2 minutes

Each part is a process of its own with a share of the time: what it does not use goes to the parts after it, and a part that fails
or is killed loses nothing of the others. Every figure is appended to lines.jsonl in --output as soon as it is measured; table.md
holds the newest of each. A second call measures again, but not the finished runs of the part `evidence`, and compiles little.
TensorFlow is not needed. docs/accelerator.md explains the figures.
"""

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
LINES, TABLE, PROGRAMS = "lines.jsonl", "table.md", "programs"
MACHINE = "machine"
ROUND_SECONDS = 0.2  # of one round of timed calls: far longer than the clock and the start of a kernel
GIB, MIB = 2**30, 2**20
SAID = 3  # the status of a part of which a line says what failed; Python's own is 1


class Sizes(NamedTuple):
    """How large everything is.  model: fields of the networks of the steps; evidence: fields of its runs."""

    matmul: int
    copied_bytes: int
    anchors: tuple[int, ...]
    dense_anchors: int
    num_classes: int
    dim: int
    tiles: tuple[int, ...]
    heads: tuple[int, int]
    five_steps: dict[str, Any]
    steps: tuple[tuple[str, str, dict[str, Any]], ...]
    torch_steps: tuple[tuple[str, int, int], ...]
    embedding: tuple[str, int, int]
    embedding_batches: tuple[int, ...]
    num_files: int
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    evidence: dict[str, Any]


_QUEUE = {"momentum_encoder.queue_size": 65_536}
_CIFAR = {"model.dtype": "bfloat16"}
FULL = Sizes(
    matmul=8192,
    copied_bytes=2 * GIB,
    anchors=(8_192, 65_536),
    dense_anchors=8_192,
    num_classes=1_000,
    dim=128,
    tiles=(256, 1_024, 4_096),
    heads=(512, 2_048),
    five_steps={},
    steps=(
        ("imagenet", "cross_entropy", {"batch_size": 128}),
        ("imagenet", "genscl", {"batch_size": 128, **_QUEUE}),
        ("imagenet", "genscl_teacher", {"batch_size": 128, **_QUEUE}),
        ("imagenet", "supcon", {"batch_size": 128, "loss.mode": "all"}),
        ("cifar10", "cross_entropy", _CIFAR),
        ("cifar10", "genscl", _CIFAR),
        ("cifar10", "genscl_teacher", _CIFAR),
        ("cifar10", "genscl", {**_CIFAR, **_QUEUE, "loss.mode": "momentum"}),
        ("imagenet", "cross_entropy", {"batch_size": 256}),
        ("imagenet", "genscl", {"batch_size": 256, **_QUEUE}),
        ("imagenet", "genscl_teacher", {"batch_size": 256, **_QUEUE}),
        ("imagenet", "supcon", {"batch_size": 256, "loss.mode": "all"}),
    ),
    torch_steps=(("resnet50", 224, 128), ("resnet50", 224, 256)),
    embedding=("resnet50", 224, 2_048),
    embedding_batches=(64, 512),
    num_files=512,
    methods=(),  # all
    seeds=(0, 1, 2),
    evidence={"model.name": "resnet18", "model.width": None, "model.dtype": "bfloat16", "dataset.train_images": 4_000},
)
_SMALL = {"batch_size": 16, "mix.block": 8, "model.name": "resnet_small", "model.width": 4, "model.embedding_dim": 8}
TINY = Sizes(
    matmul=128,
    copied_bytes=MIB,
    anchors=(64, 128),
    dense_anchors=64,
    num_classes=10,
    dim=8,
    tiles=(32, 64),
    heads=(16, 32),
    five_steps=_SMALL,
    steps=(
        ("digits", "", _SMALL | {"momentum_encoder.queue_size": 32, "loss.mode": "momentum"}),
        ("digits", "", _SMALL | {"teacher.kind": "workdir", "teacher.path": "none"}),
    ),
    torch_steps=(("resnet18", 32, 2),),
    embedding=("resnet_small", 8, 64),
    embedding_batches=(32,),
    num_files=4,
    methods=("cross-entropy, mixed", "GenSCL, teacher"),
    seeds=(0,),
    evidence=_SMALL | {"dataset.train_images": 64, "teacher.allow_poor": True, "evaluate.probe_penalties": (0.1,)},
)


class Options(NamedTuple):
    """What a part is given.  arrays: .npz of images; epochs: of each run of the evidence."""

    sizes: Sizes
    output: Path
    arrays: str
    epochs: float


class Task(NamedTuple):
    """One line of the results: what is measured, and the function that gives the values."""

    what: str
    measure_fn: Callable[[], dict[str, Any]]


class Part(NamedTuple):
    """A process of its own.  share: of the time.  tasks_fn(options) -> its tasks, most useful first."""

    share: float
    tasks_fn: Callable[[Options], Iterator[Task]]


# ---- the lines


def append(output: Path, line: dict[str, Any]) -> None:
    """Keep a line, and print it."""
    output.mkdir(parents=True, exist_ok=True)
    with (output / LINES).open("a") as file:
        file.write(json.dumps(line) + "\n")
    values = ", ".join(f"{name} {shown(value)}" for name, value in line.items() if name not in ("part", "what", "at"))
    print(f"{line['part']}: {line['what']}: {values}", flush=True)


def read_lines(output: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The newest line of each measurement, in the order in which they were first measured."""
    file = output / LINES
    lines = [json.loads(text) for text in file.read_text().splitlines()] if file.exists() else []
    return {(line["part"], line["what"]): line for line in lines}


def shown(value: Any) -> str:
    """A value as people read it: four digits of a number."""
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def table(lines: dict[tuple[str, str], dict[str, Any]]) -> str:
    """A Markdown table for each part; the machine, which is a list of words, before them."""
    about = lines.get(("card", MACHINE), {})
    texts = [f"- {name}: {shown(value)}" for name, value in about.items() if name not in ("part", "what", "at")]
    texts += [""] if texts else []
    for part in dict.fromkeys(part for part, _ in lines):
        rows = {what: line for (of_part, what), line in lines.items() if of_part == part and what != MACHINE}
        columns = list(dict.fromkeys(name for line in rows.values() for name in line))
        columns = [name for name in columns if name not in ("part", "what", "at")]
        texts += [f"## {part}", "", "| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
        for what, line in rows.items():
            cells = [shown(line[name]) if name in line else "" for name in columns]
            texts.append(f"| {what} | " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
        texts.append("")
    return "\n".join(texts)


def ceiling(output: Path, name: str) -> float | None:
    """What this card reached, from the part `card`; None where it has not run."""
    line = read_lines(output).get(("card", name), {})
    return next((line[unit] for unit in ("TFLOP/s", "GB/s") if unit in line), None)


def speed(output: Path, flops: float, seconds: float, of: str = "matrix product, bfloat16") -> dict[str, float]:
    """TFLOP/s, and the share of the ceiling in percent where that is known."""
    found = {"TFLOP/s": flops / seconds / 1e12}
    best = ceiling(output, of)
    return found | ({"% of ceiling": 100 * found["TFLOP/s"] / best} if best else {})


# ---- timing


def seconds_of(call_fn: Callable[[], Any], wait_fn: Callable[[Any], Any]) -> float:
    """Seconds of a call, the median of three rounds of calls that follow one another without a wait; compiled and warm."""
    wait_fn(call_fn())
    started = time.perf_counter()
    wait_fn(call_fn())
    calls = max(1, min(200, round(ROUND_SECONDS / max(time.perf_counter() - started, 1e-6))))
    rounds = []
    for _ in range(3):
        started = time.perf_counter()
        for _ in range(calls):
            result = call_fn()
        wait_fn(result)
        rounds.append((time.perf_counter() - started) / calls)
    return statistics.median(rounds)


def seconds_of_program(program: Callable, *arguments: Any) -> float:
    """The same for a compiled function of jax."""
    import jax

    return seconds_of(lambda: program(*arguments), jax.block_until_ready)


def peak_mib(program: Any) -> float:
    """Arguments, results and temporary memory of a compiled program, by XLA's own account."""
    found = program.memory_analysis()
    kept = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    return (kept + found.temp_size_in_bytes) / MIB


def random_normal(*shape: int, dtype: Any = np.float32) -> Any:
    """An array on the device: a product of zeros would be faster than one of data."""
    import jax

    return jax.jit(lambda: jax.random.normal(jax.random.key(len(shape)), shape, dtype))()


# ---- the card: what it is, and what it can do at most


def card_tasks(options: Options) -> Iterator[Task]:
    """Versions; the matrix product in three precisions; a copy."""
    import jax
    import jax.numpy as jnp

    side, copied = options.sizes.matmul, options.sizes.copied_bytes
    yield Task(MACHINE, machine)

    def product(dtype: Any, precision: str) -> dict[str, float]:
        left, right = random_normal(side, side, dtype=dtype), random_normal(side, side, dtype=dtype)
        program = jax.jit(lambda a, b: jnp.matmul(a, b, precision=precision)).lower(left, right).compile()
        seconds = seconds_of_program(program, left, right)
        return {"seconds": seconds, "TFLOP/s": 2.0 * side**3 / seconds / 1e12}

    yield Task("matrix product, bfloat16", lambda: product(jnp.bfloat16, "default"))
    yield Task("matrix product, float32", lambda: product(jnp.float32, "highest"))
    yield Task("matrix product, float32 as jax does it by default", lambda: product(jnp.float32, "default"))

    def copy() -> dict[str, float]:
        array = random_normal(copied // 4)
        seconds = seconds_of_program(jax.jit(lambda values: values + 1.0).lower(array).compile(), array)
        return {"seconds": seconds, "GB/s": 2 * array.nbytes / seconds / 1e9}

    yield Task("copy, read and written", copy)


def machine() -> dict[str, Any]:
    """The card, its driver, the versions, the commit."""
    import importlib.metadata

    import jax

    device = jax.devices()[0]
    found = {"device": device.device_kind, "devices": jax.device_count(), "CPUs": os.cpu_count()}
    driver = said_by("nvidia-smi", "--query-gpu=driver_version,memory.total,power.limit", "--format=csv,noheader")
    found |= {"driver, memory, power limit": driver} if driver else {}
    found |= {
        "python": sys.version.split()[0],
        "commit": said_by("git", "describe", "--always", "--dirty") or "unknown",
    }
    for name in ("jax", "jaxlib", "jax-cuda12-plugin", "jax-cuda13-plugin", "flax", "optax", "numpy", "torch"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found | {"XLA_FLAGS": os.environ.get("XLA_FLAGS", "")}


def said_by(*command: str) -> str:
    """What a command prints, in one line; empty where it is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return " / ".join(done.stdout.split("\n")).strip(" /") if done.returncode == 0 else ""


# ---- its numbers


def verdict(difference: float, allowed: float) -> dict[str, Any]:
    """A difference, what is allowed, and whether it is within that; NaN is not."""
    return {"difference": float(difference), "allowed": allowed, "passed": bool(difference <= allowed)}


def number_tasks(options: Options) -> Iterator[Task]:
    """The authors' losses and gradients; heads; five steps against the CPU's; two equal runs."""
    with np.load(ROOT / "tests/data/authors_loss.npz") as file:
        golden = dict(file)
    for form in ("dense", "factored"):
        yield Task(f"{form} loss, authors' values", functools.partial(golden_difference, golden, form, False))
        yield Task(f"{form} loss, authors' gradients", functools.partial(golden_difference, golden, form, True))
    yield Task("head against float64", functools.partial(head_difference, *options.sizes.heads))
    five = FiveSteps(options.sizes.five_steps)

    def against_cpu(precision: str | None) -> float:
        on_cpu, here = five.taken("cpu", "highest").losses, five.taken(None, precision).losses
        return max(abs(there - value) / abs(there) for there, value in zip(on_cpu, here, strict=True))

    yield Task("losses of five steps against the CPU's, float32", lambda: verdict(against_cpu("highest"), 1e-3))
    yield Task("the same as jax computes by default", lambda: {"difference": against_cpu(None)})

    def repeated() -> dict[str, Any]:
        first, second = five.taken(None, None), five.taken(None, None)
        pairs = zip(first.parameters, second.parameters, strict=True)
        return verdict(max(float(np.abs(a - b).max(initial=0.0)) for a, b in pairs), 0.0)

    yield Task("parameters after five steps, twice", repeated)


def golden_difference(golden: dict[str, np.ndarray], form: str, of_gradients: bool) -> dict[str, Any]:
    """The largest relative difference from the authors' code over all cases; of a gradient, relative to its largest entry."""
    import jax

    differences = []
    for case in range(int(golden["num_cases"])):
        names = ("query", "key", "query_labels", "key_labels", "temperature", "base_temperature")
        values = {name: golden[f"case{case}_{name}"] for name in names}
        is_one = str(golden[f"case{case}_mode"]) == "one"
        function = functools.partial(authors_mean, form, is_one)
        labels = (values["query_labels"], values["key_labels"], values["temperature"], values["base_temperature"])
        loss, gradients = jax.jit(jax.value_and_grad(function, argnums=(0, 1)))(values["query"], values["key"], *labels)
        if not of_gradients:
            differences.append(abs(float(loss) / float(golden[f"case{case}_loss"]) - 1))
            continue
        for name, gradient in zip(("query", "key"), gradients, strict=True):
            expected = golden[f"case{case}_{name}_grad"]
            largest = max(float(np.abs(expected).max()), 1e-30)
            differences.append(float(np.abs(np.asarray(gradient) - expected).max()) / largest)
    return verdict(max(differences), 1e-5)


def authors_mean(form: str, is_one: bool, query, key, query_labels, key_labels, temperature, base_temperature) -> Any:
    """The authors' mean over all anchors: of the queries alone, or of queries and keys together."""
    import jax.numpy as jnp

    from gensupcon_jax import losses

    anchors, labels, contrasts, contrast_labels = query, query_labels, key, key_labels
    if not is_one:
        anchors, labels = jnp.concatenate([query, key]), jnp.concatenate([query_labels, key_labels])
        contrasts = contrast_labels = None
    if form == "factored":
        temperatures = {"temperature": temperature, "base_temperature": base_temperature}
        loss = losses.generalized_contrastive_loss(anchors, labels, contrasts, contrast_labels, **temperatures)
        return loss.loss.mean()
    return losses.dense_contrastive_loss(
        losses.label_similarity(labels, labels if contrasts is None else contrast_labels),
        losses.latent_similarity(anchors, anchors if contrasts is None else contrasts, temperature=temperature),
        contrast_weights=~jnp.eye(len(anchors), dtype=bool) if contrasts is None else None,
        scale=temperature / base_temperature,
    ).loss.mean()


def head_difference(num_images: int, num_features: int) -> dict[str, Any]:
    """The head's output and gradient against numpy in float64: TF32 would be off by 3e-4."""
    import jax

    from gensupcon_jax.models.heads import MlpHead

    head = MlpHead()
    rng = np.random.default_rng(0)
    features = rng.standard_normal((num_images, num_features)).astype(np.float32)
    variables = jax.jit(head.init)(jax.random.key(0), features)
    outputs, backward_fn = jax.vjp(jax.jit(head.apply), variables, features)
    upstream = rng.standard_normal(outputs.shape).astype(np.float32)
    of_variables, of_features = backward_fn(jax.numpy.asarray(upstream))

    hidden, output = (jax.tree.map(np.float64, variables["params"][name]) for name in ("hidden", "output"))
    before = features @ hidden["kernel"] + hidden["bias"]
    after = np.maximum(before, 0.0)
    of_before = (upstream @ output["kernel"].T) * (before > 0)
    expected = {
        "output": after @ output["kernel"] + output["bias"],
        "kernel": features.T.astype(np.float64) @ of_before,
        "features": of_before @ hidden["kernel"].T,
    }
    found = {"output": outputs, "kernel": of_variables["params"]["hidden"]["kernel"], "features": of_features}
    worst = max(float(np.linalg.norm(found[name] - true) / np.linalg.norm(true)) for name, true in expected.items())
    return verdict(worst, 1e-5)


class Taken(NamedTuple):
    """The loss of each step, and all parameters after the last."""

    losses: list[float]
    parameters: list[np.ndarray]


class FiveSteps:
    """Five steps of the recipe `digits` with other fields, on one device; what is compiled is kept."""

    def __init__(self, fields: dict[str, Any]):
        self._fields = fields
        self._runs: dict[Any, Any] = {}

    def taken(self, platform: str | None, precision: str | None) -> Taken:
        """From the first step on.  precision: of products and convolutions that do not state theirs; None: as jax has it."""
        import jax

        from gensupcon_jax.cluster import sharding

        device = jax.devices(platform)[0]
        with jax.default_matmul_precision(precision), jax.default_device(device):
            if (device, precision) not in self._runs:
                self._runs[device, precision] = self._built(device)
            run = self._runs[device, precision]
            state, key = run.initial_state(), sharding.place(run.key("step"), sharding.replicated(run.mesh))
            losses = []
            for batch in run.batches(0, 5):
                state, metrics = run.parts.train_step_fn(state, run.frozen, batch, key)
                losses.append(float(metrics["loss"]))
        return Taken(losses, [np.asarray(leaf) for leaf in jax.tree.leaves(state.params)])

    def _built(self, device: Any) -> Any:
        from gensupcon_jax.configs import digits
        from gensupcon_jax.run.run import build_run

        config = digits.get_config()
        config.update_from_flattened_dict(self._fields)
        return build_run(config, Path("unused"), devices=[device])


# ---- the loss


def loss_tasks(options: Options) -> Iterator[Task]:
    """Value and gradient: factored at each size and tile, dense where it fits, and what dense would need where it does not."""
    import jax

    from benchmarks import loss

    sizes = options.sizes
    classes, dim = sizes.num_classes, sizes.dim

    def factored(num_anchors: int, tile_size: int) -> dict[str, Any]:
        batch = loss.random_batch(num_anchors, classes, dim)
        function = jax.value_and_grad(functools.partial(loss.factored_loss, tile_size=tile_size))
        program = jax.jit(function).lower(*batch).compile()
        seconds = seconds_of_program(program, *batch)
        flops = loss.needed_flops(num_anchors, classes, dim)
        return {
            "seconds": seconds,
            **speed(options.output, flops, seconds, "matrix product, float32"),
            "peak MiB": peak_mib(program),
        }

    def dense(num_anchors: int, is_run: bool) -> dict[str, Any]:
        shapes = jax.eval_shape(functools.partial(loss.random_batch, num_anchors, classes, dim))
        program = jax.jit(jax.value_and_grad(loss.dense_loss)).lower(*shapes).compile()
        if not is_run:
            return {"peak MiB": peak_mib(program)}
        seconds = seconds_of_program(program, *loss.random_batch(num_anchors, classes, dim))
        return {"seconds": seconds, "peak MiB": peak_mib(program)}

    def named(form: str, num_anchors: int) -> str:
        return f"{form}, {num_anchors:,} x {classes:,} x {dim}"

    tile, *others = sizes.tiles
    for num_anchors in sizes.anchors:
        yield Task(f"{named('factored', num_anchors)}, tile {tile}", functools.partial(factored, num_anchors, tile))
    yield Task(named("dense", sizes.dense_anchors), functools.partial(dense, sizes.dense_anchors, True))
    for num_anchors in sizes.anchors:
        for other in others:
            name = f"{named('factored', num_anchors)}, tile {other}"
            yield Task(name, functools.partial(factored, num_anchors, other))
    largest = max(sizes.anchors)
    yield Task(f"{named('dense', largest)}, compiled only", functools.partial(dense, largest, False))


# ---- the training step


def step_tasks(options: Options) -> Iterator[Task]:
    """Images a second of the recipes' steps, on random images that lie on the device."""
    for recipe, variant, fields in options.sizes.steps:
        kinds = [f"batch {fields['batch_size']}"] if "batch_size" in fields else []
        kinds += [f"queue {fields[name]:,}" for name in _QUEUE if name in fields]
        kinds += ["all views"] if fields.get("loss.mode") == "all" else []
        name = ", ".join([f"{recipe}:{variant}".strip(":"), *kinds])
        yield Task(name, functools.partial(step_speed, options.output, recipe, variant, fields))


def step_speed(output: Path, recipe: str, variant: str, fields: dict[str, Any]) -> dict[str, Any]:
    """The step that training jits, on one device: speed, memory, and the hours that the recipe takes at this speed.

    Its FLOPs are counted in the step for a CPU: jax counts them for no GPU.
    """
    import importlib

    import jax

    from gensupcon_jax.cluster import sharding
    from gensupcon_jax.plan.known import data_sizes
    from gensupcon_jax.plan.step import num_train_images, plan_step, with_fields

    config = importlib.import_module(f"gensupcon_jax.configs.{recipe}").get_config(*filter(None, [variant]))
    config = with_fields(config, fields)
    sizes, mesh = data_sizes(config.dataset.name), sharding.make_mesh(jax.devices()[:1])
    planned = plan_step(config, sizes, mesh)
    started = time.perf_counter()
    with ThreadPoolExecutor() as pool:  # beside the longest compilation
        initial_state_fn = jax.jit(planned.initial_state_fn, out_shardings=placements(planned.state))
        drawn_state = pool.submit(initial_state_fn, jax.random.key(0))
        on_cpu = sharding.make_mesh(jax.devices("cpu")[:1])
        counted = pool.submit(lambda: plan_step(config, sizes, on_cpu).lower().cost_analysis()["flops"])
        program = planned.lower().compile()
        compile_seconds = time.perf_counter() - started
        state, flops = drawn_state.result(), counted.result()
    frozen = drawn(planned.frozen)
    batch = drawn(planned.batch)
    key = jax.device_put(jax.random.key(1), sharding.replicated(mesh))
    metrics = {}

    def step() -> Any:
        nonlocal state, metrics
        state, metrics = program(state, frozen, batch, key)
        return state

    seconds = seconds_of(step, jax.block_until_ready)
    if not np.isfinite(float(metrics["loss"])):
        raise ValueError(f"the loss is {metrics['loss']}: the timed steps are not training")
    num_images = num_train_images(config, sizes)
    return {
        "batch": config.batch_size,
        "pixels": planned.view_size,
        "images/s": config.batch_size / seconds,
        "GFLOP/image": flops / config.batch_size / 1e9,
        **speed(output, flops, seconds),
        "peak MiB": peak_mib(program),
        "epochs": config.epochs,
        "hours": config.epochs * num_images * seconds / config.batch_size / 3600,
        "compile seconds": compile_seconds,
    }


def placements(shapes: Any) -> Any:
    """The sharding of each."""
    import jax

    return jax.tree.map(lambda leaf: leaf.sharding, shapes)


def drawn(shapes: Any) -> Any:
    """Arrays of these shapes: pixels; labels, one class each; weights of a network, with BatchNorm as it is initialized."""
    import jax

    rng = np.random.default_rng(0)

    def leaf(path: Any, shape: Any) -> Any:
        name = jax.tree_util.keystr(path)
        if shape.dtype == np.uint8:
            value = rng.integers(0, 256, shape.shape, np.uint8)
        elif name.endswith(".labels"):
            value = np.eye(shape.shape[1])[rng.integers(0, shape.shape[1], shape.shape[0])]
        elif name.endswith(("['scale']", "['var']")):
            value = np.ones(shape.shape)
        elif len(shape.shape) < 2:
            value = np.zeros(shape.shape)
        else:
            value = rng.standard_normal(shape.shape, np.float32) / np.prod(shape.shape[:-1]) ** 0.5
        return jax.device_put(np.asarray(value, shape.dtype), shape.sharding)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


# ---- torch, beside it


def torch_tasks(options: Options) -> Iterator[Task]:
    """The definition of the loss, and torchvision's ResNet in bfloat16, channels last; nothing where torch is not installed."""
    import importlib.util

    missing = [name for name in ("torch", "torchvision") if importlib.util.find_spec(name) is None]
    if "torch" in missing:
        yield Task("torch", lambda: {"not measured": "torch is not installed"})
        return
    sizes = options.sizes
    name = f"dense, {sizes.dense_anchors:,} x {sizes.num_classes:,} x {sizes.dim}"
    yield Task(name, functools.partial(torch_loss, sizes.dense_anchors, sizes.num_classes, sizes.dim))
    for network, pixels, batch in sizes.torch_steps:
        name = f"torchvision {network}, {pixels} px, batch {batch}, cross-entropy"
        if "torchvision" in missing:
            yield Task(name, lambda: {"not measured": "torchvision is not installed"})
        else:
            yield Task(name, functools.partial(torch_step, options.output, network, pixels, batch))


def torch_timed(call_fn: Callable[[], Any]) -> dict[str, float]:
    """Seconds, and the peak of torch's memory on a GPU."""
    import torch

    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds = seconds_of(call_fn, lambda _: torch.cuda.synchronize() if on_gpu else None)
    return {"seconds": seconds} | ({"peak MiB": torch.cuda.max_memory_allocated() / MIB} if on_gpu else {})


def torch_loss(num_anchors: int, num_classes: int, dim: int) -> dict[str, Any]:
    """Value and gradient of the definition in float32, without TF32, on labels like those of `benchmarks.loss`."""
    import torch
    from torch.nn import functional

    torch.backends.cuda.matmul.allow_tf32 = False
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(0)
    drawn_points = torch.randn((num_anchors, dim), generator=generator, device=device)
    points = functional.normalize(drawn_points).requires_grad_()
    labels = torch.softmax(3.0 * torch.randn((num_anchors, num_classes), generator=generator, device=device), 1)

    def once() -> None:
        points.grad = None
        torch_definition(points, labels).backward()

    return torch_timed(once)


def torch_definition(points: Any, labels: Any) -> Any:
    """The loss by its definition: cross-entropy between the cosine of labels and the softmax of all others."""
    import torch
    from torch.nn import functional

    itself = torch.eye(len(points), dtype=torch.bool, device=points.device)
    directions = functional.normalize(labels)
    similarity = (directions @ directions.T).masked_fill(itself, 0.0)
    log_softmax = torch.log_softmax((points @ points.T / 0.1).masked_fill(itself, -torch.inf), 1)
    return -((similarity * log_softmax.masked_fill(itself, 0.0)).sum(1) / similarity.sum(1)).mean()


def torch_step(output: Path, network: str, pixels: int, batch: int) -> dict[str, Any]:
    """Forward, backward and SGD of a supervised step, on images that lie on the device."""
    import torch
    import torchvision
    from torch.nn import functional

    torch.backends.cudnn.benchmark = True
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = getattr(torchvision.models, network)(num_classes=1_000).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    images = torch.randn((batch, 3, pixels, pixels), device=device).to(memory_format=torch.channels_last)
    classes = torch.randint(0, 1_000, (batch,), device=device)

    def once() -> Any:
        with torch.autocast(device, torch.bfloat16):
            loss = functional.cross_entropy(model(images), classes)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss

    found = torch_timed(once)
    return {"batch": batch, "pixels": pixels, "images/s": batch / found.pop("seconds"), **found}


# ---- embedding


def embed_tasks(options: Options) -> Iterator[Task]:
    """Features of images in memory, and of files where what decodes them is installed."""
    from gensupcon_jax.extras import missing_of_tensorflow

    name, pixels, num_images = options.sizes.embedding
    encoder, gigaflops = untrained_encoder(name, pixels)
    images = np.random.default_rng(0).integers(0, 256, (num_images, pixels, pixels, 3), np.uint8)

    def embed(given: Any, number: int, batch_size: int) -> dict[str, Any]:
        seconds = seconds_of(lambda: encoder.embed(given, batch_size=batch_size), lambda features: features)
        rate = number / seconds
        return {"images/s": rate, **speed(options.output, gigaflops * 1e9, 1 / rate)}

    for batch_size in options.sizes.embedding_batches:
        what = f"{name}, {pixels} px, in memory, batch {batch_size}"
        yield Task(what, functools.partial(embed, images, num_images, batch_size))
    missing = missing_of_tensorflow()
    what = f"{name}, JPEG files of 500 x 375"
    if missing:
        yield Task(what, lambda: {"not measured": f"not installed: {', '.join(missing)}"})
        return
    folder = options.output / "photos"

    def files() -> dict[str, Any]:
        from benchmarks.input import write_images

        write_images(folder, options.sizes.num_files)
        return embed(str(folder), options.sizes.num_files, options.sizes.embedding_batches[-1])

    yield Task(what, files)


def untrained_encoder(name: str, pixels: int) -> Any:
    """A bfloat16 encoder of color images as `Encoder.load` makes it, and the GFLOP of an image."""
    import jax
    import jax.numpy as jnp

    from gensupcon_jax.inference.encoder import Encoder
    from gensupcon_jax.inference.settings import Preparation
    from gensupcon_jax.inference.sources import Source
    from gensupcon_jax.models import build_backbone
    from gensupcon_jax.views.augment import normalize

    backbone = build_backbone(name=name, image_size=pixels, dtype="bfloat16", batch_norm="local")
    middle = np.full(3, 0.5, np.float32)
    sample = jnp.zeros((1, pixels, pixels, 3))
    variables = jax.jit(backbone.init, static_argnames="train")(jax.random.key(0), sample, train=False)

    def apply(variables: Any, images: Any) -> Any:
        return backbone.apply(variables, normalize(images, middle, middle / 2), train=False), None

    variable_shapes = jax.eval_shape(lambda: variables)
    shapes = (variable_shapes, jax.ShapeDtypeStruct((1, pixels, pixels, 3), np.uint8))
    num_features = jax.eval_shape(apply, *shapes)[0].shape[-1]
    with jax.default_device(jax.devices("cpu")[0]):  # jax counts FLOPs for no GPU
        gigaflops = jax.jit(apply).lower(*shapes).cost_analysis()["flops"] / 1e9
    preparation = Preparation((pixels, pixels, 3), 0.875, middle, middle / 2)
    return Encoder(Source(name, None, preparation, num_features, False, (), "", variables, apply)), gigaflops


# ---- evidence: the methods beside one another

MIXED = {"mix.kind": "mixup_cutmix", "mix.per": "image"}
# Variant of the recipe, changed fields, and the method whose run is the teacher.
METHODS: dict[str, tuple[str, dict[str, Any], str | None]] = {
    "cross-entropy, mixed": ("cross_entropy", MIXED, None),
    "SupCon": ("supcon", {}, None),
    "GenSCL": ("genscl", MIXED, None),
    "GenSCL, teacher": ("genscl_teacher", MIXED, "cross-entropy, mixed"),
    "cross-entropy": ("cross_entropy", {}, None),
    "SupCon, teacher": ("genscl_teacher", {"mix.kind": "none"}, "cross-entropy, mixed"),
}


def evidence_tasks(options: Options) -> Iterator[Task]:
    """Runs of every method with as many epochs, all methods with one seed first; what is finished is not run again."""
    if not options.arrays and options.sizes is not TINY:
        yield Task("every method", lambda: {"not measured": "--arrays FILE.npz was not given"})
        return
    for seed in options.sizes.seeds:
        for method in options.sizes.methods or METHODS:
            yield Task(f"{method}, seed {seed}", functools.partial(evidence_run, options, method, seed))


def evidence_run(options: Options, method: str, seed: int) -> dict[str, Any]:
    """The scores on the test split."""
    from gensupcon_jax.run.train import train_and_evaluate

    results = train_and_evaluate(evidence_config(options, method, seed), evidence_folder(options, method, seed))
    scores = {name: value for name, value in results.items() if name in ("linear_top1", "knn_top1", "classifier_top1")}
    facts = {name: results[name] for name in ("epochs", "num_train", "num_test", "train_seconds", "seconds")}
    return scores | facts


def evidence_folder(options: Options, method: str, seed: int) -> Path:
    """The workdir of a run; another number of epochs is another run."""
    return options.output / "evidence" / f"{method.replace(', ', '_').replace(' ', '_')}_{options.epochs:g}_{seed}"


def evidence_config(options: Options, method: str, seed: int) -> Any:
    """The recipe `fashion_mnist` with the method's fields."""
    from gensupcon_jax.configs import fashion_mnist

    variant, fields, teacher = METHODS[method]
    config = fashion_mnist.get_config(variant)
    config.update_from_flattened_dict(
        {
            "dataset.name": f"arrays:{options.arrays}" if options.arrays else "digits",
            "epochs": options.epochs,
            "optimizer.warmup_epochs": options.epochs / 20,
            "optimizer.weight_decay": 5e-4,
            "evaluate.every_epochs": 0.0,
            "checkpoint.every_epochs": options.epochs,
            "log_steps": 100,
            "seed": seed,
            **options.sizes.evidence,
            **fields,
        }
    )
    if teacher:
        config.teacher.kind, config.teacher.path = "workdir", str(evidence_folder(options, teacher, seed))
    return config


def write_arrays(path: str, folder: str | None) -> None:
    """Fashion-MNIST of TFDS as an .npz that `dataset.name=arrays:FILE` reads."""
    from gensupcon_jax.data.datasets import load

    found = load("tfds:fashion_mnist", validation_fraction=0.0, folder=folder)
    arrays = {"images": found.train.images, "labels": found.train.classes, "class_names": np.array(found.class_names)}
    np.savez_compressed(path, **arrays, test_images=found.test.images, test_labels=found.test.classes)
    print(f"{path}: {Path(path).stat().st_size / MIB:.0f} MiB")


# ---- parts, in order

PARTS = {
    "card": Part(0.06, card_tasks),
    "numbers": Part(0.14, number_tasks),
    "loss": Part(0.1, loss_tasks),
    "step": Part(0.32, step_tasks),
    "torch": Part(0.08, torch_tasks),
    "embed": Part(0.07, embed_tasks),
    "evidence": Part(0.23, evidence_tasks),
}


def run_part(name: str, options: Options, until: float) -> bool:
    """In a process of its own: all tasks for which there is time, one line each; whether none failed.

    until: seconds since 1970.  A task is not begun where less time is left than the longest so far took.
    """
    longest, all_well = 0.0, True
    for task in PARTS[name].tasks_fn(options):
        line = {"part": name, "what": task.what, "at": time.strftime("%Y-%m-%d %H:%M:%S")}
        left = until - time.time()
        if left < longest:
            append(options.output, line | {"not begun": f"{left:.0f} s left, {longest:.0f} needed"})
            continue
        started = time.monotonic()
        try:
            values = task.measure_fn()
        except Exception as error:  # whatever it is, the tasks after it are measured, and the status says so
            traceback.print_exc()
            said = str(error).strip().splitlines() or [""]  # an assertion says nothing
            values, all_well = {"failed": f"{type(error).__name__}: {said[0][:200]}"}, False
        all_well = all_well and values.get("passed") is not False
        longest = max(longest, time.monotonic() - started)
        append(options.output, line | values)
    return all_well


def start_part(name: str, arguments: list[str], output: Path, seconds: float) -> bool:
    """Run a part as a process, at most so long; whether all was well. Its messages go to a file, the last of them are shown."""
    environment = {"JAX_COMPILATION_CACHE_DIR": str((output / PROGRAMS).resolve()), **os.environ}
    environment.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "1")
    environment.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.92")  # of the memory: no other process is on the card
    until = str(time.time() + seconds)
    command = [sys.executable, "-m", "benchmarks.accelerator", *arguments, "--part", name, "--until", until]
    log = output / f"{name}.log"
    with log.open("w") as file, subprocess.Popen(command, stderr=file, cwd=ROOT, env=environment) as process:
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            append(output, {"part": name, "what": "the part", "failed": f"killed after {seconds:.0f} s"})
            return False
    if status == 0:
        return True
    last = log.read_text(errors="replace").splitlines()[-12:]
    print("\n".join(f"  {line}" for line in last), flush=True)
    if status != SAID:
        why = f"signal {-status}" if status < 0 else f"status {status}"
        append(output, {"part": name, "what": "the part", "failed": f"{why}: {(last or [''])[-1][:200]}"})
    return False


def limits(names: list[str], seconds: float) -> Iterator[tuple[str, float]]:
    """Each part, when its turn comes, with its share of the seconds that are left then."""
    started = time.monotonic()
    for number, name in enumerate(names):
        left = seconds - (time.monotonic() - started)
        yield name, left * PARTS[name].share / sum(PARTS[later].share for later in names[number:])


def build_parser() -> argparse.ArgumentParser:
    """The arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="default: runs/accelerator, with --tiny runs/accelerator_tiny")
    parser.add_argument("--minutes", type=float, default=8.0, help="for all parts together")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--skip", nargs="+", choices=PARTS, default=[], metavar="PART")
    parser.add_argument(
        "--arrays", default="", help="images of the part evidence: an .npz, as --write-arrays writes it"
    )
    parser.add_argument("--epochs", type=float, help="of each run of the part evidence; default: 100, with --tiny 2")
    parser.add_argument("--tiny", action="store_true", help="small sizes, for a CPU")
    parser.add_argument("--write-arrays", metavar="FILE.npz", help="write Fashion-MNIST, which TFDS has, and end")
    parser.add_argument("--folder", help="where TFDS keeps it; default: TFDS's own")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    return parser


def problem_of(given: argparse.Namespace) -> str:
    """What is wrong with the paths, which would be noticed after minutes; empty if nothing."""
    if given.arrays and not Path(given.arrays).is_file():
        return f"--arrays is {given.arrays}, which is not a file; allowed: an .npz that --write-arrays has written"
    if given.write_arrays and Path(given.write_arrays).suffix != ".npz":
        return f"--write-arrays is {given.write_arrays}; allowed: a name that ends in .npz"
    return ""


def options_of(given: argparse.Namespace) -> Options:
    """The arguments, with what is not given."""
    output = given.output or Path("runs/accelerator_tiny" if given.tiny else "runs/accelerator")
    return Options(
        sizes=TINY if given.tiny else FULL,
        output=output.absolute(),
        arrays=str(Path(given.arrays).absolute()) if given.arrays else "",
        epochs=given.epochs or (2.0 if given.tiny else 100.0),
    )


def words_of(options: Options) -> list[str]:
    """The arguments of a part."""
    words = ["--output", str(options.output), "--epochs", str(options.epochs)]
    words += ["--tiny"] if options.sizes is TINY else []
    return words + (["--arrays", options.arrays] if options.arrays else [])


def main() -> None:
    """Run the parts, write the table; status 1 where something failed or a check was not passed."""
    given = build_parser().parse_args()
    if problem := problem_of(given):
        sys.exit(f"error: {problem}")
    options = options_of(given)
    if given.write_arrays:
        from gensupcon_jax.errors import UserError

        try:
            write_arrays(given.write_arrays, given.folder)
        except UserError as error:
            sys.exit(f"error: {error}")
        return
    if given.part:
        if given.part != "torch":
            from gensupcon_jax.cluster import cpu_flags

            cpu_flags.set_for_this_machine(os.environ)  # as main does
        sys.exit(0 if run_part(given.part, options, given.until) else SAID)
    options.output.mkdir(parents=True, exist_ok=True)
    failed = []
    for name, seconds in limits(
        [name for name in PARTS if name in given.only and name not in given.skip], 60 * given.minutes
    ):
        print(f"\n{name}: at most {seconds:.0f} s", flush=True)
        failed += [] if start_part(name, words_of(options), options.output, seconds) else [name]
    text = table(read_lines(options.output))
    (options.output / TABLE).write_text(text)
    print(f"\n{text}\nwritten: {options.output / LINES}, {options.output / TABLE}")
    sys.exit(f"failed, or a check was not passed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
