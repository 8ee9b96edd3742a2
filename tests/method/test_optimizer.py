"""The learning rate at each step, and each optimizer against the formula of torch.optim (LARS: of SimCLR)."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gensupcon_jax.errors import UserError
from gensupcon_jax.method import optimizer

# The schedules of build_schedule.

SCHEDULE = {
    "schedule": "cosine",
    "schedule_per": "step",
    "learning_rate": 0.5,
    "warmup_learning_rate": 0.01,
    "final_learning_rate": 1e-3,
    "warmup_steps": 6,
    "total_steps": 24,
    "steps_per_epoch": 3,
    "decay_epochs": (4, 6),
    "decay_factor": 0.1,
}


def rates(**changes):
    """The rate at every step of the run, from under jit as in training, and the same without."""
    settings = SCHEDULE | changes
    rate = optimizer.build_schedule(**settings)
    steps = range(settings["total_steps"])
    compiled = jax.jit(rate)
    result = np.array([compiled(jnp.int32(step)) for step in steps])
    np.testing.assert_allclose([rate(step) for step in steps], result, rtol=1e-5)
    return result


def authors_rates(*, cosine, epochs, batches, warm_epochs):
    """The authors' adjust_learning_rate and warmup_learning_rate in their loop, line by line."""
    learning_rate, decay_rate, decay_epochs, warmup_from = 0.5, 0.1, [4, 6], 0.01
    eta_min = learning_rate * decay_rate**3
    if warm_epochs:  # of the step schedule too
        warmup_to = eta_min + (learning_rate - eta_min) * (1 + math.cos(math.pi * warm_epochs / epochs)) / 2
    result = []
    for epoch in range(1, epochs + 1):
        rate = learning_rate
        if cosine:
            rate = eta_min + (rate - eta_min) * (1 + math.cos(math.pi * epoch / epochs)) / 2
        else:
            num_decays = np.sum(epoch > np.asarray(decay_epochs))
            if num_decays > 0:
                rate = rate * decay_rate**num_decays
        for batch_id in range(batches):
            if epoch <= warm_epochs:
                share = (batch_id + (epoch - 1) * batches) / (warm_epochs * batches)
                rate = warmup_from + share * (warmup_to - warmup_from)
            result.append(rate)
    return np.array(result)


@pytest.mark.parametrize("warm_epochs", [0, 2, 5])
@pytest.mark.parametrize("schedule", ["cosine", "step"])
def test_per_epoch_is_the_schedule_of_the_authors(schedule, warm_epochs):
    expected = authors_rates(cosine=schedule == "cosine", epochs=8, batches=3, warm_epochs=warm_epochs)
    actual = rates(schedule=schedule, schedule_per="epoch", warmup_steps=3 * warm_epochs)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_cosine_per_epoch_of_the_authors_cifar_recipe():
    rate = optimizer.build_schedule(
        **SCHEDULE | {"schedule_per": "epoch", "warmup_steps": 480, "total_steps": 24000, "steps_per_epoch": 48}
    )
    # In order: the first step; half of the warm-up; epoch 11, first and last step; epoch 12; epoch 250; the last epoch.
    actual = [rate(step) for step in (0, 240, 480, 527, 528, 249 * 48, 499 * 48, 500 * 48 - 1)]
    expected = [0.01, 0.25475360, 0.49940366, 0.49940366, 0.49929034, 0.25025, 5e-4, 5e-4]
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_cosine_per_epoch_has_a_rate_where_epochs_are_not_whole():
    actual = rates(schedule_per="epoch", warmup_steps=0, total_steps=5, steps_per_epoch=2)  # 2.5 epochs
    middle = [5e-4 + 0.4995 * (1 + math.cos(math.pi * epoch / 2.5)) / 2 for epoch in (1, 2)]
    np.testing.assert_allclose(actual, [middle[0], middle[0], middle[1], middle[1], 5e-4], rtol=1e-5)


