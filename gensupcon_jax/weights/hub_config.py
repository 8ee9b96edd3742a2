"""timm's config.json beside a file of weights, as in a folder of the hub: what it says of the images."""

import json
from collections.abc import Mapping
from typing import Any

from gensupcon_jax.errors import UserError
from gensupcon_jax.paths import Path, failures

HUB_CONFIG = "config.json"


def hub_config(path: Path) -> Mapping[str, Any]:
    """timm's `pretrained_cfg` (mean, std, input_size, crop_pct), with label_names; empty without a file, or if it is not timm's.

    Raises UserError for a file that cannot be read.
    """
    file = path.parent / HUB_CONFIG
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text())
    except (*failures(), ValueError) as error:
        raise UserError(f"{file} beside the weights cannot be read ({error}); repair or remove it") from error
    own = content.get("pretrained_cfg") if isinstance(content, dict) else None
    return {**own, "label_names": content.get("label_names") or own.get("label_names")} if isinstance(own, dict) else {}
