"""`plan`: parsing of compiled programs, figures of slices and configs, and refusals."""

import json
import math
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from gensupcon_jax import errors
from gensupcon_jax.cluster import sharding
from gensupcon_jax.configs import imagenet
from gensupcon_jax.plan import chips, compare, figures, hlo, known, step, table
from gensupcon_jax.plan import command as plan_command
from tests import ROOT
from tests.running import told
from tests.tiny import tiny_config

TINY = known.DataSizes(image_size=8, num_channels=1, num_classes=4, num_images=96)


def momentum_config(**changes):
    return tiny_config(**{"loss.mode": "momentum", "momentum_encoder.queue_size": 64} | changes)


# Programs as text

PROGRAM = (ROOT / "tests" / "data" / "program.hlo.txt").read_text()


def works_of(opcode, field):
    return [getattr(work, field) for work in hlo.works(hlo.parse_program(PROGRAM)) if work.opcode == opcode]


def test_arrays_take_whole_tiles():
    (array,) = hlo._parse_arrays("f32[4,100]{1,0:T(8,128)}")
    assert (array.size, array.num_bytes) == (400, 8 * 128 * 4)
    (packed,) = hlo._parse_arrays("bf16[128,56,56,64]{0,3,2,1:T(8,128)(2,1)S(1)}")
    assert (packed.num_bytes, packed.memory_space) == (128 * 56 * 56 * 64 * 2, 1)
    (few_channels,) = hlo._parse_arrays("bf16[128,224,224,3]{3,2,1,0:T(8,128)(2,1)}")
    assert few_channels.num_bytes == 128 * 224 * 224 * 128 * 2
    (scalar,) = hlo._parse_arrays("s32[]{:T(128)}")
    assert scalar.num_bytes == 128 * 4


def test_a_fusion_reads_its_operands_and_writes_its_result():
    whole = 8 * 128 * 4
    assert works_of("fusion", "num_bytes")[0] == 3 * whole
    assert works_of("fusion", "hbm_bytes")[0] == 2 * whole  # the other operand lies on the chip
    assert works_of("fusion", "cycles")[0] == 50


def test_a_prefetch_is_traffic_of_the_instruction_it_serves():
    fetches = [work for work in hlo.works(hlo.parse_program(PROGRAM)) if work.opcode == "copy-start"]
    assert [(work.num_bytes, work.hbm_bytes) for work in fetches] == [(2 * 8 * 128 * 4, 8 * 128 * 4)]
    assert figures.group_of(fetches[0].scope) == "update"
    assert works_of("copy-done", "num_bytes") == [0]


def test_a_loop_counts_as_often_as_it_runs():
    assert sum(works_of("add", "flops")) == 400 + 3 * 400  # once in the fusion, three times in the loop
    assert sum(works_of("add", "num_bytes")) == 3 * 3 * 1600


def test_a_convolution_does_not_count_padding():
    # At 4 places with stride 2 the first of 3 weights meets padding once: 3 + 4 + 4 meetings each way.
    assert sum(works_of("convolution", "flops")) == 2.0 * 2 * 11 * 11 * 3 * 5


def test_collectives_are_found_with_their_bytes():
    gather, spread, reduce = hlo.collectives(hlo.parse_program(PROGRAM))
    assert (gather.kind, gather.input_bytes, gather.output_bytes, gather.group_size) == ("all-gather", 1600, 6400, 4)
    assert (spread.kind, spread.output_bytes) == ("all-gather", 6400)  # one, though it is in two fusions
    assert (reduce.kind, reduce.input_bytes, reduce.group_size) == ("all-reduce", 3200, 4)


def test_link_time_is_bounded_by_the_bytes_that_leave_a_chip():
    chip = chips.CHIPS["v5e"]  # 200 GB/s one way
    whole = hlo.Collective("all-reduce", "", 200e9, 200e9, 4, 1)
    assert figures.link_seconds(whole, chip) == pytest.approx(1.5)
    assert figures.link_seconds(whole._replace(kind="all-gather"), chip) == pytest.approx(0.75)
    assert figures.link_seconds(whole._replace(group_size=1), chip) == 0.0


