"""What a site takes for its disk's trouble, which may pass, and what for a reason to refuse."""

from __future__ import annotations

import errno
import os

import pytest

from tunesmith.errors import DataError, ModelError, UserError
from tunesmith_federated.site import of_the_disk

pytestmark = pytest.mark.unit


def caused(number: int, kind: type[UserError]) -> UserError:
    """As it is raised: with what the system says as its cause."""
    try:
        try:
            raise OSError(number, os.strerror(number))
        except OSError as error:
            raise kind("it does not go on") from error
    except UserError as error:
        return error


@pytest.mark.parametrize("kind", [UserError, DataError, ModelError])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_full_disk_is_one_whatever_was_being_done(number: int, kind: type[UserError]) -> None:
    assert of_the_disk(caused(number, kind))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_rows_that_must_not_be_read_are_no_full_disk(number: int) -> None:
    assert of_the_disk(caused(number, UserError)), "the state folder must not be written"
    assert not of_the_disk(caused(number, DataError))
    assert not of_the_disk(caused(number, ModelError))


def test_a_file_that_is_not_there_is_no_full_disk() -> None:
    assert not of_the_disk(caused(errno.ENOENT, UserError))
    assert not of_the_disk(None)
