"""What is done to a simulated copy that gets nowhere."""

from __future__ import annotations

from collections.abc import Collection

from bench.fleetsim.links import Copy
from bench.fleetsim.steering import Act, Steering

from sterna.domain.policies import May

GB = 1e9


def acts(may: Collection[May], *, stubborn: bool = False, dirty: float = 4 * GB, limit_s: float = 600) -> list[Act]:
    copy = Copy("vm", "a", "b", 10 * GB, dirty, rate=GB)
    steering = Steering(may, 40.0, 1.0, stubborn=stubborn)
    found: list[Act] = []
    while copy.elapsed_s < limit_s and copy.left > GB / 100:
        copy.advance(1.0)
        act = steering.judge(copy)
        if act is not Act.NOTHING:
            found.append(act)
        if act in (Act.GIVE_UP, Act.POSTCOPY, Act.PAUSE):
            break
    return found


def test_a_copy_that_converges_is_left_alone() -> None:
    assert acts(frozenset(May), dirty=GB / 10) == []


def test_without_permission_it_is_given_up() -> None:
    assert acts(frozenset()) == [Act.GIVE_UP]


def test_a_throttled_guest_converges_but_for_a_stubborn_one() -> None:
    throttled = acts({May.THROTTLE})
    assert throttled and set(throttled) == {Act.THROTTLE}
    assert acts({May.THROTTLE}, stubborn=True)[-1] is Act.GIVE_UP


def test_post_copy_comes_before_a_pause_and_after_throttling() -> None:
    assert acts({May.POSTCOPY, May.PAUSE}) == [Act.POSTCOPY]
    assert acts({May.PAUSE}) == [Act.PAUSE]
    assert acts(frozenset(May), stubborn=True)[-1] is Act.POSTCOPY