def test_scopes_are_sorted_into_parts():
    names = {
        "jit(sharded)/shard_map/augment/vmap(vmap())/dot_general": "augment",
        "jit(sharded)/shard_map/jvp(HeadedEncoder)/HeadedEncoder.features/backbone/backbone._stem/stem_conv": "stem",
        "jit(sharded)/shard_map/transpose(jvp(HeadedEncoder))/HeadedEncoder.features/backbone/stage2_block1/conv1": "stage 2",
        "jit(sharded)/shard_map/key_encoder/HeadedEncoder.features/backbone/stage2_block1/conv1": "key encoder",
        "jit(sharded)/shard_map/teacher/Network/backbone/stage1_block1": "teacher",
        "jit(sharded)/shard_map/jvp(HeadedEncoder)/head/hidden/dot_general": "head",
        "jit(sharded)/shard_map/jvp(Classifier)/output/dot_general": "head",
        "jit(sharded)/shard_map/transpose(jvp(loss))/while": "loss",
        "jit(sharded)/shard_map/ema/add": "EMA",
        "jit(sharded)/shard_map/update/mul": "update",
        "": "other",
    }
    assert {scope: figures.group_of(scope) for scope in names} == names


def test_the_compilers_refusal_is_parsed():
    gib = 2.0**30
    message = "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 21.28G of 15.75G hbm. Exceeded ..."
    assert figures.refused_bytes(message, gib) == (21.28 * gib, 15.75 * gib)
    message = (
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (33.54G) exceeds "
        "available HBM (15.75G)."
    )
    assert figures.refused_bytes(message, gib) == (34.54 * gib, 15.75 * gib)
    assert figures.refused_bytes("something else", gib) == (0.0, 0.0)


def test_a_program_that_is_too_large_is_a_verdict(monkeypatch):
    pytest.importorskip("libtpu")

    def lower_something_large(planned):
        huge = jax.ShapeDtypeStruct((60_000, 60_000), jnp.float32, sharding=planned.seed_key.sharding)
        return jax.jit(lambda matrix: (matrix @ matrix) @ matrix).lower(huge)

    monkeypatch.setattr(step.PlannedStep, "lower", lower_something_large)
    (plan,) = tpu_plan()
    assert plan.verdict == figures.DOES_NOT_FIT
    assert "of the 15.75 GiB that the compiler may use" in plan.reason
    assert "DOES NOT FIT" in table.text([plan]) and "; try " in table.text([plan])


@pytest.mark.parametrize("share", [0.95, 0.6])
def test_the_advised_batch_size_is_one_that_training_accepts(share):
    config, sizes = imagenet.get_config(), known.data_sizes("tfds:imagenet2012")
    said = figures._advice(config, sizes, 16, share=share)
    (batch_size,) = map(int, re.findall(r"--batch_size=(\d+)", said))
    assert 0 < batch_size <= 0.95 * share * config.batch_size
    config.batch_size = batch_size  # 65,536 keys of the queue and blocks of 32 must divide by it
    step.check_planned(config, sizes, 16)
    assert "bfloat16" not in said  # it is already the dtype
    assert "--batch_size" not in figures._advice(config, sizes, 16, share=0.3)  # under one block


def test_microbatches_are_advised_where_they_should_fit():
    config, sizes = imagenet.get_config(), known.data_sizes("tfds:imagenet2012")  # 64 images per chip on 16 chips
    for share, parts in ((0.9, 2), (0.5, 4), (0.3, 4), (0.04, 32)):
        assert f"--config.microbatches={parts} (an estimate" in figures._advice(config, sizes, 16, share=share)
    config.microbatches = 4
    assert "--config.microbatches=8 (" in figures._advice(config, sizes, 16, share=0.6)
    assert "microbatches" not in figures._advice(config, sizes, 16, share=0.001)


