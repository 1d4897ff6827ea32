"""Work that is counted, where time would say more about the machine."""

from __future__ import annotations


class Counted(str):
    """Text that notes how often any such is compared with another."""

    __slots__ = ()
    compared = 0

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return str(self) == other

    __hash__ = str.__hash__
