"""What the looks of several hosts mean side by side. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from datetime import datetime

from sterna.domain.addresses import is_among
from sterna.domain.capabilities import dotted
from sterna.domain.doctor.findings import Finding, Level
from sterna.domain.doctor.looks import HostLook
from sterna.domain.model import Value

SKEW_S, LARGE_SKEW_S = 2.0, 60.0
"""Logs of two hosts can hardly be compared; permits and new certificates may be refused."""
_ANOTHER_UUID = (
    "set host_uuid in libvirtd.conf on one of them, restart its libvirtd, then `sterna host pin HOST UUID`; see "
    "docs/how-to/retire.md"
)


class Skew(Value):
    """Of a host's clock, seen from the controller."""

    ahead_s: float
    """By so much at least, and in this direction; 0: it may agree."""
    within_s: float = 0.0
    """It may be more by so much."""


def skew_of(now: str, took_s: float | None, began: datetime, ended: datetime) -> Skew | None:
    """`now`, `took_s`: as in `HostLook`. `began`, `ended`: when the host was asked, and when its answer was there,
    by the controller's clock. None where it sent no time."""
    whole_s = (ended - began).total_seconds()
    looked_s = took_s if took_s is not None and 0 <= took_s <= whole_s else 0.0
    try:
        theirs = datetime.fromisoformat(now)
        early, late = (theirs - began).total_seconds() - looked_s, (theirs - ended).total_seconds()
    except (ValueError, TypeError):
        return None
    return Skew(ahead_s=late if late > 0 else min(early, 0.0), within_s=whole_s - looked_s)


def compare(
    looks: Sequence[HostLook],
    skews: Mapping[str, Skew],
    enrolled: Mapping[str, tuple[str, ...] | None],
) -> list[Finding]:
    """What only several looks show. `skews`: of each host's clock. `enrolled`: the addresses each host was enrolled
    with, None where that is not known."""
    found = [_skew(host, skew) for host, skew in skews.items()]
    found += [
        _enrolled(look, known) for look in looks if (known := enrolled.get(look.host)) is not None and look.facts
    ]
    if len(looks) < 2:
        return found
    found += _alone(looks, "host-uuid", _uuid, "libvirt's host UUID", _ANOTHER_UUID)
    found += _alone(
        looks,
        "initiator",
        _initiator,
        "the initiator name",
        "set `initiator` in [volumes] of each agent's settings",
    )
    found += _lacking_initiator(looks)
    found += _same(looks, "same-versions", _versions, "versions", "install the same versions on all hosts")
    found += _same(
        looks, "same-mtu", lambda look: look.mtu and f"MTU {look.mtu}", "MTU", "set one MTU on all hosts"
    )
    found += _same(looks, "security-driver", _models, "security", "configure libvirt's security_driver alike")
    found += _missing(looks, "huge-pages", _page_sizes, "huge pages of {}", "VMs that use them")
    found += _missing(looks, "bridges", _bridges, "bridge {}", "VMs on it")
    return found


def _uuid(look: HostLook) -> str | None:
    return look.facts.host_uuid if look.facts is not None else None


def _initiator(look: HostLook) -> str | None:
    return look.facts.initiator if look.facts is not None else None


def _versions(look: HostLook) -> str | None:
    if look.facts is None:
        return None
    return f"libvirt {dotted(look.facts.libvirt_version)}, QEMU {dotted(look.facts.qemu_version)}"


def _models(look: HostLook) -> str | None:
    return ", ".join(sorted(look.security_models)) or "none" if look.security_models is not None else None


def _page_sizes(look: HostLook) -> tuple[str, ...] | None:
    if look.huge_pages is None:
        return None
    return tuple(_size(size) for size, pages in look.huge_pages.items() if pages)


def _size(number: int) -> str:
    """Of a page, in bytes: a power of two."""
    units = [(unit, bits) for unit, bits in (("GiB", 30), ("MiB", 20), ("KiB", 10)) if number >> bits]
    return f"{number >> units[0][1]} {units[0][0]}" if units else f"{number} bytes"


def _bridges(look: HostLook) -> tuple[str, ...] | None:
    return None if look.bridges is None else (*look.bridges, *look.ovs_bridges)


