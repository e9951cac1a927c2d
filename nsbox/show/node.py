"""What a tree is made of."""

from typing import NamedTuple

from .view import Cell


class Node(NamedTuple):
    """One line and what hangs below it.

    Attributes:
        words: texts and namespaces, from left to right.
        key: what tells it from others below the same node, in an earlier picture too.
        aside: more words, a difference in which is no change.
        alike: of those below one node that have the same, many may be drawn as one.
        change: in a comparison "new", "gone", "moved" where its words are others now, or "".
    """

    words: tuple[str | Cell, ...]
    children: "tuple[Node, ...]" = ()
    key: tuple[object, ...] = ()
    aside: str = ""
    alike: str = ""
    change: str = ""

    @property
    def line(self) -> tuple[str | Cell, ...]:
        """All words."""
        return (*self.words, self.aside) if self.aside else self.words
