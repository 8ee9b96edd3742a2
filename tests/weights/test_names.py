"""Known names, and the error for unknown ones."""

import pytest

from gensupcon_jax.errors import UserError
from gensupcon_jax.weights.names import OWN, RESNET, VIT, family_of, recognize, strip_wrapper, unwrapped


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


@pytest.mark.parametrize(
    ("name", "stripped"),
    [
        ("_orig_mod.conv1.weight", "conv1.weight"),
        ("backbone.conv1.weight", "conv1.weight"),
        ("model.conv1.weight", "conv1.weight"),
        ("encoder_q.conv1.weight", "conv1.weight"),
        ("module.conv1.weight", "conv1.weight"),
        ("module._orig_mod.model.backbone.layer1.0.conv1.weight", "layer1.0.conv1.weight"),
        ("_orig_mod.module.encoder_q.fc.bias", "fc.bias"),
        ("module.encoder.module.conv1.weight", "encoder.conv1.weight"),
        ("encoder._orig_mod.conv1.weight", "encoder.conv1.weight"),
        ("params.backbone.Dense_0.kernel", "params.backbone.Dense_0.kernel"),  # ours
        ("blocks.0.mlp.fc1.weight", "blocks.0.mlp.fc1.weight"),
        ("modules.0.weight", "modules.0.weight"),
        ("model", "model"),
    ],
)
def test_wrappers_are_removed_in_any_order(name, stripped):
    assert strip_wrapper(name) == stripped


def test_beside_a_backbone_only_its_layers_are_kept():
    names = ["backbone.conv1.weight", "fc.weight", "projector.0.weight", "momentum_backbone.conv1.weight"]
    named, left_out = unwrapped(dict.fromkeys(names, 0), where="x")
    assert (sorted(named), left_out) == (
        ["conv1.weight", "fc.weight"],
        ["momentum_backbone.conv1.weight", "projector.0.weight"],
    )
    assert unwrapped({"fc.weight": 1, "queue": 2}, where="x") == ({"fc.weight": 1, "queue": 2}, [])


def test_two_weights_of_one_name_are_refused():
    with pytest.raises(
        UserError, match=r"x has both model.conv1.weight and module.conv1.weight, which may be the same"
    ):
        unwrapped({"model.conv1.weight": 0, "module.conv1.weight": 1}, where="x")
