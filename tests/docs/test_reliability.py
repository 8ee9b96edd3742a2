"""Each promise in docs/reliability.md names tests that exist."""

import ast
import re

from tests import ROOT

TEXT = (ROOT / "docs" / "reliability.md").read_text()
NAMED = re.findall(r"`([\w/]+\.py)::(\w+)`", TEXT)


def test_every_named_test_exists():
    assert len(NAMED) >= 30
    for file, name in NAMED:
        tree = ast.parse((ROOT / "tests" / file).read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (file, name)
    for file in re.findall(r"`([\w/]*test_\w+\.py)`", TEXT):  # all of its tests
        assert (ROOT / "tests" / file).is_file(), file


def test_every_promise_names_a_test():
    tables = re.findall(r"^\| promise \| test \|\n\|---\|---\|\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    rows = [row for table in tables for row in table.splitlines()]
    assert len(tables) >= 10 and len(rows) >= 100, (len(tables), len(rows))
    assert [row for row in rows if not re.search(r"\btest_\w+\.py(::test_|`)", row)] == []