def test_flops_on_gpus_do_not_depend_on_the_number_of_parts():
    whole, parts = (
        compare.plan(tiny_config(microbatches=count), topologies=["gpu:1"], batch_sizes=[32], sizes=TINY._asdict())[0]
        for count in (1, 4)
    )
    assert parts.flops_per_image == whole.flops_per_image
    assert "microbatches compute the forward pass once more, which is not counted" in parts.assumptions


# Shapes


def test_local_views_are_counted():
    changes = {"augment.local_views": 6, "augment.local_size": 4}
    encoded = TINY._replace(is_encoded=True)
    mesh = sharding.abstract_mesh(8)
    memory, plain = (
        figures.state_memory(step.plan_step(momentum_config(**fields), encoded, mesh)) for fields in (changes, {})
    )
    assert memory["batch of images"] == 32 / 8 * (2 * 8 * 8 + 6 * 4 * 4 + 4 * 4)  # views, local views, labels
    assert plain["batch of images"] == 32 / 8 * (2 * 8 * 8 + 4 * 4)
    # Views have 2 x 64 pixels and a key encoder for one of them, local views 6 x 16 with a gradient.
    assert 1.3 < work_of_one_gpu(**changes) / work_of_one_gpu() < 2.5
    assert figures.group_of("jit(step)/transpose(jvp(local_views))/backbone/stage1_block1/conv1") == "local views"
    assert figures.group_of("jit(step)/local_views/head/hidden") == "local views"
    assert figures.group_of("jit(step)/jvp()/backbone/stage1_block1/conv1") == "stage 1"


def test_the_state_per_device_is_counted_exactly():
    mesh = sharding.abstract_mesh(8)
    planned = step.plan_step(momentum_config(), TINY, mesh)
    memory = figures.state_memory(planned)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(planned.state.params))
    assert memory["parameters"] == 4 * parameters
    assert memory["queue"] == 64 / 8 * (8 + 4 + 1) * 4  # keys per device x (embedding + labels + filled) x float32
    assert memory["EMA"] == memory["parameters"] + memory["running statistics"]
    assert memory["batch of images"] == 32 / 8 * (8 * 8 * 1 + 4 * 4)


def test_training_images_exclude_the_validation_split():
    assert known.data_sizes("tfds:imagenet2012").num_train_images(0.01, None) == 1_268_355
    assert known.data_sizes("tfds:cifar10").num_train_images(0.1, None) == 45_000
    assert known.data_sizes("tfds:cifar10").num_train_images(0.1, 500) == 500
    assert known.data_sizes("tfds:cifar100").num_train_images(0.1, None, 100.0) == 9_754
    assert known.data_sizes("digits").num_train_images(0.1, None) == 1_077
    assert known.data_sizes("tfds:cifar10", num_images=123).num_train_images(0.1, None) == 123


def test_a_teacher_is_planned_without_its_file():
    config = imagenet.get_config("genscl_teacher")
    mesh = sharding.abstract_mesh(16)
    planned = step.plan_step(config, known.data_sizes("tfds:imagenet2012"), mesh)
    count = sum(leaf.size for leaf in jax.tree.leaves(planned.frozen["teacher"]["params"]))
    assert count == 25_557_032  # ResNet-50 as published
    assert "resnet50 in bfloat16" in planned.assumptions[0]


def test_the_step_lowers_for_cuda():
    mesh = sharding.abstract_mesh(2)
    planned = step.plan_step(momentum_config(), TINY, mesh)
    exported = jax.export.export(planned.train_step_fn, platforms=("cuda",))(
        planned.state, planned.frozen, planned.batch, planned.seed_key
    )
    assert (exported.platforms, exported.nr_devices) == (("cuda",), 2)


def work_of_one_gpu(**changes):
    config = momentum_config(**changes)
    (plan,) = compare.plan(config, topologies=["gpu:1"], batch_sizes=[32], sizes=TINY._asdict())
    return plan.flops_per_image


