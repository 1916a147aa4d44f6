"""Measuring a model on a split: by label scoring and by decoding, beside the majority class."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from flax import linen as nn
from jaxtyping import Float

from pt2tt_jax import features, objectives
from pt2tt_jax.features import Encoded
from pt2tt_jax.t5 import decoding, scoring
from pt2tt_jax.tuning import Params

NO_PROMPT = np.zeros(0, np.int32)


@dataclasses.dataclass(frozen=True)
class Model:
    """A network with its parameters and the virtual tokens that go before its inputs."""

    module: nn.Module
    params: Params
    prompt: np.ndarray = dataclasses.field(default_factory=lambda: NO_PROMPT)


def _chunks(encoded: Encoded, model: Model, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Row numbers and input tokens, in order of length so that little is padded.

    Every chunk has `size` rows, the last one filled up with repetitions: fewer shapes compile.
    """
    order = np.argsort([len(ids) for ids in encoded.inputs], kind='stable')
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        inputs = [np.concatenate([model.prompt, encoded.inputs[i]]) for i in np.resize(rows, size)]
        yield rows, features.padded(inputs)


def label_log_probs(
    model: Model, encoded: Encoded, labels: Sequence[np.ndarray], batch_size: int = 32
) -> Float[np.ndarray, 'examples labels']:
    """Log-probability, in nats, of each label's tokens after each input.

    Args:
      model: what predicts.
      encoded: the split.
      labels: token ids of each label, EOS included.
      batch_size: inputs at a time.
    """
    packed = scoring.pack_labels(labels)
    out = np.zeros((len(encoded), len(labels)), np.float32)
    for rows, inputs in _chunks(encoded, model, batch_size):
        scores = scoring.label_scores(
            model.module,
            {'params': model.params},
            inputs,
            packed.tokens,
            packed.segments,
            len(labels),
        )
        out[rows] = np.asarray(scores)[: len(rows)]
    return out


@functools.partial(jax.jit, static_argnames='module')
def _nats(module, params, batch):
    return objectives.cross_entropy(objectives.forward(module, params, batch), batch)


def cross_entropy(model: Model, encoded: Encoded, batch_size: int = 32) -> float:
    """Mean of -log P(target token), in nats, over all target tokens of a split."""
    total = np.zeros(2)
    order = np.argsort([len(ids) for ids in encoded.inputs], kind='stable')
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = features.batch(encoded, np.resize(rows, batch_size), model.prompt)
        batch['decoder_loss_weights'][len(rows) :] = 0.0
        total += np.asarray(_nats(model.module, model.params, batch))
    return float(total[0] / total[1])


def decode(
    model: Model,
    encoded: Encoded,
    max_length: int,
    *,
    beams: int = 1,
    vocabulary_size: int | None = None,
    batch_size: int = 32,
) -> list[np.ndarray]:
    """Token ids that the model writes after each input; greedy, or the best of `beams`."""
    out: list[np.ndarray] = [NO_PROMPT] * len(encoded)
    variables = {'params': model.params}
    for rows, inputs in _chunks(encoded, model, batch_size):
        if beams == 1:
            tokens = decoding.greedy(
                model.module, variables, inputs, max_length, vocabulary_size=vocabulary_size
            )
        else:
            tokens, _ = decoding.beam_search(
                model.module, variables, inputs, max_length, beams, vocabulary_size=vocabulary_size
            )
            tokens = tokens[:, 0]
        for row, ids in zip(rows, np.asarray(tokens), strict=False):
            out[row] = ids
    return out


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """Share of right answers, and what guessing alone would reach.

    Attributes:
      accuracy: share of examples whose prediction is right.
      majority: share of the most frequent label, the score of a constant answer.
      constant: the label that every prediction is, or None.
      examples: how many.
    """

    accuracy: float
    majority: float
    constant: int | None
    examples: int

    @property
    def stderr(self) -> float:
        """Standard error of the accuracy, from the number of examples alone."""
        return float(np.sqrt(self.accuracy * (1 - self.accuracy) / self.examples))


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> Accuracy:
    """Compares label indices; a prediction of -1 (no label) is wrong."""
    counts = np.bincount(labels[labels >= 0], minlength=1)
    same = len(set(predictions.tolist())) == 1 and len(predictions) > 1
    return Accuracy(
        accuracy=float(np.mean(predictions == labels)),
        majority=float(counts.max() / len(labels)),
        constant=int(predictions[0]) if same else None,
        examples=len(labels),
    )


def nearest_label(text: str, labels: Sequence[str]) -> int:
    """Index of the label that a decoded text spells, or -1: exact but for case and space."""
    wanted = ' '.join(text.split()).casefold()
    names = [' '.join(label.split()).casefold() for label in labels]
    return names.index(wanted) if wanted in names else -1
