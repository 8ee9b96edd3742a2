"""Paired tests between runs: on images, over seeds, and the sentences that follow from them."""

import pytest

from gensupcon_jax.compare.comparisons import comparisons, main_comparisons, p_text, sentence
from gensupcon_jax.compare.groups import grouped
from gensupcon_jax.compare.images import images_of_one
from gensupcon_jax.compare.runs import read_runs
from gensupcon_jax.evaluation.paired import compare_over_seeds
from tests.compare.workdirs import TEST, make_run

MIXUP = {"kind": "mixup"}


def compared(*folders):
    return comparisons(grouped(read_runs(folders)))


def main(*folders):
    return main_comparisons(compared(*folders))


def test_two_runs_by_mcnemar(tmp_path):
    (found,) = main(
        make_run(tmp_path / "a", linear=(0, 1, 2, 3, 4, 5, 6, 7)), make_run(tmp_path / "b", linear=(7, 8), mix=MIXUP)
    )
    assert (found.first, found.second, found.predictor, found.which) == ("a", "b", "linear", "last")
    assert (found.result.only_first, found.result.only_second, found.result.num_images) == (1, 7, 100)
    assert found.result.p_value == pytest.approx(2 * (1 + 8) / 2**8)  # 8 tosses, at most one head, both sides
    assert sentence(found) == (
        "a is less accurate than b by 6.00 points (linear probe, last step: 92.00 % and 98.00 %; 95 % interval of the "
        "difference -11.53 to -0.23). Of 100 test images, a alone classifies 1 correctly, b alone 7: McNemar's test gives "
        "p = 0.07: this is at the border of what chance explains."
    )


def test_a_clear_difference_is_said_to_be_clear(tmp_path):
    (found,) = main(make_run(tmp_path / "a"), make_run(tmp_path / "b", linear=range(20), mix=MIXUP))
    assert found.is_significant
    assert sentence(found).startswith(
        "a is more accurate than b by 20.00 points (linear probe, last step: 100.00 % and 80.00 %"
    )
    assert sentence(found).endswith(
        "a alone classifies 20 correctly, b alone 0: McNemar's test gives p < 0.0001: chance is an unlikely explanation."
    )


def test_equal_accuracies_are_said_to_be_equal(tmp_path):
    (found,) = main(make_run(tmp_path / "a", linear=(1,)), make_run(tmp_path / "b", linear=(2,), mix=MIXUP))
    assert sentence(found).startswith("a is as accurate as b (linear probe, last step: 99.00 % and 99.00 %")
    assert sentence(found).endswith("McNemar's test gives p = 1: chance alone can explain it.")


def test_groups_with_common_seeds_by_the_t_test(tmp_path):
    plain = [make_run(tmp_path / f"plain_{seed}", seed=seed, linear=range(10 + seed)) for seed in (0, 1, 2)]
    mixed = [make_run(tmp_path / f"mixup_{seed}", seed=seed, linear=range(5 - seed), mix=MIXUP) for seed in (1, 2, 3)]
    (found,) = main(*plain, *mixed)
    assert found.over_seeds and found.seeds == (1, 2)
    expected = compare_over_seeds([89.0, 88.0], [96.0, 97.0])
    assert found.result == expected and expected.difference == -8.0
    assert "plain is less accurate than mixup by 8.00 points (linear probe, last step: 88.50 % and 96.50 %" in sentence(
        found
    )
    assert (
        "Over the 2 seeds that both have, the paired t-test gives p = 0.079: chance alone can explain it."
        in sentence(found)
    )


def test_one_common_seed_is_compared_on_images(tmp_path):
    folders = [make_run(tmp_path / f"plain_{seed}", seed=seed, linear=(seed,)) for seed in (0, 1)]
    (found,) = main(*folders, make_run(tmp_path / "mixup", seed=1, mix=MIXUP))
    assert not found.over_seeds and found.runs == ("plain_1", "mixup")


