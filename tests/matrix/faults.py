"""The catalogue of faults. Each takes a parameter or none, and is made afresh for each strike."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from sterna.domain.errors import Permanent, Temporary, Unknown
from sterna.sim.libvirt import guests as fate
from tests.matrix.stage import Fault, Stage

CATALOGUE: dict[str, Fault] = {}


def _fault(name: str) -> Callable[[Fault], Fault]:
    def enter(act: Fault) -> Fault:
        act.__name__ = name
        CATALOGUE[name] = act
        return act

    return enter


def _each(name: str, values: tuple[float, ...], make: Callable[[float], Fault]) -> None:
    for value in values:
        _fault(f"{name}-{value:g}s")(make(value))


# ---------------------------------------------------------------- processes


def _kill(down_s: float) -> Fault:
    return lambda stage, host: stage.kill(host, down_s)


def _kill_peer(down_s: float) -> Fault:
    return lambda stage, host: stage.kill(stage.peer_of(host), down_s)


def _kill_both(down_s: float) -> Fault:
    def act(stage: Stage, host: str) -> None:
        for number, name in enumerate(stage.world.hosts):
            stage.kill(name, down_s + 2 * number)

    return act


def _kill_that(which: str, down_s: float, in_s: float = 0.0) -> Fault:
    def act(stage: Stage, host: str) -> None:
        if in_s:
            stage.later(in_s, lambda: stage.kill(which, down_s))
        else:
            stage.kill(which, down_s)

    return act


def _hang(seconds: float) -> Fault:
    def act(stage: Stage, host: str) -> None:
        life = stage.lives[host]
        life.freeze()
        stage.later(seconds, life.thaw)

    return act


_each("kill", (3, 70), _kill)
_each("kill-peer", (3, 70), _kill_peer)
_each("kill-both", (3,), _kill_both)
_each("hang", (3, 20, 70), _hang)
for _host in ("host1", "host2"):
    _fault(f"kill-{_host}-20s")(_kill_that(_host, 20.0))
    _fault(f"kill-{_host}-0.2s")(_kill_that(_host, 0.2))
    _fault(f"kill-{_host}-in-1s")(_kill_that(_host, 3.0, in_s=1.0))


def _controller_away(seconds: float) -> Fault:
    return lambda stage, host: stage.kill("controller", seconds)


def _controller_hangs(seconds: float) -> Fault:
    def act(stage: Stage, host: str) -> None:
        if stage.controller is not None and stage.controller.life is not None:
            stage.controller.life.freeze()
            stage.later(seconds, stage.controller.life.thaw)

    return act


def _database_away(seconds: float) -> Fault:
    def act(stage: Stage, host: str) -> None:
        controller = stage.controller
        if controller is not None:
            controller.database_up = False
            stage.later(seconds, lambda: setattr(controller, "database_up", True))

    return act


_each("controller-away", (5, 60), _controller_away)
_each("controller-hangs", (20,), _controller_hangs)
_each("database-away", (5, 60), _database_away)


# ---------------------------------------------------------------- errors and aborts


@_fault("temporary")
def temporary(stage: Stage, host: str) -> None:
    """It fails, once."""
    raise Temporary("forced: not now")


@_fault("permanent")
def permanent(stage: Stage, host: str) -> None:
    """It fails, and says that it always will."""
    raise Permanent("forced: never")


@_fault("unknown")
def unknown(stage: Stage, host: str) -> None:
    """Whatever happened, the answer is lost."""
    raise Unknown("forced: the answer is lost")


@_fault("bug")
def bug(stage: Stage, host: str) -> None:
    """An exception nobody thought of."""
    raise ZeroDivisionError("forced: a bug")


@_fault("abort")
def abort(stage: Stage, host: str) -> None:
    """A user aborts."""
    stage.spawn(stage.abort())


@_fault("switch")
def switch(stage: Stage, host: str) -> None:
    """A user asks for post-copy."""
    stage.spawn(stage.switch())


# ---------------------------------------------------------------- messages


@_fault("request-lost")
def request_lost(stage: Stage, host: str) -> None:
    """The message just being sent never arrives."""
    stage.losing.add(stage.trace[-1].what.removesuffix(" sent") + " request")


@_fault("answer-lost")
def answer_lost(stage: Stage, host: str) -> None:
    """The answer just being sent never arrives."""
    stage.losing.add(stage.trace[-1].what.removesuffix(" replying") + " answer")


def _bus_away(seconds: float) -> Fault:
    def act(stage: Stage, host: str) -> None:
        stage.broker.stop()
        stage.later(seconds, stage.broker.start)

    return act


_each("bus-away", (2, 30), _bus_away)


# ---------------------------------------------------------------- hosts


def _libvirtd(which: str, seconds: float) -> Fault:
    def act(stage: Stage, host: str) -> None:
        down = stage.world.hosts[which]
        if down.libvirtd_up and down.powered:
            down.libvirtd_up = False
            stage.later(seconds, lambda: _up(stage, which))

    return act


def _network_away(seconds: float) -> Fault:
    def act(stage: Stage, host: str) -> None:
        stage.world.network_up = False
        stage.later(seconds, lambda: setattr(stage.world, "network_up", True))

    return act


def _up(stage: Stage, which: str) -> None:
    if stage.world.hosts[which].powered:
        stage.world.hosts[which].libvirtd_up = True


def _power(which: str, seconds: float) -> Fault:
    def on(stage: Stage) -> None:
        stage.tell_story(which, "power is back")
        fate.power_on(stage.world, which)
        stage.revive(which)

    def act(stage: Stage, host: str) -> None:
        stage.tell_story(which, "POWER CUT")
        stage.kill(which, 0)
        fate.power_off(stage.world, which)
        stage.later(seconds, lambda: on(stage))

    return act


def _qemu(which: str) -> Fault:
    def act(stage: Stage, host: str) -> None:
        if not fate.kill_qemu(stage.world, which, stage.vm):
            stage.struck.pop()  # there is none now: no fault

    return act


def _clock_jumps(hours: float) -> Fault:
    def act(stage: Stage, host: str) -> None:
        for name in stage.clocks if host in ("world", "client") else (host,):
            stage.clocks[name].ahead += timedelta(hours=hours)

    return act


def _link(kinds: tuple[str, ...], seconds: float) -> Fault:
    def act(stage: Stage, host: str) -> None:
        stage.world.cut("host1", "host2", kinds=kinds)
        stage.later(seconds, lambda: stage.world.mend("host1", "host2"))

    return act


for _host in ("host1", "host2"):
    for _s in (4.0, 60.0):
        _fault(f"libvirtd-{_host}-{_s:g}s")(_libvirtd(_host, _s))
    _fault(f"power-{_host}-30s")(_power(_host, 30.0))
    _fault(f"qemu-{_host}")(_qemu(_host))
_each("network-away", (1, 20, 70), _network_away)
_fault("clock+9h")(_clock_jumps(9))
_fault("clock-9h")(_clock_jumps(-9))
_fault("link-stream-5s")(_link(("stream",), 5.0))
_fault("link-stream-20s")(_link(("stream",), 20.0))
_fault("link-control-5s")(_link(("control",), 5.0))
_fault("link-both-60s")(_link(("stream", "control"), 60.0))
