"""One connection to Open vSwitch's database, followed by its own thread, and what its rows say.

Called by the plug types that end on an integration bridge (`ovs.py`, `hybrid.py`).
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from ovs import socket_util
from ovsdbapp import exceptions as ovsdb_errors
from ovsdbapp.backend.ovs_idl import connection
from ovsdbapp.schema.open_vswitch import impl_idl

from sterna.adapters.vif import links
from sterna.domain.errors import Conflict, NotFound, Permanent, Unreachable
from sterna.domain.model import Nic
from sterna.domain.plugs import carried_ids, differs, is_own, vm_of
from sterna.kit.threads import Worker
from sterna.ports.vif import MADE_BY

TIMEOUT_S = 10
"""A transaction takes 3-7 ms, and some more until ovs-vswitchd has applied it; a dead one never answers."""
CALL_LIMIT_S = 60.0
"""For one action, a few transactions and looks. What the library does before it is connected has no limit."""
DEFAULT_PORT = 6640
"""Of OVSDB, as registered with IANA."""
ECHO_S = 5.0
"""An echo takes 0.3 ms."""
COPY_S = 60.0
"""The copy of the database is made anew at this age: an update may have been lost without anybody noticing."""
NOT_WIRED_S = 10.0
"""The same for a copy in which a port has not forwarded for this long. ovs-vswitchd needs some milliseconds."""

T = TypeVar("T")


class _Transaction(impl_idl.OvsVsctlTransaction):  # type: ignore[misc]  # the library has no types
    """The library logs it where ovs-vswitchd has not applied a change in time, and calls that a success."""

    def do_post_commit(self, txn: Any) -> None:
        self.late: Exception | None = None
        try:
            super().do_post_commit(txn)
        except ovsdb_errors.TimeoutException as error:
            self.late = error
            raise

    def post_commit(self, txn: Any) -> None:
        super().post_commit(txn)
        if self.late is not None:
            raise self.late


class _Api(impl_idl.OvsdbIdl):  # type: ignore[misc]  # the same
    def create_transaction(self, check_error: bool = False, log_errors: bool = True, **_: Any) -> _Transaction:
        return _Transaction(self, self.ovsdb_connection, check_error=check_error, log_errors=log_errors)


class _Copy(connection.OvsdbIdl):  # type: ignore[misc]  # the same
    """The library's thread logs an error of `run` and goes on with what may no longer be the database."""

    out_of_step = False

    def run(self) -> Any:
        try:
            return super().run()
        except Exception:
            self.out_of_step = True
            raise


class OvsDb:
    """The connection. `run` gives an action the API of a connection that is up."""

    def __init__(self, remote: str = "unix:/run/openvswitch/db.sock", *, timeout_s: int = TIMEOUT_S) -> None:
        self.remote = remote
        self._timeout_s = timeout_s
        self._worker = Worker("sterna-ovs", limit_s=CALL_LIMIT_S, at_end=self._forget)
        self._of_thread = threading.local()
        self._dark: dict[str, float] = {}
        """Since when a port has been seen not to forward."""

    async def run(self, act: Callable[[Any], T]) -> T:
        """`act(api)`'s answer. Raises Unreachable, Permanent, and what `act` raises."""
        try:
            return await self._worker.run(lambda: self._attempt(act))
        except TimeoutError as error:
            fix = "check that ovsdb-server and ovs-vswitchd run"
            raise Unreachable(f"Open vSwitch does not answer: {error}", fix=fix) from error

    async def forwards(self, port: str) -> bool:
        """Has ovs-vswitchd given the port a number, without an error? A "no" that lasts is asked for again, with a
        new copy of the database. Raises Unreachable, Permanent."""
        return await self.run(lambda api: self.sees(api, port))

    def sees(self, api: Any, port: str) -> bool:
        """The same, for an action of `run`."""
        now = time.monotonic()
        if forwards(api, port):
            self._dark.pop(port, None)
            return True
        self._dark = {p: since for p, since in self._dark.items() if now - since < COPY_S}
        if now - self._dark.setdefault(port, now) >= NOT_WIRED_S:
            self._dark[port] = now
            self._forget()
        return False

    async def close(self) -> None:
        """Drop the database connection and end the thread. Not waited for."""
        self._worker.stop()

    def _attempt(self, act: Callable[[Any], T]) -> T:
        """With a server that answers now: the library would answer reads from an old copy."""
        echo(self.remote)
        try:
            return act(self._connected())
        except (ovsdb_errors.TimeoutException, TimeoutError) as error:
            self._forget()
            fix = "check that ovsdb-server and ovs-vswitchd run"
            raise Unreachable(
                f"Open vSwitch gave no answer within {self._timeout_s} s: {error}", fix=fix
            ) from error
        except ovsdb_errors.OvsdbAppException as error:
            raise Permanent(f"Open vSwitch refused: {error}") from error

    def _connected(self) -> Any:
        api = getattr(self._of_thread, "api", None)
        if api is not None and not self._is_good(api):
            self._forget()
            api = None
        if api is None:
            try:
                self._of_thread.made_at = time.monotonic()
                idl = _Copy.from_server(self.remote, "Open_vSwitch")
                # ovsdbapp keeps the connection on the class, the first one forever: a class for each.
                api_class = type("Api", (_Api,), {})
                api = self._of_thread.api = api_class(connection.Connection(idl, timeout=self._timeout_s))
            except Exception as error:  # the library raises bare Exception and its own kinds alike
                fix = f"check that ovsdb-server runs and listens on {self.remote}"
                raise Unreachable(f"no connection to {self.remote}: {error}", fix=fix) from error
        return api

    def _is_good(self, api: Any) -> bool:
        # The IDL would reconnect by itself after a back-off of up to 8 s; a new one is there at once.
        followed = api.idl._session.is_connected() and api.ovsdb_connection.thread.is_alive()
        return followed and not api.idl.out_of_step and time.monotonic() - self._of_thread.made_at < COPY_S

    def _forget(self) -> None:
        api, self._of_thread.api = getattr(self._of_thread, "api", None), None
        if api is not None:
            old = api.ovsdb_connection
            # Its thread may sit in poll() until the next update; it is a daemon and must not be waited for here.
            threading.Thread(target=old.stop, args=(1,), name="sterna-ovs-close", daemon=True).start()


