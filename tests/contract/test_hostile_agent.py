"""A host that somebody has taken over does all it can with its certificate; a stranger has none.

What each message leads to is in docs/reference/hostile-agent.md, which is made from the same rows.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Any

import pytest

from sterna.adapters.identity.own import OwnFiles
from sterna.adapters.identity.permits import OwnPermits
from sterna.domain.errors import BadRequest
from sterna.domain.hosts import VmSummary
from sterna.domain.journal import Entry, Kind, Migration, Role
from sterna.domain.model import Data, GuestState
from sterna.domain.trust.callers import CALLERS
from sterna.ports.bus import Incoming
from sterna.rpc.client import RpcClient
from sterna.rpc.envelope import Event, Reply, decode_request, encode
from sterna.rpc.subjects import call_subject, cast_subject, event_subject
from sterna.sim.libvirt.hypervisor import SimHypervisor
from tests.contract.guarded import Guarded, voice
from tests.contract.hostile_messages import (
    about_another,
    about_none,
    everything,
    malformed,
    message,
    named,
    shapes_of,
)
from tests.contract.hostile_stage import CLOCK, ELSEWHERE, HONEST, HOST3, Stage, folder_of, reply_to, stage_on
from tests.unit import hostile_page
from tests.unit.hostile_page import ANSWERED, NOT_DELIVERED

NUMBER = 10_000
SEED = 20261130


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with stage_on(Guarded(tmp_path)) as stage:
        yield stage


def methods_of(stage: Stage) -> list[str]:
    """Every method that an agent has, by the code."""
    server = stage.agents["host1"]._server
    return sorted({*server._methods, *server._casts})


async def said_to(stage: Stage, method: str) -> str:
    """What host3 is told that asks for it, about a migration that is none of its business."""
    said = set()
    for to in HONEST:
        for n, words in enumerate(about_another(stage)):
            for form in (words, named(method, words)):
                for kind, subject in (("call", call_subject), ("cast", cast_subject)):
                    reply = await reply_to(stage, subject(to, HOST3.name), message(method, form, kind, n=n))
                    said.add(_outcome(method, reply))
    said.discard("unknown here")
    return " / ".join(sorted(said))


def _outcome(method: str, reply: Reply) -> str:
    if reply.kind == "result":
        return ANSWERED
    if reply.kind == "ack":
        return "journaled"
    error = reply.raised()
    if (
        isinstance(error, BadRequest)
        and f"knows no {'cast' if 'cast' in error.message else 'method'}" in error.message
    ):
        return "unknown here"  # a call sent as a cast, or the reverse
    who, _, may = error.message.partition(f"{HOST3.name} asks for {method}: ")
    if not who and may:
        return f"refused: {may}"
    return ANSWERED if hostile_page.outcome(method) == ANSWERED else f"{error.code}: {error.message}"


async def test_every_method_from_a_host_that_has_no_say(stage: Stage) -> None:
    assert methods_of(stage) == sorted(CALLERS)
    before = await stage.picture()
    found = {method: await said_to(stage, method) for method in methods_of(stage)}
    assert found == {method: outcome for method, outcome, _ in hostile_page.methods()}
    assert await stage.picture() == before
    await stage.answers()
    await stage.goes_on()


async def test_every_method_about_a_migration_of_which_nobody_knows(stage: Stage) -> None:
    """What is about nothing does nothing; whatever it is answered with."""
    before = await stage.picture()
    for method in methods_of(stage):
        for to in HONEST:
            for n, words in enumerate(about_none(stage)):
                for kind, subject in (("call", call_subject), ("cast", cast_subject)):
                    form = named(method, words) if n % 2 else words
                    await reply_to(stage, subject(to, HOST3.name), message(method, form, kind, n=n))
    await asyncio.sleep(0.5)
    assert await stage.picture() == before
    await stage.answers()
    await stage.goes_on()


async def test_a_migration_that_no_controller_has_asked_for(stage: Stage) -> None:
    """Of a VM that the destination does not have: with no permit, its own signature, and another one's permit."""
    before, real = await stage.picture(), stage.migration.permit
    told = stage.forged(id="of-host3s-own", vm_uuid=ELSEWHERE, source=HOST3.name, epoch=1000)
    own = await OwnPermits(folder_of(stage.guarded, HOST3), CLOCK).issue(told)
    assert real and own
    for n, permit in enumerate(("", own, real)):
        migration = told.model_copy(update={"permit": permit}).model_dump(mode="json")
        params = everything(stage, migration)
        words = told.id, told.epoch, params | {"vm": params["vm"] | {"uuid": ELSEWHERE}}
        for method, kind, subject in (
            ("pre_live_migration", "call", call_subject),
            ("rollback_live_migration_at_destination", "cast", cast_subject),
        ):
            reply = await reply_to(stage, subject("host2", HOST3.name), message(method, words, kind, n=n))
            assert kind == "cast" or "only if a controller has requested it" in reply.raised().message
    async with asyncio.timeout(20):
        while stage.journals["host2"].inbox():  # noqa: ASYNC110 - handled behind the answer
            await asyncio.sleep(0.05)
    assert await stage.picture() == before
    await stage.goes_on()


