"""The REST API as the commands use it: the only module that knows httpx2."""

from __future__ import annotations

import json
import re
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote
from uuid import UUID

import httpx2

from sterna.cli.api_address import UNIX, ApiAddress, from_disk
from sterna.cli.waiting import within
from sterna.kit.tls_errors import in_words

FULL_ID = 36
OPENED = ""
RESUME_S = 0.5
"""How long to wait before a dropped event stream is opened again."""
CONNECT_S = 10.0
CONNECT_TO_EACH_S = 3.0
"""The same where there are several addresses: the next one is asked then."""
LONGEST_PAGE = 500
"""Items on one page of the API, at most."""
ANSWER_S = 120.0
"""For all responses to one command together. The controller waits up to 80 s for a source and 40 s for a
rehearsal. Choosing a destination takes up to 70 s more if hosts hang. The response may then be too late, but the
request is still carried out."""
SILENCE_S = 35.0
"""The API sends a comment every 15 s: silence for more than twice that is a dead connection."""
GIVE_UP_S = 60.0
"""How long the API may be unreachable while a command watches."""

REPEATABLE = ("/v1/migrations", "/v1/operations")
"""A POST there has an id of the client's choice, and the same id is the same request."""

Json = dict[str, Any]
T = TypeVar("T")


_USERINFO = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]*://)[^/?#]*@")


class ApiError(Exception):
    """The API answered with a problem document."""

    def __init__(self, problem: Json) -> None:
        super().__init__(str(problem.get("detail", "")))
        self.problem = problem
        self.status = int(problem.get("status", 500))


class ApiAway(Exception):
    """No response from the API's address, or the response is not from Sterna."""

    def __init__(self, api: str, why: str, *, unheard: bool = False) -> None:
        """`unheard`: there was no connection, so nothing can have been accepted."""
        self.api, self.unheard = without_password(api), unheard
        self.why = why.replace(api, self.api)
        super().__init__(f"no Sterna controller answers at {self.api}: {self.why}")

    def beside(self, others: Iterable[ApiAway]) -> ApiAway:
        """This one, and why the other addresses gave no answer either."""
        self.args = ("; ".join([str(self), *(f"nor at {one.api}: {one.why}" for one in others)]),)
        return self


class ApiSlow(ApiAway):
    """The API accepts connections, but does not respond in time."""

    def __init__(self, api: str) -> None:
        super().__init__(api, "")
        late = f"no response from the controller at {self.api} within {ANSWER_S:g} s"
        why = f"{late}; the request may still be carried out"
        self.args = (why,)


class NoSuchId(Exception):
    """No ID of this kind begins like this, or several do."""

    def __init__(self, message: str, listed_by: str) -> None:
        super().__init__(message)
        self.listed_by = listed_by


def without_password(api: str) -> str:
    """The address without a name and password before its host: errors end up in logs and bug reports."""
    return _USERINFO.sub(r"\1", api)


class _Door(NamedTuple):
    """One controller's address, and what asks there."""

    api: str
    http: httpx2.Client


