"""Measuring a model on a split: by label scoring and by decoding, beside the majority class."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Float
from tqdm import tqdm

from pt2tt_jax import features, methods, objectives, processes, saved, sharding
from pt2tt_jax.backbone import Backbone
from pt2tt_jax.errors import UserError
from pt2tt_jax.features import Encoded
from pt2tt_jax.t5 import decoding, scoring
from pt2tt_jax.t5.config import T5Config
from pt2tt_jax.t5.network import Transformer
from pt2tt_jax.t5.vocabulary import Vocabulary
from pt2tt_jax.tuning import Params, Tuned, Tuning, flatten, merge, shapes, soft_tokens, unflatten


@dataclasses.dataclass(frozen=True)
class Model:
    """A network with its parameters, and the tokens that go around its inputs."""

    module: nn.Module
    params: Params
    around: features.Frame = features.BARE


@functools.cache
def _behind_prompt(config: T5Config, length: int) -> nn.Module:
    """One module for all prompts of a length, so that they share what is compiled for it."""
    return Tuned(Transformer(config), methods.prompt(length))


def prompted(
    backbone: Backbone,
    rows: Float[np.ndarray, 'prompt embed'],
    around: features.Frame | None = None,
) -> Model:
    """`backbone` with the soft prompt `rows`, before each text unless `around` says otherwise."""
    table = unflatten({saved.PROMPT: np.asarray(rows, np.float32)})
    return Model(
        _behind_prompt(backbone.config, len(rows)),
        merge(table, backbone.params),
        around or features.frame(backbone.config.vocab_size, soft_tokens(len(rows))),
    )


def restored(
    backbone: Backbone, tensors: Mapping[str, np.ndarray], about: Mapping[str, Any] | None = None
) -> Model:
    """`backbone` with saved parameters.

    Args:
      backbone: what they were trained on.
      tensors: a soft prompt, new values of the backbone's own leaves, or leaves of any method.
      about: the metadata they were saved with; it says how the method is made.

    Raises:
      UserError: when the leaves are not those of the method.
    """
    made = (about or {}).get('tuning', {})
    if set(tensors) == {saved.PROMPT}:
        rows = tensors[saved.PROMPT]
        before = made.get('before') or soft_tokens(len(rows))
        around = features.frame(backbone.config.vocab_size, before, made.get('after', ()))
        return prompted(backbone, rows, around)
    if made.get('tasks', 1) > 1 and 'task' not in made:
        raise UserError(
            f'These parameters of the method {made["method"]!r} are of several tasks at once; take '
            "the file of one task, in that task's folder of the same run, or start from these with "
            'mpt.start.'
        )
    tuning = Tuning()
    if made:
        # Of tasks that were trained together, a head has the classes of all.
        labels = tuple(made.get('words') or (about or {}).get('labels', ()))
        tuning = _tuning(backbone.config, backbone.vocabulary, labels, json.dumps(made))
    module = Tuned(backbone.module, tuning) if made else backbone.module
    wanted = {path for path in flatten(shapes(module)) if tuning.owns(path)}
    own = set(flatten(backbone.params))
    if not wanted <= set(tensors) or not set(tensors) <= wanted | own:
        odd = sorted((set(tensors) - own) ^ wanted)
        raise UserError(
            f'The saved parameters are not those of the method {made.get("method", "full")!r}: '
            f'{odd[0]} is in one of the two alone.'
        )
    placed = {path: jnp.asarray(leaf) for path, leaf in tensors.items()}
    params = merge(unflatten(placed), backbone.params)
    around = tuning.frame(backbone.config.vocab_size)
    return Model(module, params, around.of(made['task']) if 'task' in made else around)


@functools.lru_cache(maxsize=8)
def _tuning(
    config: T5Config, vocabulary: Vocabulary, labels: tuple[str, ...], made_of: str
) -> Tuning:
    """The tuning that saved parameters were trained with; starts matter no more.

    One for all parameters that were trained alike, so that they share what is compiled for it.
    """
    made = json.loads(made_of)
    rows = made.get('source', 0)
    known = methods.known(
        config,
        vocabulary,
        made['length'],
        labels,
        tasks=made['tasks'],
        source=np.zeros((rows, config.emb_dim), np.float32) if rows else None,
        sources={name: np.zeros(shape, np.float32) for name, shape in made['sources'].items()},
    )
    return methods.build(made['method'], known, made['options'])


Answer = Callable[[Any, jax.Array], Any]


def _ask(model: Model, split: Encoded, size: int, answer: Answer) -> list[Any]:
    """What `answer` says of each input, in the split's order.

    Each input is encoded once; `answer` gets a chunk of tokens and its encodings, and returns
    arrays whose first axis is the chunk's. Chunks are taken in order of length, so that little is
    padded, and the last one is filled up with repetitions, so that few shapes compile.
    """
    order = np.argsort([len(ids) for ids in split.inputs], kind='stable')
    size, variables = sharding.divisible(size, model.params), {'params': model.params}
    out: list[Any] = [None] * len(split)
    # A bar for long work alone: short evaluations happen often, inside training.
    bar = tqdm(total=len(split), desc='evaluation', unit='ex', disable=None, leave=False, delay=3)

    def asked():
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            inputs = [split.framed(i, model.around) for i in np.resize(rows, size)]
            longest = max(map(len, inputs))
            padded = features.padded(inputs, features.bucket(longest, per_doubling=2))
            tokens = sharding.spread(padded, model.params)
            yield rows, answer(tokens, decoding.encode(model.module, variables, tokens))

    for rows, said in processes.fetched(asked()):
        for place, row in enumerate(rows):
            out[row] = jax.tree.map(lambda leaf, place=place: leaf[place], said)
        bar.update(len(rows))
    bar.close()
    return out


def _scorer(model: Model, labels: Sequence[np.ndarray]) -> Answer:
    packed, variables = scoring.pack_labels(labels), {'params': model.params}

    def answer(tokens, encoded):
        return scoring.label_scores(
            model.module,
            variables,
            tokens,
            packed.tokens,
            packed.segments,
            len(labels),
            encoded=encoded,
        )

    return answer


def _writer(model: Model, max_length: int, vocabulary_size: int | None, beams: int = 1) -> Answer:
    variables = {'params': model.params}

    def answer(tokens, encoded):
        known = {'vocabulary_size': vocabulary_size, 'encoded': encoded}
        if beams == 1:
            return decoding.greedy(model.module, variables, tokens, max_length, **known)
        found, _ = decoding.beam_search(model.module, variables, tokens, max_length, beams, **known)
        return found[:, 0]

    return answer


def label_log_probs(
    model: Model, split: Encoded, labels: Sequence[np.ndarray], batch_size: int = 32
) -> Float[np.ndarray, 'examples labels']:
    """Log-probability, in nats, of each label's tokens after each input.

    Args:
      model: what predicts.
      split: the inputs.
      labels: token ids of each label, EOS included.
      batch_size: inputs at a time.
    """
    return np.stack(_ask(model, split, batch_size, _scorer(model, labels)))


def decode(
    model: Model,
    split: Encoded,
    max_length: int,
    *,
    beams: int = 1,
    vocabulary_size: int | None = None,
    batch_size: int = 32,
) -> list[np.ndarray]:
    """Token ids that the model writes after each input; greedy, or the best of `beams`."""
    return _ask(model, split, batch_size, _writer(model, max_length, vocabulary_size, beams))


def classify(
    model: Model,
    split: Encoded,
    labels: Sequence[np.ndarray],
    max_length: int,
    *,
    vocabulary_size: int | None = None,
    batch_size: int = 32,
) -> tuple[Float[np.ndarray, 'examples labels'], list[np.ndarray]]:
    """`label_log_probs` and `decode` of each input, encoded once for both."""
    score, write = _scorer(model, labels), _writer(model, max_length, vocabulary_size)

    def answer(tokens, encoded):
        return score(tokens, encoded), write(tokens, encoded)

    scores, written = zip(*_ask(model, split, batch_size, answer), strict=True)
    return np.stack(scores), list(written)


@functools.partial(jax.jit, static_argnames='module')
def _nats(module, params, batch):
    return objectives.cross_entropy(objectives.forward(module, params, batch), batch)


def cross_entropy(model: Model, encoded: Encoded, batch_size: int = 32) -> float:
    """Mean of -log P(target token), in nats, over all target tokens of a split."""
    batch_size = sharding.divisible(batch_size, model.params)
    order = np.argsort([len(ids) for ids in encoded.inputs], kind='stable')

    def asked():
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = features.batch(encoded, np.resize(rows, batch_size), model.around)
            batch['decoder_loss_weights'][len(rows) :] = 0.0
            yield start, _nats(model.module, model.params, sharding.spread(batch, model.params))

    total = np.zeros(2)
    for _, nats in processes.fetched(asked()):
        total += nats
    return float(total[0] / total[1])


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
