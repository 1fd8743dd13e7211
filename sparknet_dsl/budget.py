"""How much work a text may ask for: loops and blocks multiply, so that a few lines could keep a machine busy for hours.

The unit is about a microsecond, or a hundred bytes of memory. What costs grows with a text's length, as a net's that is
written out does; a short text may make a net of about 10,000 layers, more than twice the deepest published.
"""

from dataclasses import dataclass

FREE_CHARACTERS = 10_000  # a text that is no longer has BASE; a longer one more, in proportion
BASE = 1_350_000
MOST = 20 * BASE

LAYER = 40
BLOB = 25  # a layer's bottom or top
FIELD = 10
STEP = 10  # a statement, a stage of a flow, a turn of a loop
BLOCK = 30  # a use of a block
ITEM = 2  # of a list
CHARACTERS = 3  # of a name or a string, for one unit


@dataclass
class Budget:
    """What a text and the texts that it imports may ask for, and what they have asked for so far."""

    characters: int = 0
    spent: int = 0

    @property
    def limit(self) -> int:
        """The work that they may ask for."""
        return min(MOST, max(BASE, BASE * self.characters // FREE_CHARACTERS))

    def spend(self, work: int) -> bool:
        """Counts work; whether it could be afforded."""
        self.spent += work
        return self.spent <= self.limit