@pytest.mark.slow
def test_gpus_get_flops_and_state_only():
    (plan,) = compare.plan(momentum_config(), topologies=["gpu:4"], batch_sizes=[32], sizes=TINY._asdict())
    assert plan.flops_per_image > 1e5
    assert plan.flops_per_image == pytest.approx(work_of_one_gpu(), rel=0.05)  # 8 images share one update there
    assert work_of_one_gpu(**{"loss.tile_size": 4}) == work_of_one_gpu()  # a loop's body would count once
    assert plan.verdict == figures.UNKNOWN
    assert (plan.bounds, plan.groups, plan.traffic) == ({}, (), ())
    text = table.text([plan], price_per_chip_hour=1.0)
    assert "whether it fits is unknown" in text
    assert not any(word in text for word in ("TPU", "at least", "  -\n"))
    (row,) = table.as_json([plan])
    assert row["bytes_per_image"] is None


# Bad input


def refusal(**arguments):
    with pytest.raises(errors.UserError) as caught:
        compare.plan(
            **{"config": tiny_config(), "topologies": ["gpu:4"], "batch_sizes": [32], "sizes": TINY._asdict()}
            | arguments
        )
    return str(caught.value)


def test_an_unknown_slice_lists_the_known_ones():
    found = refusal(topologies=["v9:2x2"])
    assert found.startswith("--topology is 'v9:2x2'; known: v4:AxBxC, v5e:AxB, v5p:AxBxC, v6e:AxB")
    assert "allowed: v5e with 2 sides and up to 256 chips" in refusal(topologies=["v5e:4x4x4"])
    assert "up to 256 chips" in refusal(topologies=["v5e:16x32"])
    assert "gpu: and a whole number from 1" in refusal(topologies=["gpu:0"])


def test_a_batch_that_does_not_divide_names_the_nearest():
    found = refusal(batch_sizes=[30])
    assert (
        found
        == "gpu:4: batch_size is 30, not divisible by 4 devices; set batch_size to 28 or 32, or use another number of devices"
    )


def test_all_problems_of_a_plan_are_reported_together():
    lines = refusal(topologies=["gpu:4", "gpu:3"], batch_sizes=[30, 32]).splitlines()
    assert any(line.startswith("gpu:4: batch_size is 30, not divisible by 4") for line in lines)
    assert any(line.startswith("gpu:3: batch_size is 32, not divisible by 3") for line in lines)


def test_an_unknown_data_set_asks_for_its_sizes():
    config = tiny_config(**{"dataset.name": "tfds:beans"})
    found = refusal(config=config, sizes={"image_size": 500})
    assert "whose sizes are not known here" in found
    assert found.endswith("give --num_channels, --num_classes, --num_images")


def test_without_libtpu_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "libtpu", None)
    assert refusal(topologies=["v5e:2x2"]) == (
        'the TPU compiler is not installed; install it with: pip install "gensupcon_jax[plan]"'
    )


# With the TPU compiler


def tpu_plan(**arguments):
    pytest.importorskip("libtpu")
    return compare.plan(
        **{"config": momentum_config(), "topologies": ["v5e:2x2"], "batch_sizes": [32], "sizes": TINY._asdict()}
        | arguments
    )


@pytest.mark.slow
def test_a_tiny_step_is_planned_for_four_chips():
    (plan,) = tpu_plan()
    assert (plan.num_chips, plan.num_hosts, plan.images_per_chip) == (4, 1, 8)
    assert plan.verdict == figures.FITS
    assert plan.memory["queue"] == 64 / 4 * (8 + 4 + 1) * 4  # embeddings, labels, filled
    assert {group.name for group in plan.groups} >= {"stem", "stage 1", "head", "loss", "EMA", "update", "key encoder"}
    parsed = sum(group.flops for group in plan.groups)
    assert parsed == pytest.approx(plan.flops_per_image, rel=0.1)
    kinds = {kind.kind: kind for kind in plan.traffic}
    assert set(kinds) >= {"all-gather", "all-reduce"}
    num_parameters = plan.memory["parameters"] / 4
    assert kinds["all-reduce"].num_bytes > 4 * num_parameters  # the gradients are among it
    assert plan.hours == pytest.approx(plan.total_steps * plan.seconds / 3600)
    text = table.text([plan], price_per_chip_hour=2.0)
    for words in ("4 / 1", "fits", "at least", "compiler's own cycle estimate", "cost at 2 per chip-hour", "estimate"):
        assert words in text
    (row,) = table.as_json([plan], price_per_chip_hour=2.0)
    assert row["cost_at_least"] == pytest.approx(plan.hours * 4 * 2.0)
    assert json.loads(json.dumps(row))["groups"][0]["flops"] >= 0


