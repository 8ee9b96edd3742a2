"""The PyTorch originals in our terms: seeded weights and inputs, and their ResNet names -> our variables."""

import ast

import jax.numpy as jnp
import numpy as np

from tests import REFERENCE

DATA = REFERENCE
BATCH_NORM_LEAVES = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
DENSE_LEAVES = {"weight": "kernel", "bias": "bias"}


def load_original(file_name):
    """A golden file's arrays, and its seeded weights as our variables."""
    golden = np.load(DATA / file_name)
    shapes = {
        str(name): ast.literal_eval(str(shape)) for name, shape in zip(golden["names"], golden["shapes"], strict=True)
    }
    return golden, flax_variables(seeded_weights(shapes, int(golden["seed"])))


def input_images(golden, count, size):
    """The inputs of a golden file, NHWC: standard normals drawn NCHW (found by trial: the files give the seed only)."""
    images = np.random.default_rng(int(golden["input_seed"])).standard_normal((count, 3, size, size))
    return jnp.asarray(images.astype(np.float32).transpose(0, 2, 3, 1))


def seeded_weights(shapes, seed):
    """A state dict drawn by name and shape, in sorted order from one generator (the golden files' own procedure)."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name in sorted(shapes):
        shape = shapes[name]
        if name.endswith("num_batches_tracked"):
            continue
        if len(shape) == 4:
            value = rng.standard_normal(shape) * np.sqrt(2 / (shape[0] * shape[2] * shape[3]))
        elif len(shape) == 2:
            value = rng.standard_normal(shape) * np.sqrt(1 / shape[1])
        elif name.endswith(("running_var", "weight")):
            value = 1 + 0.1 * rng.random(shape)
        else:
            value = 0.1 * rng.standard_normal(shape)
        weights[name] = value.astype(np.float32)
    return weights


def flax_variables(weights):
    """A PyTorch ResNet's state dict as nested `params` and `batch_stats` of backbone, head and classifier."""
    variables = {"params": {}, "batch_stats": {}}
    for name, value in weights.items():
        path = flax_path(name)
        node = variables["batch_stats" if path[-1] in ("mean", "var") else "params"]
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = jnp.asarray(flax_layout(value))
    return variables


def flax_path(name):
    """`encoder.layer1.0.conv1.weight` -> ("backbone", "stage1_block1", "conv1", "kernel")."""
    *modules, leaf = name.removeprefix("encoder.").split(".")
    if modules[0] == "fc":
        return "classifier", "output", DENSE_LEAVES[leaf]
    if modules[0] == "head":  # "head" alone is the linear head; "head.0" and "head.2" stand around the MLP's ReLU.
        return "head", "hidden" if modules[1:] == ["0"] else "output", DENSE_LEAVES[leaf]
    if modules[0].startswith("layer"):
        stage, position, module, *part = modules
        block = (f"{stage.replace('layer', 'stage')}_block{int(position) + 1}",)
    else:
        block, module, part = (), modules[0].replace("conv1", "stem_conv").replace("bn1", "stem_bn"), []
    if (
        part
    ):  # "shortcut.0" (SupContrast) and "downsample.0" (timm, torchvision) are convolutions, ".1" their BatchNorms.
        module = {"0": "shortcut_conv", "1": "shortcut_bn"}[part[0]]
    leaves = BATCH_NORM_LEAVES if "bn" in module else DENSE_LEAVES
    return "backbone", *block, module, leaves[leaf]


def flax_layout(value):
    """Convolutions OIHW -> HWIO (1x1: a matrix [in, out]); matrices [out, in] -> [in, out]."""
    if value.ndim == 4 and value.shape[2:] == (1, 1):
        return value[:, :, 0, 0].T
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    return value.T