def test_cosine_per_step_comes_to_the_peak_and_falls_from_there():
    actual = rates(total_steps=25, learning_rate=0.4, final_learning_rate=0.5, warmup_learning_rate=0.1)
    np.testing.assert_allclose(actual[[0, 2, 6]], [0.1, 0.2, 0.4], rtol=1e-6)
    np.testing.assert_allclose(actual[24], 0.2 + 0.2 * (1 + math.cos(math.pi * 18 / 19)) / 2, rtol=1e-6)


@pytest.mark.parametrize("per", optimizer.SCHEDULE_PER)
def test_step_decay_begins_after_its_epochs(per):
    actual = rates(schedule="step", schedule_per=per, warmup_steps=2, total_steps=24)
    # The line ends at the peak, or as in the authors' code at the value that a cosine over the whole run has there.
    end = 0.5 if per == "step" else 5e-4 + 0.4995 * (1 + math.cos(math.pi * (2 / 3) / 8)) / 2
    np.testing.assert_allclose(actual[:2], [0.01, (0.01 + end) / 2], rtol=1e-6)
    np.testing.assert_allclose(actual[2:12], 0.5, rtol=1e-6)  # up to the end of epoch 4
    np.testing.assert_allclose(actual[12:18], 0.05, rtol=1e-6)  # epochs 5 and 6
    np.testing.assert_allclose(actual[18:], 0.005, rtol=1e-5)


@pytest.mark.parametrize("per", optimizer.SCHEDULE_PER)
def test_constant_stays_after_the_warm_up(per):
    actual = rates(schedule="constant", schedule_per=per, warmup_steps=4)
    np.testing.assert_allclose(actual[:5], [0.01, 0.1325, 0.255, 0.3775, 0.5], rtol=1e-6)
    np.testing.assert_allclose(actual[4:], 0.5, rtol=1e-6)


@pytest.mark.parametrize("per", optimizer.SCHEDULE_PER)
@pytest.mark.parametrize("schedule", optimizer.SCHEDULES)
@pytest.mark.parametrize(("warmup_steps", "total_steps"), [(0, 0), (0, 1), (1, 1), (3, 3), (0, 30)])
def test_every_length_of_run_has_rates(schedule, per, warmup_steps, total_steps):
    rate = optimizer.build_schedule(
        **SCHEDULE
        | {"schedule": schedule, "schedule_per": per, "warmup_steps": warmup_steps, "total_steps": total_steps}
    )
    values = np.array([rate(step) for step in range(total_steps + 2)])
    assert np.isfinite(values).all()
    assert (values > 0).all()
    assert (values < 0.5 + 1e-6).all()


@pytest.mark.parametrize(
    ("field", "allowed"), [("schedule", "cosine, step, constant"), ("schedule_per", "step, epoch")]
)
def test_an_unknown_schedule_names_what_is_allowed(field, allowed):
    with pytest.raises(UserError) as error:
        optimizer.build_schedule(**SCHEDULE | {field: "linear"})
    assert str(error.value) == f"optimizer.{field} is 'linear'; allowed: {allowed}"


# The optimizers of build_optimizer, against the formulas of torch.optim written out in float64.

OPTIMIZER = {
    "name": "sgd",
    "momentum": 0.9,
    "nesterov": False,
    "second_momentum": 0.99,
    "trust_coefficient": 0.02,
    "weight_decay": 0.1,
    "weight_decay_mode": "coupled",
    "exclude_bias_and_norm": False,
}
NUM_STEPS = 5
PARAMETERS = {
    "dense": {"kernel": np.array([[2.0, -1.0, 0.5], [0.3, 1.5, -2.5]]), "bias": np.array([0.7, -0.4, 1.1])},
    "norm": {"scale": np.array([1.2, 0.8]), "bias": np.array([-0.6, 0.9])},
}


