"""From what a user wants of a copy to libvirt's flags and parameters, with the reasons why.

Pure: an objective, what both hosts can do, and the guest in; a typed value out, or every refusal at once. Flags and
parameters are libvirt's names as data (`POSTCOPY` is VIR_MIGRATE_POSTCOPY, `bandwidth` is
VIR_MIGRATE_PARAM_BANDWIDTH): the adapter looks them up. Nothing is found out later that could be known here.
"""

from __future__ import annotations

from collections.abc import Sequence

from sterna.domain import amounts
from sterna.domain.capabilities import Guest, Pair
from sterna.domain.compatibility import CLASHES, LEANS, NEEDS, Feature
from sterna.domain.hosts import Transport
from sterna.domain.model import Refusal, Value
from sterna.domain.policies import DEFAULT, POLICIES, Accept, May
from sterna.domain.refusals import Code

MIB = 2**20
LONGEST_DOWNTIME_MS = 2_000_000
"""QEMU's own bound of downtime-limit (2000 s)."""
ONE_STREAM_BYTES_S = 10_000_000_000 // 8
"""One connection's worth: 10 Gb/s, VDSM's rule for the number of connections."""
ONE_TLS_STREAM_BYTES_S = 300_000_000
"""One TLS connection's worth: 300 MB/s on a 500 MB/s path (openEuler's QEMU, pull request 38)."""
MOST_CONNECTIONS = 16
"""8-16 connections fill 100 Gb/s (oVirt, parallel migration connections)."""
ZSTD_PAYS_BELOW_BYTES_S = 125_000_000
"""1 Gb/s. zstd's own table has about 500 MB/s per core at its fastest level: there one core outruns the wire."""
ZSTD_CPUS = 4
"""Compressing takes about a core at that rate, on both sides: not where that is half of the host."""
ZSTD_CONNECTIONS = 2
"""One thread compresses while the other one's pages are on the wire."""
FEWEST_THREADS = 2
"""QEMU's sending threads run in the guest's own share of the host: a guest of one vCPU gets two, not sixteen."""
THROTTLE_INITIAL, THROTTLE_STEP = 20, 10
"""Percent: QEMU's own defaults of auto-converge, set explicitly, since another build may have others."""


class Asked(Value):
    """A user's wishes for one copy. None: by the policy. Crosses the bus and is in the journal."""

    policy: str = DEFAULT
    max_downtime_ms: int | None = None
    finish_within_s: float | None = None
    may: frozenset[May] | None = None
    bandwidth_bytes_s: int | None = None
    transport: Transport | None = None
    demands: frozenset[Feature] = frozenset()
    accept: frozenset[Accept] = frozenset()


class Objective(Value):
    """The objective of one copy: the policy's defaults and the user's wishes. Made by `objective`."""

    policy: str
    max_downtime_ms: int
    first_downtime_ms: int
    finish_within_s: float | None = None
    """From acceptance to the end of the copy. None: as long as it converges."""
    may: frozenset[May] = frozenset()
    bandwidth_bytes_s: int | None = None
    link_share: float = 1.0
    patience_s: float = 40.0
    transport: Transport | None = None
    """None: as the hosts' operators set it, else TLS; TCP only where both permit it and one has no certificate."""
    demands: frozenset[Feature] = frozenset()
    """Features it must have, or is refused. Others are chosen."""
    accept: frozenset[Accept] = frozenset()
    """What a person takes the risk of."""


class CopyParameters(Value):
    """Parameters of the copy."""

    flags: tuple[str, ...]
    """libvirt's VIR_MIGRATE_ names without the prefix, in alphabetical order."""
    parameters: dict[str, int | str]
    """libvirt's parameter names; values in the units libvirt documents (`bandwidth` in MiB/s)."""
    transport: Transport
    first_downtime_ms: int
    max_downtime_ms: int

    @property
    def postcopy(self) -> bool:
        """Can it be switched to post-copy while it runs?"""
        return _FLAGS[Feature.POSTCOPY] in self.flags


class Solution(Value):
    """The parameters of a copy with their reasons, or why it is refused."""

    parameters: CopyParameters | None = None
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    refusals: tuple[Refusal, ...] = ()


