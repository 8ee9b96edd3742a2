"""Prints what a weights file, a workdir or an exported function contains."""

from gensupcon_jax.paths import Path, split_entry
from gensupcon_jax.score_names import COLUMN_WORDS
from gensupcon_jax.store.saved_runs import read_run
from gensupcon_jax.text import visible
from gensupcon_jax.weights.artifact import KINDS, PROMISE, STABLEHLO, Artifact, made_with, read_artifact
from gensupcon_jax.weights.description import Description, description_of_file
from gensupcon_jax.weights.files import read_weights_file
from gensupcon_jax.weights.hub import WEIGHTS
from gensupcon_jax.weights.names import PARTS, Named, recognize
from gensupcon_jax.weights.variables import named_tensors


def show(path: Path, *, step: int | str = "last") -> str:
    """The content: the naming, then the name, shape and dtype of each tensor; or what an exported function takes and returns.

    step: of a workdir, as in `load_run`.
    """
    if path.suffix in KINDS:
        return _artifact(read_artifact(path))
    if (path / WEIGHTS).is_file():
        path = path / WEIGHTS
    if path.is_dir():
        run = read_run(path, step=step)
        head = f"{path}, step {run.step}: {run.config.model.name}, objective {run.config.objective}"
        return "\n".join([head, *_tensors(path, named_tensors(run.variables, parts=PARTS))])
    named, note = read_weights_file(path)
    description = description_of_file(split_entry(path)[0])
    notes = [note] if note else []
    if description is not None:
        notes.append(_described(description))
    head, *tensors = _tensors(path, named)
    return "\n".join([head, *notes, *tensors])


def _tensors(path: Path, named: Named) -> list[str]:
    naming, parts = recognize(named, where=path)
    total = sum(value.size for name, value in named.items() if not name.endswith("num_batches_tracked"))
    width = max(len(name) for name in named)
    return [
        f"{path}: {naming} names; {', '.join(parts)}; {len(named)} tensors, {total:,} numbers",
        *(f"  {name:{width}}  {value.shape}  {value.dtype}" for name, value in named.items()),
    ]


def _artifact(artifact: Artifact) -> str:
    description = artifact.description
    sizes = ", ".join(str(size) for size in description.image_shape)
    is_stablehlo = artifact.path.suffix == STABLEHLO
    platforms = artifact.made.get("platforms")
    shown = visible(", ".join(map(str, platforms)) if isinstance(platforms, list) else platforms)
    kind = f"jax.export artifact for {shown}" if is_stablehlo else "ONNX model"
    form = PROMISE if is_stablehlo else f"opset {visible(artifact.made.get('opset'))}"
    lines = [
        f"{artifact.path}: {kind}: uint8 [batch, {sizes}] -> float32 [batch, {description.num_features}]",
        _described(description),
        f"  made on {made_with(artifact)}{';' if is_stablehlo else ','} {form}",
        f"  SHA-256 {artifact.made['sha256']}",
    ]
    return "\n".join(lines)


def _described(description: Description) -> str:
    network = ", ".join(f"{name} {value}" for name, value in description.network.items())
    mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (description.mean, description.std))
    things = COLUMN_WORDS[description.label_kind or "class"]
    return (
        f"  {description.architecture} ({network}), step {description.step}, {len(description.class_names)} {things}; images "
        f"{' x '.join(map(str, description.image_shape))}, center share {description.center_share}, mean {mean}, std {std}"
    )