def echo(remote: str) -> None:
    """Have the server answer, over a connection of its own, within ECHO_S seconds. Raises Unreachable.

    The library notices a server that hangs within some 10 s over TCP, and never over a Unix socket; until then it
    answers from its copy. Several remotes (`tcp:a:6640,tcp:b:6640`) and TLS are left to the library.
    """
    if "," in remote or not remote.startswith(("unix:", "tcp:")):
        return
    try:
        with _open(remote) as asking:
            asking.sendall(json.dumps({"id": "sterna", "method": "echo", "params": []}).encode())
            if not asking.recv(4096):
                raise ConnectionError("it hung up")
    except (OSError, ValueError) as error:
        fix = f"check that ovsdb-server runs and listens on {remote}"
        raise Unreachable(f"ovsdb-server at {remote} does not answer: {error}", fix=fix) from error


def _open(remote: str) -> socket.socket:
    """Raises OSError; ValueError where it is not an address."""
    kind, _, address = remote.partition(":")
    if kind == "tcp":
        return socket.create_connection(socket_util.inet_parse_active(address, DEFAULT_PORT), timeout=ECHO_S)
    asking = socket.socket(socket.AF_UNIX)
    asking.settimeout(ECHO_S)
    try:
        asking.connect(address)
    except OSError:
        asking.close()
        raise
    return asking


def rows(api: Any, table: str, **columns: str) -> list[Any]:
    """Rows of the local copy. The copy is replaced by the connection's thread, hence the lock."""
    with api.ovsdb_connection.lock:
        found = list(api.idl.tables[table].rows.values())
        return [row for row in found if all(getattr(row, k) == v for k, v in columns.items())]


def bridge_of(api: Any, interface: Any) -> tuple[Any, Any]:
    """The Bridge and Port rows an Interface row hangs on; (None, None) where it hangs on none."""
    for bridge in rows(api, "Bridge"):
        for port in bridge.ports:
            if any(i.uuid == interface.uuid for i in port.interfaces):
                return bridge, port
    return None, None


def first(column: Any) -> Any:
    """An optional column: the IDL shows it as a list of none or one."""
    if isinstance(column, list):
        return column[0] if column else None
    return column


def ids_for(nic: Nic, vm_uuid: str) -> dict[str, str]:
    """The external_ids of a guest's port, as Nova's os-vif writes them. Raises Permanent, NotFound."""
    if not nic.bridge or not nic.port_id:
        raise Permanent(f"NIC {nic.mac} has no bridge or no port id to be plugged with")
    return {
        "iface-id": nic.port_id,
        "iface-status": "active",
        "attached-mac": nic.mac,
        "vm-uuid": vm_uuid,
    }