def objective(asked: Asked) -> tuple[Objective | None, list[Refusal]]:
    """The policy's defaults with what the user asked for over them; None where something asked makes no sense."""
    base = POLICIES.get(asked.policy)
    found = _check_numbers(asked)
    if base is None:
        fix = f"choose one of {', '.join(sorted(POLICIES))}"
        found.insert(0, Refusal(code="policy-unknown", message=f"there is no policy {asked.policy!r}", fix=fix))
    if base is None or found:
        return None, found
    most = base.max_downtime_ms if asked.max_downtime_ms is None else asked.max_downtime_ms
    return Objective(
        policy=asked.policy,
        max_downtime_ms=most,
        first_downtime_ms=min(base.first_downtime_ms, most),
        finish_within_s=asked.finish_within_s,
        may=base.may if asked.may is None else asked.may,
        bandwidth_bytes_s=asked.bandwidth_bytes_s,
        link_share=base.link_share,
        patience_s=base.patience_s,
        transport=asked.transport,
        demands=asked.demands,
        accept=asked.accept,
    ), []


def _check_numbers(asked: Asked) -> list[Refusal]:
    found = []
    if asked.max_downtime_ms is not None and not 1 <= asked.max_downtime_ms <= LONGEST_DOWNTIME_MS:
        message = (
            f"a downtime of {asked.max_downtime_ms} ms is not between 1 ms and {LONGEST_DOWNTIME_MS // 1000} s"
        )
        found.append(Refusal(code="downtime-out-of-range", message=message, fix="300ms suits most guests"))
    if asked.finish_within_s is not None and not 0 < asked.finish_within_s < float("inf"):
        message = f"{asked.finish_within_s} s is not a valid deadline"
        found.append(Refusal(code="deadline-out-of-range", message=message, fix="give a positive time, e.g. 10m"))
    if asked.bandwidth_bytes_s is not None and asked.bandwidth_bytes_s < MIB:
        message = f"a bandwidth limit of {amounts.rate(asked.bandwidth_bytes_s)} is less than libvirt accepts"
        found.append(Refusal(code="bandwidth-out-of-range", message=message, fix="give at least 1MiB/s"))
    return found


def solve(wanted: Objective, hosts: Pair, guest: Guest, *, converges: bool | None = None) -> Solution:
    """The copy's parameters. `converges`: does the forecast say that pre-copy ends by itself? None: not known."""
    return _Solver(wanted, hosts, guest, converges).solve()


