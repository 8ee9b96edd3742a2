"""Reasons, lists, tables and dotted names, as messages and files show them."""

from gensupcon_jax.text import aligned, common_start, counted, flatten, listed, one_line, reason, visible


def test_a_reason_is_the_message_of_the_system_else_the_first_line_else_the_type():
    assert reason(FileNotFoundError(2, "No such file or directory", "a.txt")) == "No such file or directory"
    assert reason(ValueError("\nfirst\nsecond")) == "first"
    assert reason(OSError("only this")) == "only this"
    assert reason(KeyError()) == "KeyError"
    assert reason(ValueError(" \n")) == "ValueError"


def test_one_line_has_no_breaks_and_no_runs_of_spaces():
    assert one_line(" a\n  b\tc ") == "a b c"
    assert one_line(ValueError("a\nb")) == "a b"
    assert one_line("") == ""


def test_the_first_few_of_many_names_are_listed():
    assert listed([]) == ""
    assert listed(["a", "b"], 2) == "a, b"
    assert listed(["a", "b", "c"], 2) == "a, b, and 1 more"
    assert listed(range(9)) == "0, 1, 2, 3, 4, and 4 more"


def test_a_table_has_text_aligned_left_and_numbers_aligned_right():
    rows = [["split", "images", "formats"], ["test", "1,234", "PNG"]]
    assert aligned(rows) == "split  images  formats\ntest    1,234      PNG"
    assert aligned(rows, (0, 2)) == "split  images  formats\ntest    1,234  PNG"
    assert aligned([["a", ""], ["b", ""]]) == "a\nb"


def test_line_breaks_control_characters_and_broken_bytes_are_escapes():
    assert visible("a\nb\t\x1b[31m \udcff") == r"a\nb\t\x1b[31m \udcff"
    assert visible("日本 é, 2.png") == "日本 é, 2.png"
    assert listed(["a\nb", 2]) == r"a\nb, 2"
    assert aligned([["a\nb", "1"], ["c", "22"]]) == "a\\nb   1\nc     22"


def test_things_are_counted_in_words():
    assert [counted(number, "image") for number in (0, 1, 1200)] == ["0 images", "1 image", "1,200 images"]


def test_nested_fields_have_dotted_names():
    assert flatten({"a": {"b": {"c": 1}}, "d": 2, "e": {}}) == {"a.b.c": 1, "d": 2}


def test_common_start_is_letter_by_letter():
    assert common_start(["mixup_seed1", "mixup_seed10", "mixup_seed2"]) == "mixup_seed"
    assert common_start(["abc"]) == "abc"
    assert common_start(["abc", "ab"]) == "ab"
    assert common_start(["abc", "xbc"]) == ""
