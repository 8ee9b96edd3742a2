"""A folder for the Hugging Face hub that timm loads: model.safetensors, config.json in timm's format, and a model card."""

import json
import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from gensupcon_jax import __version__
from gensupcon_jax.configs.fields import FIELDS
from gensupcon_jax.errors import UserError
from gensupcon_jax.models import ResNet, VisionTransformer
from gensupcon_jax.paths import Path
from gensupcon_jax.score_names import COLUMN_WORDS
from gensupcon_jax.store import workdir
from gensupcon_jax.store.saved_runs import SavedRun, run_backbone
from gensupcon_jax.text import flatten
from gensupcon_jax.weights.description import Description, describe
from gensupcon_jax.weights.files import write_new, write_safetensors
from gensupcon_jax.weights.variables import named_tensors

FILES = WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
_RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")
_RESNET_WIDTH = 64  # of timm's
_VITS = ("vit_tiny_patch16_224", "vit_small_patch16_224", "vit_small_patch8_224", "vit_base_patch16_224")
_VITS = (*_VITS, "vit_base_patch8_224")
_VIT_WIDTHS = {"tiny": 192, "small": 384, "base": 768}
_NO_MEASURE = r"seconds$|penalty$|^epochs$|^chance_"  # other numbers in results.json
_INSTEAD = "allowed for it: --format safetensors, stablehlo or onnx"


def write_folder(run: SavedRun, folder: Path, *, license: str) -> str:
    """Write the new folder; returns a line that says how to load it. UserError for a network that timm does not have."""
    description = describe(run)
    config = timm_config(run, run_backbone(run), description)
    named = named_tensors(run.variables)
    card = model_card(run, config, results_of_step(run.folder, run.step), license=license)
    write_new(folder / CARD, card.encode())
    write_new(folder / CONFIG, (json.dumps(config, indent=2) + "\n").encode())
    write_safetensors(folder / WEIGHTS, named, {"format": "pt"} | description.as_metadata())
    return f'{len(named)} tensors, for timm.create_model("local-dir:{folder}", pretrained=True), license {license}'


def timm_config(run: SavedRun, backbone: nn.Module, description: Description) -> dict[str, Any]:
    """The config.json from which timm builds the network and its preprocessing; UserError if timm has no such network."""
    name = description.architecture
    architecture, arguments = timm_network(name, backbone, description.image_shape)
    is_vit = isinstance(backbone, VisionTransformer)
    height, width, channels = description.image_shape
    classifier = run.variables["params"].get("classifier")
    num_classes = 0 if classifier is None else classifier["output"]["bias"].shape[0]
    config = {
        "architecture": architecture,
        "num_classes": num_classes,
        "num_features": description.num_features,
        "global_pool": "token" if is_vit and backbone.pool == "class" else "avg",
    }
    if num_classes and len(description.class_names) == num_classes:
        config["label_names"] = list(description.class_names)
    if arguments:
        config["model_args"] = arguments
    config["pretrained_cfg"] = {
        "tag": "gensupcon",
        "custom_load": False,
        "input_size": [channels, height, width],
        "fixed_input_size": is_vit,
        "interpolation": description.interpolation,
        "crop_pct": description.center_share,
        "crop_mode": "center",
        "mean": list(description.mean),
        "std": list(description.std),
        "num_classes": num_classes,
        "pool_size": None,
        "first_conv": "patch_embed.proj" if is_vit else "conv1",
        "classifier": "head" if is_vit else "fc",
    }
    return config


