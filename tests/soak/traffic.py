"""What users do all along: each guest has one who moves it to and fro; others list, and watch events."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx2

from sterna.lab.guest_view import Guest
from tests.soak.api import Api
from tests.soak.timeline import Timeline

FINAL = {"completed", "failed", "cancelled"}
MIB = 1 << 20
LIMITS = (8 * MIB, 16 * MIB, 32 * MIB, 64 * MIB)
"""bytes/s: the copy lasts a second to ten."""
LIMITS_LOCAL = (128 * MIB, 256 * MIB, 512 * MIB)
"""The same for a guest with a local disk, as libvirt counts the whole disk of 1 GiB, holes included."""
LOOK_S = 0.3
LONGEST_S = 600.0
"""A migration that has not ended after this is given up by its user, and found by the checks at the end."""


@dataclass
class Requests:
    """Every migration that was asked for, by id: what was answered. Shared by all users."""

    accepted: dict[str, str] = field(default_factory=dict)
    """Id -> name of the guest."""
    unanswered: dict[str, str] = field(default_factory=dict)
    """Nobody said whether they were accepted."""

    def __post_init__(self) -> None:
        self.lock = threading.Lock()


class Mover:
    """The user of one guest."""

    def __init__(
        self,
        guest: Guest,
        api: Api,
        timeline: Timeline,
        draw: random.Random,
        requests: Requests,
        held: Callable[[str, str], bool],
        stop: threading.Event,
    ) -> None:
        self._guest, self._api, self._timeline, self._draw = guest, api, timeline, draw
        self._requests, self._held, self._stop = requests, held, stop
        local = any(disk.kind in ("local", "overlay") for disk in guest.disks)
        self._limits = LIMITS_LOCAL if local else LIMITS

    def run(self) -> None:
        """Until told to stop; the migration that is under way then is left to itself."""
        while not self._stop.is_set():
            where = self._api.get(f"/v1/vms/{self._guest.name}", 404)
            if where.status != 200 or where.body["host"] not in ("host1", "host2"):
                self._pause(0.2, 1.5)
                continue
            wish = self._wish("host2" if where.body["host"] == "host1" else "host1")
            if self._asked(wish):
                self._follow(wish)
                self._pause(0.0, 1.0)
            else:
                self._pause(0.5, 3.0)

    def _pause(self, least: float, most: float) -> None:
        self._stop.wait(self._draw.uniform(least, most))

    def _wish(self, destination: str) -> dict[str, Any]:
        """A request as users make them, with everything that one can ask for."""
        draw = self._draw
        wish: dict[str, Any] = {"id": str(uuid.UUID(int=draw.getrandbits(128), version=4)), "vm": self._guest.name}
        wish["destination"] = destination
        wish["may"] = [word for word in ("postcopy", "throttle", "pause") if draw.random() < 0.4]
        wish["transport"] = draw.choice(["tcp", "tls", None])
        if draw.random() < 0.5:
            wish["bandwidth_bytes_s"] = draw.choice(self._limits)
        if draw.random() < 0.3:
            wish["max_downtime_ms"] = draw.choice([100, 300, 1000])
        if draw.random() < 0.2:
            wish["finish_within_s"] = draw.choice([10, 30, 120])
        if draw.random() < 0.2:
            wish["vm"] = self._guest.uuid
        return wish

    def _asked(self, wish: dict[str, Any]) -> bool:
        """Was it accepted? Without an answer it is asked again, as a client does that wants to know."""
        while not self._stop.is_set():
            answer = self._post(wish)
            if answer in (200, 202):
                return True
            if answer != 0:
                return False
            self._pause(0.3, 2.0)
        return False

    def _post(self, wish: dict[str, Any]) -> int:
        answer = self._api.post("/v1/migrations", 200, 202, 404, 409, 422, json=wish)
        with self._requests.lock:
            if answer.status in (200, 202):
                self._requests.accepted[wish["id"]] = self._guest.name
                self._requests.unanswered.pop(wish["id"], None)
            elif not answer.came:
                self._requests.unanswered[wish["id"]] = self._guest.name
        told = answer.body.get("detail", "") if answer.status not in (200, 202) and answer.body else ""
        self._timeline.note("request", status=answer.status, guest=self._guest.name, told=told, wish=wish)
        return answer.status

    def _follow(self, wish: dict[str, Any]) -> None:
        """Look at it until it has ended, and do to it now and then what users do."""
        began, path = time.monotonic(), f"/v1/migrations/{wish['id']}"
        actions = self._actions(wish)
        while not self._stop.is_set():
            shown = self._api.get(path)
            if shown.status == 200 and shown.body["status"] in FINAL:
                ended = {key: shown.body[key] for key in ("status", "reason")}
                self._timeline.note(f"ended {shown.body['status']}", guest=self._guest.name, id=wish["id"], **ended)
                return
            if time.monotonic() - began > LONGEST_S:
                self._timeline.note("given up", guest=self._guest.name, id=wish["id"])
                return
            for at_s, action in list(actions):
                if time.monotonic() - began > at_s:
                    actions.remove((at_s, action))
                    action()
            self._stop.wait(LOOK_S)

    def _actions(self, wish: dict[str, Any]) -> list[tuple[float, Callable[[], None]]]:
        draw, path = self._draw, f"/v1/migrations/{wish['id']}"
        actions: list[tuple[float, Callable[[], None]]] = []
        if draw.random() < 0.2:
            actions.append((draw.uniform(0, 8), lambda: self._request_change(path, "abort")))
        if "postcopy" in wish["may"] and draw.random() < 0.6:
            actions.append((draw.uniform(0, 6), lambda: self._request_change(path, "post-copy")))
        if draw.random() < 0.2:
            limit = {"bandwidth_bytes_s": draw.choice([*self._limits, None])}
            actions.append((draw.uniform(0, 6), lambda: self._request_change(path, "tune", json=limit)))
        if draw.random() < 0.2:
            rival = self._wish(wish["destination"])
            actions.append((draw.uniform(0, 4), lambda: self._conflict(wish, rival)))
        return actions

    def _request_change(self, path: str, what: str, **more: Any) -> None:
        answer = self._api.post(f"{path}/{what}", 202, 409, **more)
        self._timeline.note(what, status=answer.status, guest=self._guest.name, path=path)

    def _conflict(self, wish: dict[str, Any], rival: dict[str, Any]) -> None:
        """A second request for the same guest is refused while its host holds it for the first."""
        status = self._post(rival)
        if status == 202 and self._held("host2" if rival["destination"] == "host1" else "host1", wish["id"]):
            self._timeline.violation(f"{self._guest.name} was accepted twice", first=wish["id"], second=rival["id"])
        while status == 0 and not self._stop.is_set():  # it wants to know
            self._pause(0.3, 2.0)
            status = self._post(rival)


class Lister:
    """Lists everything, again and again."""

    PATHS = ("/v1/vms", "/v1/hosts", "/v1/migrations", "/v1/migrations?limit=500", "/v1/health")

    def __init__(self, api: Api, draw: random.Random, stop: threading.Event) -> None:
        self._api, self._draw, self._stop = api, draw, stop

    def run(self) -> None:
        while not self._stop.wait(self._draw.uniform(0.1, 1.5)):
            self._api.get(self._draw.choice(self.PATHS))


class Follower:
    """Watches the fleet's events, and comes again with `Last-Event-ID` when the stream ends, as a browser does."""

    def __init__(
        self, url: str, timeline: Timeline, stop: threading.Event, access: dict[str, Any] | None = None
    ) -> None:
        self._url, self._timeline, self._stop, self._access = url, timeline, stop, access or {}
        self.last = 0
        self.events = 0

    def run(self) -> None:
        timeout = httpx2.Timeout(10, read=30)
        with httpx2.Client(base_url=self._url, timeout=timeout, **self._access) as client:
            while not self._stop.is_set():
                try:
                    self._listen(client)
                except httpx2.TransportError as error:
                    self._timeline.note("stream broke", error=repr(error))
                self._stop.wait(0.5)

    def _listen(self, client: httpx2.Client) -> None:
        headers = {"Last-Event-ID": str(self.last)} if self.last else {}
        with client.stream("GET", "/v1/events", headers=headers) as stream:
            if stream.status_code not in (200, 503):
                self._timeline.violation(f"GET /v1/events answered {stream.status_code}", headers=headers)
                return
            for line in stream.iter_lines():
                if self._stop.is_set():
                    return
                self.take(line)

    def take(self, line: str) -> None:
        """One line of a stream: ids only grow."""
        if line.startswith("event:"):
            self.events += 1
        if line.startswith("id:"):
            number = int(line.partition(":")[2])
            if number <= self.last:
                self._timeline.violation("an event stream went back", last=self.last, then=number)
            self.last = number