class _Solver:
    def __init__(self, wanted: Objective, hosts: Pair, guest: Guest, converges: bool | None) -> None:
        self.wanted, self.hosts, self.guest, self.converges = wanted, hosts, guest, converges
        self.on: set[Feature] = set()
        self.demanded = set(wanted.demands)
        self.reasons: list[str] = []
        self.warnings: list[str] = []
        self.refusals: list[Refusal] = []
        self.connections = 1

    def solve(self) -> Solution:
        self._wish()
        self._apply_needs()
        self._apply_clashes()
        self._apply_leans()
        return Solution(
            parameters=None if self.refusals else self._parameters(),
            reasons=tuple(self.reasons),
            warnings=tuple(self.warnings),
            refusals=tuple(self.refusals),
        )

    # -- what would be good ---------------------------------------------------------------------------------

    def _wish(self) -> None:
        self._wish_transport()
        self._wish_endings()
        if self.guest.local_disks:
            self._demand(Feature.DISKS, f"only the source sees {', '.join(self.guest.local_disks)}")
            self._wish_sync_writes()
        self._wish_connections()
        self._wish_compression()
        for feature in sorted(self.wanted.demands - self.on):
            self._want(feature, "it was requested")

    def _wish_transport(self) -> None:
        chosen, why = self._transport()
        if chosen is Transport.TLS or Feature.TLS in self.wanted.demands:
            self._demand(Feature.TLS, why)
        if chosen is Transport.SSH or Feature.TUNNELLED in self.wanted.demands:
            self._demand(Feature.TUNNELLED, why)
        if chosen is Transport.TCP:
            self._check_clear(why)
        if chosen is None and not self.on:
            self._wish_encryption()

    def _wish_encryption(self) -> None:
        """TLS, if neither the request nor a host says how memory is to travel."""
        if closed := self.hosts.closed:
            self._demand(Feature.TLS, f"{_do_not_allow(closed)} anything else")
        elif not self.hosts.lacking("tls"):
            self._want(Feature.TLS, "both hosts have certificates")

    def _check_clear(self, why: str) -> None:
        """TCP: both hosts must allow it, and none may be set to TLS."""
        settled = self.hosts.transport
        if closed := self.hosts.closed:
            message = f"{_do_not_allow(closed)} unencrypted migrations, but TCP was chosen: {why}"
            fix = (
                "use tls or ssh; or, on a separate network, set insecure = true in [migration] of both hosts, and "
                "no migrate_tls_force in their qemu.conf"
            )
        elif settled is not None and settled[0] is Transport.TLS:
            message = f"{settled[1]} is configured to encrypt migrations, but tcp was requested"
            fix = f"do not request a transport, or change [migration] transport on {settled[1]}"
        else:
            return
        self.refusals.append(Refusal(code="transport-unencrypted", message=message, fix=fix))

    def _transport(self) -> tuple[Transport | None, str]:
        """What was asked for, else what the hosts' operators set."""
        settled = self.hosts.transport
        if self.wanted.transport is not None or settled is None:
            return self.wanted.transport, "it was requested"
        return settled[0], f"it is configured on {settled[1]}"

    def _wish_endings(self) -> None:
        may = self.wanted.may
        if May.POSTCOPY in may:
            self._want(Feature.POSTCOPY, "it is allowed, and must be enabled when the copy starts")
        if May.THROTTLE in may and self.converges is not True:
            unsure = "the copy may not converge by itself"
            why = "the copy will probably not converge by itself" if self.converges is False else unsure
            self._want(Feature.THROTTLE, f"it is allowed, and {why}")
        elif May.THROTTLE in may:
            # QEMU slows a guest that dirties more than half of what is sent, also one that would converge.
            self.reasons.append("no throttle: the copy will probably converge by itself")
        if self.wanted.finish_within_s is not None and not may:
            self.warnings.append(
                "neither throttle, postcopy nor pause is allowed: if the copy does not converge, it will be aborted"
            )

    def _wish_sync_writes(self) -> None:
        # A disk written to faster than the link carries is never whole; slowing its writer is what throttling is.
        if self.wanted.finish_within_s is not None and May.THROTTLE in self.wanted.may:
            self._want(Feature.SYNC_WRITES, "there is a deadline, and throttling is allowed")

    def _wish_connections(self) -> None:
        speed = self._speed()
        one = ONE_TLS_STREAM_BYTES_S if Feature.TLS in self.on else ONE_STREAM_BYTES_S
        enough = -(-speed // one) if speed is not None else 1
        self.connections = max(1, min(enough, self._threads(), MOST_CONNECTIONS))
        if self.connections > 1:
            self._want(Feature.PARALLEL, f"{amounts.rate(speed)} needs {self.connections} connections")
            self._wish_zerocopy()

    def _threads(self) -> int:
        """How many connections QEMU's threads can feed: a host's CPUs, and no more than a guest's share of them."""
        return min(self.hosts.cpus, max(FEWEST_THREADS, self.guest.vcpus))

    def _wish_zerocopy(self) -> None:
        if self.hosts.source.locked_memory and Feature.TLS not in self.on:
            self._want(Feature.ZEROCOPY, f"QEMU on {self.hosts.source.host} may lock the guest's memory")

    def _wish_compression(self) -> None:
        link = self.hosts.link_bytes_s  # a limit alone does not mean a slow link
        slow = link is not None and link <= ZSTD_PAYS_BELOW_BYTES_S
        if slow and self.hosts.cpus >= ZSTD_CPUS and not self.hosts.lacking("zstd"):
            self._want(Feature.ZSTD, "one CPU core compresses faster than the link sends")
            self._want(Feature.PARALLEL, "libvirt compresses with zstd only on parallel connections")
            self.connections = max(self.connections, min(ZSTD_CONNECTIONS, self._threads()))
        if self._link_is_capped():
            self._want(
                Feature.SWITCHOVER_BANDWIDTH,
                "the limit does not apply at the switch-over, so QEMU needs the link's speed",
            )

    def _speed(self) -> int | None:
        """Bytes/s the copy may use; None where neither a limit nor the link is known."""
        known = [s for s in (self._limit(), self.hosts.link_bytes_s) if s is not None]
        return min(known) if known else None

    def _limit(self) -> int | None:
        """The limit the copy is given in bytes/s, None for none."""
        link, share = self.hosts.link_bytes_s, self.wanted.link_share
        if self.wanted.bandwidth_bytes_s is not None:
            return self.wanted.bandwidth_bytes_s
        return int(link * share) if link is not None and share < 1 else None

    def _link_is_capped(self) -> bool:
        limit, link = self._limit(), self.hosts.link_bytes_s
        return limit is not None and link is not None and limit < link

    # -- what can be ----------------------------------------------------------------------------------------

    def _apply_needs(self) -> None:
        for need in NEEDS:
            if need.feature in self.on and (why := need.missing(self.hosts, self.guest)):
                self._drop(need.feature, why, need.fix)

    def _apply_clashes(self) -> None:
        for clash in CLASHES:
            if not {clash.keeps, clash.yields, *clash.given} <= self.on:
                continue
            why = clash.when(self.hosts, self.guest)
            if not why:
                continue
            why = f"not together with {clash.keeps}: {why}"
            if clash.yields in self.demanded and clash.keeps not in self.demanded:
                self._drop(clash.keeps, f"not together with {clash.yields}, which was requested", clash.fix)
            else:
                self._drop(clash.yields, why, clash.fix)

    def _apply_leans(self) -> None:
        for feature, ground, _ in LEANS:
            if feature in self.on and ground not in self.on:
                self._drop(feature, f"it needs {ground}", f"request {ground} as well, or not {feature}")

    def _want(self, feature: Feature, why: str) -> None:
        if feature not in self.on:
            self.on.add(feature)
            self.reasons.append(f"{feature}: {why}")

    def _demand(self, feature: Feature, why: str) -> None:
        self.demanded.add(feature)
        self._want(feature, why)

    def _drop(self, feature: Feature, why: str, fix: str) -> None:
        self.on.discard(feature)
        self.reasons = [r for r in self.reasons if not r.startswith(f"{feature}: ")]
        if feature in self.demanded:
            message = f"{feature} cannot be used: {why}"
            self.refusals.append(Refusal(code=IMPOSSIBLE[feature], message=message, fix=fix))
        else:
            self.warnings.append(f"{feature} is not used: {why}; to use it, {fix}")

    # -- libvirt's names ---------------------------------------------------------------------------------

    def _parameters(self) -> CopyParameters:
        on = self.on
        transport = Transport.TLS if Feature.TLS in on else Transport.TCP
        if Feature.TUNNELLED in on:
            transport = Transport.SSH
        if transport is Transport.TCP:
            self.warnings.append("the guest's memory is sent unencrypted")
        return CopyParameters(
            flags=tuple(sorted({"LIVE", "PEER2PEER"} | {_FLAGS[f] for f in on if f in _FLAGS})),
            parameters=self._numbers(),
            transport=transport,
            first_downtime_ms=self.wanted.first_downtime_ms,
            max_downtime_ms=self.wanted.max_downtime_ms,
        )

    def _numbers(self) -> dict[str, int | str]:
        on, limit, link = self.on, self._limit(), self.hosts.link_bytes_s
        numbers: dict[str, int | str] = {}
        if limit is not None:
            numbers["bandwidth"] = max(1, limit // MIB)
            if Feature.POSTCOPY in on:
                numbers["bandwidth.postcopy"] = max(1, limit // MIB)
        if Feature.SWITCHOVER_BANDWIDTH in on and link is not None:
            numbers["bandwidth.avail.switchover"] = max(1, link // MIB)
        if Feature.PARALLEL in on:
            numbers["parallel.connections"] = max(1, self.connections)
        if Feature.ZSTD in on:
            numbers["compression"] = "zstd"
        if Feature.THROTTLE in on:
            numbers |= {"auto_converge.initial": THROTTLE_INITIAL, "auto_converge.increment": THROTTLE_STEP}
        return numbers


def _do_not_allow(hosts: Sequence[str]) -> str:
    return f"{' and '.join(hosts)} {'does' if len(hosts) == 1 else 'do'} not allow"


_FLAGS = {
    Feature.TLS: "TLS",
    Feature.TUNNELLED: "TUNNELLED",
    Feature.POSTCOPY: "POSTCOPY",
    Feature.THROTTLE: "AUTO_CONVERGE",
    Feature.PARALLEL: "PARALLEL",
    Feature.ZSTD: "COMPRESSED",
    Feature.ZEROCOPY: "ZEROCOPY",
    Feature.DISKS: "NON_SHARED_DISK",
    Feature.SYNC_WRITES: "NON_SHARED_SYNCHRONOUS_WRITES",
}
IMPOSSIBLE: dict[Feature, Code] = {
    Feature.TLS: "no-tls",
    Feature.POSTCOPY: "no-postcopy",
    Feature.PARALLEL: "no-parallel",
    Feature.ZSTD: "no-zstd",
    Feature.ZEROCOPY: "no-zerocopy",
    Feature.DISKS: "no-disks",
    Feature.SYNC_WRITES: "no-sync-writes",
    Feature.SWITCHOVER_BANDWIDTH: "no-switchover-bandwidth",
}
"""Features that a rule can take away although they were demanded."""
