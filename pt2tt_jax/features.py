"""From texts to the model's arrays: tokens, virtual tokens, padding. NumPy only.

Feature names are T5X's (`encoder_input_tokens`, `decoder_target_tokens`, ...). A soft prompt enters
as a run of virtual tokens, ids from the size of the embedding table upwards, and counts towards
the length like any other token.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from pt2tt_jax.errors import UserError

EOS = 1
HASHED = 64  # tokens of an input that tell it from others
SHORT_TARGETS = 16  # tokens up to which targets need no buckets, but have one width
Batch = dict[str, np.ndarray]


class Text(Protocol):
    """What is read of an example: `pt2tt_jax.tasks.Example` is one."""

    @property
    def inputs(self) -> str: ...
    @property
    def targets(self) -> str: ...
    @property
    def label(self) -> int | None: ...


class Tokenizer(Protocol):
    """What is asked of a vocabulary: token ids of texts, without EOS."""

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]: ...


@dataclasses.dataclass(frozen=True)
class Frame:
    """What stands around every text: soft prompts, and the words between them.

    Attributes:
      before: token ids in front of a text, one row a task; a single row serves all tasks.
      after: token ids between a text and its EOS.
    """

    before: np.ndarray
    after: np.ndarray

    @property
    def length(self) -> int:
        """Tokens that it adds to each text."""
        return self.before.shape[1] + self.after.shape[1]

    def of(self, task: int) -> Frame:
        """The frame of one task alone."""
        row = self._row(task)
        return Frame(self.before[row : row + 1], self.after[row : row + 1])

    def _row(self, task: int) -> int:
        return task if len(self.before) > 1 else 0

    def __call__(self, ids: np.ndarray, task: int = 0) -> np.ndarray:
        """`ids`, which end in EOS, in the frame of `task`."""
        row = self._row(task)
        return np.concatenate([self.before[row], ids[:-1], self.after[row], ids[-1:]])


def frame(
    vocab_size: int, before: Sequence[int] = (), after: Sequence[int] = (), tasks: int = 1
) -> Frame:
    """The frame of a tuning's tokens: -1 stands for soft token 0, -2 for 1, and so on.

    Ids that are not negative are the vocabulary's own. With several tasks, each has as many soft
    tokens of its own, task after task.
    """
    soft = sum(token < 0 for token in (*before, *after))

    def rows(tokens: Sequence[int]) -> np.ndarray:
        ids = np.asarray(tokens, np.int32)[None]
        firsts = vocab_size + soft * np.arange(tasks, dtype=np.int32)[:, None]
        return np.where(ids < 0, firsts - 1 - ids, ids).astype(np.int32)

    return Frame(rows(before), rows(after))


BARE = frame(0)


@dataclasses.dataclass(frozen=True)
class Encoded:
    """A split as token ids, row by row.

    Attributes:
      inputs: ids of each input, ending in EOS, without a prompt.
      targets: ids of each target, ending in EOS.
      labels: index of each example's label, -1 where it has none.
      target_length: the limit of a target, whatever the targets are.
      cut, cut_targets: how many were longer than the limit and lost their end.
      tasks: number of each example's task, where several are trained together.
    """

    inputs: list[np.ndarray]
    targets: list[np.ndarray]
    labels: np.ndarray
    target_length: int
    cut: int = 0
    cut_targets: int = 0
    tasks: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    @functools.cached_property
    def target_bucket(self) -> int | None:
        """One length for all targets where they are short, as label words are."""
        longest = max(map(len, self.targets))
        return longest if longest <= SHORT_TARGETS else None

    def subset(self, rows: Sequence[int] | np.ndarray) -> Encoded:
        """The examples of these numbers, in this order."""
        return Encoded(
            [self.inputs[i] for i in rows],
            [self.targets[i] for i in rows],
            self.labels[np.asarray(rows, int)],
            self.target_length,
            tasks=None if self.tasks is None else self.tasks[np.asarray(rows, int)],
        )

    def digest(self) -> str:
        """A hash of all rows; of long inputs the beginning, which no room for a prompt changes."""
        rows = zip(self.inputs, self.targets, strict=True)
        tokens = (ids for inputs, targets in rows for ids in (inputs[:HASHED], targets))
        return hash_of(np.asarray(self.labels, np.int32).tobytes(), tokens)[:16]

    def framed(self, row: int | np.integer, around: Frame) -> np.ndarray:
        """The encoder input of an example: its text in the frame of its task."""
        return around(self.inputs[row], 0 if self.tasks is None else int(self.tasks[row]))


def hash_of(about: bytes, tokens: Iterable[np.ndarray]) -> str:
    """SHA-256 in hex digits of what these token ids are about, and of each sequence of them."""
    digest = hashlib.sha256(about)
    for ids in tokens:
        digest.update(len(ids).to_bytes(4, 'little') + np.asarray(ids, np.int32).tobytes())
    return digest.hexdigest()


def join(splits: Sequence[Encoded]) -> Encoded:
    """Splits of several tasks as one, numbered in their order."""
    return Encoded(
        [ids for split in splits for ids in split.inputs],
        [ids for split in splits for ids in split.targets],
        np.concatenate([split.labels for split in splits]),
        max(split.target_length for split in splits),
        cut=sum(split.cut for split in splits),
        cut_targets=sum(split.cut_targets for split in splits),
        tasks=np.repeat(np.arange(len(splits)), [len(split) for split in splits]),
    )


def encode(
    examples: Sequence[Text],
    tokenizer: Tokenizer,
    *,
    input_length: int,
    target_length: int,
    prompt_length: int = 0,
) -> Encoded:
    """Tokenises `examples`, leaving room for a prompt.

    Args:
      examples: texts with their targets.
      tokenizer: text to ids, without EOS.
      input_length: longest encoder input in tokens, the prompt and EOS included.
      target_length: longest target in tokens, EOS included.
      prompt_length: soft prompt tokens that will stand before the text.

    Raises:
      UserError: when there are no examples, or the prompt leaves no room for text.
    """
    if not examples:
        raise UserError('There is not a single example in this split; check the file and its name.')
    room = input_length - prompt_length
    if room < 2:
        raise UserError(
            f'An input of {input_length} tokens has no room for text after a prompt of '
            f'{prompt_length}; raise Data.input_length or shorten the prompt.'
        )
    inputs = tokenizer.encode([example.inputs for example in examples])
    targets = tokenizer.encode([example.targets for example in examples])
    labels = [-1 if example.label is None else example.label for example in examples]
    return Encoded(
        [with_eos(ids, room) for ids in inputs],
        [with_eos(ids, target_length) for ids in targets],
        np.asarray(labels, np.int32),
        target_length,
        cut=sum(len(ids) >= room for ids in inputs),
        cut_targets=sum(len(ids) >= target_length for ids in targets),
    )


def with_eos(ids: np.ndarray, length: int) -> np.ndarray:
    """`ids`, cut so that they and EOS fit into `length`."""
    return np.append(ids[: length - 1], EOS).astype(np.int32)


def virtual_tokens(vocab_size: int, length: int, first: int = 0) -> np.ndarray:
    """Ids that stand for soft prompt rows `first` to `first + length - 1`."""
    return np.arange(vocab_size + first, vocab_size + first + length, dtype=np.int32)


def padded(rows: Sequence[np.ndarray], length: int | None = None) -> np.ndarray:
    """Rows as one array [rows, length], 0 behind each; by default as long as a bucket needs."""
    length = length or bucket(max(map(len, rows)))
    out = np.zeros((len(rows), length), np.int32)
    for row, ids in zip(out, rows, strict=True):
        row[: len(ids)] = ids
    return out


def bucket(length: int, per_doubling: int = 4) -> int:
    """`length` rounded up, so that few shapes get compiled: 8, 16, 24, 32, 40, 48, 56, 64, 80, ...

    Long trainings pay for finer steps, `per_doubling` 4; evaluations, which see every length once,
    are better off with 2 (..., 32, 48, 64, 96, ...).
    """
    power = 2 ** max(3, (length - 1).bit_length() - 1)  # power < length <= 2 * power, from 8 on
    step = max(8, power // per_doubling)
    return -(-length // step) * step


def batch(
    encoded: Encoded,
    rows: Sequence[int] | np.ndarray,
    around: Frame = BARE,
    *,
    input_length: int | None = None,
    target_length: int | None = None,
) -> Batch:
    """The examples `rows` as arrays of T5X's features, each input in the frame `around`.

    Shapes are [rows, length]; a length not given is that of the smallest bucket that fits.
    """
    inputs = padded([encoded.framed(i, around) for i in rows], input_length)
    targets = padded([encoded.targets[i] for i in rows], target_length or encoded.target_bucket)
    return {
        'encoder_input_tokens': inputs,
        'decoder_input_tokens': np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
        'decoder_target_tokens': targets,
        'decoder_loss_weights': (targets > 0).astype(np.float32),
    }


class Shuffled:
    """Row numbers of each training batch, a function of (seed, step) alone.

    Epochs follow each other without a gap, each in an order of its own. Nothing has to be stored
    to go on after an interruption: the step is the position in the data.
    """

    def __init__(self, examples: int, batch_size: int, seed: int):
        self.examples, self.batch_size, self.seed = examples, batch_size, seed
        self._order = (-1, np.zeros(0, int))

    def __call__(self, step: int) -> np.ndarray:
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epochs, offsets = np.divmod(places, self.examples)
        return np.array(
            [self._epoch(epoch)[offset] for epoch, offset in zip(epochs, offsets, strict=True)]
        )

    def _epoch(self, epoch: int) -> np.ndarray:
        if self._order[0] != epoch:
            random = np.random.default_rng([self.seed, epoch])
            self._order = (epoch, random.permutation(self.examples))
        return self._order[1]


class Mixed:
    """Row numbers of batches that take equally from every task, however many rows each has.

    A function of (seed, step) alone, like `Shuffled`, which is each task's own order. Where the
    batch does not divide by the tasks, those that get one more change from step to step.
    """

    def __init__(self, tasks: np.ndarray, batch_size: int, seed: int):
        self.rows = [np.flatnonzero(tasks == task) for task in range(int(tasks.max()) + 1)]
        self.batch_size = batch_size
        self.orders = [Shuffled(len(rows), 1, seed + i) for i, rows in enumerate(self.rows)]

    def __call__(self, step: int) -> np.ndarray:
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        turns, tasks = np.divmod(places, len(self.rows))
        return np.array(
            [
                self.rows[task][self.orders[task](turn)[0]]
                for turn, task in zip(turns, tasks, strict=True)
            ]
        )
