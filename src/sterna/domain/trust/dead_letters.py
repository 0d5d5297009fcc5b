"""Messages that can never be handled: what is kept of them, and which are forgotten first. Pure.

A sender that sends many keeps its last few, and does not push out those of others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sterna.domain.model import Value
from sterna.domain.plain_text import printable

MOST_OF_ONE = 8
MOST = 128
"""Of all senders together: one answer has room for them. Another one takes a place of who has most."""
_WHY, _BEGINS, _NAME = 300, 80, 255


class DeadLetter(Value):
    """One of them."""

    number: int
    """Counts all of this life of the process."""
    sender: str
    """As the bus says; '' where the subject names nobody."""
    at: str
    """ISO 8601 UTC."""
    what: str
    """`call`, `cast` or a topic; with the method, where it could be read."""
    why: str
    begins: str
    """Its first bytes, written out."""
    size: int
    """All of its bytes."""
    before: int = 0
    """How many of this sender came before, which are not kept."""

    @property
    def words(self) -> str:
        """For people."""
        more = f" ({self.before} more before it)" if self.before else ""
        return (
            f"at {self.at[:19]} UTC: {self.what}: {self.why}{more}; {self.size} bytes, beginning with {self.begins}"
        )


def letter(number: int, sender: str, at: str, what: str, why: str, payload: bytes) -> DeadLetter:
    """Its size is bounded, whatever was sent."""
    return DeadLetter(
        number=number,
        sender=printable(sender)[:_NAME],
        at=at,
        what=printable(what)[:_NAME],
        why=printable(why)[:_WHY],
        begins=repr(payload[:_BEGINS])[1:],
        size=len(payload),
    )


def with_one_more(kept: Sequence[DeadLetter], new: DeadLetter) -> tuple[DeadLetter, ...]:
    """Those that are kept when `new` has come."""
    number = Counter(one.sender for one in kept)
    full = number[new.sender] >= MOST_OF_ONE
    loser = new.sender if full or len(kept) < MOST else max(number, key=lambda sender: number[sender])
    if not full and len(kept) < MOST:
        return (*kept, new)
    gone = next(one for one in kept if one.sender == loser)
    rest = [one for one in kept if one is not gone]
    heir = next((i for i, one in enumerate(rest) if one.sender == loser), None)
    if heir is not None:
        rest[heir] = rest[heir].model_copy(update={"before": gone.before + 1})
    elif loser == new.sender:
        new = new.model_copy(update={"before": gone.before + 1})
    return (*rest, new)
