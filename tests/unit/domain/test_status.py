import pytest

from sterna.domain.status import ALLOWED, OWNER, Status, check_transition


def test_every_status_says_who_owns_the_guest() -> None:
    assert set(OWNER) == set(Status)


def test_every_allowed_transition_has_a_reason_and_no_final_status_is_left() -> None:
    assert all(ALLOWED.values())
    assert not [pair for pair in ALLOWED if pair[0].final]


def test_what_is_not_in_the_table_raises() -> None:
    with pytest.raises(ValueError, match="completed to rolling-back"):
        check_transition(Status.COMPLETED, Status.ROLLING_BACK)
    with pytest.raises(ValueError, match="post-migrating to rolling-back"):
        check_transition(Status.POST_MIGRATING, Status.ROLLING_BACK)


def test_r0_may_find_a_doubt_wherever_a_rollback_begins() -> None:
    begins = {old for old, new in ALLOWED if new is Status.ROLLING_BACK}
    assert {old for old in begins - {Status.ERROR} if (old, Status.ERROR) not in ALLOWED} == set()
