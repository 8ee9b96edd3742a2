"""timm's config.json beside a file of weights, as in a folder of the hub: what it says of the images."""

from collections.abc import Mapping
from typing import Any

from gensupcon_jax.configs.rules import Rule, optional
from gensupcon_jax.json_files import OF_IMAGES, SIDE, TEXTS, check_fields, read_object
from gensupcon_jax.paths import Path

HUB_CONFIG = "config.json"
_REMEDY = "repair or remove it"
_RULES = {
    "mean": optional(OF_IMAGES["mean"]),
    "std": optional(OF_IMAGES["std"]),
    "crop_pct": optional(OF_IMAGES["center_share"]),
    "input_size": optional(
        Rule(
            "channels, height and width, such as [3, 224, 224]",
            lambda value: isinstance(value, list) and len(value) == 3 and all(map(SIDE.allows, value)),
            ([3, 224, 224],),
            ([224, 224], "224", [3, 10**6, 10**6]),
        )
    ),
    "label_names": optional(TEXTS),
}


def hub_config(path: Path) -> Mapping[str, Any]:
    """timm's `pretrained_cfg` (mean, std, input_size, crop_pct), with label_names; empty without a file, or if it is not timm's.

    Raises UserError for a file that cannot be read.
    """
    file = path.parent / HUB_CONFIG
    if not file.is_file():
        return {}
    content = read_object(file, _REMEDY)
    own = content.get("pretrained_cfg")
    if not isinstance(own, dict):
        return {}
    found = {**own, "label_names": content.get("label_names") or own.get("label_names")}
    check_fields(found, _RULES, (), where=file, remedy=_REMEDY)
    return found