def _skew(host: str, found: Skew) -> Finding:
    skew = found.ahead_s
    words = f"its clock is {abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} the controller's"
    if abs(skew) < SKEW_S and found.within_s > SKEW_S:
        message = f"its clock cannot be compared with the controller's: its answer took {found.within_s:.0f} s"
        fix = "try again when the host is less busy; upgrade its agent if it is older than the controller"
        return Finding(check="clock", level=Level.WARNING, host=host, message=message, fix=fix)
    if abs(skew) < SKEW_S:
        return Finding(check="clock", level=Level.OK, host=host, message="its clock agrees with the controller's")
    fix = "`chronyc makestep`, or `systemctl restart systemd-timesyncd`; make sure both have the same time servers"
    if abs(skew) < LARGE_SKEW_S:
        message = f"{words}: their logs are hard to compare"
        return Finding(check="clock", level=Level.WARNING, host=host, message=message, fix=fix)
    message = f"{words}: it may refuse valid certificates and migrations"
    return Finding(check="clock", level=Level.WRONG, host=host, message=message, fix=fix)


def _enrolled(look: HostLook, known: tuple[str, ...]) -> Finding:
    address = look.facts.address if look.facts is not None else ""
    if is_among(address, known):
        return Finding(check="address", level=Level.OK, host=look.host, message=f"it was enrolled with {address}")
    message = (
        f"its address is {address}, but it was enrolled with {', '.join(known) or 'no address'}: no VM can "
        "migrate there"
    )
    fix = f"`sterna host add {look.host} --address {address}`, and join again on the host; or correct its `address`"
    return Finding(check="address", level=Level.WRONG, host=look.host, message=message, fix=fix)


def _alone(
    looks: Iterable[HostLook], check: str, value: Callable[[HostLook], str | None], what: str, fix: str
) -> list[Finding]:
    """No two hosts have the same."""
    having: defaultdict[str, list[str]] = defaultdict(list)
    for look in looks:
        if found := value(look):
            having[found].append(look.host)
    lines = []
    for found, hosts in having.items():
        others = ", ".join(hosts[1:])
        if len(hosts) > 1:
            message = f"{what} {found} is also that of {others}: no VM can migrate between them"
            lines.append(Finding(check=check, level=Level.WRONG, host=hosts[0], message=message, fix=fix))
        else:
            lines.append(Finding(check=check, level=Level.OK, host=hosts[0], message=f"{what} is unique"))
    return lines


def _lacking_initiator(looks: Sequence[HostLook]) -> list[Finding]:
    described = [look for look in looks if look.facts is not None]
    if not any(map(_initiator, described)):
        return []
    message = "it has no iSCSI initiator name, but other hosts have: VMs with iSCSI disks cannot migrate here"
    fix = "set `initiator` in [volumes] of its agent's settings, as in /etc/iscsi/initiatorname.iscsi"
    return [
        Finding(check="initiator", level=Level.WARNING, host=look.host, message=message, fix=fix)
        for look in described
        if not _initiator(look)
    ]


def _same(
    looks: Iterable[HostLook], check: str, value: Callable[[HostLook], str | int | None], what: str, fix: str
) -> list[Finding]:
    """What most hosts have is right; one line for each that differs, one for all others."""
    known = {look.host: str(found) for look in looks if (found := value(look))}
    if len(known) < 2:
        return []
    usual = _usual(known.values())
    lines = [
        Finding(
            check=check,
            level=Level.WARNING,
            host=host,
            message=f"{found}, while most hosts have {usual}: some VMs may not be able to migrate",
            fix=fix,
        )
        for host, found in known.items()
        if found != usual
    ]
    first = next(host for host, found in known.items() if found == usual)
    message = f"{usual}, as on {sum(found == usual for found in known.values()) - 1} other hosts"
    return lines or [Finding(check=check, level=Level.OK, host=first, message=message)]


def _missing(
    looks: Iterable[HostLook],
    check: str,
    value: Callable[[HostLook], tuple[str, ...] | None],
    what: str,
    who: str,
) -> list[Finding]:
    """Everything that one host has, the others have as well."""
    known = {look.host: frozenset(found) for look in looks if (found := value(look)) is not None}
    if len(known) < 2:
        return []
    everything = frozenset().union(*known.values())
    lines = []
    for host, present in known.items():
        if not (lacking := sorted(everything - present)):
            lines.append(
                Finding(check=check, level=Level.OK, host=host, message="it has what the other hosts have")
            )
            continue
        words = ", ".join(what.format(one) for one in lacking)
        message = f"it lacks {words}, which other hosts have: {who} cannot migrate here"
        fix = "set up the same here, unless no such VM needs to run here"
        lines.append(Finding(check=check, level=Level.WARNING, host=host, message=message, fix=fix))
    return lines


def _usual(values: Iterable[Hashable]) -> Hashable:
    return Counter(values).most_common(1)[0][0]
