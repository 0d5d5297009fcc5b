"""The lab's faults strike every process of a family, whatever the others do meanwhile."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pytest

from sterna.lab import sabotage
from sterna.lab.errors import LabError
from sterna.lab.sabotage import Victim

Process = subprocess.Popen[bytes]


class Listed:
    """Namespaces whose list of processes is older than the processes' end."""

    def __init__(self, processes: list[Process]) -> None:
        self._pids = [process.pid for process in processes]

    def processes(self) -> Iterator[tuple[int, list[str]]]:
        return ((pid, ["sleep"]) for pid in self._pids)


@pytest.fixture
def three() -> Iterator[list[Process]]:
    with ExitStack() as stack:
        found = []
        for _ in range(3):
            process = stack.enter_context(subprocess.Popen(["sleep", "60"]))
            stack.callback(process.kill)
            found.append(process)
        yield found


def family(processes: list[Process]) -> Victim:
    return Victim("family", cast(Any, Listed(processes)), lambda argv: True, family=True)


def state(process: Process) -> str:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2][0]


def test_the_others_go_on_when_one_has_ended_meanwhile(three: list[Process]) -> None:
    victim = family(three)
    sabotage.freeze(victim)
    assert [state(process) for process in three] == ["T", "T", "T"]
    three[0].kill()
    three[0].wait()
    sabotage.thaw(victim)
    assert "T" not in (state(three[1]), state(three[2]))


def test_a_child_that_was_forked_meanwhile_is_stopped_as_well(three: list[Process]) -> None:
    """A server that takes a connection between the list of its processes and its own stop."""

    class Growing(Listed):
        looks = 0

        def processes(self) -> Iterator[tuple[int, list[str]]]:
            self.looks += 1
            known = self._pids[:2] if self.looks == 1 else self._pids
            return ((pid, ["sleep"]) for pid in known)

    victim = Victim("family", cast(Any, Growing(three)), lambda argv: True, family=True)
    sabotage.freeze(victim)
    assert [state(process) for process in three] == ["T", "T", "T"]


def test_a_family_that_is_gone_cannot_go_on(three: list[Process]) -> None:
    victim = family(three)
    for process in three:
        process.kill()
        process.wait()
    with pytest.raises(LabError, match="there is no family any more"):
        sabotage.thaw(victim)