def timm_network(name: str, backbone: nn.Module, image_shape: tuple[int, ...]) -> tuple[str, dict[str, Any]]:
    """timm's name of a network, and the arguments that make it the same; UserError if timm has no such network."""
    size, _, channels = image_shape
    arguments: dict[str, Any] = {} if channels == 3 else {"in_chans": channels}
    if isinstance(backbone, ResNet) and backbone.blur_pool:
        raise UserError(f"--format hub: model.blur_pool is True, and timm blurs at other places; {_INSTEAD}")
    if isinstance(backbone, ResNet) and name in _RESNETS:
        if backbone.stem != "imagenet" or backbone.width != _RESNET_WIDTH:
            raise UserError(
                f"--format hub: timm's {name} has the ImageNet stem and width {_RESNET_WIDTH}, this one has model.stem "
                f"{backbone.stem!r} and width {backbone.width}, which timm cannot build; {_INSTEAD}"
            )
        return name, arguments
    found = re.fullmatch(r"vit_(tiny|small|base)_patch(\d+)", name)
    if not isinstance(backbone, VisionTransformer) or found is None:
        raise UserError(
            f"--format hub: timm has no network like {name}; it has {', '.join(_RESNETS)} (with the ImageNet stem) and the "
            f"vision transformers; {_INSTEAD}"
        )
    natural = f"{name}_224"
    architecture = natural if natural in _VITS else f"vit_{found[1]}_patch16_224"
    differing = {
        "img_size": (size, 224),
        "patch_size": (backbone.patch_size, int(re.findall(r"patch(\d+)", architecture)[0])),
        "embed_dim": (backbone.width, _VIT_WIDTHS[found[1]]),
        "global_pool": ({"class": "token", "average": "avg"}[backbone.pool], "token"),
    }
    return architecture, arguments | {key: value for key, (value, usual) in differing.items() if value != usual}


def results_of_step(folder: Path, step: int) -> dict[str, float]:
    """The measures of this step in results.json, in percent and others; none where the run did not measure it."""
    try:
        found = workdir.read_json(folder / workdir.RESULTS)
    except UserError:
        return {}
    if step not in (found.get("steps"), found.get("best_step")):
        return {}
    values = found if step == found.get("steps") else found.get("best") or {}
    return {
        name: value for name, value in values.items() if isinstance(value, float) and not re.search(_NO_MEASURE, name)
    }


def model_card(run: SavedRun, config: Mapping[str, Any], results: Mapping[str, Any], *, license: str) -> str:
    """The README.md of the folder: how it is loaded, the data, the recipe, the results."""
    task = "image-classification" if config["num_classes"] else "image-feature-extraction"
    data, title = run.description, f"{config['architecture']} trained on {run.description['name']}"
    counts = {
        "images for training": data["num_train"],
        "for validation": data["num_validation"],
        "for test": data["num_test"],
        COLUMN_WORDS[data.get("label_kind", "class")]: len(data["class_names"]),
        "mean": ", ".join(f"{value:.4f}" for value in data["mean"]),
        "standard deviation": ", ".join(f"{value:.4f}" for value in data["std"]),
        "fingerprint": data["fingerprint"],
    }
    return f"""---
license: {license}
library_name: timm
pipeline_tag: {task}
tags:
- {task}
- timm
- gensupcon_jax
---
# {title}

An encoder trained with the objective `{run.config.objective}` by gensupcon_jax {__version__}, which implements
[generalized supervised contrastive learning](https://arxiv.org/abs/2206.00384). The weights are of step {run.step}.

## Use

```python
import timm
import torch

model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_data_config(model=model))
images = transform(image)[None]  # image: of PIL
features = model.forward_head(model.forward_features(images), pre_logits=True)  # [image, {config["num_features"]}]
```

## Data

{_table("data", {"name": data["name"]} | counts)}

## Recipe

The fields of the config that differ from their defaults:

{_table("field", _recipe(run))}

## Results

{_table("measure", results) if results else f"The run did not measure step {run.step}."}
"""


def _recipe(run: SavedRun) -> dict[str, Any]:
    """The fields of the config that differ from their defaults, by dotted name."""
    fields = flatten(run.config.to_dict())
    known = {name: value for name, value in fields.items() if name in FIELDS}
    return {
        name: value
        for name, value in known.items()
        if json.dumps(value) != json.dumps(FIELDS[name].default, default=str)
    }


def _table(name: str, rows: Mapping[str, Any]) -> str:
    lines = [f"| {name} | |", "|---|---|", *(f"| {key} | {_shown(value)} |" for key, value in rows.items())]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
