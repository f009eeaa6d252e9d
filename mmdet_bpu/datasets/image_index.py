"""Index of a packed data set: what can be asked of all images without reading their records."""
from dataclasses import dataclass
from typing import Sequence

import numpy as np
import xxhash

from mmdet_bpu.datasets.lmdb_format import (INDEX_CATEGORIES_KEY, INDEX_FILES_KEY, INDEX_IDS_KEY,
                                            INDEX_IMAGES_KEY, INDEX_SHA256_KEY)


@dataclass(frozen=True)
class ImageIndex:
    """Ids, sizes, categories and hashes of all images, in the order of the source file.

    Attributes:
        ids (np.ndarray): int64 ``(N,)``.
        widths (np.ndarray): int64 ``(N,)``, px.
        heights (np.ndarray): int64 ``(N,)``, px.
        category_bits (np.ndarray): uint8 ``(N, ceil(K / 8))``, most significant bit first.
    """
    ids: np.ndarray
    widths: np.ndarray
    heights: np.ndarray
    category_bits: np.ndarray

    @classmethod
    def from_coco(cls, images: list[dict], annotations: dict[int, list[dict]],
                  categories: list[dict]) -> 'ImageIndex':
        """Build from the lists of a COCO file; ``annotations`` maps image id to its list."""
        column = {category['id']: k for k, category in enumerate(categories)}
        present = np.zeros((len(images), len(categories)), dtype=bool)
        for n, image in enumerate(images):
            for annotation in annotations.get(image['id'], ()):
                k = column.get(annotation['category_id'])
                if k is not None:
                    present[n, k] = True
        table = np.array([[image['id'], image['width'], image['height']] for image in images],
                         dtype=np.int64).reshape(len(images), 3)
        return cls(*table.T, np.packbits(present, axis=1))

    @classmethod
    def from_tables(cls, images: np.ndarray, category_bits: np.ndarray) -> 'ImageIndex':
        """Inverse of :meth:`to_records`. Copies: the buffers end with their transaction.

        Args:
            images (ndarray): int64 ``(N, 3)``: id, width, height.
            category_bits (ndarray): uint8 ``(N, ceil(K / 8))``.
        """
        return cls(*images.T.astype(np.int64), category_bits.copy())

    def to_records(self) -> dict[bytes, bytes]:
        """The records ``index/categories`` and ``index/images``, by key."""
        table = np.stack([self.ids, self.widths, self.heights], axis=1)
        return {INDEX_CATEGORIES_KEY: self.category_bits.tobytes(),
                INDEX_IMAGES_KEY: table.astype('<i8').tobytes()}

    def has_any_category(self, columns: list[int]) -> np.ndarray:
        """bool ``(N,)``: images with an annotation of one of these categories (by position)."""
        if not len(self.ids) or not columns:
            return np.zeros(len(self.ids), dtype=bool)
        wanted = np.zeros(self.category_bits.shape[1] * 8, dtype=bool)
        wanted[columns] = True
        return (self.category_bits & np.packbits(wanted)).any(axis=1)

    def __len__(self) -> int:
        return len(self.ids)


def index_records(images: list[dict], annotations: dict[int, list[dict]], categories: list[dict],
                  sha256: dict[int, bytes]) -> dict[bytes, bytes]:
    """All ``index/`` records of a data set, in key order.

    Args:
        images (list[dict]): Entries of the source file, in its order.
        annotations (dict[int, list[dict]]): Image id to its annotations.
        categories (list[dict]): Entries of the source file.
        sha256 (dict[int, bytes]): Image id to the SHA-256 of its file, 32 bytes.

    Returns:
        dict[bytes, bytes]: Payloads by key.
    """
    records = ImageIndex.from_coco(images, annotations, categories).to_records()
    names = np.array([[file_name_hash(image['file_name']), image['id']] for image in images],
                     dtype=np.int64).reshape(len(images), 2)
    by_hash = names[np.lexsort((names[:, 1], names[:, 0]))]
    records[INDEX_FILES_KEY] = by_hash.T.astype('<i8').tobytes()
    records[INDEX_IDS_KEY] = np.sort(names[:, 1]).astype('<i8').tobytes()
    records[INDEX_SHA256_KEY] = b''.join(sha256[image['id']] for image in images)
    return dict(sorted(records.items()))


def file_name_hash(file_name: str) -> int:
    """XXH3-64 of a ``file_name`` in UTF-8, as a signed number."""
    digest = xxhash.xxh3_64_digest(file_name.encode('utf-8', 'surrogatepass'))
    return int.from_bytes(digest, 'big', signed=True)


def ids_of_file_names(table: np.ndarray, file_names: Sequence[str]) -> list[tuple[str, int]]:
    """Images whose ``file_name`` has the hash of one of these, from the record ``index/files``.

    A binary search in place: nothing is read but the pages that it touches.

    Args:
        table (ndarray): The record, int64 ``(2, N)``.
        file_names (Sequence[str]): The names to look for.

    Returns:
        list[tuple[str, int]]: Name and image id, in the order of the names. A name that is in the
        data set is here; one that is here may be another of the same hash.
    """
    hashes, ids = table
    wanted = np.array([file_name_hash(name) for name in file_names], dtype=hashes.dtype)
    found = []
    for name, name_hash, row in zip(file_names, wanted, hashes.searchsorted(wanted).tolist()):
        while row < len(hashes) and hashes[row] == name_hash:
            found.append((name, int(ids[row])))
            row += 1
    return found
