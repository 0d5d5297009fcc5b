"""Asking the servers from a test: a thread of this process that lives in the lab's network."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from openstack.connection import Connection

from sterna.adapters.openstack.session import VOLUME_API
from sterna.lab.namespaces import CLONE_NEWNET, Namespaces
from tests.openstack.texts import AUTH_URL, PASSWORD, REGION

T = TypeVar("T")


class Inside:
    """One thread in the network of `outer`, and a login in it."""

    def __init__(self, outer: Namespaces, user: str = "sterna", project: str = "service") -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, initializer=lambda: enter(outer))
        self._login: dict[str, Any] = {"username": user, "project_name": project}
        self._connection: Connection | None = None

    def ask(self, act: Callable[[Connection], T]) -> T:
        """`act`'s answer; what it iterates it must iterate inside."""
        return self._pool.submit(lambda: act(self._connected())).result(timeout=120)

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = Connection(
                auth={
                    "auth_url": AUTH_URL,
                    "password": PASSWORD,
                    "user_domain_id": "default",
                    "project_domain_id": "default",
                    **self._login,
                },
                region_name=REGION,
                block_storage_default_microversion=VOLUME_API,
            )
        return self._connection


def enter(outer: Namespaces) -> None:
    """From now on the calling thread's sockets are in `outer`'s network."""
    with Path(f"/proc/{outer.init.pid}/ns/net").open() as net:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(net.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "setns")
