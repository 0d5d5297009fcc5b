"""May a leftover go? A test per row, and the law: never without proof from every other host."""

from __future__ import annotations

import itertools

import pytest

from sterna.domain.audit import (
    Elsewhere,
    Safety,
    judge_definition,
    judge_files,
    judge_folder,
    judge_incoming,
    runs_twice,
)
from sterna.domain.model import GuestState, Observation
from tests.narrowing import not_none

OFF = Observation(state=GuestState.SHUTOFF, epoch=5, ran=True)
WAITS = Observation(state=GuestState.PAUSED, reason="incoming", job_active=True, epoch=5)


def runs(epoch: int | None = 5, **more: object) -> Observation:
    return Observation(state=GuestState.RUNNING, epoch=epoch, ran=True, **more)  # type: ignore[arg-type]


ABSENT = Observation(state=GuestState.ABSENT)

DEFINITIONS = [
    (OFF, {"b": runs()}, (), Safety.SAFE),
    (OFF, {"b": runs(6), "c": ABSENT}, (), Safety.SAFE),
    (OFF, {"b": runs(4)}, (), Safety.NEVER),
    (OFF, {"b": runs(None)}, (), Safety.NEVER),
    (OFF, {"b": runs()}, ("c",), Safety.CANNOT_TELL),
    (OFF, {"b": ABSENT}, ("c",), Safety.CANNOT_TELL),
    (OFF, {"b": runs(), "c": runs()}, (), Safety.CANNOT_TELL),
    (OFF, {"b": ABSENT}, (), None),
    (OFF.model_copy(update={"epoch": None}), {"b": runs()}, (), None),
    (runs(), {"b": runs()}, (), None),
]


@pytest.mark.parametrize(("here", "seen", "silent", "safety"), DEFINITIONS)
def test_definitions(
    here: Observation, seen: dict[str, Observation], silent: tuple[str, ...], safety: Safety | None
) -> None:
    judged = judge_definition(here, Elsewhere(seen, silent))
    assert (judged and judged.safety) == safety


@pytest.mark.parametrize("epoch", [5, 6, 2**40])
def test_a_vm_that_has_not_left_is_not_undefined_by_another_hosts_word(epoch: int) -> None:
    judged = not_none(judge_definition(OFF, Elsewhere({"b": runs(epoch)}), stays=True))
    assert judged.safety is Safety.NEVER and "b says" in judged.why and judged.helps
    assert judge_definition(OFF, Elsewhere({"b": ABSENT}), stays=True) is None
    assert not_none(judge_definition(OFF, Elsewhere({}, ("b",)), stays=True)).safety is Safety.CANNOT_TELL


INCOMING = [
    (WAITS, {"b": runs()}, (), Safety.SAFE),
    (WAITS, {"b": runs(job_active=True)}, (), None),
    (WAITS, {"b": runs()}, ("c",), Safety.CANNOT_TELL),
    (WAITS, {"b": ABSENT}, (), Safety.NEVER),
    (WAITS.model_copy(update={"ran": True}), {"b": runs()}, (), None),
    (WAITS.model_copy(update={"epoch": None}), {"b": runs()}, (), None),
]


@pytest.mark.parametrize(("here", "seen", "silent", "safety"), INCOMING)
def test_incoming_guests(
    here: Observation, seen: dict[str, Observation], silent: tuple[str, ...], safety: Safety | None
) -> None:
    judged = judge_incoming(here, Elsewhere(seen, silent))
    assert (judged and judged.safety) == safety


def test_files() -> None:
    assert judge_files(Elsewhere({"b": runs()})).safety is Safety.SAFE
    assert judge_files(Elsewhere({"b": ABSENT})).safety is Safety.NEVER
    assert judge_files(Elsewhere({"b": runs()}, ("c",))).safety is Safety.CANNOT_TELL


def test_two_copies() -> None:
    assert runs_twice({"a": runs(), "b": ABSENT}) is None
    twice = runs_twice({"a": runs(), "b": runs()})
    assert twice is not None and twice.safety is Safety.NEVER and "a AND b" in twice.why


def test_nothing_is_safe_while_a_host_is_silent_or_the_guest_runs_nowhere() -> None:
    states = [
        Observation(state=s, epoch=e, ran=r, job_active=j)
        for s, e, r, j in itertools.product(GuestState, (None, 5, 6), (False, True), (False, True))
    ]
    for here, there, silent in itertools.product(states, states, ((), ("c",))):
        elsewhere = Elsewhere({"b": there}, silent)
        for judged in (judge_definition(here, elsewhere), judge_incoming(here, elsewhere), judge_files(elsewhere)):
            if judged is not None and judged.safety is Safety.SAFE:
                assert not silent and there.state is GuestState.RUNNING


@pytest.mark.parametrize(("here", "seen", "silent", "safety"), [*DEFINITIONS, *INCOMING])
def test_nobody_is_advised_to_remove_what_may_be_the_last(
    here: Observation, seen: dict[str, Observation], silent: tuple[str, ...], safety: Safety | None
) -> None:
    for judge in (judge_definition, judge_incoming):
        judged = judge(here, Elsewhere(seen, silent))
        assert judged is None or (judged.safety is Safety.SAFE) == (judged.helps == "")
    for judged in (judge_files(Elsewhere(seen, silent)), judge_folder(Elsewhere(seen, silent), shared=False)):
        assert judged is None or (judged.safety is Safety.SAFE) == (judged.helps == "")


def test_folders() -> None:
    assert judge_folder(Elsewhere({"b": runs()}), shared=True) is None
    assert not_none(judge_folder(Elsewhere({"b": runs()}), shared=False)).safety is Safety.SAFE
    assert not_none(judge_folder(Elsewhere({}, ("b",)), shared=False)).safety is Safety.CANNOT_TELL
