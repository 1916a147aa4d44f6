"""The frozen model that everything else is built around: its weights and its vocabulary."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import ml_dtypes
import numpy as np
from flax import traverse_util

from pt2tt_jax.convert import formats
from pt2tt_jax.errors import UserError, nearest
from pt2tt_jax.t5 import config as t5_config
from pt2tt_jax.t5 import flan_demo, huggingface, vocabulary
from pt2tt_jax.t5.config import T5Config
from pt2tt_jax.t5.network import Transformer
from pt2tt_jax.t5.vocabulary import Vocabulary

DTYPES = ('float32', 'bfloat16', 'float16')
PADDING = 1000  # rows at the end of an embedding table that no token id has: 28 in T5, 12 in mT5
SAMPLES = 16  # of a leaf, in a fingerprint
_SHORT = {f't5-{size}': f'google-t5/t5-{size}' for size in ('small', 'base', 'large', '3b', '11b')}
_FAMILIES = ('t5-v1_1', 'flan-t5', 'mt5')
_KNOWN = (
    'flan-demo',
    *_SHORT,
    *(f'google/{f}-{s}' for f in _FAMILIES for s in ('small', 'base', 'large', 'xl', 'xxl')),
    *(f'random:{size}' for size in t5_config.SIZES),
)
_HUB_ID = re.compile(r'\w[\w.-]*/\w[\w.-]*')
_HUB_FILES = [
    'config.json',
    '*.safetensors',
    '*.safetensors.index.json',
    'tokenizer.json',
    'tokenizer_config.json',
    'spiece.model',
]
# They leave the function of the model alone.
_RUNTIME_FIELDS = {'dtype', 'dropout_rate', 'remat', 'attention', 'scan_layers'}


@dataclasses.dataclass(frozen=True, eq=False)
class Backbone:
    """A T5 with its vocabulary.

    Attributes:
      name: what it was loaded by.
      config: sizes, and the type of activations.
      params: nested tree of numpy arrays, as T5X names them; put it on devices once, before use.
      vocabulary: of at most `config.vocab_size` ids; tables are padded (32128 rows for 32100 ids).
      fingerprint: 16 hex digits that tell checkpoints apart, but not those of one model in float32
        and bfloat16.
      earlier_fingerprint: what files of the first versions name it by; see `fingerprints`.
    """

    name: str
    config: T5Config
    params: dict = dataclasses.field(repr=False)
    vocabulary: Vocabulary
    fingerprint: str
    earlier_fingerprint: str

    def has_fingerprint(self, text: str | None) -> bool:
        """Whether a file that names its backbone by the fingerprint `text` means this one."""
        return text in (self.fingerprint, self.earlier_fingerprint)

    @property
    def module(self) -> Transformer:
        """The network of these sizes; it holds no parameters."""
        return Transformer(self.config)

    @classmethod
    def from_parts(
        cls, name: str, config: T5Config, params: Mapping, vocabulary: Vocabulary
    ) -> Backbone:
        """Fingerprints `params` and sees that the vocabulary fits the embedding table.

        Raises:
          UserError: if there are more token ids than rows in the table.
        """
        check_vocabulary(name, vocabulary, config.vocab_size)
        return cls(name, config, dict(params), vocabulary, *fingerprints(config, params))


def load(name: str, dtype: str = 'float32', param_dtype: str = 'float32') -> Backbone:
    """The backbone called `name`.

    Args:
      name: 'flan-demo' (needs the extra `demo`); a local folder in the format of Hugging Face; an
        id on its hub, such as 'google/flan-t5-base', 'hf:google/flan-t5-base' or 't5-base'; a T5X
        checkpoint, local or gs://, as 't5x:PATH@VOCABULARY' (a folder, a file or another backbone
        for its vocabulary; without '@' it lies in PATH); or 'random:SIZE' for random weights, with
        the demo's vocabulary, or 'random:SIZE@PATH' with the vocabulary at PATH.
      dtype: type of activations.
      param_dtype: type that the weights are kept in.

    Raises:
      UserError: for an unknown name or type, a failed download, or files that cannot be used.
    """
    for option, value in (('dtype', dtype), ('param_dtype', param_dtype)):
        if value not in DTYPES:
            raise UserError(f'{option} cannot be {value!r}. {nearest(value, DTYPES)}')
    config, params, tokens = _parts(name, param_dtype)
    return Backbone.from_parts(name, config.replace(dtype=dtype), params, tokens)


def vocabulary_of(name: str) -> Vocabulary:
    """The vocabulary alone of the backbone called `name`; errors as for `load`."""
    return vocabulary.load(vocabulary_place(name))


def vocabulary_place(name: str) -> Path:
    """The folder or file of the vocabulary of the backbone `name`, or `name` itself if a file."""
    if formats.is_t5x(name):
        return _t5x_vocabulary(*formats.parsed(name))
    if name == 'flan-demo' or name.startswith('random:'):
        path = name.partition('@')[2]
        return Path(path) if path else flan_demo.folder()
    return Path(name) if Path(name).is_file() else folder(name)


def _t5x_vocabulary(checkpoint: str, tokens: str | None) -> Path:
    if tokens:
        return vocabulary_place(tokens)
    if not any((Path(checkpoint) / name).is_file() for name in vocabulary.FILES):
        raise UserError(
            f'{checkpoint} has no vocabulary, as T5X checkpoints do: name it as '
            f't5x:{checkpoint}@VOCABULARY, with a folder, a file or the name of a model.'
        )
    return Path(checkpoint)


def check_vocabulary(name: str, tokens: Vocabulary, rows: int, padding: int | None = None) -> None:
    """Sees that a vocabulary fits an embedding table of so many rows.

    Raises:
      UserError: if there are more token ids than rows, or by more than `padding` fewer.
    """
    if tokens.size > rows or (padding is not None and rows - tokens.size > padding):
        raise UserError(
            f'The vocabulary of {name!r} has {tokens.size} ids, but the embedding table '
            f'{rows} rows: they belong to different models.'
        )


def fingerprints(config: T5Config, params: Mapping) -> tuple[str, str]:
    """First 16 hex digits of two SHA-256, the second for files of the first versions.

    Both cover sizes, shapes, norm scales and relative biases, which are small and differ after
    every pre-training. The first covers `SAMPLES` numbers of each other leaf besides: a merged
    LoRA leaves the small ones as they were. Numbers enter rounded to bfloat16, so that a checkpoint
    kept in bfloat16 and in float32 has one fingerprint.
    """
    fields = dataclasses.asdict(config).items()
    digest = hashlib.sha256(repr([kv for kv in fields if kv[0] not in _RUNTIME_FIELDS]).encode())
    flat = sorted(traverse_util.flatten_dict(params, sep='/').items())
    small = [path for path, _ in flat if path.endswith(('/scale', '/rel_embedding'))]
    for path, leaf in flat:
        digest.update(f'{path}{tuple(leaf.shape)}'.encode())
        if path in small:
            digest.update(_rounded(leaf))
    earlier = digest.hexdigest()[:16]
    for path, leaf in flat:
        if path not in small:
            digest.update(_rounded(_sample(leaf)))
    return digest.hexdigest()[:16], earlier


def _sample(leaf) -> np.ndarray:
    """Evenly spaced numbers of a leaf, which may be mapped from disk or lie on a device."""
    places = np.linspace(0, leaf.size - 1, SAMPLES).astype(np.int64)
    return np.asarray(leaf[np.unravel_index(places, leaf.shape)])


def _rounded(leaf) -> bytes:
    return np.asarray(leaf).astype(ml_dtypes.bfloat16).tobytes()


def _parts(name: str, param_dtype: str) -> tuple[T5Config, dict, Vocabulary]:
    if name == 'flan-demo':
        return *flan_demo.load(param_dtype), vocabulary_of(name)
    if name.startswith('random:'):
        config = t5_config.size(name.removeprefix('random:').partition('@')[0])
        return config, random_params(config, param_dtype), vocabulary_of(name)
    if formats.is_t5x(name):
        return _t5x_parts(name, param_dtype)
    place = folder(name)
    return *huggingface.load(place, param_dtype), vocabulary.load(place)


def _t5x_parts(name: str, param_dtype: str) -> tuple[T5Config, dict, Vocabulary]:
    from pt2tt_jax.convert import t5x_read

    tokens = vocabulary_of(name)
    weights = t5x_read.weights(formats.parsed(name)[0]).cast(param_dtype)
    check_vocabulary(name, tokens, weights.config.vocab_size, PADDING)
    return weights.config, weights.tree(), tokens


def random_params(config: T5Config, dtype: str = 'float32', seed: int = 0) -> dict:
    """Random weights with the scales of the network's own initialisers; numpy leaves.

    Drawn by numpy: the initialisers themselves take several seconds to trace and run.
    """
    rng = np.random.default_rng(seed)

    def draw(path: str, shape: tuple[int, ...]) -> np.ndarray:
        kind = path.split('/')[-2 if path.endswith('/kernel') else -1]
        if kind == 'scale':
            return np.ones(shape, jnp.dtype(dtype))
        fans = {
            'embedding': 1,
            'rel_embedding': sum(shape) / 2,
            'query': shape[0] * config.head_dim,
        }
        std = fans.get(kind, shape[0]) ** -0.5
        return (rng.standard_normal(shape, np.float32) * np.float32(std)).astype(jnp.dtype(dtype))

    flat = {path: draw(path, shape) for path, shape in huggingface.expected_shapes(config).items()}
    return traverse_util.unflatten_dict(flat, sep='/')


def folder(name: str) -> Path:
    """The local folder behind `name`, downloaded if it is an id on the hub."""
    if Path(name).is_dir():
        return Path(name)
    repository = name.removeprefix('hf:')
    repository = _SHORT.get(repository, repository)
    if name.startswith('hf:') or _HUB_ID.fullmatch(repository):
        return _download(repository)
    if '/' in name:
        raise UserError(f'There is no folder {name}.')
    raise UserError(
        f'There is no backbone {name!r}: it is no folder and no known name. {nearest(name, _KNOWN)}'
    )


def _download(repository: str) -> Path:
    import huggingface_hub

    try:
        folder = Path(huggingface_hub.snapshot_download(repository, allow_patterns=_HUB_FILES))
    except (OSError, ValueError) as error:
        raise UserError(
            f'{repository!r} is no local folder and could not be downloaded from the Hugging Face '
            f'Hub ({type(error).__name__}); download it where there is a network '
            f'(hf download {repository}) and pass the folder.'
        ) from error
    if not any(folder.glob('*.safetensors')):
        how = huggingface.convert_command(repository, Path(repository).name)
        raise UserError(
            f'{repository!r} has no safetensors on the Hugging Face Hub; convert it once and '
            f'pass the folder {Path(repository).name!r}: {how}'
        )
    return folder
