"""Which names are known, and what is said of others."""

import pytest

from gensupcon_jax.errors import UserError
from gensupcon_jax.weights.names import recognize


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["encoder.conv1.weight", "head.0.weight"], ("SupContrast", ("backbone", "head"))),
        (["module.encoder.conv1.weight", "module.fc.bias"], ("SupContrast", ("backbone", "classifier"))),
        (["encoder.module.layer1.0.shortcut.0.weight"], ("SupContrast", ("backbone",))),
        (
            ["conv1.weight", "layer1.0.downsample.0.weight", "fc.weight"],
            ("timm / torchvision", ("backbone", "classifier")),
        ),
        (["fc.weight", "fc.bias"], ("head or classifier alone", ("classifier",))),
    ],
)
def test_names_are_recognized(names, found):
    assert tuple(recognize(names, where="file")) == found


@pytest.mark.parametrize("names", [["features.0.weight"], []])
def test_other_names_are_refused(names):
    with pytest.raises(UserError) as error:
        recognize(names, where="vgg.safetensors")
    message = str(error.value)
    assert all(part in message for part in ("vgg.safetensors", *names, "SupContrast", "timm"))
