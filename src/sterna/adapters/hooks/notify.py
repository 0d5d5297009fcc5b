"""Sends notifications, signed as Standard Webhooks has it: implements ports.notifications.Sender."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

from sterna.adapters.hooks import posting
from sterna.adapters.hooks.posting import Message, post
from sterna.domain.errors import Permanent, Unreachable
from sterna.domain.notifications import signing
from sterna.domain.notifications.addresses import server_of
from sterna.domain.notifications.events import PAYLOAD_VERSION
from sterna.domain.plain_text import printable
from sterna.kit.threads import in_thread
from sterna.ports.clock import Clock
from sterna.ports.notifications import Answer, Notification


class Target(NamedTuple):
    """One endpoint of the settings."""

    url: str
    keys: tuple[bytes, ...]
    """Each signs: a receiver may have any of them."""
    ca_file: str | None = None

    def __repr__(self) -> str:
        """Without the keys, and without the path, which may be a secret."""
        return f"Target({server_of(self.url)!r})"


class SignedWebhooks:
    """Those of one controller's settings."""

    def __init__(self, targets: Mapping[str, Target], clock: Clock) -> None:
        """`targets`: by name."""
        self._targets, self._clock = targets, clock

    async def send(self, notification: Notification, *, read: bool = False) -> Answer:
        """Once. Raises Unreachable where no answer came, Permanent where there is no endpoint of that name."""
        target = self._targets.get(notification.endpoint)
        if target is None:
            raise Permanent(f"this controller's settings have no endpoint {notification.endpoint}")
        server, body = server_of(target.url), body_of(notification)
        signed = signing.headers(target.keys, notification.id, int(self._clock.now().timestamp()), body)
        message = Message(target.url, server, signed, body, target.ca_file)
        try:
            answered = await in_thread(
                lambda: post(message, read=read),
                name="notification",
                of=notification.endpoint,
                limit_s=posting.LONGEST_S,
            )
        except TimeoutError as error:
            raise Unreachable(f"{server} has not answered within {posting.LONGEST_S:g} s") from error
        return Answer(status=answered.status, text=printable(answered.body.decode(errors="replace")))


def body_of(notification: Notification) -> bytes:
    """The same bytes for each try (docs/reference/notifications.md)."""
    made = {
        "version": PAYLOAD_VERSION,
        "id": notification.id,
        "type": str(notification.type),
        "timestamp": notification.at,
        "object": f"/v1/{notification.subject}" if notification.subject else None,
        "data": notification.data,
    }
    return json.dumps(made, separators=(",", ":")).encode()
