"""A complete configuration of nats-server: mutual TLS, and a user with rights for each certificate. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Self

from sterna.domain.addresses import bare, in_uri, is_address
from sterna.domain.errors import BadRequest
from sterna.domain.model import Value
from sterna.domain.trust.bus_rights import Rights, rights_of
from sterna.domain.trust.identities import Identity

PORT = 4222
MAX_PAYLOAD_BYTES = 1 << 20
"""Twice our own limit of a message (`rpc/envelope.py`)."""
HEADER = "# Written by Sterna. Changes are lost when it is written again."
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class BusServer(Value):
    """Where the server listens, and its own files."""

    listen: str
    """Address and port: `10.0.0.1:4222`, `[fd00::1]:4222`."""
    cert_file: str
    key_file: str
    ca_file: str

    @classmethod
    def of(cls, listen: str, folder: str) -> Self:
        """With the files in the folder that `sterna ca issue bus` filled."""
        own = f"{folder}/current"
        return cls(listen=listen, cert_file=f"{own}/own.crt", key_file=f"{own}/own.key", ca_file=f"{own}/ca.crt")


def listening_at(text: str) -> str:
    """`text` as an address and a port. Raises BadRequest."""
    address, _, port = text.rpartition(":")
    if is_address(bare(text)):
        address, port = text, str(PORT)
    plain = bare(address)
    right = port.isascii() and port.isdigit() and 0 < int(port) < 2**16
    if not right or not is_address(plain) or (":" in plain and plain == address != text):
        raise BadRequest(f"{text[:80]!r} is not an address to listen on", fix="give one like 10.0.0.1:4222")
    return f"{in_uri(plain)}:{port}"


def bus_config(server: BusServer, users: Iterable[tuple[Identity, str]]) -> str:
    """The file's text. `users`: the clients of the bus, each with the name in its certificate."""
    users = tuple(users)
    counted = Counter(name for _, name in users)
    twice = [name for name, count in counted.items() if count > 1]
    if twice:
        fix = "give each of them a certificate with a name of its own"
        raise BadRequest(f"two clients of the bus have the same name: {', '.join(twice)}", fix=fix)
    blocks = [_user(name, rights_of(who)) for who, name in users]
    if not blocks:
        raise BadRequest(
            "no host or controller is enrolled: none could use the bus",
            fix="enrol hosts (`sterna host add`) and a controller (`sterna ca issue controller`) first",
        )
    return "\n".join(
        [
            HEADER,
            "# Every client needs a certificate of the CA, and may do what is listed for its name, nothing else.",
            f"listen: {quoted(listening_at(server.listen))}",
            f"max_payload: {MAX_PAYLOAD_BYTES}",
            "",
            "tls {",
            f"  cert_file: {quoted(server.cert_file)}",
            f"  key_file: {quoted(server.key_file)}",
            f"  ca_file: {quoted(server.ca_file)}",
            "  verify_and_map: true",
            "  timeout: 5",
            "}",
            "",
            "authorization {",
            "  timeout: 5",
            "  users: [",
            *blocks,
            "  ]",
            "}",
            "",
        ]
    )


def _user(name: str, rights: Rights) -> str:
    # No `allow_responses`: a client could publish to whatever reply subject it gives to a message to itself.
    lines = [
        "    {",
        f"      user: {quoted(name)}",
        "      permissions: {",
        f"        publish: {{ allow: {_list(rights.publish)} }}",
        f"        subscribe: {{ allow: {_list(rights.subscribe)} }}",
        "      }",
        "    }",
    ]
    return "\n".join(lines)


def _list(patterns: Iterable[str]) -> str:
    return "[" + ", ".join(quoted(pattern) for pattern in patterns) + "]"


def quoted(text: str) -> str:
    """A string of the file. Raises BadRequest for what cannot be one."""
    if _CONTROL.search(text):
        raise BadRequest(f"{text[:80]!r} has a control character", fix="use another file name")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
