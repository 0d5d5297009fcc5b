"""Nobody waits without an end for something that may never come: each wait has a limit where it is written, or is
listed here with what ends it. `docs/contributing/waits.md` says the same at length.

Only the usual kinds are recognised, by their names (`test_waits_recognised.py`): this keeps the table complete, it
proves nothing.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.unit.waits import (
    BLOCKING,
    HELD_BRIEFLY,
    held_over_a_wait,
    locks_of,
    may_be_names,
    read,
    touches_a_file,
    unbounded,
)

TESTS = Path(__file__).parents[1]
TABLE = TESTS.parent / "docs" / "contributing" / "waits.md"
IN_TURN = "who holds it: its steps have limits, F6-F9 and a rollback go on until done; callers have a deadline"
SYSTEM = "on the file system that the host itself, or libvirtd, cannot do without"
MEMORY = "the kernel's own, or in memory"
LOOKED_AT = "called by host/looks.py only: a thread and a limit for each path and name"
ON_DISK = "its callers: on_disk"
IN_ITS_THREAD = "its callers: in_thread, with a limit"
ENDED_BY = {
    # the agent and the saga: what ends them is this process, or a clock beside them
    "kit/aborts.py:raise_if_aborted": "no wait: a variable's value",
    "kit/aborts.py:unless_aborted": "the work's own limit or deadline",
    "migration/volumes.py:of_each": "Cloud.together() and a last act's limit; each command's own limit",
    "migration/source/postcopy.py:_goes_on": "join() is one try, each of its calls with a deadline",
    "migration/source/watch.py:watch": "the copy; guard and _until_given_up look every 3 to 12 s, an abort ends it",
    "migration/source/watch.py:_obey_abort": "cancelled with the copy",
    "migration/source/handover.py:switch_network": "cancelled with the copy; F7 asks again",
    "migration/source/handover.py:let_end": "a clock beside it",
    "agent/destination_checks.py:DestinationChecks.check": "each look's own limit (qemu-img 10 s, Cinder 10 s)",
    "agent/condition.py:Condition.look": "FACTS_S, and StateDir's own limit",
    "agent/tokens.py:CheckTokens._sweep_for_ever": "nothing: without a reason there is nothing to sweep",
    "agent/arrivals.py:Arrivals._listen_and_look": "the look beside it, every 10 s; each has a limit",
    "agent/faults.py:FaultFile._act": "only tests ask for it",
    "controller/intents/compare_cpus.py:CompareCpus.compare": "each call's own deadline, 16 at a time",
    "controller/intents/compare_cpus.py:CompareCpus._cpu": "the same",
    "agent/daemon.py:Agent._hint": "nothing: without a hint the beacon says that there is more to read",
    "bootstrap/process.py:wait_for_stop_signal": "SIGTERM, SIGINT, an agent of the same name: the process's life",
    "agent/arrivals.py:Arrivals._runs": "announcing has a limit, looking is cancelled with the migration",
    "agent/audit.py:Audit.audit": "within() around each kind",
    "agent/leftovers.py:admissions.look": "within() around each look",
    "agent/audit_context.py:each": "within() around each look",
    "agent/source_checks.py:SourceChecks.check": "each call's own limit or deadline",
    "agent/source_checks.py:SourceChecks._against": "the same",
    "agent/audit_context.py:each.at": "within() around each look, each with what is left for all",
    "migration/sharing.py:_compare_media": "the limit of a look; the call's own deadline",
    "agent/audit_context.py:AuditContext.elsewhere": "each call's own deadline (rpc/client.py)",
    "agent/source.py:OutgoingMigrations.start_migration": "its check ends; the caller leaves after 80 s",
    # one at a time: what ends it is who holds the lock
    "agent/destination.py:IncomingMigrations.take_medium": IN_TURN,
    "agent/destination.py:IncomingMigrations.pre_live_migration": IN_TURN,
    "agent/destination.py:IncomingMigrations.remove_volume_connection": IN_TURN,
    "agent/destination.py:IncomingMigrations.rollback": IN_TURN,
    "agent/destination.py:IncomingMigrations.post_live_migration": IN_TURN,
    "agent/settling.py:Settling.settle_alone": IN_TURN,
    "agent/settling.py:Settling.refuse_migration": IN_TURN,
    "controller/records/projector.py:Projector.pull": "who holds it reads 50 pages: each call has its deadline",
    "controller/background.py:Follower.tidy": "END_S around each",
    "controller/records/traces.py:TraceExport._send": "the receiver's own limit, 30 s (adapters/traces.py)",
    "controller/intents/migrate_vm.py:MigrateVm._gate": "who holds it judges (90 s), admits and asks (80 s)",
    "controller/intents/migrate_vm.py:MigrateVm._start": "the same",
    "controller/intents/migrate_vm.py:MigrateVm.start": "the same, and those before it in the gate",
    "controller/operations/acting.py:Acting.drained": "only tests wait for it",
    "controller/operations/between.py:BetweenCalls.drained": "only tests wait for it",
    "controller/operations/between.py:BetweenCalls._while_held": "the right, 10 s after it was last proven",
    "kit/tether.py:main": "a process by itself: the time that it is told, and the end of who tells it",
    "controller/operations/carrying_out.py:Operations.drained": "only tests wait for it",
    "controller/operations/carrying_out.py:Operations.look": "LONGEST_LOOK_S of each look, and the records' 30 s",
    "controller/notifications/endpoint.py:Delivering._send": "posting.LONGEST_S of the request, in its thread",
    "controller/notifications/endpoint.py:Delivering._sent_some": "the same for each, and the records' 30 s",
    "controller/notifications/notifications.py:Notifications._test": "the same",
    "controller/notifications/notifications.py:Notifications.test": "the same",
    "controller/notifications/notifications.py:Notifications.look": "only tests wait for it",
    "controller/notifications/notifications.py:Notifications.stop": "ENDING_S of the controller; the records' 30 s",
    "controller/operations/calculating.py:calculated": "it only calculates",
    "controller/intents/external_users.py:ExternalUsers._user": "each question's own limit, 10 s",
    "adapters/host/doctor.py:KernelLooks._bridges": IN_ITS_THREAD,
    "adapters/host/doctor.py:KernelLooks._huge_pages": IN_ITS_THREAD,
    "adapters/host/doctor.py:KernelLooks._text": IN_ITS_THREAD,
    "adapters/host/doctor.py:KernelLooks.instances": ON_DISK,
    "adapters/host/doctor.py:_free": ON_DISK,
    "adapters/host/frames.py:TcpPath.send": "not blocking; CONNECT_S and ACKNOWLEDGED_S",
    "adapters/libvirt/doctor.py:LibvirtLooks._daemons_file": IN_ITS_THREAD,
    "adapters/libvirt/doctor.py:LibvirtLooks._max_client_requests": IN_ITS_THREAD,
    "adapters/libvirt/doctor.py:LibvirtLooks._shared": IN_ITS_THREAD,
    "adapters/libvirt/doctor.py:LibvirtLooks.certificate_files": IN_ITS_THREAD,
    "agent/doctor.py:Doctor.look": "each part's own limit",
    "agent/doctor.py:Doctor.seen": "each look's own limit or deadline",
    "controller/intents/examine.py:Examine._ask": "who has the turn: the call's own deadline, 90 s",
    "controller/intents/examine.py:Examine.examine": "each call's own deadline, 90 s",
    "adapters/metrics/exposition.py:Exposition.text": "the records' own limit, 30 s each; writing has one, 10 s",
    "adapters/metrics/listener.py:Listener.start": "no wait: it only listens; each client has a limit, CLIENT_S",
    "controller/records/snapshot.py:Snapshot._ask_whole": "each call's own deadline, 10 s; in the background",
    "controller/records/shared_reading.py:SharedReading.latest": "the records' own limit, twice 30 s",
    "controller/records/shared_reading.py:SharedReading._read_after": "the same, 30 s",
    "controller/revoking.py:Revoking._hand": "each call's own deadline, 90 s; in the background",
    "controller/records/snapshot.py:Snapshot._asked": "each call's own deadline, 10 s; none begins after 60 s",
    "controller/records/snapshot.py:Snapshot._try": "who has the place: the call's own deadline, 10 s",
    "controller/records/snapshot.py:Snapshot.run": "nothing: without news there is nothing to store",
    "controller/intents/audit.py:AuditFleet.audit": "each call's own deadline, 75 s",
    "controller/intents/audit.py:AuditFleet._twice": "each call's own deadline, 10 s",
    "controller/intents/declare_dead.py:DeclareDead._ask": "each call's own deadline, 25 s",
    "controller/intents/declare_dead.py:DeclareDead._notify": "the same",
    "controller/intents/declare_dead.py:DeclareDead.take_back": "the same",
    "controller/intents/declare_dead.py:DeclareDead._end_orphans": "the same, twice for a migration; ENOUGH_S",
    "controller/intents/declare_dead.py:DeclareDead.notify_again": "the same",
    "agent/revocation.py:Revocation.take_revoked": "who holds it: 60 s; the caller leaves after 90 s",
    # calls between processes
    "kit/waiting.py:within": "a clock beside it",
    "kit/waiting.py:paused": "a clock beside it",
    "rpc/client.py:_next": "within() around it",
    "rpc/outbox.py:Outbox.drained": "only tests wait for it",
    "rpc/outbox.py:Outbox._send.first": "within() around it",
    "rpc/server.py:_finished": "a heartbeat's time, within() around it",
    "controller/controller.py:Controller.start": "the records' own limits (30 s each), or the word to stop",
    "controller/records/registry.py:Registry.wait_for_beacons": "a clock beside it",
    "api/streams.py:_with_comments": "nothing: a client is told every 15 s that nothing has come",
    # threads
    "kit/threads.py:Worker.run": "without a limit the caller's business; with one it is looked at",
    "kit/threads.py:in_thread": "without a limit the caller's business",
    "kit/threads.py:Worker._take": "the next job: this is the life of the thread",
    "adapters/libvirt/session/events.py:EventHub.subscribe": "Event.wait has a limit inside",
    "adapters/libvirt/session/events.py:_Subscriber.events": "the hub looks every 5 s; who reads looks every 10 s",
    "adapters/libvirt/qemu/probe.py:_listen": "binds only; no name, see below",
    "adapters/libvirt/qemu/handshake.py:TlsHandshake.expect": "listens only, on what kit/names.py has resolved",
    "adapters/libvirt/qemu/recovery.py:_bind": "binds only; no name, see below",
    "adapters/host/resources.py:_try": "binds only",
    "adapters/vif/ovsdb.py:_open": "settimeout",
    "adapters/vif/ovsdb.py:echo": "settimeout",
    "adapters/libvirt/qemu/schema.py:_schema": "killed after 20 s; its thread is left after 40 s (Schemas._ask)",
    "adapters/host/looks.py:_answers": "LOOK_S, of each",
    "adapters/network/neutron/network.py:NeutronNetwork.switch": "Cloud.together(), and a last act's limit",
    "adapters/network/neutron/network.py:NeutronNetwork._reach": "the same",
    "adapters/openstack/session.py:Cloud._begin": "no wait: a variable's value",
    "adapters/openstack/login.py:Login.token": "the login's own limit, `timeout_s`",
    "kit/tasks.py:all_of": "its callers, which are listed",
    "kit/tasks.py:both": "the same",
    "migration/source/copy.py:Copy._start": "the limits of libvirt's calls and of the switch's",
    "bootstrap/controller.py:run_controller.run": "SIGTERM: this is the life of the process",
    "adapters/files/file_lock.py:Lock.take": "its thread is waited for with a clock beside it (storage.py)",
    "adapters/files/file_lock.py:Lock.give_up": "the same",
    "adapters/vif/ovsdb.py:rows": "who holds it: 10 s for a transaction; this thread has CALL_LIMIT_S",
    "adapters/libvirt/tls_files.py:_told": "in a thread: TAKING_S (bootstrap/pki.py), or a renewal's limit",
    "bootstrap/bus_server.py:BusServerFile.look": "in a thread, with _OF_A_LOOK_S; who holds it writes one file",
    "bootstrap/bus_server.py:BusServerFile._reload": "the same",
    "bootstrap/state_folder.py:alone_in": "a file, LOCK_NB",
    "kit/bounded.py:Bounded.call.perform": "a SimpleQueue takes everything",
    # what comes one by one: events, parts of answers
    "adapters/libvirt/inventory.py:_of_life": "VmList._tell looks every 15 s",
    "agent/vm_list.py:VmList._follow": "the same",
    "agent/arrivals.py:Arrivals._listen": "the look beside it, every 10 s",
    "migration/source/watch.py:_note_events": "the look beside it, every 3 to 12 s (handover.guard)",
    "api/streams.py:_events": "nothing: a client is told every 15 s that nothing has come",
    "api/streams.py:written": "the same",
    "api/web/live.py:_patches": "the same: a comment every 15 s",
    "api/rules.py:_put": "the records' own limit, 30 s",
    "adapters/metrics/listener.py:_request": "CLIENT_S around it",
    "agent/doctor.py:Doctor._stream": "the limits of the probe, of what is sent, and of each call",
    "controller/controller.py:Controller.event_batches": "the records are read every 30 s, and 3 s",
    "controller/controller.py:Controller.follow": "the same",
    "controller/records/events.py:Events.batches": "the same",
    "controller/records/events.py:Events.follow": "the same",
    "controller/records/events.py:Events._caught_up": "the records' own limit, 30 s for each page",
    # tasks and coroutines of others
    "agent/signs_of_life.py:SignsOfLife._received": "a subscription's own limits (adapters/nats)",
    "controller/operations/acting.py:_quietly": "the request's own limits; in the background",
    "joining.py:Watch._noted": "the limit of what is done: files 15 s, the desk 60 s",
    "adapters/files/storage.py:FileStorage.owner_of": "LOOK_S and USERS_S (owners.py)",
    "adapters/libvirt/inventory.py:LibvirtInventory.host": "abilities.py: 1 s for files; who asks has FACTS_S",
    "adapters/libvirt/qemu/handshake.py:TlsHandshake.expect.greet": "a few bytes are always taken",
    # names, and files that libvirt's threads or the event loop look at
    "adapters/host/resources.py:bindable": LOOKED_AT,
    "adapters/host/resources.py:reaches": LOOKED_AT,
    "adapters/libvirt/resources.py:LibvirtHostResources.bindable": LOOKED_AT,
    "adapters/libvirt/resources.py:LibvirtHostResources.listening": LOOKED_AT,
    "adapters/libvirt/resources.py:LibvirtHostResources.reaches": LOOKED_AT,
    "adapters/libvirt/resources.py:LibvirtHostResources.thing": LOOKED_AT,
    "adapters/libvirt/reference_facts.py:_as_seen": LOOKED_AT,
    "adapters/libvirt/reference_facts.py:_of_argument": LOOKED_AT,
    "adapters/libvirt/replaced.py:_is_another": "look_at around it",
    "adapters/libvirt/abilities.py:_may_raise_limits": MEMORY,
    "adapters/libvirt/abilities.py:may_handle_faults": MEMORY,
    "adapters/libvirt/qemu/certificates.py:Certificates.missing": "its callers: on_disk",
    "adapters/libvirt/qemu/certificates.py:of_migration": SYSTEM,
    "adapters/libvirt/definitions.py:_in_a_migration": MEMORY,
    "adapters/libvirt/definitions.py:_kept": MEMORY,  # and /etc
    "adapters/libvirt/qemu/probe.py:streams_of": MEMORY,
    "adapters/libvirt/qemu/conf.py:settings_of": SYSTEM,
    "adapters/libvirt/shared_folders.py:_is_shared": "its callers: on_disk",
    "adapters/libvirt/shared_folders.py:_named": SYSTEM,
    "adapters/libvirt/shared_folders.py:taken_for_local.look": "its callers: on_disk",
    "adapters/libvirt/qemu/interlock.py:_give": MEMORY,
    "adapters/libvirt/emulators.py:is_known": SYSTEM,
    "adapters/libvirt/inventory.py:_meminfo": MEMORY,
    "adapters/libvirt/queries.py:_pid": MEMORY,
    "adapters/libvirt/queries.py:_touched": MEMORY,
    "adapters/libvirt/qemu/keeper.py:_gone": SYSTEM,
    "adapters/libvirt/qemu/keeper.py:_is_there": SYSTEM,
    "adapters/libvirt/qemu/keeper.py:_own_socket": "binds only",
    "adapters/libvirt/qemu/keeper.py:_report_ready": MEMORY,
    "adapters/libvirt/xml/pages.py:usual_kib": MEMORY,
    "adapters/libvirt/qemu/recovery.py:remove_monitor": SYSTEM,
    "adapters/libvirt/qemu/recovery.py:listen_again": SYSTEM,
    "adapters/libvirt/qemu/recovery.py:hold_monitor": SYSTEM,
    "adapters/files/owners.py:_give": ON_DISK,
    "adapters/files/owners.py:_seen": ON_DISK,
    "adapters/files/state_dir.py:StateDir._look": "a thread of its own, with a limit",
    "adapters/files/storage.py:FileStorage._is_whole.has_content": ON_DISK,
    "adapters/files/storage.py:FileStorage.directories_of.look": ON_DISK,
    "adapters/files/storage.py:FileStorage.is_empty.look": ON_DISK,
    "adapters/files/storage.py:FileStorage.readable.look": ON_DISK,
    "adapters/volumes/shared_file.py:_look": ON_DISK,
    "adapters/vif/hostdev.py:HostdevVif.functions": MEMORY,
    "adapters/vif/bridge.py:filters_vlans": MEMORY,
    "adapters/vif/hybrid.py:_make_bridge": MEMORY,
    "adapters/vif/links.py:quieten": MEMORY,
    "adapters/vif/macvtap.py:against_vlan": MEMORY,
    "adapters/sql/journal_rows.py:_forgettable": "no file: a part of a query",
    "kit/mounts.py:_learn": "in a thread of on_disk",
    "kit/mounts.py:_note_link": "the same",
    "kit/mounts.py:_mounts": MEMORY,
    "adapters/files/reach.py:Claimed.reach": "LOOK_S of each thread, at most three one after the other",
    "adapters/files/reach.py:_at_all": "the same",
    "adapters/files/storage.py:FileStorage.held": "its thread is waited for with a clock beside it",
    "kit/daemon_threads.py:DaemonThreads.end": "who calls it: SqlFleet, in a thread left after CLOSE_S",
    "kit/daemon_threads.py:DaemonThreads._work": "the next call: this is the life of the thread",
    "adapters/vif/announce.py:send_as": "settimeout",
    "adapters/vif/bridge.py:send": "settimeout",
    "adapters/systemd.py:send": "setblocking(False)",
    "api/listeners.py:_inherited": "asyncio's, not blocking",
    "api/listeners.py:_clear": "settimeout; nobody is served yet",
    "api/listeners.py:_unix_socket": "binds only",
    "api/listeners.py:_tcp_sockets": "the resolver's own; nobody is served yet",
    "adapters/nats/bus.py:NatsBus.wait_connected": "its caller's limit",
    "kit/bounded_queue.py:BoundedQueue.take": "the caller's deadline (rpc/client.py, rpc/outbox.py)",
}
"""Place -> what ends it."""

HELD_OVER = {
    "kit/threads.py:Worker._take": "a Condition, which is given up meanwhile",
    "kit/bounded.py:Bounded.call.perform": "a SimpleQueue takes everything",
    "adapters/host/resources.py:_try": "binds only",
}
"""Place that waits while its thread holds a lock -> why that holds up nobody."""

NO_NAME = {
    "adapters/host/resources.py:_try": "an answer of getaddrinfo",
    "adapters/vif/ovsdb.py:_open": "a path",
    "adapters/vif/announce.py:send_as": "a path",
    "adapters/vif/bridge.py:send": "a device",
    "adapters/libvirt/qemu/keeper.py:_own_socket": "a path",
    "adapters/libvirt/qemu/keeper.py:keep": "a path",
    "adapters/systemd.py:send": "a path, or a name of the kernel's",
    "api/listeners.py:_clear": "a path",
    "api/listeners.py:_unix_socket": "a path",
}
"""Place -> what a socket is bound or connected to there."""


def test_every_wait_has_a_limit_or_is_listed_with_what_ends_it() -> None:
    assert sorted(set(unbounded()) - ENDED_BY.keys()) == []


def test_what_is_listed_is_there() -> None:
    assert sorted(ENDED_BY.keys() - set(unbounded())) == []


def test_no_thread_waits_while_it_holds_a_lock() -> None:
    assert sorted(set(held_over_a_wait()) ^ HELD_OVER.keys()) == []


def test_what_blocks_runs_on_no_event_loop_and_looks_at_files() -> None:
    modules = dict(read())
    for file in BLOCKING:
        nodes = list(ast.walk(modules[file]))
        assert not any(isinstance(n, ast.AsyncFunctionDef) for n in nodes), file
        assert any(isinstance(n, ast.Call) and touches_a_file(ast.unparse(n.func)) for n in nodes), file


def test_no_socket_is_given_a_hosts_name() -> None:
    assert sorted(set(may_be_names()) ^ NO_NAME.keys()) == []


def test_where_a_lock_is_held_briefly_there_are_locks() -> None:
    modules = dict(read())
    assert [file for file in sorted(HELD_BRIEFLY) if not locks_of(modules[file])] == []


def test_the_table_names_a_test_for_each_wait() -> None:
    lines = [line for line in TABLE.read_text().splitlines() if line.startswith("| ")]
    cells = [line.strip("| ").split(" | ")[-1] for line in lines if not line.startswith("| Wait for ")]
    assert len(cells) > 100 and "none" not in cells
    named = {path for cell in cells for path in re.findall(r"`([a-z_/]+(?:\.py|/))`", cell)}
    assert [path for path in sorted(named) if not (TESTS / path).exists()] == []
    assert [cell for cell in cells if not re.search(r"`[a-z_]+(?:/|`:)|the same", cell)] == []
