"""docs/how-to/notify.md: the receiver that it shows accepts what is sent, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from sterna.domain.notifications.signing import headers, key_of

PAGE = Path(__file__).parents[2] / "docs/how-to/notify.md"
SECRET, OTHER = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_" + "A" * 32
BODY = b'{"version":1}'
Verify = Callable[[str, dict[str, str], bytes], bool]


@pytest.fixture
def verify(monkeypatch: pytest.MonkeyPatch) -> Verify:
    """The page's function; it is 1000 s after 1970."""
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    monkeypatch.setattr("time.time", lambda: 1000.0)
    known: dict[str, Verify] = {}
    exec(code, known)
    return known["is_from_sterna"]


def test_what_is_sent_is_accepted_also_while_the_secret_is_changed(verify: Verify) -> None:
    both = headers([key_of(OTHER), key_of(SECRET)], "id", 999, BODY)
    for secret in (SECRET, OTHER):
        assert verify(secret, both, BODY)


def test_nothing_else_is(verify: Verify) -> None:
    sent = headers([key_of(SECRET)], "id", 999, BODY)
    assert not verify(OTHER, sent, BODY)
    assert not verify(SECRET, sent, BODY + b" ")
    assert not verify(SECRET, sent | {"webhook-id": "other"}, BODY)
    assert not verify(SECRET, sent | {"webhook-timestamp": "1000"}, BODY)
    assert not verify(SECRET, headers([key_of(SECRET)], "id", 600, BODY), BODY)