async def test_every_method_in_anothers_name(stage: Stage) -> None:
    """On another's subject the server of the bus refuses it, also after a message to itself with that as its reply
    subject. On its own, the receiver does."""
    before, words = await stage.picture(), next(about_another(stage))
    own = OwnFiles(stage.guarded.folder / "agent-host3")
    own_calls: asyncio.Queue[Any] = asyncio.Queue()
    async with voice(stage.guarded, own) as raw:
        assert await raw.subscribes(f"sterna.agent.{HOST3.name}.call.*", own_calls)
        for method in methods_of(stage):
            for to in HONEST:
                for other in ("@controller", *HONEST):
                    told = message(method, words, sender=other)
                    await raw.client.publish(call_subject(HOST3.name, HOST3.name), b"", call_subject(to, other))
                    await asyncio.wait_for(own_calls.get(), 10)
                    outcome = "delivered" if await raw.publishes(call_subject(to, other), told) else NOT_DELIVERED
                    assert outcome == NOT_DELIVERED, method
                    reply = await reply_to(stage, call_subject(to, HOST3.name), told)
                    assert isinstance(reply.raised(), BadRequest) and f"{other!r}" in reply.raised().message
    assert await stage.picture() == before
    await stage.goes_on()


async def test_every_hint(stage: Stage) -> None:
    before, m = await stage.picture(), stage.migration
    host1 = (await SimHypervisor(stage.world, "host1").host()).model_dump(mode="json")
    sample = {"iteration": 7, "remaining_bytes": 1, "total_bytes": 2}
    says: dict[str, Data] = {
        "host": {"name": "host1", "host": host1 | {"address": "10.9.9.9"}, "boot": "x", "journal_last": 1},
        "journal": {"last": 10**9},
        "progress": {"sample": sample},
        "leaving": {},
        "external": {"vm": stage.moving, "port": "p", "event": "network-vif-plugged"},
    }
    topics = hostile_page.topics()
    assert set(says) <= set(topics)
    says = {topic: says.get(topic, everything(stage, m.model_dump(mode="json"))) for topic in topics}
    endings = {topic: f".{m.id}" * (words - 2) for topic, words in topics.items()}
    client = RpcClient(stage.host3, HOST3.name, CLOCK)
    own = OwnFiles(stage.guarded.folder / "agent-host3")
    async with voice(stage.guarded, own) as raw:
        for topic, data in says.items():
            for other in HONEST:
                subject = event_subject(f"{topic}.{other}{endings.get(topic, '')}")
                assert not await raw.publishes(subject, encode(Event(sender=other, data=data))), subject
        assert not await raw.publishes(event_subject("external.host3"), b"{}")
        for pattern in (
            "sterna.agent.host1.call.*",
            "sterna.event.journal.*",
            "sterna.event.progress.*.*",
            "_INBOX.>",
        ):
            assert not await raw.subscribes(pattern), pattern
    for topic, data in says.items():
        await client.announce(f"{topic}.{HOST3.name}{endings.get(topic, '')}", data)
    await stage.answers()
    await asyncio.sleep(0.5)
    assert await stage.picture() == before
    await stage.goes_on()


STATUSES = ("completed", "failed", "cancelled", "error")


