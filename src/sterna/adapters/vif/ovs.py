"""OVS normal plug: the guest's tap is a port of the integration bridge (SPEC P10, P12, R6, F4).

The tap is made ahead of the guest, so that the port is wired before the guest arrives, and it outlives the
guest's QEMU. Port and external_ids are written in one transaction, as Nova's os-vif writes them, so that Neutron
agents and OVN treat it as theirs.
"""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from ovsdbapp import exceptions as ovsdb_errors
from ovsdbapp.backend.ovs_idl import connection
from ovsdbapp.schema.open_vswitch import impl_idl
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from sterna.adapters.threads import Worker
from sterna.adapters.vif.announce import rarp, send_as
from sterna.domain.errors import Conflict, NotFound, Permanent, Unreachable
from sterna.domain.model import Nic
from sterna.ports.vif import MADE_BY

_TIMEOUT_S = 10
"""A transaction takes 3-7 ms, and some more until ovs-vswitchd has applied it; a dead one never answers."""
_IFF_LOWER_UP = 0x10000

T = TypeVar("T")


class OvsVif:
    """`ports.vif.Vif` for OVS normal plug. One database connection, followed by its own thread."""

    def __init__(self, ovsdb: str = "unix:/run/openvswitch/db.sock", *, timeout_s: int = _TIMEOUT_S) -> None:
        self._ovsdb = ovsdb
        self._timeout_s = timeout_s
        self._worker = Worker("sterna-ovs")
        self._api: Any = None

    async def describe(self, nic: Nic) -> Nic | None:
        """The NIC's port as Open vSwitch has it now; None where it is not plugged here. Raises Unreachable."""
        return await self._run(lambda api: _describe(api, nic))

    async def bridge_exists(self, bridge: str) -> bool:
        """Is there such a bridge on this host? Raises Unreachable."""
        return await self._run(lambda api: bool(_rows(api, "Bridge", name=bridge)))

    async def plug(self, nic: Nic, *, vm_uuid: str, device: str) -> Nic:
        """P10: the tap, its port on the NIC's bridge, and its external_ids. The same already there is success.

        Raises Conflict if `device` belongs to something else, NotFound if there is no such bridge, Permanent if
        the switch or the kernel refuses, Unreachable if Open vSwitch does not answer.
        """
        return await self._run(lambda api: self._plug(api, nic, vm_uuid, device))

    async def wired(self, device: str) -> bool:
        """P12: has ovs-vswitchd given the port a number, without an error? Raises Unreachable."""

        def look(api: Any) -> bool:
            interfaces = _rows(api, "Interface", name=device)
            return bool(interfaces) and (_first(interfaces[0].ofport) or 0) > 0 and not _first(interfaces[0].error)

        return await self._run(look)

    async def announce(self, device: str, *, bridge: str, mac: str) -> None:
        """One RARP with the guest's address, in through its port and out as the switch sees fit.

        Raises NotFound where the port is not on that bridge, Permanent, Temporary, Unreachable.
        """

        def number(api: Any) -> int:
            for interface in _rows(api, "Interface", name=device):
                on, _ = _bridge_of(api, interface)
                if on is not None and on.name == bridge and (port := _first(interface.ofport) or 0) > 0:
                    return int(port)
            raise NotFound(f"{device} is no working port of {bridge}")

        await send_as(self._ovsdb, bridge, await self._run(number), rarp(mac))

    async def unplug(self, device: str, *, bridge: str) -> bool:
        """R6, F4: the port off its bridge and the tap gone. False where there was nothing.

        Only for taps Sterna made: libvirt reuses its own names (`vnet3`) for other guests at once.
        A tap without a port, left by a plug that was interrupted in between, goes as well. Raises Conflict if the
        port is on another bridge than `bridge`, or the tap is no port and in use; Unreachable.
        """
        return await self._run(lambda api: _unplug(api, device, bridge))

    async def put_back(self, nic: Nic) -> bool:
        """R6: a port again, as `nic` was described. False without its device. Raises Permanent, Unreachable."""
        return await self._run(lambda api: _put_back(api, nic))

    async def made_ahead(self) -> list[Nic]:
        """The ports whose tap Sterna made. Raises Unreachable."""
        return await self._run(_made_ahead)

    async def close(self) -> None:
        """Drop the database connection and end the thread."""
        await self._worker.run(self._forget)
        self._worker.stop()

    async def _run(self, act: Callable[[Any], T]) -> T:
        return await self._worker.run(lambda: self._attempt(act))

    def _attempt(self, act: Callable[[Any], T]) -> T:
        """With a connection that is up now: a cut one would answer reads from an old copy."""
        try:
            return act(self._connected())
        except (ovsdb_errors.TimeoutException, TimeoutError) as error:
            self._forget()
            fix = "see that ovsdb-server and ovs-vswitchd run"
            raise Unreachable(
                f"Open vSwitch gave no answer within {self._timeout_s} s: {error}", fix=fix
            ) from error
        except ovsdb_errors.OvsdbAppException as error:
            raise Permanent(f"Open vSwitch refused: {error}") from error

    def _connected(self) -> Any:
        if self._api is not None and not self._api.idl._session.is_connected():
            # The IDL would reconnect by itself after a back-off of up to 8 s; a new one is there at once.
            self._forget()
        if self._api is None:
            try:
                idl = connection.OvsdbIdl.from_server(self._ovsdb, "Open_vSwitch")
                # ovsdbapp keeps the connection on the class, the first one for good: a class for each.
                api_class = type("Api", (impl_idl.OvsdbIdl,), {})
                self._api = api_class(connection.Connection(idl, timeout=self._timeout_s))
            except Exception as error:  # the library raises bare Exception and its own kinds alike
                fix = f"see that ovsdb-server runs and listens on {self._ovsdb}"
                raise Unreachable(f"no connection to {self._ovsdb}: {error}", fix=fix) from error
        return self._api

    def _forget(self) -> None:
        if self._api is not None:
            old, self._api = self._api.ovsdb_connection, None
            # Its thread may sit in poll() until the next update; it is a daemon and must not be waited for here.
            threading.Thread(target=old.stop, args=(1,), name="sterna-ovs-close", daemon=True).start()

    def _plug(self, api: Any, nic: Nic, vm_uuid: str, device: str) -> Nic:
        if not nic.bridge or not nic.port_id:
            raise Permanent(f"NIC {nic.mac} has no bridge or no port id to be plugged with")
        if not _rows(api, "Bridge", name=nic.bridge):
            raise NotFound(f"there is no bridge {nic.bridge} on this host", fix=f"ovs-vsctl add-br {nic.bridge}")
        ids = {
            "iface-id": nic.port_id,
            "iface-status": "active",
            "attached-mac": nic.mac,
            "vm-uuid": vm_uuid,
        }
        _check_free(api, device, nic.bridge, ids)
        with _iproute() as ipr:
            _make_tap(ipr, device, nic, ours=bool(_rows(api, "Interface", name=device)))
        with api.transaction(check_error=True) as txn:
            txn.add(api.add_port(nic.bridge, device, may_exist=True))
            columns: list[tuple[str, Any]] = [("external_ids", nic.external_ids | ids | MADE_BY)]
            if nic.mtu:
                # Without it ovs-vswitchd sets the port's MTU to the bridge's.
                columns.append(("mtu_request", nic.mtu))
            txn.add(api.db_set("Interface", device, *columns))
            if nic.vlan is not None:
                txn.add(api.db_set("Port", device, ("tag", nic.vlan)))
        plugged = _describe(api, nic.model_copy(update={"device": device}))
        if plugged is None:
            raise Permanent(f"{device} was added to {nic.bridge}, but the switch does not show it")
        return plugged.model_copy(update={"managed": False})


