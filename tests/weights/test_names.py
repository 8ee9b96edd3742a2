"""Known names, and the error for unknown ones."""

import pytest

from gensupcon_jax.errors import UserError
from gensupcon_jax.weights.names import OWN, RESNET, VIT, family_of, recognize


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
        (["cls_token", "blocks.0.attn.qkv.weight", "head.weight"], ("timm ViT", ("backbone", "classifier"))),
        (["params.backbone.Dense_0.kernel", "params.head.output.bias"], ("this program's", ("backbone", "head"))),
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
    assert all(part in message for part in ("vgg.safetensors", *names, "SupContrast", "timm / torchvision", "timm ViT"))


@pytest.mark.parametrize(
    ("backbone", "family"),
    [
        ({"stem_conv": {"kernel": 0}, "stage1_block1": {"bn1": {"scale": 0}}}, RESNET),
        ({"pos_embed": 0, "block12": {"mlp": {"fc2": {"kernel": 0}}}, "norm": {"bias": 0}}, VIT),
        ({"pos_embed": 0, "block12": {"mlp": {"gate": {"kernel": 0}}}}, OWN),  # like a ViT, but for one module
        ({"stem_conv": {"kernel": 0}, "scale": 0}, OWN),
        ({"Dense_0": {"kernel": 0}}, OWN),
    ],
)
def test_a_network_belongs_to_the_family_that_names_all_of_it(backbone, family):
    assert family_of({"params": {"backbone": backbone}}) is family