def rate_at(step):
    return 0.1 / (step + 1)


def gradients_at(step):
    """A tree of gradients, different at each step, one of them zero."""
    shift = iter(range(4))
    return jax.tree.map(lambda leaf: np.round(np.cos(3 * leaf + step + next(shift)), 1), PARAMETERS)


def trained(**changes):
    """The parameters after some steps."""
    tx = optimizer.build_optimizer(rate_at, **OPTIMIZER | changes)
    parameters = jax.tree.map(jnp.float32, PARAMETERS)
    state = tx.init(parameters)

    @jax.jit
    def train_step(parameters, state, gradients):
        updates, state = tx.update(gradients, state, parameters)
        return optax.apply_updates(parameters, updates), state

    for step in range(NUM_STEPS):
        parameters, state = train_step(parameters, state, jax.tree.map(jnp.float32, gradients_at(step)))
    return parameters


def expected_parameters(step_fn, settings):
    """step_fn(parameter, gradient, memory, rate, settings) -> parameter, over the same steps, leaf by leaf."""

    def train_leaf(path, parameter):
        memory = {"first": np.zeros_like(parameter), "second": np.zeros_like(parameter), "count": 0}
        excluded = settings["exclude_bias_and_norm"] and path[-1].key != "kernel"
        own = settings | {"weight_decay": 0.0, "trust": False} if excluded else settings | {"trust": True}
        for step in range(NUM_STEPS):
            gradient = gradients_at(step)[path[0].key][path[1].key]
            parameter = step_fn(parameter, gradient, memory, rate_at(step), own)
        return parameter

    return jax.tree_util.tree_map_with_path(train_leaf, PARAMETERS)


def torch_sgd(parameter, gradient, memory, rate, settings):
    coupled = settings["weight_decay_mode"] == "coupled"
    if coupled:
        gradient = gradient + settings["weight_decay"] * parameter
    memory["first"] = settings["momentum"] * memory["first"] + gradient
    direction = gradient + settings["momentum"] * memory["first"] if settings["nesterov"] else memory["first"]
    decay = 0.0 if coupled else rate * settings["weight_decay"] * parameter
    return parameter - rate * direction - decay


def simclr_lars(parameter, gradient, memory, rate, settings):
    coupled = settings["weight_decay_mode"] == "coupled"
    if coupled:
        gradient = gradient + settings["weight_decay"] * parameter
    ratio = settings["trust_coefficient"] * np.linalg.norm(parameter) / np.linalg.norm(gradient)
    scaled = rate * (ratio if settings["trust"] else 1.0) * gradient
    memory["first"] = settings["momentum"] * memory["first"] + scaled
    direction = scaled + settings["momentum"] * memory["first"] if settings["nesterov"] else memory["first"]
    decay = 0.0 if coupled else rate * settings["weight_decay"] * parameter
    return parameter - direction - decay


def torch_rmsprop(parameter, gradient, memory, rate, settings):
    coupled = settings["weight_decay_mode"] == "coupled"
    if coupled:
        gradient = gradient + settings["weight_decay"] * parameter
    memory["second"] = settings["second_momentum"] * memory["second"] + (1 - settings["second_momentum"]) * gradient**2
    average = np.sqrt(memory["second"]) + 1e-8
    memory["first"] = settings["momentum"] * memory["first"] + gradient / average
    decay = 0.0 if coupled else rate * settings["weight_decay"] * parameter
    return parameter - rate * memory["first"] - decay


def torch_adam(parameter, gradient, memory, rate, settings):
    if settings["name"] == "adamw" or settings["weight_decay_mode"] == "decoupled":
        decayed = parameter * (1 - rate * settings["weight_decay"])
    else:
        decayed, gradient = parameter, gradient + settings["weight_decay"] * parameter
    beta1, beta2 = settings["momentum"], settings["second_momentum"]
    memory["count"] += 1
    memory["first"] = beta1 * memory["first"] + (1 - beta1) * gradient
    memory["second"] = beta2 * memory["second"] + (1 - beta2) * gradient**2
    correction1, correction2 = 1 - beta1 ** memory["count"], 1 - beta2 ** memory["count"]
    denominator = np.sqrt(memory["second"]) / math.sqrt(correction2) + 1e-8
    return decayed - rate / correction1 * memory["first"] / denominator