def _describe(api: Any, nic: Nic) -> Nic | None:
    interface = None
    if nic.device:
        found = _rows(api, "Interface", name=nic.device)
        # A name alone proves nothing: `vnet3` may have become another guest's.
        interface = next((i for i in found if _same_mac(i.external_ids.get("attached-mac"), nic.mac)), None)
    if interface is None and nic.port_id:
        for row in _rows(api, "Interface"):
            if row.external_ids.get("iface-id") == nic.port_id and _bridge_of(api, row)[0]:
                interface = row
    if interface is None:
        return None
    bridge, port = _bridge_of(api, interface)
    if bridge is None:
        return None
    return nic.model_copy(
        update={
            "bridge": bridge.name,
            "vlan": _first(port.tag),
            "mtu": _first(interface.mtu) or nic.mtu,
            "device": interface.name,
            "port_id": interface.external_ids.get("iface-id", nic.port_id),
            "external_ids": dict(interface.external_ids),
        }
    )


def _made_ahead(api: Any) -> list[Nic]:
    found = []
    for row in _rows(api, "Interface"):
        ids = dict(row.external_ids)
        bridge, port = _bridge_of(api, row)
        if bridge is not None and ids.items() >= MADE_BY.items():
            nic = Nic(mac=ids.get("attached-mac", ""), plug="ovs", port_id=ids.get("iface-id"), device=row.name)
            seen = {"bridge": bridge.name, "vlan": _first(port.tag), "managed": False, "external_ids": ids}
            found.append(nic.model_copy(update=seen))
    return found


def _check_free(api: Any, device: str, bridge: str, ids: dict[str, str]) -> None:
    """Raises Conflict if the device is somebody else's port, or on another bridge."""
    for interface in _rows(api, "Interface", name=device):
        for key in ("iface-id", "vm-uuid"):
            other = interface.external_ids.get(key)
            if other != ids[key]:
                raise Conflict(f"{device} is already a port with {key} {other or 'unset'}, not {ids[key]}")
        on, _ = _bridge_of(api, interface)
        if on is not None and on.name != bridge:
            raise Conflict(f"{device} is already a port of {on.name}, not {bridge}")


