"""What each transaction about the VMs that hosts have does, on a connection. Called by `fleet.py`.

`sightings` has what each host says of each VM, `vms` where a VM is at home. The rules are in `domain/sightings.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, bindparam, delete, insert, or_, select, update

from sterna.adapters.sql import fleet_rows as rows
from sterna.adapters.sql.fleet_schema import hosts, migrations, sightings, vms
from sterna.domain.hosts import VmSummary
from sterna.domain.model import GuestState
from sterna.domain.sightings import Mark, News, confirmed, fits, home_of, runs_also, text_of
from sterna.domain.trust.journals import may_still_hold
from sterna.kit.digests import digest_of
from sterna.ports.fleet import Taken, VmPage, VmRecord

Seen = dict[str, VmSummary]
"""What each host says of one VM."""
MOST_WORDS = 5_000
"""Values in one statement; SQLite takes 32,766."""


def take_news(c: Connection, told: Sequence[tuple[str, News]], asked: Collection[str], at: str) -> Taken:
    """See ports.fleet.Fleet.take_news."""
    marks: dict[str, Mark | None] = {}
    gaps, doubtful = set[str](), set[str]()
    for host, news in told:
        known = _mark_of(c, host)
        if known is None:
            continue
        match fits(news, known if known.boot else None):
            case "gap":
                gaps.add(host)
            case "take":
                doubtful |= _take(c, host, news, asked, at)
                known = news.mark
        marks[host] = known
    counted = {host: mark for host, mark in marks.items() if mark is not None}
    return Taken(marks=counted, gaps=frozenset(gaps), doubtful=frozenset(doubtful))


def marks(c: Connection) -> dict[str, Mark]:
    """See ports.fleet.Fleet.marks."""
    query = select(hosts.c.name, hosts.c.vms_boot, hosts.c.vms_seq, hosts.c.vms_digest)
    return {r.name: _mark(r) for r in c.execute(query.where(hosts.c.vms_boot != ""))}


def digest_in_records(c: Connection, host: str) -> str:
    """See ports.fleet.Fleet.digest_in_records."""
    return digest_of(text_of(_summary(r) for r in c.execute(select(sightings).where(sightings.c.host == host))))


def page_of_vms(c: Connection, page: VmPage) -> list[VmRecord]:
    """See ports.fleet.Fleet.page_of_vms."""
    query = select(vms).order_by(vms.c.name, vms.c.uuid).limit(page.limit)
    if page.after is not None:
        name, uuid = page.after
        query = query.where(or_(vms.c.name > name, and_(vms.c.name == name, vms.c.uuid > uuid)))
    if page.host is not None:
        query = query.where(or_(vms.c.host == page.host, _runs_also(page.host)))
    if page.name:
        query = query.where(vms.c.name.contains(page.name, autoescape=True))
    if page.states:
        asked: ColumnElement[bool] = vms.c.state.in_([s.value for s in page.states])
        if page.silent:
            known = and_(asked, vms.c.host.not_in(page.silent))
            unknown = GuestState.UNKNOWN in page.states
            asked = or_(known, vms.c.host.in_(page.silent)) if unknown else known
        query = query.where(asked)
    return [rows.vm(r) for r in c.execute(query)]


def _runs_also(host: str) -> ColumnElement[bool]:
    """VMs that are at home elsewhere, and that this host says it runs."""
    said = select(sightings.c.uuid).where(sightings.c.host == host, sightings.c.state == GuestState.RUNNING.value)
    running = vms.c.state == GuestState.RUNNING.value
    return and_(running, vms.c.migration_id.is_(None), vms.c.uuid.in_(said))


def settle_homes(c: Connection, uuids: Collection[str], at: str) -> None:
    """Where these VMs are, by what hosts have said: who held them does so no longer."""
    known, seen = _records(c, uuids), _seen(c, uuids)
    told = marks(c) if any(not seen[uuid] for uuid in uuids) else {}
    judged = [uuid for uuid in uuids if seen[uuid] or (uuid in known and known[uuid].host in told)]
    _put(c, known, [_judged(uuid, known.get(uuid), seen[uuid], at) for uuid in judged])


def arrived(c: Connection, vm: VmRecord, *, told: bool) -> None:
    """By a journal its home is there: whatever others have said before is old. `told`: its state is known by that
    host's journal."""
    here = sightings.c.host == vm.host, sightings.c.uuid == vm.uuid
    others = sightings.c.host != vm.host, sightings.c.uuid == vm.uuid
    old = sightings.c.state == GuestState.RUNNING.value
    c.execute(update(sightings).where(*others, old).values(state=GuestState.UNKNOWN.value))
    seen = c.execute(select(sightings.c.state).where(*here)).scalar()
    if seen is None:
        known = vm.model_dump(mode="json") | {"memory_bytes": vm.memory_bytes or 0, "vcpus": vm.vcpus or 0}
        c.execute(insert(sightings).values(_row(vm.host, VmSummary.model_validate(known))))
    elif told and seen == GuestState.PAUSED.value:  # it waited for its memory then
        c.execute(update(sightings).where(*here).values(state=vm.state.value))


