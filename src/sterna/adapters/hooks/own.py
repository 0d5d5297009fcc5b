"""Webhooks and the command for empty hosts, of the settings: implements ports.hooks.Hooks."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sterna.adapters.hooks import posting
from sterna.adapters.hooks.posting import Message, post
from sterna.domain import webhooks
from sterna.domain.errors import Permanent, Temporary, Unreachable
from sterna.domain.plain_text import printable
from sterna.kit.tethered import run_tethered
from sterna.kit.threads import in_thread
from sterna.ports.hooks import Notice, Right

_LONGEST_WORDS = 200


class OwnHooks:
    """Those that one controller's settings allow."""

    def __init__(
        self,
        command: Sequence[str] = (),
        allowed: Sequence[str] = (),
        token: str | None = None,
        ca_file: str | None = None,
    ) -> None:
        """`allowed`: addresses that may be called, with all below them. `token`: sent to each of them. `ca_file`:
        whose certificates they have; None: the system's authorities."""
        self._command, self._allowed, self._token, self._ca_file = tuple(command), tuple(allowed), token, ca_file

    def has_command(self) -> bool:
        """Is there a command in the settings?"""
        return bool(self._command)

    def against(self, url: str) -> str:
        """Why that address is not called; '' where it is."""
        return webhooks.against(url, self._allowed)

    async def call(self, url: str, notice: Notice, right: Right) -> None:
        """In a thread: a resolver has no limit. Redirections are not followed, and answers are not shown. Nothing
        is sent once the right to is over, however long resolving and connecting have taken."""
        why = self.against(url)
        if why:
            raise Permanent(f"the webhook {printable(url)} is not called: {why}")
        address = webhooks.address_of(url)
        try:
            status = await in_thread(
                lambda: self._post(address, notice, right),
                name="webhook",
                of=address.server,
                limit_s=posting.LONGEST_S,
            )
        except TimeoutError as error:
            raise Unreachable(f"{address.server} has not answered within {posting.LONGEST_S:g} s") from error
        if not 200 <= status < 300:
            raise Permanent(f"{address.server} answers with status {status}", fix="its log may say why")

    def _post(self, address: webhooks.Address, notice: Notice, right: Right) -> int:
        headers = {"Idempotency-Key": notice.key}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        done = f"/v1/operations/{notice.operation}/hosts/{notice.host}/done"
        body = json.dumps(notice.model_dump(mode="json") | {"done": done}).encode()
        fix = "see `webhook_token` in [fleet] of the controller's settings"
        message = Message(address.url, address.server, headers, body, self._ca_file, fix)
        return post(message, right=right).status

    async def run(self, notice: Notice, limit_s: float, right: Right) -> None:
        """With the host, the operation and the key as its last arguments."""
        if not self._command:
            raise Permanent(
                "this controller has no command in `between` of [fleet]", fix="give all controllers one"
            )
        name = self._command[0]
        command = [*self._command, notice.host, notice.operation, notice.key]
        try:
            ended = await run_tethered(command, limit_s=limit_s, right=right)
        except OSError as error:
            raise Permanent(f"`{name}` cannot be run: {error.strerror or error}") from error
        if ended.code < 0:
            raise Temporary(f"`{name}` was ended by signal {-ended.code}")
        if ended.code:
            raise Permanent(f"`{name}` ended with {ended.code}: {printable(ended.words[-_LONGEST_WORDS:])}")
