"""What a kind of hostile input is: valid seeds, mutations of them, and what the product did."""
import random
from pathlib import Path
from typing import NamedTuple, Protocol


class Case(NamedTuple):
    """One input.

    Attributes:
        data (object): Whatever the kind's ``run`` takes.
        description (str): What was changed, in words; printed where it goes wrong.
    """
    data: object
    description: str


class Kind(Protocol):
    """A file here holds one class of this form; its ``name`` is that of the file.

    A class may state ``budget_bytes``, what the product itself allows one input to take; only what
    lies more than 1 GiB beyond counts as memory. Defaults to 0.
    """
    name: str

    def prepare(self, folder: Path) -> None:
        """Make valid seeds, small, quick and the same every time, in an empty folder."""

    def case(self, rng: random.Random) -> Case:
        """A mutated input; the same for the same state of ``rng``."""

    def run(self, case: Case) -> str:
        """Feed it to the product: ``'equal'`` or ``'different'``.

        ``'different'``: it was accepted with another output although the mutation left the meaning
        as it was, or broke a hash or a declared size.

        Raises:
            BpuError: It was refused. Anything else that is raised counts as uncaught.
        """