# ------------------------------------------------------------ one host's news


def _mark_of(c: Connection, host: str) -> Mark | None:
    """None for a host that is not known; of one that has told nothing yet, its `boot` is ''."""
    query = select(hosts.c.vms_boot, hosts.c.vms_seq, hosts.c.vms_digest).where(hosts.c.name == host)
    found = c.execute(query).first()
    return _mark(found) if found else None


def _mark(row: Any) -> Mark:
    return Mark(boot=row.vms_boot, seq=row.vms_seq, digest=row.vms_digest)


def _take(c: Connection, host: str, news: News, asked: Collection[str], at: str) -> set[str]:
    """Store it; the hosts that must be asked again."""
    mark = news.mark or Mark(boot="", seq=0, digest="")
    new_mark = {"vms_boot": mark.boot, "vms_seq": mark.seq, "vms_digest": mark.digest}
    c.execute(update(hosts).where(hosts.c.name == host).values(new_mark))
    told = {vm.uuid: vm for vm in news.seen}
    before = _of_host(c, host, None if news.whole else [*told, *news.gone])
    gone = before.keys() - told.keys()
    changed = {uuid: vm for uuid, vm in told.items() if before.get(uuid) != vm}
    _store(c, host, before, changed, gone)
    concerned = {*changed, *gone}
    if news.mark is None or host in asked:  # a host that is asked now and then has seen them once more
        concerned |= told.keys()
    if news.whole:
        concerned |= {r.uuid for r in c.execute(select(vms.c.uuid).where(vms.c.host == host))} - told.keys()
    running = {
        uuid
        for uuid, vm in changed.items()
        if vm.state is GuestState.RUNNING and (uuid not in before or before[uuid].state is not GuestState.RUNNING)
    }
    return _rehome(c, concerned, host, running, {host} if host in asked else set(), at)


def _of_host(c: Connection, host: str, uuids: Collection[str] | None) -> Seen:
    query = select(sightings).where(sightings.c.host == host)
    if uuids is None:
        return {r.uuid: _summary(r) for r in c.execute(query)}
    found: Seen = {}
    for some in _portions(uuids):
        found |= {r.uuid: _summary(r) for r in c.execute(query.where(sightings.c.uuid.in_(some)))}
    return found


def _store(c: Connection, host: str, before: Seen, changed: Seen, gone: Collection[str]) -> None:
    for some in _portions(gone):
        c.execute(delete(sightings).where(sightings.c.host == host, sightings.c.uuid.in_(some)))
    values = [_row(host, vm) for vm in changed.values()]
    new = [row for row in values if row["uuid"] not in before]
    old = [{f"b_{name}": value for name, value in row.items()} for row in values if row["uuid"] in before]
    if new:
        c.execute(insert(sightings), new)
    if old:
        here = sightings.c.host == bindparam("b_host"), sightings.c.uuid == bindparam("b_uuid")
        fields: dict[str, Any] = {name: bindparam(f"b_{name}") for name in ("state", "document")}
        c.execute(update(sightings).where(*here).values(fields), old)


def _rehome(
    c: Connection, uuids: Collection[str], host: str, running: Collection[str], asked: Collection[str], at: str
) -> set[str]:
    """Where these VMs are after `host` has told of them; hosts that must be asked again, because they still say
    that one of them runs there."""
    seen, doubtful = _seen(c, uuids), set[str]()
    known = _freed(c, _records(c, uuids), seen)
    found = []
    for uuid in uuids:
        told = host if uuid in running and host not in asked else ""
        record, doubts = _judged(uuid, known.get(uuid), seen[uuid], at, told=told, asked=asked, host=host)
        found.append((record, doubts))
        doubtful |= doubts
    _put(c, known, found)
    return doubtful


