"""Copies that share links in the simulated fleet."""

from __future__ import annotations

import pytest
from bench.fleetsim.links import Copy, Links, fair_rates

GB = 1e9


def copy(source: str = "a", target: str = "b", **more: float) -> Copy:
    return Copy("vm", source, target, more.pop("size", 10 * GB), more.pop("dirty", 0.0), **more)


def test_one_copy_gets_the_slower_of_its_links_and_never_more_than_its_cap() -> None:
    room = {"out of a": 3 * GB, "into b": 2 * GB}
    assert fair_rates([copy()], room) == [2 * GB]
    assert fair_rates([copy(cap=GB / 2)], room) == [GB / 2]
    assert fair_rates([], room) == []


def test_copies_share_alike_and_use_what_others_leave() -> None:
    room = {"out of a": 3 * GB, "into b": GB, "into c": 3 * GB}
    assert fair_rates([copy(), copy(target="c")], room) == pytest.approx([GB, 2 * GB])
    assert fair_rates([copy(target="c", cap=GB / 2), copy(target="c")], room) == pytest.approx([GB / 2, 2.5 * GB])


def test_no_link_carries_more_than_it_does() -> None:
    room = {f"{way} {host}": float(n + 1) * GB for way in ("out of", "into") for n, host in enumerate("abc")}
    copies = [copy(source, target) for source in "abc" for target in "abc" if source != target for _ in range(3)]
    rates = fair_rates(copies, room)
    for link, most in room.items():
        assert sum(rate for rate, one in zip(rates, copies, strict=True) if link in one.links) <= most * 1.001
    assert min(rates) > 0


def test_a_copy_sends_its_size_and_what_is_dirtied_meanwhile() -> None:
    calm, busy = copy(), copy(dirty=GB / 2)
    for one in (calm, busy):
        one.rate = GB
    calm.advance(9)
    assert (calm.left, calm.sent) == pytest.approx((GB, 9 * GB))
    busy.advance(10)
    assert busy.left > GB and busy.sent == pytest.approx(10 * GB)
    busy.advance(100)
    assert busy.left < GB / 10


def test_a_guest_that_writes_faster_than_its_link_never_converges_until_it_is_slowed_down() -> None:
    one = copy(dirty=4 * GB)
    one.rate = GB
    one.advance(1000)
    assert one.left == pytest.approx(7.5 * GB, rel=0.01)
    one.slowed = 0.9
    one.advance(1000)
    assert one.left < GB / 10


def test_what_links_carry_is_counted_and_rates_follow_begins_and_ends() -> None:
    links = Links({"a": 2 * GB, "b": 2 * GB, "c": GB})
    first, second = copy(), copy(target="c")
    links.begin(first)
    assert first.rate == 2 * GB
    links.begin(second)
    assert (first.rate, second.rate) == pytest.approx((GB, GB))
    links.advance(1.0)
    assert links.carried["out of a"] == pytest.approx(2 * GB, rel=0.01)
    assert links.carried["into c"] == pytest.approx(GB, rel=0.01)
    links.end(second)
    assert first.rate == 2 * GB and second.rate == 0
    links.set_room("b", GB / 4)
    assert first.rate == pytest.approx(GB / 4)
    links.end(second)
    assert links.copies == [first]