def test_the_command_prints_a_table_and_writes_the_figures(tmp_path):
    file = tmp_path / "plan.json"
    command = [sys.executable, "-m", "gensupcon_jax.plan", "--config", "configs/digits.py", "--topology", "gpu:2"]
    done = subprocess.run([*command, "--json", str(file)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "gpu:2" in done.stdout and "GFLOP per image" in done.stdout
    rows = json.loads(file.read_text())["gensupcon_jax plan"]
    assert [row["num_chips"] for row in rows] == [2]


def test_a_file_that_is_not_a_plan_is_not_replaced(tmp_path, capfd):
    file = tmp_path / "plan.json"
    file.write_text("mine")
    message = f"error: {file} exists and is not a plan; give another file with --json\n"
    assert told(capfd, "plan", "digits", "--topology=gpu:2", "--json", file) == (1, "", message)
    assert file.read_text() == "mine"
    file.write_text(json.dumps({"gensupcon_jax plan": []}))
    plan_command._check_replaceable(file)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--topology is missing; for example --topology v5e:4x4,v4:2x2x4"),
        (["--topology=gpu:1", "--batch_size=\u00b2"], "--batch_size has '\u00b2'; allowed: whole numbers from 1, with "
                                                   "commas between them"),
        (["--topology=gpu:1", "--price-per-chip-hour=nan"], "--price_per_chip_hour is 'nan'; allowed: a number from 0"),
        (["--topology=h100:8"], "--topology is 'h100:8'; known: v4:AxBxC, v5e:AxB, v5p:AxBxC, v6e:AxB, with numbers "
                                "for the letters, and gpu:A; for example v4:2x2x4, v5e:4x4, v5p:2x2x2, v6e:4x4"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(capfd, arguments, message):
    assert told(capfd, "plan", "digits", *arguments) == (1, "", f"error: {message}\n")


def test_a_benchmark_reports_a_mistake_in_one_line():
    for name in ("anchor", "views"):
        command = [sys.executable, "-m", f"benchmarks.{name}", "--topology", "v9:1"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 1
        assert done.stderr.startswith("error: --topology is 'v9:1'; known: ") and done.stderr.count("\n") == 1


def test_hyphens_and_underscores_are_the_same(capfd):
    message = "error: --price_per_chip_hour is '-1'; allowed: a number from 0\n"
    for flag in ("--price-per-chip-hour=-1", "--price_per_chip_hour=-1"):
        assert told(capfd, "plan", "digits", "--topology=gpu:1", flag) == (1, "", message)


def test_every_chip_has_the_published_figures():
    gib = 2.0**30
    # FLOP/s, HBM, bytes/s of HBM and of all links both ways, as read from the page of each; the links of v4 from its paper.
    published = {
        "v4": (275e12, 32 * gib, 1200e9, 600e9),
        "v5e": (197e12, 16 * gib, 819e9, 400e9),
        "v5p": (459e12, 95 * gib, 2765e9, 1200e9),
        "v6e": (918e12, 32 * gib, 1600e9, 800e9),
    }
    assert {name: tuple(chip[1:5]) for name, chip in chips.CHIPS.items()} == published
    for chip in chips.CHIPS.values():
        assert chip.source == f"https://cloud.google.com/tpu/docs/{chip.name}"
        assert math.isclose(
            chip.peak_flops / chip.clock / 2**15, round(chip.peak_flops / chip.clock / 2**15), rel_tol=0.01
        )


# Views of several sizes, and several recipes


def test_views_of_every_size_are_planned_with_their_steps():
    mesh = sharding.abstract_mesh(16)
    planned = step.plan_steps(imagenet.get_config("short"), known.data_sizes("tfds:imagenet2012"), mesh)
    assert [(each.view_size, each.total_steps) for each in planned] == [(160, 37_140), (192, 12_380)]
    assert [each.batch.images.shape for each in planned] == [(1024, 2, 160, 160, 3), (1024, 2, 192, 192, 3)]
    assert step.plan_step(imagenet.get_config("short"), known.data_sizes("tfds:imagenet2012"), mesh).view_size == 192
    assert planned[0].state.ema_params is not None


def figures_of(planned, seconds, **changes):
    return figures.Figures(
        topology="v5e:2x2", num_chips=4, num_hosts=1, batch_size=32, images_per_chip=8, total_steps=planned.total_steps,
        memory={"parameters": 2.0**30}, hbm_bytes=2.0**34, verdict=figures.FITS, reason="", advice="",
        flops_per_image=1e9, bytes_per_image=1e6, hbm_bytes_per_image=1e6, groups=(), traffic=(),
        bounds={"HBM": seconds, "compute": seconds / 2, "interconnect": 0.0}, compiler_seconds=2 * seconds,
        compile_seconds=3.0, assumptions=(),
    )._replace(**changes)  # fmt: skip


def test_hours_are_the_sum_over_the_sizes():
    config = tiny_config(**{"augment.sizes": (4, 8), "augment.size_epochs": (1.0,), "steps": 9})
    small, large = step.plan_steps(config, TINY, sharding.abstract_mesh(1))
    assert [(each.view_size, each.total_steps) for each in (small, large)] == [(4, 3), (8, 6)]
    both = figures.together([(small, figures_of(small, 3600.0)), (large, figures_of(large, 7200.0))])
    assert (both.total_steps, both.hours, both.compiler_hours, both.compile_seconds) == (9, 3 + 12, 2 * 15, 6.0)
    printed = table.text([both, figures_of(large, 7200.0, recipe="beside")], price_per_chip_hour=0.5)
    assert "\nv5e:2x2, batch 32: fits, " in printed and "\nbeside, v5e:2x2, batch 32: fits, " in printed
    assert re.search(r"views of 4 px: steps x ms at least +3 x 3,?600,?000 +-", printed)
    assert re.search(r"cost at 0\.5 per chip-hour, at least +30\.?0* +24", printed)
    (row, _) = table.as_json([both, figures_of(large, 7200.0)], price_per_chip_hour=0.5)
    assert [each["steps"] for each in row["by_size"]] == [3, 6]
    assert row["cost_at_least"] == 30.0
    refused = figures.together(
        [(small, figures_of(small, 3600.0)), (large, figures_of(large, 1.0, verdict=figures.DOES_NOT_FIT, bounds={}))]
    )
    assert (refused.verdict, refused.by_size) == (figures.DOES_NOT_FIT, ())


def test_the_price_of_another_recipe_stands_beside(monkeypatch, tmp_path, capfd):
    def planned(config, *, topologies, batch_sizes, say_fn, sizes=None):
        seconds = 1.0 if config.epochs == 40 else 2.0
        large = step.plan_step(tiny_config(), TINY, sharding.abstract_mesh(1))
        return [figures_of(large._replace(total_steps=3600), seconds, batch_size=batch_sizes[0])]

    monkeypatch.setattr(compare, "plan", planned)
    arguments = ["imagenet:short", "--beside", "imagenet", "--topology", "v5e:2x2", "--price_per_chip_hour", "1"]
    plan_command.main([*arguments, "--json", str(tmp_path / "plan.json")], "gensupcon plan")
    printed = capfd.readouterr().out
    assert re.search(r"^ +imagenet:short +imagenet$", printed, re.MULTILINE)
    assert re.search(r"cost at 1 per chip-hour, at least +4\.?0* +8", printed)
    with pytest.raises(errors.UserError, match="imagenett"):
        plan_command.main(["imagenet:short", "--beside", "imagenett", "--topology", "v5e:2x2"], "gensupcon plan")