class Client:
    """The controllers of one fleet: the next address is asked where one cannot be reached. Every method raises
    ApiError or ApiAway.

    A request that may have been accepted is repeated elsewhere only if it may be done twice: one that reads or
    replaces, or has an id of its own.
    """

    def __init__(self, api: str, http: httpx2.Client | None = None, token: str | None = None) -> None:
        """Raises ApiAway for what is not an address."""
        self._left_s = ANSWER_S
        self._doors = [_Door(api, http or _http_of(ApiAddress(api, token)))]

    @classmethod
    def of(cls, *addresses: ApiAddress) -> Client:
        """At least one. Raises ApiAway for what is not an address, or for certificates that are not valid."""
        connect_s = CONNECT_S if len(addresses) == 1 else CONNECT_TO_EACH_S
        doors = [_Door(one.api, _http_of(one, connect_s)) for one in addresses]
        client = cls(doors[0].api, doors[0].http)
        client._doors = doors
        return client

    def each(self) -> Iterator[tuple[str, Client]]:
        """Each address without its password, and a client of this one alone."""
        for api, http in self._doors:
            yield without_password(api), Client(api, http)

    def _turn(self) -> None:
        """Ask the next one first from now on."""
        self._doors.append(self._doors.pop(0))

    def get(self, path: str, **query: Any) -> Json:
        """GET a JSON document."""
        return self._ask("GET", path, again=True, params={k: v for k, v in query.items() if v is not None})

    def pages(self, path: str, key: str, limit: int | None, cursor: str | None = None, **query: Any) -> Json:
        """One page if a limit is given, else all pages joined: the list under `key` is complete."""
        answer = self.get(path, limit=limit or LONGEST_PAGE, cursor=cursor, **query)
        whole = answer
        while limit is None and (following := answer.get("next_cursor")):
            answer = self.get(path, limit=LONGEST_PAGE, cursor=following, **query)
            whole = answer | {key: [*whole[key], *answer[key]]}
        return whole

    def text(self, path: str, **query: Any) -> str:
        """GET plain text."""
        return self._send("GET", path, again=True, params=query).text

    def post(self, path: str, body: Json | None = None) -> Json:
        """POST; returns the JSON response."""
        return self._ask("POST", path, again=path in REPEATABLE and "id" in (body or {}), json=body)

    def delete(self, path: str) -> Json:
        """DELETE; returns the JSON response."""
        return self._ask("DELETE", path)

    def put(self, path: str, body: Json) -> Json:
        """PUT; returns the JSON response."""
        return self._ask("PUT", path, again=True, json=body)

    def patch(self, path: str, body: Json) -> Json:
        """PATCH; returns the JSON response."""
        return self._ask("PATCH", path, json=body)

    def migration_id(self, begin: str) -> str:
        """The full ID of the only migration whose ID begins with `begin`. Raises NoSuchId."""
        return self._id("migration", begin)

    def operation_id(self, begin: str) -> str:
        """The same for an operation."""
        return self._id("operation", begin)

    def _id(self, kind: str, begin: str) -> str:
        if not begin:  # an empty variable in a script must not select the only one that exists
            raise NoSuchId(f"the {kind} ID is empty", f"{kind}s")
        try:
            return str(UUID(begin)) if len(begin) == FULL_ID else self._by_prefix(kind, begin)
        except ValueError:
            return self._by_prefix(kind, begin)

    def looks(self, path: str, every_s: float) -> Iterator[Json]:
        """The document at `path`, polled. Raises ApiAway if the API is unreachable for a minute, ApiError if it
        answers with errors for that long."""
        lost_at = None
        while True:
            self._left_s = ANSWER_S
            try:
                answer = self.get(path)
            except (ApiAway, ApiError) as e:
                if isinstance(e, ApiError) and e.status != httpx2.codes.SERVICE_UNAVAILABLE:
                    raise
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > GIVE_UP_S:
                    raise
            else:
                lost_at = None
                yield answer
            time.sleep(every_s)

    def events(self, migration_id: str) -> Iterator[tuple[str, Json]]:
        """(event, data) of one migration until its `end`. Reconnects after dropped connections.

        Raises ApiAway if the API is unreachable for a minute, ApiError if it answers with errors for that long.
        """
        try:
            yield from self._events(migration_id)
        finally:
            self._left_s = ANSWER_S

    def _events(self, migration_id: str) -> Iterator[tuple[str, Json]]:
        last_id, lost_at = "", None
        while True:
            try:
                for event, event_id, data in self._stream(migration_id, last_id):
                    last_id, lost_at = event_id or last_id, None
                    if event != OPENED:
                        yield event, data
                    if event == "end":
                        return
            except (TimeoutError, httpx2.TransportError, ApiAway, ApiError) as e:
                if isinstance(e, ApiError) and e.status != httpx2.codes.SERVICE_UNAVAILABLE:
                    raise
                self._turn()
                now = time.monotonic()
                lost_at = lost_at or now
                if now - lost_at > GIVE_UP_S:
                    if isinstance(e, ApiError | ApiAway):
                        raise
                    raise ApiAway(self._doors[-1].api, str(e) or "it does not answer") from e
            time.sleep(RESUME_S)

    def _stream(self, migration_id: str, last_id: str) -> Iterator[tuple[str, str, Json]]:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
        path = f"/v1/migrations/{migration_id}/events"
        patience = httpx2.Timeout(CONNECT_S, read=SILENCE_S)
        api, http = self._doors[0]
        request = http.build_request("GET", path, headers=headers, timeout=patience)
        with closing(within(SILENCE_S, lambda: _opened(http, request))) as answer:
            if answer.status_code != httpx2.codes.OK:
                raise _problem(api, answer)
            yield OPENED, "", {}  # the API is reachable, although no event may follow for hours
            for event in httpx2.EventSource(answer):
                if event.data:
                    yield event.event, event.id, json.loads(event.data)

    def _by_prefix(self, kind: str, begin: str) -> str:
        found = self.get(f"/v1/{kind}s", id=begin, limit=3)[f"{kind}s"]
        if len(found) == 1:
            return str(found[0]["id"])
        if not found:
            raise NoSuchId(f"no {kind} ID begins with {begin}", f"{kind}s")
        some = ", ".join(one["id"] for one in found)
        raise NoSuchId(f"several {kind} IDs begin with {begin}: {some}", f"{kind}s")

    def _ask(self, method: str, path: str, *, again: bool = False, **more: Any) -> Json:
        answer = self._send(method, path, again=again, **more)
        try:
            return dict(answer.json())
        except (TypeError, ValueError) as e:
            raise ApiAway(self._doors[0].api, "the response is not from Sterna") from e

    def _send(self, method: str, path: str, *, again: bool = False, **more: Any) -> httpx2.Response:
        """The answer of the first controller that gives one. `again`: it may be asked for twice."""
        failed: list[ApiAway] = []
        for _ in range(len(self._doors)):
            try:
                return self._sent(self._doors[0], method, path, **more)
            except ApiSlow:
                raise  # the command's time is up
            except ApiAway as e:
                failed.append(e)
                self._turn()
                if not (again or e.unheard):
                    break
        raise failed[0].beside(failed[1:])

    def _sent(self, door: _Door, method: str, path: str, **more: Any) -> httpx2.Response:
        api, http = door
        try:
            answer = self._in_time(lambda: http.request(method, path, **more))
        except (TimeoutError, httpx2.ReadTimeout) as e:
            raise ApiSlow(api) from e
        except (httpx2.TransportError, httpx2.InvalidURL, httpx2.UnsupportedProtocol) as e:
            unheard = isinstance(e, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.InvalidURL)
            raise ApiAway(api, in_words(e) if str(e) else type(e).__name__, unheard=unheard) from e
        if answer.status_code >= httpx2.codes.BAD_REQUEST:
            raise _problem(api, answer)
        return answer

    def _in_time(self, act: Callable[[], T]) -> T:
        """`act`'s result, or its exception. Raises TimeoutError when the command's time is up: httpx2 only limits
        each read, and a response may take many of them."""
        if self._left_s <= 0:
            raise TimeoutError
        began = time.monotonic()
        try:
            return within(self._left_s, act)
        finally:
            self._left_s -= time.monotonic() - began