def forged_entries(stage: Stage, migration: Migration, first: int) -> list[Entry]:
    """Every kind of entry, of both halves, with all that an entry of that kind may say."""
    data: list[tuple[Kind, str, str, Data]] = [(kind, "", "", {}) for kind in Kind if kind is not Kind.ACCEPTED]
    data += [(Kind.ACCEPTED, "", "", migration.model_dump(mode="json"))]
    data += [(Kind.STATUS, "", status, {"status": status, "reason": "forged"}) for status in STATUSES]
    data += [(Kind.DONE, "F8", "update-vm", {"power_state": "running"}), (Kind.DONE, "M4", "copy", {})]
    data += [(Kind.COMPENSATING, "", "", {"error": {"code": "error", "message": "forged"}})]
    data += [(Kind.FAILED, "R3", "x", {"error": {"code": "error", "message": "forged"}, "final": False})]
    data += [(Kind.NOTE, "", "waiting-x", {"why": "forged"})]
    return [
        Entry(
            seq=first + n,
            migration_id=migration.id,
            epoch=migration.epoch,
            role=role,
            kind=kind,
            row=row,
            name=name,
            at="2026-11-30T00:00:00.000+00:00",
            mono_ms=1.0,
            boot="host3",
            data=more,
        )
        for n, (role, (kind, row, name, more)) in enumerate((r, d) for r in Role for d in data)
    ]


async def serve_journal(
    stage: Stage, entries: list[Entry], migrations: list[Migration], vms: Collection[VmSummary] = ()
) -> None:
    """host3 answers every question of the controller: about its journal and its VMs with these, else with
    nonsense."""

    async def answer(incoming: Incoming) -> None:
        request = decode_request(incoming.payload)
        since = request.params.get("cursor", 0)
        page = [e for e in entries if e.seq > since][: request.params.get("limit", 200)]
        data = {
            "entries": [e.model_dump(mode="json") for e in page],
            "migrations": [m.model_dump(mode="json") for m in migrations],
            "last": page[-1].seq if page else since,
            "vms": [vm.model_dump(mode="json") for vm in vms],
        }
        await incoming.reply(encode(Reply(kind="result", id=request.id, data=data)))

    await stage.host3.subscribe(f"sterna.agent.{HOST3.name}.call.*", answer)


async def test_every_entry_about_migrations_of_others(stage: Stage) -> None:
    before = await stage.picture()
    entries: list[Entry] = []
    told: list[Migration] = []
    assert [kind for kind, _ in hostile_page.entries()] == [kind.value for kind in Kind]
    for other in (stage.migration, stage.forged(source="host2", destination="host1")):
        entries += forged_entries(stage, other, len(entries) + 1)
        told.append(other)
    # host3 says that it takes part: the records, and the other hosts, know better
    for lie in (stage.forged(source=HOST3.name), stage.forged(destination=HOST3.name)):
        entries += forged_entries(stage, lie, len(entries) + 1)
    made_up = stage.forged(id="made-up-between-others")
    entries += forged_entries(stage, made_up, len(entries) + 1)
    await serve_journal(stage, entries, [*told, made_up])
    assert not (await stage.controller.projector.pull(HOST3.name)).more
    assert await stage.picture() == before
    await stage.answers()
    await stage.goes_on()


@pytest.mark.parametrize("vm", ["moved", "moving"])
@pytest.mark.parametrize("half", ["source", "destination"])
async def test_a_migration_of_anothers_vm_that_it_made_up_moves_and_locks_no_vm(
    stage: Stage, half: str, vm: str
) -> None:
    """It may write into its own journal what it likes: the VM is where it was, and free or held as it was."""
    before = await stage.picture()
    made_up = stage.forged(id="made-up", vm_uuid=getattr(stage, vm), epoch=9, **{half: HOST3.name})
    await serve_journal(stage, forged_entries(stage, made_up, 1), [made_up])
    await stage.controller.projector.pull(HOST3.name)
    after = await stage.picture()
    assert after["vms"] == before["vms"]
    assert [m for m in after["records"] if m["migration"]["id"] != "made-up"] == before["records"]
    assert {key: after[key] for key in ("hosts", "journals", "open", "epochs", "casts", "known")} == {
        key: before[key] for key in ("hosts", "journals", "open", "epochs", "casts", "known")
    }
    await stage.goes_on()


