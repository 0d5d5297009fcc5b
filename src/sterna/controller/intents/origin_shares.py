"""How many requests each origin has under way that has not proven yet who it is: counted, for the limits of
`domain/trust/bounds.py`."""

from __future__ import annotations

from collections import Counter

from sterna.domain.trust.bounds import no_place_unproven


class OriginShares:
    """Of requests of one kind."""

    def __init__(self) -> None:
        self._of: Counter[str] = Counter()

    def take(self, origin: str) -> bool:
        """Count one more. False where it must be refused: it is not counted then."""
        if no_place_unproven(self._of[origin], self._of.total()):
            return False
        self._of[origin] += 1
        return True

    def give_back(self, origin: str) -> None:
        """One that was taken has ended."""
        self._of[origin] -= 1
        self._of += Counter()  # forgets the zeros
