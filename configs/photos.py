"""Your own photos, in a folder with one folder per class: `gensupcon train FOLDER` chooses size, network, batch, rate and length.

    gensupcon train photos/

The values here are those that it chooses for 300 photos on a CPU; `gensupcon_jax/run/choices.py` has the rules. All values are
`ours`: chosen on validation images of photographs that are not among those of the documentation.
"""

from gensupcon_jax.configs import common
from gensupcon_jax.configs.fields import OURS


def get_config():
    """SupCon on a folder of photos, with a small network."""
    return common.changed(changes())


def changes():
    """The changes of the recipe: field -> (value, source)."""
    return {
        "dataset.name": ("folder:photos", OURS),
        "dataset.image_size": (64, OURS),
        "batch_size": (64, OURS),
        "epochs": (80.0, OURS),
        "mix.per": ("image", OURS),
        "model.name": ("resnet_small", OURS),
        "model.width": (32, OURS),
        "model.stem": ("imagenet", "ours: a quarter of the work of the other stem at 64 pixels"),
        "optimizer.learning_rate": (0.125, "ours: 0.5 x batch / 256"),
        "optimizer.warmup_epochs": (5.0, OURS),
        "evaluate.every_epochs": (20.0, OURS),
        "checkpoint.every_epochs": (20.0, OURS),
    }