STEP_FNS = {
    "sgd": torch_sgd,
    "lars": simclr_lars,
    "rmsprop": torch_rmsprop,
    "adam": torch_adam,
    "adamw": torch_adam,
}


@pytest.mark.parametrize("exclude", [False, True], ids=["all", "weights"])
@pytest.mark.parametrize("mode", optimizer.WEIGHT_DECAY_MODES)
@pytest.mark.parametrize("name", optimizer.OPTIMIZERS)
def test_each_optimizer_follows_its_formula(name, mode, exclude):
    changes = {"name": name, "weight_decay_mode": mode, "exclude_bias_and_norm": exclude}
    expected = expected_parameters(STEP_FNS[name], OPTIMIZER | changes)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), trained(**changes), expected)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "sgd", "nesterov": True},
        {"name": "lars", "nesterov": True},
        {"name": "sgd", "nesterov": True, "weight_decay_mode": "decoupled"},
        {"name": "sgd", "momentum": 0.0},
        {"name": "rmsprop", "momentum": 0.0},
        {"name": "adam", "momentum": 0.0},
        {"name": "sgd", "weight_decay": 0.0},
        {"name": "adamw", "weight_decay": 0.0},
    ],
    ids=str,
)
def test_momentum_and_decay_at_their_ends(changes):
    expected = expected_parameters(STEP_FNS[changes["name"]], OPTIMIZER | changes)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), trained(**changes), expected)


def one_step(parameters, gradients, rate=0.5, **changes):
    tx = optimizer.build_optimizer(lambda step: rate, **OPTIMIZER | changes)
    return optax.apply_updates(parameters, tx.update(gradients, tx.init(parameters), parameters)[0])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"name": "sgd"}, 2 - 0.1 * 1.2),
        ({"name": "sgd", "nesterov": True}, 2 - 0.1 * 1.2 * 1.9),
        ({"name": "sgd", "nesterov": True, "weight_decay_mode": "decoupled"}, 2 - 0.1 * 1.9 - 0.02),
        ({"name": "lars"}, 2 - 0.1 * 0.02 * 2),
        ({"name": "lars", "weight_decay_mode": "decoupled"}, 2 - 0.1 * 0.02 * 2 - 0.02),
        ({"name": "rmsprop"}, 2 - 0.1 * 10),
        ({"name": "rmsprop", "weight_decay_mode": "decoupled"}, 2 - 0.1 * 10 - 0.02),
        ({"name": "adam"}, 2 - 0.1),
        ({"name": "adam", "weight_decay_mode": "decoupled"}, 2 - 0.1 - 0.02),
        ({"name": "adamw"}, 2 - 0.1 - 0.02),
    ],
    ids=str,
)
def test_the_first_step_by_hand(changes, expected):
    after = one_step(jnp.float32(2.0), jnp.float32(1.0), rate=0.1, **changes)  # the gradient with its decay is 1.2
    assert float(after) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("mode", optimizer.WEIGHT_DECAY_MODES)
@pytest.mark.parametrize("name", ["sgd", "lars", "adamw"])
def test_biases_and_norms_do_not_decay_where_they_are_excluded(name, mode):
    parameters = {
        "kernel": jnp.full((2, 2), 4.0),
        "bias": jnp.full((2, 2), 4.0),  # by its name
        "scale": jnp.full((1, 2), 4.0),  # by its name
        "anything": jnp.full(2, 4.0),  # by its one axis
        "number": jnp.float32(4.0),
    }
    changes = {"name": name, "weight_decay_mode": mode, "exclude_bias_and_norm": True}
    after = one_step(parameters, jax.tree.map(jnp.zeros_like, parameters), **changes)
    assert {key for key, value in after.items() if (value == 4.0).all()} == {"bias", "scale", "anything", "number"}
    after = one_step(parameters, jax.tree.map(jnp.zeros_like, parameters), **changes | {"exclude_bias_and_norm": False})
    assert not any((value == 4.0).any() for value in after.values())