def check_free(api: Any, port: str, bridge: str, ids: dict[str, str]) -> None:
    """Raises NotFound without the bridge, Conflict if the port is another NIC's, or on another bridge."""
    if not rows(api, "Bridge", name=bridge):
        raise NotFound(f"there is no bridge {bridge} on this host", fix=f"ovs-vsctl add-br {bridge}")
    for interface in rows(api, "Interface", name=port):
        is_now = {"iface-id": interface.external_ids.get("iface-id"), "vm-uuid": vm_of(interface.external_ids)}
        for key, other in is_now.items():
            if other != ids[key]:
                raise Conflict(f"{port} is already a port with {key} {other or 'unset'}, not {ids[key]}")
        on, _ = bridge_of(api, interface)
        if on is not None and on.name != bridge:
            raise Conflict(f"{port} is already a port of {on.name}, not {bridge}")


def against_port(api: Any, port: str, nic: Nic) -> str:
    """Why that name is not free, in words; '' if it is."""
    for interface in rows(api, "Interface", name=port):
        on, _ = bridge_of(api, interface)
        bridge, other = on.name if on is not None else "no bridge", differs(nic, interface.external_ids)
        if other or bridge not in (nic.bridge, "no bridge"):
            return f"a port of {bridge}" + (f", {other}" if other else "")
    return ""


def add_port(api: Any, port: str, nic: Nic, ids: dict[str, str]) -> None:
    """The device's port on the NIC's bridge, with its ids, MTU and VLAN tag, in one transaction."""
    with api.transaction(check_error=True) as txn:
        txn.add(api.add_port(nic.bridge, port, may_exist=True))
        columns: list[tuple[str, Any]] = [("external_ids", carried_ids(nic) | ids | MADE_BY)]
        if nic.mtu:
            # Without it ovs-vswitchd sets the port's MTU to the bridge's.
            columns.append(("mtu_request", nic.mtu))
        txn.add(api.db_set("Interface", port, *columns))
        if nic.vlan is not None:
            txn.add(api.db_set("Port", port, ("tag", nic.vlan)))


def put_back(api: Any, port: str, nic: Nic) -> bool:
    """A device that lost its port has it again, as `nic` says. False without the device."""
    with links.iproute() as ipr:
        if not nic.bridge or links.link_of(ipr, port) is None:
            return False
    with api.transaction(check_error=True) as txn:
        txn.add(api.add_port(nic.bridge, port, may_exist=True))
        columns: list[tuple[str, Any]] = [("external_ids", nic.external_ids)]
        if nic.mtu:
            columns.append(("mtu_request", nic.mtu))
        txn.add(api.db_set("Interface", port, *columns))
        if nic.vlan is not None:
            txn.add(api.db_set("Port", port, ("tag", nic.vlan)))
    return True


def is_anothers(api: Any, port: str, nic: Nic) -> bool:
    """Is the port of that name another NIC's? A name alone proves nothing: another guest's may have it by now."""
    marks = [dict(interface.external_ids) for interface in rows(api, "Interface", name=port)]
    return any(not is_own(nic, ids.get("attached-mac", ""), ids) for ids in marks)


def remove_port(api: Any, port: str, bridge: str) -> bool:
    """Take it off; False where there was none. Raises Conflict if it is on another bridge."""
    interfaces = rows(api, "Interface", name=port)
    if not interfaces:
        return False
    on, _ = bridge_of(api, interfaces[0])
    if on is not None and on.name != bridge:
        raise Conflict(f"{port} is a port of {on.name}, not {bridge}: left alone")
    with api.transaction(check_error=True) as txn:
        txn.add(api.del_port(port, if_exists=True))
    return True


def as_seen(api: Any, nic: Nic, interface: Any, **more: Any) -> Nic | None:
    """The NIC as an Interface row has it; None where the row hangs on no bridge."""
    bridge, port = bridge_of(api, interface)
    if bridge is None:
        return None
    seen = {
        "bridge": bridge.name,
        "vlan": first(port.tag),
        "mtu": first(interface.mtu) or nic.mtu,
        "device": interface.name,
        "port_id": interface.external_ids.get("iface-id", nic.port_id),
        "external_ids": dict(interface.external_ids),
    }
    return nic.model_copy(update=seen | more)


def forwards(api: Any, port: str) -> bool:
    """Has ovs-vswitchd given the port a number, without an error?"""
    found = rows(api, "Interface", name=port)
    return bool(found) and (first(found[0].ofport) or 0) > 0 and not first(found[0].error)


def number_of(api: Any, port: str, bridge: str) -> int:
    """The port's OpenFlow number. Raises NotFound where it does not work on that bridge."""
    for interface in rows(api, "Interface", name=port):
        on, _ = bridge_of(api, interface)
        if on is not None and on.name == bridge and (number := first(interface.ofport) or 0) > 0:
            return int(number)
    raise NotFound(f"{port} is not a working port of {bridge}")


def made_by_sterna(api: Any) -> list[Any]:
    """Interface rows on a bridge that Sterna made."""
    return [row for row in rows(api, "Interface") if dict(row.external_ids).items() >= MADE_BY.items()]
