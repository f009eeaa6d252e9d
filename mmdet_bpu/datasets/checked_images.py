"""Which images of a database a process has compared with their checksums."""
import lmdb
import numpy as np


class CheckedImages:
    """A mark for each image; ids are found where the database has them.

    Args:
        ids (ndarray): The record ``index/ids`` where the database has it: int64 ``(N,)``, ascending.
        transaction (lmdb.Transaction): What keeps it readable.

    Attributes:
        marks (bytearray): True or False, one byte for each image and one for unknown ones.
    """

    def __init__(self, ids: np.ndarray, transaction: lmdb.Transaction) -> None:
        self._transaction = transaction
        self._ids = ids
        self.marks = bytearray(len(ids) + 1)

    def position(self, image_id: int) -> int:
        """Index into ``marks`` of an image that is in the database."""
        return int(self._ids.searchsorted(image_id))
