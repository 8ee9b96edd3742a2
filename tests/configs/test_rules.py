"""Rules of values: their words, their bounds, and their own good and bad examples."""

import pytest

from gensupcon_jax.configs import rules

NAN, INF = float("nan"), float("inf")
# rule, its words, allowed values, refused values
CASES = [
    (rules.integer(1), "a whole number from 1", [1, 10**30], [0, 1.0, True, "1", NAN, None]),
    (rules.integer(0, 7), "a whole number from 0 to 7", [0, 7], [-1, 8]),
    (rules.number(0), "a number from 0", [0, 0.0, 1e300], [-1e-9, INF, NAN, False, "0"]),
    (rules.number(0, 0.5), "a number from 0 to 0.5", [0, 0.5], [0.51, -0.1]),
    (rules.above(0), "a number above 0", [1e-300, 3], [0, -1, INF, NAN, True]),
    (rules.above(0, below=1), "a number above 0 and below 1", [0.5], [0, 1]),
    (rules.above(0, up_to=1), "a number above 0 up to 1", [0.5, 1], [0, 1.01]),
    (rules.interval(0), "two numbers above 0, the smaller first", [(1, 2), [3, 3]], [(0, 1), (2, 1), (1,), (1, NAN), 1]),
    (rules.interval(0, 1), "two numbers above 0, the smaller first, up to 1", [(0.2, 1.0)], [(0.5, 1.1), (0.6, 0.5)]),
    (rules.several(rules.integer(1)), "one or more in parentheses, each a whole number from 1", [(1,), [5, 2]], [(), (0,), 5]),
    (rules.optional(rules.above(0)), "a number above 0, or None", [None, 0.5], [0, "None"]),
    (rules.choice("all", "one"), "all, one", ["all", "one"], ["al", "", None, 1]),
    (rules.choice("digits", "tfds:<name>"), "digits, tfds:<name>", ["digits", "tfds:cifar10"], ["tfds:", "tfds: ", "tfds", "x"]),
    (rules.FLAG, "True or False", [True, False], [0, 1, "True", None]),
    (rules.PATH, "the path of a file or folder", ["runs/a"], ["", "  ", 3, None]),
    (rules.SPLIT_NAME, "the name of a split", ["train[:90%]"], ["", 1]),
    (rules.CHANNELS, "1 or 3 numbers in parentheses, one for each channel", [(0.5,), [0, 1, 2]], [(0.5, 0.5), 0.5, (NAN,)]),
    (rules.BELOW_ONE, "a number from 0 to below 1", [0, 0.99], [1, -0.1]),
    (rules.WEIGHT, "a number from 0, or inf", [0, INF], [-1, NAN, -INF]),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "words", "good", "bad"), CASES, ids=[case[1] for case in CASES])
def test_a_rule_describes_what_it_allows_and_refuses_the_rest(rule, words, good, bad):
    assert rule.words == words
    assert [value for value in (*good, *rule.good) if not rule.allows(value)] == []
    assert [value for value in (*bad, *rule.bad, "", object(), b"") if rule.allows(value)] == []
    assert rule.good
    assert rule.bad
    assert rule.resolved({}) is rule


def test_the_names_of_a_table_are_its_current_ones():
    table = {"resnet18": object()}
    named = rules.Named("encoders")
    assert not named.resolved({"encoders": table}).allows("mlp_mixer")
    table["mlp_mixer"] = object()
    rule = named.resolved({"encoders": table})
    assert rule.allows("mlp_mixer")
    assert rule.words == "resnet18, mlp_mixer"
