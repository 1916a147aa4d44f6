"""A teacher's answers on disk: written once, then mapped into memory.

One folder a template holds three arrays with an entry per target token, example after example,
and the lengths of the examples. Its name is a hash of everything the answers depend on. A folder
appears under its name when it is whole; one that was interrupted is made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from pt2tt_jax import processes
from pt2tt_jax.errors import UserError
from pt2tt_jax.objectives import TeacherLogits

ARRAYS = TeacherLogits._fields


class Answers:
    """Answers by example: `answers[i]` has an entry for each of its target tokens."""

    def __init__(self, arrays: TeacherLogits, lengths: Sequence[int]):
        self.arrays = arrays
        self.ends = np.cumsum(lengths)

    def _tokens(self, example: int) -> slice:
        return slice(int(self.ends[example - 1]) if example else 0, int(self.ends[example]))

    def __getitem__(self, example: int) -> TeacherLogits:
        tokens = self._tokens(example)
        return TeacherLogits(*(np.asarray(array[tokens]) for array in self.arrays))

    def put(self, example: int, answer: TeacherLogits) -> None:
        """Stores the answers of an example; padding behind its targets is left out."""
        tokens = self._tokens(example)
        for array, values in zip(self.arrays, answer, strict=True):
            array[tokens] = values[: tokens.stop - tokens.start]


def key_of(about: tuple, tokens: Iterable[np.ndarray]) -> str:
    """A name for answers about these token ids, by a backbone and with precision `about`."""
    digest = hashlib.sha256(repr(about).encode())
    for ids in tokens:
        digest.update(len(ids).to_bytes(4, 'little') + np.asarray(ids, np.int32).tobytes())
    return digest.hexdigest()[:24]


def read_answers(folder: Path) -> Answers | None:
    """What `open_answers` wrote there, mapped from disk; None where there is nothing whole."""
    if not folder.is_dir():
        return None
    try:
        arrays = [np.load(folder / f'{name}.npy', mmap_mode='r') for name in ARRAYS]
        return Answers(TeacherLogits(*arrays), np.load(folder / 'lengths.npy'))
    except (OSError, ValueError, EOFError) as error:
        raise UserError(
            f'The stored answers in {folder} cannot be read ({error}); remove that folder, and '
            'they are made again.'
        ) from error


@contextlib.contextmanager
def open_answers(folder: Path, lengths: Sequence[int], k: int, vocab: int) -> Iterator[Answers]:
    """Empty answers for examples with so many target tokens; they are kept if all goes well.

    Args:
      folder: what they will be called.
      lengths: target tokens of each example.
      k: outcomes that are kept apart.
      vocab: size of the vocabulary; below 65536, ids take two bytes.

    Raises:
      UserError: when there is no room.
    """
    part = folder.with_name(f'{folder.name}.part{processes.number() or ""}')
    shutil.rmtree(part, ignore_errors=True)
    tokens = sum(lengths)
    kinds = (
        (np.uint16 if vocab <= 1 << 16 else np.int32, (tokens, k)),
        (np.float32, (tokens, k)),
        (np.float32, (tokens,)),
    )
    try:
        part.mkdir(parents=True)
        np.save(part / 'lengths.npy', np.asarray(lengths, np.int64))
        arrays = [
            np.lib.format.open_memmap(part / f'{name}.npy', 'w+', dtype, shape)
            for name, (dtype, shape) in zip(ARRAYS, kinds, strict=True)
        ]
        yield Answers(TeacherLogits(*arrays), lengths)
        for array in arrays:
            array.flush()
        if processes.first():
            part.replace(folder)
        else:  # the arrays stay mapped until nothing needs them
            shutil.rmtree(part)
    except OSError as error:
        raise UserError(
            f'The answers of the teacher could not be written to {part} ({error}): they take '
            f'{tokens * k * 6 / 1e9:.1f} GB. Make room, lower Transfer.top_k, or set '
            'Transfer.teacher_cache to a folder on another disk.'
        ) from error
