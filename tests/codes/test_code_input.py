"""What is found out of files of codes before a job reads them."""

from __future__ import annotations

import numpy as np
import pytest

from models.errors import UserError
from models.tokenizers.info import CodeShape
from pipeline.codes.code_input import GivenForm, read_input


@pytest.fixture
def codes(tmp_path) -> str:
    np.save(tmp_path / "a.npy", np.arange(40, dtype=np.int32).reshape(10, 4))
    (tmp_path / "a.txt").write_text("a red boat\n" * 10)
    return str(tmp_path / "a.npy")


def test_what_is_not_given_is_taken_from_the_files(codes, tmp_path):
    found = read_input(codes, None, GivenForm(draws=1))
    assert (found.form.shape, found.form.vocabulary) == (CodeShape(sequence=4), 40)
    assert [each.rows for each in found.ranges] == [10]
    assert found.folders == {str(tmp_path)}
    assert len(found.tokenizer.spec.partition(":")[2]) == 16, "a name that follows from the codes"

    given = GivenForm(draws=1, spec="codes:mine", shape=CodeShape(grid=(2, 2)), vocabulary=64)
    found = read_input(codes, None, given)
    assert (found.tokenizer.spec, found.form.shape, found.form.vocabulary) == ("codes:mine", given.shape, 64)


def test_a_tokenizer_that_can_be_loaded_tells_itself(codes):
    given = GivenForm(draws=1, spec="python:tests.support.stripes:Stripes", vocabulary=64)
    with pytest.raises(UserError, match=r"--code-vocabulary 64: python:.* has 100; leave the option out"):
        read_input(codes, None, given)


def test_files_without_rows(tmp_path):
    np.save(tmp_path / "a.npy", np.empty((0, 4), np.int32))
    (tmp_path / "a.txt").touch()
    with pytest.raises(UserError, match="holds no row"):
        read_input(str(tmp_path / "a.npy"), None, GivenForm(draws=1))
