"""On a TPU, heads and losses multiply float32 numbers as such, and not rounded to bfloat16."""

import jax
import jax.numpy as jnp
import pytest

from gensupcon_jax import losses
from gensupcon_jax.models.heads import Classifier, MlpHead, unit_normalize
from gensupcon_jax.plan import chips


def loss_of(params, features, labels):
    embeddings = unit_normalize(MlpHead(16).apply({"params": params["head"]}, features))
    logits = Classifier(4).apply({"params": params["classifier"]}, features)
    return losses.generalized_contrastive_loss(embeddings, labels, temperature=0.1).mean() + (logits**2).sum()


def shapes():
    features, labels = jnp.zeros((32, 64)), jax.nn.one_hot(jnp.arange(32) % 4, 4)
    params = {
        "head": MlpHead(16).init(jax.random.key(0), features)["params"],
        "classifier": Classifier(4).init(jax.random.key(0), features)["params"],
    }
    return jax.eval_shape(lambda: (params, features, labels))


def test_every_product_and_its_gradients_state_the_highest_precision():
    jaxpr = str(jax.make_jaxpr(jax.grad(loss_of))(*shapes()))
    products = jaxpr.split("dot_general[")[1:]
    assert len(products) > 8
    for product in products:
        assert "precision=(Precision.HIGHEST" in product.split("preferred_element_type")[0]


@pytest.mark.slow
def test_the_compiled_program_has_no_bfloat16():
    pytest.importorskip("libtpu")
    (device, *_) = chips.find_slice("v5e:2x2").devices
    place = jax.sharding.SingleDeviceSharding(device)
    placed = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes())
    program = jax.jit(jax.grad(loss_of)).lower(*placed).compile().as_text()
    assert "f32[" in program
    assert "bf16" not in program
