"""kill -9 at random instants, also inside a save: the run resumes to the same end, bit for bit."""

import pytest

from tests.killing import CHANGES, compare


@pytest.mark.slow
def test_10_kills_change_nothing(tmp_path):
    fell, same = compare(tmp_path, num_kills=10, seed=0, changes=CHANGES)
    assert len(fell) == 10
    assert "inside a save" in fell
    assert all(same), [number for number, is_same in enumerate(same) if not is_same]
