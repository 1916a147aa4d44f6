"""The text side: data sets, input formats, hard templates and readers, in plain Python.

    datasets   what each data set is
    parsing    one row read: fields as text, label as index (prepare: the clean-ups)
    labels     verbalisers, the words for the labels
    formats    input formats (patterns: the published wordings)
    templates  hard templates and the slot rule (families: JSON files of them; chosen: by name)
    examples   rows as text pairs
    readers    JSON lines, CSV, TSV; a user's own files
    splits     the comparison protocol
    metrics    what is reported
    demo       two data sets that ship with the package
    catalogue  every task by name, as `pt2tt tasks` lists and shows them

For T5X and `seqio.Evaluator`, the same functions over rows of TFDS or of files:

    seqio_tasks       every task of the catalogue, registered with SeqIO
    seqio_sources     where their rows come from
    seqio_evaluation  their metrics, and what SeqIO asks of a model
    converters        the vocabulary, and soft prompts as virtual tokens

Only `seqio_tasks`, `seqio_sources` and `converters` import SeqIO, and so TensorFlow.
"""

from __future__ import annotations

from .datasets import DATASETS, DataSet, dataset
from .examples import Example, to_examples
from .families import load_family
from .formats import FORMATS, formatter
from .readers import custom, read_rows, rows
from .splits import comparison_rows
from .templates import T5, Template, apply

__all__ = [
    'DATASETS',
    'FORMATS',
    'T5',
    'DataSet',
    'Example',
    'Template',
    'apply',
    'comparison_rows',
    'custom',
    'dataset',
    'to_examples',
    'formatter',
    'load_family',
    'read_rows',
    'rows',
]