def test_lars_leaves_excluded_ones_without_a_trust_ratio():
    parameters = {"kernel": jnp.array([[3.0, 4.0]]), "bias": jnp.array([3.0, 4.0])}
    gradients = {"kernel": jnp.array([[1.0, 0.0]]), "bias": jnp.array([1.0, 0.0])}
    after = one_step(parameters, gradients, name="lars", weight_decay=0.0, exclude_bias_and_norm=True)
    np.testing.assert_allclose(after["bias"], [2.5, 4.0])  # rate 0.5 x gradient
    np.testing.assert_allclose(after["kernel"], [[2.95, 4.0]])  # x 0.02 x norm 5 / norm 1
    after = one_step(parameters, gradients, name="lars", weight_decay=0.0)
    np.testing.assert_allclose(after["bias"], [2.95, 4.0])


@pytest.mark.parametrize("mode", optimizer.WEIGHT_DECAY_MODES)
@pytest.mark.parametrize("name", optimizer.OPTIMIZERS)
def test_parameters_and_state_can_be_donated(name, mode):
    tx = optimizer.build_optimizer(
        rate_at, **OPTIMIZER | {"name": name, "weight_decay_mode": mode, "exclude_bias_and_norm": True}
    )

    def train_step(parameters, state):
        updates, state = tx.update(parameters, state, parameters)
        return optax.apply_updates(parameters, updates), state

    train_step = jax.jit(train_step, donate_argnums=(0, 1))
    parameters = jax.tree.map(jnp.float32, PARAMETERS)
    state = jax.jit(tx.init)(parameters)
    for _ in range(2):  # a buffer that is donated twice is an error
        before, structure = jax.tree.leaves((parameters, state)), jax.tree.structure(state)
        parameters, state = train_step(parameters, state)
        jax.block_until_ready(parameters)
        assert all(leaf.is_deleted() for leaf in before)
        assert jax.tree.structure(state) == structure


@pytest.mark.parametrize(
    ("field", "allowed"),
    [("name", "sgd, lars, rmsprop, adam, adamw"), ("weight_decay_mode", "coupled, decoupled")],
)
def test_an_unknown_optimizer_names_what_is_allowed(field, allowed):
    with pytest.raises(UserError) as error:
        optimizer.build_optimizer(rate_at, **OPTIMIZER | {field: "adagrad"})
    assert str(error.value) == f"optimizer.{field} is 'adagrad'; allowed: {allowed}"


# An optimizer from outside the package


def test_an_entry_added_to_the_table_is_an_optimizer(monkeypatch):
    def signs(schedule, fields):
        update = optax.chain(optax.scale_by_sign(), optax.scale_by_learning_rate(schedule))
        return optimizer.with_weight_decay(update, schedule, fields, mode="decoupled")

    monkeypatch.setitem(optimizer.OPTIMIZERS, "signs", signs)
    after = one_step(jnp.float32([2.0, -2.0]), jnp.float32([3.0, -0.1]), name="signs", weight_decay=0.5)
    np.testing.assert_allclose(after, [2 - 0.5 - 0.5 * 0.5 * 2, -2 + 0.5 + 0.5 * 0.5 * 2])
    with pytest.raises(UserError, match=r"allowed: sgd, lars, rmsprop, adam, adamw, signs$"):
        optimizer.build_optimizer(rate_at, **OPTIMIZER | {"name": "sign"})
