"""Metrics against values worked out by hand; test_tasks_against_t5 compares with t5's."""

from __future__ import annotations

import sys

import pytest

from pt2tt_jax.errors import UserError
from pt2tt_jax.tasks import metrics
from pt2tt_jax.tasks.datasets import DATASETS, dataset
from pt2tt_jax.tasks.examples import Example


def made(options, *labels):
    return [Example('', options[label], label, options, '') for label in labels]


def test_accuracy_takes_strings_and_indices():
    assert metrics.accuracy(['a', 'b'], ['a', 'c']) == {'accuracy': 50.0}
    assert metrics.accuracy([0, 1, 1, 0], [0, 1, 1, -1]) == {'accuracy': 75.0}
    with pytest.raises(ValueError, match='shorter'):
        metrics.accuracy([0, 1], [0])


def test_macro_f1_counts_every_class_the_same():
    # Class 0: precision 3/4, recall 1; class 1: recall 0.
    assert metrics.macro_f1([0, 0, 0, 1], [0, 0, 0, 0])['macro_f1'] == pytest.approx(600 / 14)


def test_matthews():
    assert metrics.matthews([0, 1, 0, 1], [0, 1, 0, 1])['matthews'] == pytest.approx(100)
    assert metrics.matthews([0, 1, 0, 1], [1, 0, 1, 0])['matthews'] == pytest.approx(-100)
    assert metrics.matthews([0, 1, 0, 1], [0, 0, 0, 0]) == {'matthews': 0.0}


@pytest.mark.parametrize('metric', [metrics.pearson, metrics.spearman])
def test_constant_scores_correlate_with_nothing(metric):
    assert list(metric([1.0, 2.0], [3.0, 3.0]).values()) == [0.0]
    assert list(metric([1.0, 2.0], [3.0, 4.0]).values()) == [pytest.approx(100)]


@pytest.mark.parametrize(
    ('answers', 'text', 'f1', 'em'),
    [
        (['the Cat!'], 'cat', 100, 100),
        (['dog', 'black cat'], 'cat', 200 / 3, 0),
        (['cat'], '', 0, 0),
        (['a'], 'the', 0, 100),
    ],
)
def test_squad(answers, text, f1, em):
    assert metrics.squad([answers], [text]) == {'f1': pytest.approx(f1), 'em': em}


def test_majority_class():
    assert metrics.majority_class([0, 1, 1, 1]) == 75.0
    assert metrics.majority_class(['no']) == 100.0
    assert metrics.majority_class([]) == 0.0


def test_score_of_a_classification():
    examples = made(('no', 'maybe', 'yes'), 0, 1, 2, 2)
    got = metrics.score(dataset('mnli'), examples, ['no', 'maybe', 'no', 'Yes'])
    assert got == {'accuracy': 50.0}


def test_score_names_the_metric_of_the_tables_first():
    examples = made(('0', '1'), 0, 1, 1, 0)
    given = ['0', '1', 'banana', '1']
    first = {name: next(iter(metrics.score(dataset(name), examples, given))) for name in PRIMARY}
    assert first == PRIMARY


PRIMARY = {
    **dict.fromkeys(('mnli', 'qqp', 'qnli', 'sst2', 'mrpc', 'rte', 'boolq'), 'accuracy'),
    **dict.fromkeys(('wic', 'wsc', 'cb', 'winogrande', 'yelp', 'scitail', 'paws'), 'accuracy'),
    'cola': 'matthews',
    'multirc': 'f1',
    'stsb': 'pearson',
}


def test_score_of_spans_takes_every_answer():
    examples = [Example('', 'A', None, None, '', ('A b', 'C'))]
    assert metrics.score(dataset('nq'), examples, ['c']) == {'f1': 100.0, 'em': 100.0}


@pytest.mark.parametrize('name', ['e2e', 'xsum'])
def test_score_of_generated_text(name):
    pytest.importorskip('rouge_score')
    pytest.importorskip('sacrebleu')
    text = 'The river is near the old mill .'
    examples = [Example('', text, None, None, '', (text, 'x'))] * 2
    got = metrics.score(dataset(name), examples, [text, text])
    assert list(got.values()) == pytest.approx([100] * len(got))
    worse = metrics.score(dataset(name), examples, [text, 'nothing of the kind'])
    assert all(worse[key] < got[key] for key in got)


def test_chrf_takes_the_best_reference():
    sacrebleu = pytest.importorskip('sacrebleu')
    references = [['the cat sat here'], ['no', 'one dog ran']]
    assert metrics.chrf(references, ['the cat sat here', 'one dog ran'])['chrf'] == 100
    written = ['the cat sat there', 'a dog ran']
    found = metrics.chrf([[one[-1]] for one in references], written)['chrf']
    expected = sacrebleu.CHRF().corpus_score(written, [[one[-1] for one in references]]).score
    assert found == pytest.approx(expected)
    assert 40 < found < 100


def test_bleu_takes_any_number_of_references():
    pytest.importorskip('sacrebleu')
    text = 'The river is near the old mill .'
    assert metrics.bleu([[text], ['no', text]], [text, text])['bleu'] == pytest.approx(100)


def test_every_set_has_metrics():
    assert set(metrics.METRICS) <= set(DATASETS)
    assert {entry.kind for entry in DATASETS.values()} == set(metrics.BY_KIND)


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'sklearn.metrics', None)
    with pytest.raises(UserError, match='pip install scikit-learn'):
        metrics.matthews([0, 1], [0, 1])