def _unplug(api: Any, device: str, bridge: str) -> bool:
    interfaces = _rows(api, "Interface", name=device)
    if interfaces:
        on, _ = _bridge_of(api, interfaces[0])
        if on is not None and on.name != bridge:
            raise Conflict(f"{device} is a port of {on.name}, not {bridge}: left alone")
        with api.transaction(check_error=True) as txn:
            txn.add(api.del_port(device, if_exists=True))
    with _iproute() as ipr:
        link = _link(ipr, device)
        if link is not None:
            if not interfaces and link["flags"] & _IFF_LOWER_UP:
                raise Conflict(f"{device} is no port of a switch and a process has it open: left alone")
            with _gone_is_fine():
                ipr.link("del", index=link["index"])
    return bool(interfaces) or link is not None


def _put_back(api: Any, nic: Nic) -> bool:
    with _iproute() as ipr:
        if not nic.device or not nic.bridge or _link(ipr, nic.device) is None:
            return False
    with api.transaction(check_error=True) as txn:
        txn.add(api.add_port(nic.bridge, nic.device, may_exist=True))
        columns: list[tuple[str, Any]] = [("external_ids", nic.external_ids)]
        if nic.mtu:
            columns.append(("mtu_request", nic.mtu))
        txn.add(api.db_set("Interface", nic.device, *columns))
        if nic.vlan is not None:
            txn.add(api.db_set("Port", nic.device, ("tag", nic.vlan)))
    return True


def _make_tap(ipr: Any, device: str, nic: Nic, *, ours: bool) -> None:
    """The tap, up, with its MTU. One of an interrupted attempt is taken over unless a process has it open."""
    link = _link(ipr, device)
    if link is None:
        # vnet_hdr: QEMU's virtio-net offloads need it, and it cannot be changed on a tap that exists.
        ipr.link("add", ifname=device, kind="tuntap", mode="tap", ifr={"vnet_hdr": 1, "no_pi": 1})
        link = _link(ipr, device)
        if link is None:
            raise Permanent(f"{device} was made and is gone again")
    elif not ours:
        if link.get(("linkinfo", "kind")) != "tun":
            raise Conflict(f"{device} exists and is no tap")
        if link["flags"] & _IFF_LOWER_UP:
            raise Conflict(f"{device} exists and a process has it open")
    # The host has no business on the guest's network: without this, the kernel gives the tap an IPv6 address as
    # soon as the guest is there, and sends router solicitations into it.
    with contextlib.suppress(OSError):
        Path(f"/proc/sys/net/ipv6/conf/{device}/disable_ipv6").write_text("1")
    # As libvirt does: the guest's MAC with 0xfe in front. A bridge takes the lowest MAC of its ports for its own.
    settings: dict[str, Any] = {"address": f"fe{nic.mac[2:]}"} | ({"mtu": nic.mtu} if nic.mtu else {})
    ipr.link("set", index=link["index"], state="up", **settings)


def _rows(api: Any, table: str, **columns: str) -> list[Any]:
    """Rows of the local copy. The copy is replaced by the connection's thread, hence the lock."""
    with api.ovsdb_connection.lock:
        rows = list(api.idl.tables[table].rows.values())
        return [row for row in rows if all(getattr(row, k) == v for k, v in columns.items())]


def _bridge_of(api: Any, interface: Any) -> tuple[Any, Any]:
    """The Bridge and Port rows an Interface row hangs on; (None, None) where it hangs on none."""
    for bridge in _rows(api, "Bridge"):
        for port in bridge.ports:
            if any(i.uuid == interface.uuid for i in port.interfaces):
                return bridge, port
    return None, None


def _first(column: Any) -> Any:
    """An optional column: the IDL shows it as a list of none or one."""
    if isinstance(column, list):
        return column[0] if column else None
    return column


def _same_mac(one: str | None, other: str) -> bool:
    return one is not None and one.lower() == other.lower()


def _link(ipr: Any, device: str) -> Any:
    found = ipr.link_lookup(ifname=device)
    if not found:
        return None
    try:
        return next(iter(ipr.get_links(found[0])), None)
    except NetlinkError as error:
        if error.code == errno.ENODEV:
            return None
        raise


@contextmanager
def _iproute() -> Iterator[Any]:
    """A netlink socket for one action; what the kernel refuses becomes Permanent."""
    try:
        with IPRoute() as ipr:
            yield ipr
    except NetlinkError as error:
        raise Permanent(f"the kernel refused: {error}") from error
    except OSError as error:
        raise Permanent(f"the kernel refused: {error.strerror or error}") from error


@contextmanager
def _gone_is_fine() -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        if error.code != errno.ENODEV:
            raise
