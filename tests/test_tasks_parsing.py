"""One row read: fields that must be text, labels in every spelling, identity."""

from __future__ import annotations

import pytest

from pt2tt_jax.errors import UserError
from pt2tt_jax.tasks.datasets import dataset
from pt2tt_jax.tasks.examples import to_examples
from pt2tt_jax.tasks.parsing import identity, parse
from pt2tt_jax.tasks.readers import custom


@pytest.mark.parametrize(
    ('labels', 'value', 'index'),
    [
        (('no', 'yes'), 'yes', 1),
        (('no', 'yes'), 1, 1),
        (('no', 'yes'), '1', 1),
        (('no', 'yes'), 1.0, 1),
        (('no', 'yes'), True, 1),
        (('true', 'false'), True, 0),
        (('False', 'True'), False, 0),
        (('1', '2'), 1, 0),
        (('1', '2'), '2', 1),
        (('-1', '1'), -1, 0),
        (('no', 'yes'), -1, None),
        (('no', 'yes'), None, None),
    ],
)
def test_labels_by_name_index_or_truth_value(labels, value, index):
    own = custom(('text',), labels=labels)
    assert parse(own, {'text': 'x', 'label': value}).label == index


@pytest.mark.parametrize('value', ['maybe', 2, -2, 0.5, '', [1], float('nan')])
def test_labels_outside_the_set(value):
    own = custom(('text',), labels=('no', 'yes'))
    with pytest.raises(UserError, match="in 'label' is none of no, yes"):
        parse(own, {'text': 'x', 'label': value})


@pytest.mark.parametrize('value', [-0.4, 5.1, 'much'])
def test_scores_outside_the_scale(value):
    with pytest.raises(UserError, match=r'is none of 0\.0'):
        parse(dataset('stsb'), {'sentence1': 'a', 'sentence2': 'b', 'label': value})


@pytest.mark.parametrize(('value', 'text'), [(3, '3'), (2.5, '2.5'), (True, 'True'), ('', '')])
def test_fields_that_are_text_enough(value, text):
    assert parse(custom(('x',), label=None), {'x': value}).fields == {'x': text}


@pytest.mark.parametrize('value', [None, ['a'], {'a': 1}])
def test_fields_that_are_no_text(value):
    with pytest.raises(UserError, match="the field 'x' must be text, not"):
        parse(custom(('x',), label=None), {'x': value})


def test_missing_fields_name_what_is_there():
    with pytest.raises(UserError, match="no field 'sentence'; the row has 'text', 'idx'"):
        parse(dataset('sst2'), {'text': 'x', 'idx': 0})
    with pytest.raises(UserError, match="no field 'entities'; the row has 'passage'"):
        parse(dataset('record'), {'passage': 'x'})
    with pytest.raises(UserError, match="sst2/train/7: no field 'sentence'"):
        list(to_examples(dataset('sst2'), [{'idx': 7}], split='train'))


def test_unknown_data_set():
    with pytest.raises(UserError, match=r"no data set 'ss2'\. Did you mean 'sst2'"):
        dataset('ss2')


def test_identity():
    assert identity({'idx': 3, 'id': 'x'}) == '3'
    assert identity({'qid': 'x'}) == 'x'
    assert identity({'idx': {'query': 2, 'passage': 1}}) == '1-2'
    assert identity({'a': 1, 'b': 2}) == identity({'b': 2, 'a': 1}) != identity({'a': 1, 'b': 3})