def _judged(
    uuid: str,
    old: VmRecord | None,
    seen: Seen,
    at: str,
    *,
    told: str = "",
    asked: Collection[str] = (),
    host: str = "",
) -> tuple[VmRecord | str, set[str]]:
    """The VM as it is now (its UUID where nobody has it any more), and who must be asked again about it."""
    states = {name: vm.state for name, vm in seen.items()}
    migrates = old is not None and old.migration_id is not None
    home = home_of(old.host if old else None, states, reporter=told, migrates=migrates)
    if home is None:
        return uuid, set()
    also = () if migrates else runs_also(home, states)
    counted = confirmed(also, old.also if old else (), asked)
    doubts = set(also) - set(counted)
    if home not in seen:
        assert old is not None  # it migrates, and its home has let go of it
        return old.model_copy(update={"also": ()}), doubts
    here = seen[home]
    new = rows.seen_vm(old, home, here, at if home == host or old is None else old.observed_at)
    if old is not None and new.model_copy(update={"also": old.also, "observed_at": old.observed_at}) != old:
        moved = (new.state, new.asleep, new.host) != (old.state, old.asleep, old.host)
        changed_at = max(at, old.changed_at) if moved else old.changed_at
        new = new.model_copy(update={"observed_at": at, "changed_at": changed_at})
    return new.model_copy(update={"also": counted}), doubts


def _freed(c: Connection, known: dict[str, VmRecord], seen: Mapping[str, Seen]) -> dict[str, VmRecord]:
    """The same VMs: those are free that a host has locked which another one contradicts."""
    held = {vm.migration_id: vm for vm in known.values() if vm.migration_id is not None}
    for some in _portions(held):
        query = select(migrations).where(migrations.c.id.in_(some), migrations.c.reported_by != "")
        for row in c.execute(query):
            vm, migration = held[row.id], rows.migration(row).migration
            states = {host: one.state for host, one in seen[vm.uuid].items()}
            if not may_still_hold(migration, states):
                c.execute(update(vms).where(vms.c.uuid == vm.uuid).values(migration_id=None))
                known[vm.uuid] = vm.model_copy(update={"migration_id": None})
    return known


def _records(c: Connection, uuids: Collection[str]) -> dict[str, VmRecord]:
    found: dict[str, VmRecord] = {}
    for some in _portions(uuids):
        found |= {r.uuid: rows.vm(r) for r in c.execute(select(vms).where(vms.c.uuid.in_(some)))}
    return found


def _seen(c: Connection, uuids: Collection[str]) -> Mapping[str, Seen]:
    found: defaultdict[str, Seen] = defaultdict(dict)
    for some in _portions(uuids):
        for r in c.execute(select(sightings).where(sightings.c.uuid.in_(some))):
            found[r.uuid][r.host] = _summary(r)
    return found


def _put(c: Connection, known: Mapping[str, VmRecord], found: Iterable[tuple[VmRecord | str, set[str]]]) -> None:
    records = [record for record, _ in found]
    for some in _portions([uuid for uuid in records if isinstance(uuid, str) and uuid in known]):
        c.execute(delete(vms).where(vms.c.uuid.in_(some)))
    changed = [r for r in records if isinstance(r, VmRecord) and known.get(r.uuid) != r]
    new = [rows.vm_values(r) for r in changed if r.uuid not in known]
    old = [{f"b_{n}": v for n, v in rows.vm_values(r).items()} for r in changed if r.uuid in known]
    if new:
        c.execute(insert(vms), new)
    if old:
        names = ("name", "host", "state", "document")  # not who holds it: that is another transaction's to say
        fields: dict[str, Any] = {name: bindparam(f"b_{name}") for name in names}
        c.execute(update(vms).where(vms.c.uuid == bindparam("b_uuid")).values(fields), old)


def _row(host: str, vm: VmSummary) -> dict[str, Any]:
    document = vm.model_dump(mode="json", exclude={"uuid", "state"})
    return {"host": host, "uuid": vm.uuid, "state": vm.state.value, "document": document}


def _summary(row: Any) -> VmSummary:
    return VmSummary.model_validate(row.document | {"uuid": row.uuid, "state": row.state})


def _portions(values: Collection[str]) -> Iterable[list[str]]:
    """So many that one statement can take them, in one order in every transaction."""
    ordered = sorted(values)
    for begin in range(0, len(ordered), MOST_WORDS):
        yield ordered[begin : begin + MOST_WORDS]