def test_every_predictor_and_step_that_both_have(tmp_path):
    found = compared(
        make_run(tmp_path / "a", knn=(1, 2), best=(1,)), make_run(tmp_path / "b", linear=(3,), best=(4,), mix=MIXUP)
    )
    assert [(each.which, each.predictor) for each in found] == [("last", "linear"), ("last", "knn"), ("best", "knn")]


def test_p_values_are_corrected_for_the_number_of_pairs(tmp_path):
    folders = [
        make_run(tmp_path / name, linear=range(num), epochs=float(num)) for name, num in (("a", 1), ("b", 9), ("c", 20))
    ]
    found = [each for each in compared(*folders) if each.predictor == "linear"]
    assert {each.which for each in found} == {"last"}  # the best step is the last one
    assert [(each.first, each.second) for each in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    p_values = [each.result.p_value for each in found]
    assert p_values == pytest.approx([2 / 2**8, 2 / 2**19, 2 / 2**11])
    assert [each.adjusted for each in found] == pytest.approx([2 / 2**8, 6 / 2**19, 4 / 2**11])
    assert "p < 0.0001 (p < 0.0001 after Holm's correction for several comparisons)" in sentence(found[1])


def test_of_many_groups_each_is_compared_with_the_first(tmp_path):
    folders = [make_run(tmp_path / f"r{number}x", epochs=float(number)) for number in range(1, 8)]
    assert [(each.first, each.second) for each in main(*folders)] == [("r1x", f"r{number}x") for number in range(2, 8)]


def test_other_test_images_are_not_compared(tmp_path):
    other = TEST._replace(images=TEST.images + 1)
    first, second = make_run(tmp_path / "a"), make_run(tmp_path / "b", test=other)
    assert compared(first, second) == []
    assert len(main(first, second, make_run(tmp_path / "c", mix=MIXUP))) == 1


def test_runs_without_kept_predictions_are_compared_over_seeds_only(tmp_path):
    plain = [make_run(tmp_path / f"plain_{seed}", seed=seed, linear=(1,), keeps=False) for seed in (0, 1)]
    assert compared(plain[0], make_run(tmp_path / "mixup_0", mix=MIXUP)) == []
    (found,) = main(*plain, make_run(tmp_path / "mixup_1", seed=1, mix=MIXUP), tmp_path / "mixup_0")
    assert found.over_seeds and found.result.difference == -1.0


def test_images_that_only_one_classifies_correctly(tmp_path):
    folders = [make_run(tmp_path / "a", linear=(12, 13)), make_run(tmp_path / "b", linear=range(13, 40), mix=MIXUP)]
    first, second = images_of_one(main(*folders), read_runs(folders))
    assert (first.right, first.wrong, first.count, len(first.images)) == ("a", "b", 26, 20)
    assert first.images[0] == ("14", "digit 4", "digit 5")
    assert (second.right, second.wrong, second.count, second.images) == ("b", "a", 1, [("12", "digit 2", "digit 3")])


@pytest.mark.parametrize(
    ("p_value", "text"), [(1.0, "= 1"), (0.0312, "= 0.031"), (0.00012, "= 0.00012"), (9e-5, "< 0.0001")]
)
def test_p_text(p_value, text):
    assert p_text(p_value) == text


def test_what_only_the_correction_gives_to_chance_is_at_the_border(tmp_path):
    folders = [
        make_run(tmp_path / name, linear=range(num), epochs=float(num)) for name, num in (("a", 1), ("b", 7), ("c", 8))
    ]
    found = main(*folders)
    assert found[0].result.p_value == pytest.approx(2 / 2**6) and found[0].adjusted == pytest.approx(4 / 2**6)
    assert [(each.is_significant, each.is_borderline) for each in found] == [
        (False, True),
        (True, False),
        (False, False),
    ]
    assert (
        "(p = 0.062 after Holm's correction for several comparisons): this is at the border of what chance explains."
        in sentence(found[0])
    )