async def test_nor_does_it_where_the_host_says_that_it_runs_the_vm(stage: Stage) -> None:
    """It may be shown there; but it is locked nowhere, and its own host has it again as soon as that is over."""
    vms: list[VmSummary] = [
        VmSummary(uuid=stage.moved, name="petrel", state=GuestState.RUNNING, memory_bytes=1, vcpus=1)
    ]
    made_up = stage.forged(id="made-up", vm_uuid=stage.moved, epoch=9, source=HOST3.name, destination="host1")
    before = await stage.picture()
    await serve_journal(stage, forged_entries(stage, made_up, 1)[:18], [made_up], vms)
    await stage.controller.inventory.refresh()
    assert (await stage.picture())["vms"][stage.moved][1:] == (HOST3.name, None)
    await stage.controller.projector.pull(HOST3.name)
    assert (await stage.picture())["vms"][stage.moved][1:] == (HOST3.name, None)
    vms.clear()
    await stage.controller.inventory.refresh()
    after = await stage.picture()
    assert after["vms"] == before["vms"] and after["hosts"] == before["hosts"]
    await stage.goes_on()


async def test_ten_thousand_malformed_messages(stage: Stage) -> None:
    before = await stage.picture()
    methods = methods_of(stage)
    doors = [subject(to, HOST3.name) for to in HONEST for subject in (call_subject, cast_subject)]
    doors += [event_subject(f"{t}.{HOST3.name}") for t in ("host", "journal")]
    doors += [event_subject(f"{t}.{HOST3.name}.{stage.migration.id}") for t in ("progress", "leaving")]
    sent = 0
    for n, payload in enumerate(malformed(SEED, NUMBER, shapes_of(stage, methods))):
        await stage.host3.publish(doors[n % len(doors)], payload)
        sent += 1
        if n % 1_000 == 0:
            await stage.answers()
    await stage.answers()
    assert sent == NUMBER
    assert await stage.picture() == before
    found = await stage.controller.audits.audit()
    bad = [f for f in found.leftovers if f.kind == "bad-message"]
    assert {f.subject for f in bad} == {HOST3.name}
    assert {f.host for f in bad} == {*HONEST, "@controller"}
    await stage.goes_on()


async def test_a_stranger(stage: Stage, tmp_path: Path) -> None:
    """Nothing is delivered: the server of the bus does not even read who they say that they are."""
    before, guarded = await stage.picture(), stage.guarded
    heard = {name: agent._client._bus._client._received() for name, agent in stage.agents.items()}  # type: ignore[attr-defined]
    other = Guarded(tmp_path / "strangers")
    theirs = other.enrol(HOST3)
    payload = message("list_vms", ("", 0, {}), sender="@controller")
    words = b'CONNECT {"verbose":true}\r\n' + b"".join(
        b"PUB sterna.agent.%s.call.@controller %d\r\n%b\r\n" % (host.encode(), len(payload), payload)
        for host in HONEST
    )
    nobody, stranger = _anybody(), _anybody()
    stranger.load_cert_chain(theirs.certificate_file, theirs.key_file)
    for tls in (None, nobody, stranger):
        for _ in range(5):
            assert b"+OK" not in await _say(guarded.port, tls, words)
    await stage.answers()
    own = {name: agent._client._bus._client._received() for name, agent in stage.agents.items()}  # type: ignore[attr-defined]
    assert all(
        own[name] - heard[name] < 40 for name in HONEST
    )  # the answers, the beacons and the pings of their own
    assert all(not agent._client.dead_letters.kept for agent in stage.agents.values())
    assert await stage.picture() == before
    await stage.goes_on()


def _anybody() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def _say(port: int, tls: ssl.SSLContext | None, words: bytes) -> bytes:
    """What the server says to somebody who says this, behind its INFO."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(20):
            assert json.loads((await reader.readline()).removeprefix(b"INFO "))["tls_verify"]
            if tls is not None:
                await writer.start_tls(tls)
            writer.write(words)
            await writer.drain()
            return await reader.read()
    except OSError:  # ssl's own errors are OSErrors
        return b""
    finally:
        writer.close()


def test_the_generator_spoils_what_it_makes() -> None:
    """Few of its messages are whole; the same seed makes the same."""
    shapes: list[Any] = [json.loads(message("ping", ("m", 1, {"vm": "x", "n": [1, 2]})))]
    made = list(malformed(SEED, 2_000, shapes))
    assert made == list(malformed(SEED, 2_000, shapes)) and len(set(made)) > 1_500
    whole = sum(json.dumps(shapes[0]).encode() == raw for raw in made)
    assert whole == 0 and max(map(len, made)) >= 100_000
