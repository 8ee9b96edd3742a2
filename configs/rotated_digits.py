"""The angle of turned handwritten digits, -45 to 45 degrees, with a small ResNet: labels that are numbers. Minutes on a CPU.

    python -m gensupcon_jax.main --config configs/rotated_digits.py --workdir runs/rotated_digits

Two images are alike by exp(-(a - b)^2 / (4 width^2)) of their angles, with a width of 5 degrees. Results are R^2 and the mean
absolute error in degrees, of k-NN and of ridge regression on the frozen features. All values are `ours`.
"""

from gensupcon_jax.configs import common, digits
from gensupcon_jax.configs.fields import OURS


def get_config():
    """SupCon for angles on the embedded digits."""
    return common.changed(changes())


def changes():
    """The changes of the recipe: field -> (value, source)."""
    return digits.changes() | {
        "dataset.name": ("rotated_digits", OURS),
        "dataset.label_kind": ("value", OURS),
        "dataset.value_width": (5.0, OURS),
        "mix.kind": ("none", "ours: a mixture of two digits has no angle"),
        "augment.crop_scale": ((0.8, 1.0), OURS),
    }
