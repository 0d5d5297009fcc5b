"""A fleet of three hosts and three VMs, and its truth with a clock that tests set."""

from __future__ import annotations

from bench.fleetsim.made import Made, MadeHost, MadeVm, Size
from bench.fleetsim.truth import Truth

GIB = 1 << 30


class Watch:
    """Seconds."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        self.now_s += 1.0
        return self.now_s


def made() -> Made:
    hosts = {name: MadeHost(name, 10 * GIB, 8, f"rack-{name}", 1e9) for name in ("a", "b", "c")}
    vms = {vm: MadeVm(vm, f"vm-{vm}", host, size * GIB, 1, 1e6) for vm, host, size in
           (("1", "a", 4), ("2", "a", 4), ("3", "b", 4))}  # fmt: skip
    return Made(Size(hosts=3, vms=3), hosts, vms, {"g": frozenset({"1", "3"})})


def moved(truth: Truth, vm: str, source: str, target: str) -> None:
    """A whole move."""
    truth.receive(target, vm, "m")
    truth.hand_over(vm, source, target)
    truth.release(source, vm, "handed over")
    truth.forget(source, vm)