def _opened(http: httpx2.Client, request: httpx2.Request) -> httpx2.Response:
    """A stream, or the whole of another answer."""
    answer = http.send(request, stream=True)
    if answer.status_code != httpx2.codes.OK:
        answer.read()
    return answer


def _http_of(address: ApiAddress, connect_s: float = CONNECT_S) -> httpx2.Client:
    socket = address.api.removeprefix(UNIX) if address.api.startswith(UNIX) else None
    ca_file = address.ca_file
    try:
        return httpx2.Client(
            base_url="http://sterna" if socket else address.api,
            headers={"Authorization": f"Bearer {address.token}"} if address.token else {},
            timeout=httpx2.Timeout(ANSWER_S, connect=connect_s),
            transport=httpx2.HTTPTransport(uds=socket) if socket else None,
            verify=from_disk(lambda: ssl.create_default_context(cafile=ca_file), ca_file) if ca_file else True,
            trust_env=False,
        )
    except (httpx2.InvalidURL, OSError) as e:  # ssl's own errors are OSErrors
        raise ApiAway(address.api, str(e)) from e


def _problem(api: str, answer: httpx2.Response) -> ApiError | ApiAway:
    if answer.headers.get("content-type", "").startswith("application/problem+json"):
        return ApiError(answer.json())
    return ApiAway(api, f"the response is not from Sterna (HTTP {answer.status_code})")


def path_of(kind: str, name: str) -> str:
    """`/v1/<kind>/<name>`, whatever the name contains."""
    return f"/v1/{kind}/{quote(name, safe='')}"
