"""Each task that is told an error raises its own."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from sterna.domain.errors import Conflict, Refused, SternaError, Temporary, Unreachable
from sterna.domain.model import Refusal
from sterna.kit.errors import copy_of

REFUSALS = [Refusal(code="check-failed", message="it is full", fix="make room")]


def frames(error: BaseException) -> int:
    n, traceback = 0, error.__traceback__
    while traceback is not None:
        n, traceback = n + 1, traceback.tb_next
    return n


@pytest.mark.parametrize(
    "error",
    [Unreachable("away", fix="start it"), Temporary("later", delay_s=3), Refused(REFUSALS), OSError(2, "x")],
)
def test_it_says_the_same(error: Exception) -> None:
    own = copy_of(error)
    assert own is not error and type(own) is type(error)
    assert (str(own), vars(own)) == (str(error), vars(error))
    if isinstance(error, SternaError) and isinstance(own, SternaError):
        assert own.to_wire() == error.to_wire()


def test_who_raises_it_adds_nothing_to_the_others_traceback() -> None:
    try:
        raise Conflict("held") from KeyError("x")
    except Conflict as caught:
        error = caught
    before = frames(error)
    for _ in range(3):
        with pytest.raises(Conflict) as raised:
            raise copy_of(error)
        assert frames(raised.value) == before + 1 and isinstance(raised.value.__cause__, KeyError)
    assert frames(error) == before


def test_what_cannot_be_copied_is_raised_itself() -> None:
    with pytest.raises(ValidationError) as raised:
        TypeAdapter(int).validate_python("x")
    assert copy_of(raised.value) is raised.value
