"""Rows as text: formats, verbalisers, labels, examples."""

from __future__ import annotations

import pytest

from pt2tt_jax.errors import UserError
from pt2tt_jax.tasks.datasets import DATASETS, dataset
from pt2tt_jax.tasks.examples import Example, to_examples
from pt2tt_jax.tasks.formats import FORMATS, formatter
from pt2tt_jax.tasks.labels import VERBALISERS, options, words
from pt2tt_jax.tasks.patterns import ATTEMPT_PATTERNS, LMBFF_PATTERNS, MANUAL_PATTERNS
from pt2tt_jax.tasks.templates import SLOT, Template

BOOLQ = {'question': 'is it', 'passage': 'It is.', 'label': 1, 'idx': 3}
MNLI = {'premise': 'It rains. ', 'hypothesis': 'It is wet.', 'label': 0, 'idx': 4}
SST2 = {'sentence': 'fine .', 'label': 1, 'idx': 5}
COPA = {'premise': 'P', 'choice1': 'X', 'choice2': 'Y', 'question': 'cause', 'label': 1, 'idx': 6}
SQUAD = {'id': 'q', 'question': 'Who?', 'context': 'A.B. did.', 'answers': {'text': ['A.B.', 'A']}}
RECORD = {
    'query': 'It is @placeholder',
    'entities': ['Ann', 'Bea', 'Cy'],
    'passage': 'One\n@highlight\nTwo!\n@highlight\nThree',
    'answers': ['Bea', 'Cy', 'Di'],
    'idx': {'query': 8, 'passage': 7},
}
WINOGRANDE = {'sentence': 'Ann _ Bea', 'option1': 'saw', 'option2': 'met', 'label': 1}


@pytest.mark.parametrize(
    ('format', 'name', 'row', 'expected'),
    [
        ('pretrain', 'boolq', BOOLQ, 'boolq passage: It is. question: is it'),
        ('raw', 'boolq', BOOLQ, 'question: is it passage: It is.'),
        ('stripped', 'boolq', BOOLQ, 'is it It is.'),
        ('attempt', 'boolq', BOOLQ, 'superglue-boolq question: is it passage: It is.'),
        ('manual', 'boolq', BOOLQ, 'It is. Question: is it ? the Answer: <extra_id_0> .'),
        ('manual', 'sst2', SST2, 'fine . It was <extra_id_0>.'),
        ('manual', 'mnli', MNLI, 'It rains? <extra_id_0>, it is wet.'),
        ('manual', 'mnli', MNLI | {'premise': 'Rain'}, 'Rain? <extra_id_0>, it is wet.'),
        ('lmbff', 'sst2', SST2, 'fine . A <extra_id_0> one.'),
        ('lmbff-13', 'mnli', MNLI, "It rains.<extra_id_0> that's because it is wet."),
        ('attempt', 'copa', COPA, 'superglue-copa premise: P choice1: X choice2: Y'),
        ('attempt', 'squad', SQUAD, 'squad question: Who ?  context: A . B . did . '),
        ('raw', 'squad', SQUAD, 'question: Who? context: A.B. did.'),
        (
            'stripped',
            'record',
            RECORD,
            'It is @placeholder Ann, Bea, Cy One. Two! Three',
        ),
        (
            'attempt',
            'winogrande',
            WINOGRANDE,
            'winogrande sentence: Ann _ Bea option0: saw option1: met',
        ),
        (
            'attempt',
            'winogrande_attempt',
            WINOGRANDE,
            'winogrande sentence: Ann _ Bea option0: saw option1: saw',
        ),
        ('t5/sst2', 'boolq', BOOLQ, 'sst2 sentence: is it It is.'),
    ],
)
def test_formats(format, name, row, expected):
    assert formatter(format)(dataset(name), row) == expected


def test_formatter_takes_templates_and_their_words():
    mine = Template('mine/x/0', '{text} {options_}')
    render = formatter('mine/x/0', [mine], ('bad', 'good'))
    assert render(dataset('sst2'), SST2) == 'fine . OPTIONS:\n- bad\n- good'


def test_unknown_format():
    with pytest.raises(UserError, match=r"no format 'striped'\. Did you mean 'stripped'"):
        formatter('striped')


def test_pretrain_needs_a_template_of_t5():
    with pytest.raises(UserError, match="not pre-trained on 'yelp'"):
        FORMATS['pretrain'](dataset('yelp'), {'text': 'x'})
    with pytest.raises(UserError, match="format 'lmbff-42' has no wording for 'boolq'"):
        FORMATS['lmbff'](dataset('boolq'), BOOLQ)


@pytest.mark.parametrize('patterns', [ATTEMPT_PATTERNS, MANUAL_PATTERNS, *LMBFF_PATTERNS.values()])
def test_wordings_use_the_fields_of_their_data_set(patterns):
    for name, pattern in patterns.items():
        used = {
            slot.removesuffix('_open').removesuffix('_lower') for _, slot in SLOT.findall(pattern)
        }
        fields = set(dataset(name).fields)
        assert used == fields - ({'question'} if name == 'copa' else set())
        assert '[M]' not in pattern


@pytest.mark.parametrize(
    ('name', 'verbaliser', 'expected'),
    [
        ('rte', 't5', ('entailment', 'not_entailment')),
        ('boolq', 't5', ('False', 'True')),
        ('boolq', 'names', ('False', 'True')),
        ('boolq', 'digits', ('0', '1')),
        ('boolq', 'flan', ('no', 'yes')),
        ('boolq', 'manual', ('No', 'Yes')),
        ('sst2', 'manual', ('terrible', 'great')),
        ('sst2', 'lmbff', ('pathetic', 'irresistible')),
        ('sst2', ['-', '+'], ('-', '+')),
        ('scitail', 'names', ('entails', 'neutral')),
        ('scitail', 't5', ('entailment', 'neutral')),
        ('stsb', 'flan', ('0', '1', '2', '3', '4', '5')),
    ],
)
def test_words(name, verbaliser, expected):
    assert words(dataset(name), verbaliser) == expected


def test_every_verbaliser_has_a_word_for_every_label():
    for entry in DATASETS.values():
        for verbaliser in VERBALISERS if entry.labels else ():
            if verbaliser == 'lmbff' and entry.name not in ('sst2', 'qqp', 'mnli', 'qnli'):
                continue
            found = words(entry, verbaliser)
            assert len(set(found)) == len(found)
            assert len(found) == len(entry.labels) or entry.kind == 'regression'


@pytest.mark.parametrize(
    ('name', 'verbaliser', 'message'),
    [
        ('squad', 't5', 'free text'),
        ('sst2', 'digit', "No verbaliser 'digit'. Did you mean 'digits'"),
        ('cola', 'lmbff', 'not for cola'),
        ('sst2', ['a'], 'has 2 labels'),
        ('sst2', ['a', 'a'], 'different words'),
    ],
)
def test_wrong_verbalisers(name, verbaliser, message):
    with pytest.raises(UserError, match=message):
        words(dataset(name), verbaliser)


def one(name, row, verbaliser='t5', **more):
    (example,) = to_examples(dataset(name), [row], verbaliser=verbaliser, **more)
    return example


def test_example_of_a_classification():
    assert one('boolq', BOOLQ, split='validation') == Example(
        inputs='is it It is.',
        targets='True',
        label=1,
        options=('False', 'True'),
        key='boolq/validation/3',
        answers=('True',),
    )


def test_hidden_label():
    example = one('boolq', BOOLQ | {'label': -1})
    assert (example.targets, example.label, example.answers) == ('', None, ())


@pytest.mark.parametrize(
    ('verbaliser', 'expected'),
    [('t5', ('choice1', 'choice2')), ('digits', ('0', '1')), ('options', ('X', 'Y'))],
)
def test_example_of_a_choice(verbaliser, expected):
    example = one('copa', COPA, verbaliser)
    assert (example.options, example.targets, example.label) == (expected, expected[1], 1)


def test_choice_between_equal_texts_keeps_its_label():
    assert one('winogrande_attempt', WINOGRANDE, 'options').label == 1


def test_example_of_a_span():
    assert one('squad', SQUAD).targets == 'A . B . '
    example = one('squad', SQUAD, 'names')
    assert (example.targets, example.answers) == ('A.B.', ('A.B.', 'A'))
    assert (example.label, example.options) == (None, None)


def test_record_makes_an_example_for_every_answer_in_training():
    assert one('record', RECORD).targets == 'Bea'
    made = list(to_examples(dataset('record'), [RECORD], split='train', every_answer=True))
    assert [example.targets for example in made] == ['Bea', 'Cy', 'Di']
    assert [example.label for example in made] == [1, 2, None]
    assert [example.key for example in made] == [
        'record/train/7-8',
        'record/train/7-8#1',
        'record/train/7-8#2',
    ]
    assert {example.answers for example in made} == {('Bea', 'Cy', 'Di')}


@pytest.mark.parametrize(
    ('score', 't5', 'flan'),
    [(0.0, '0.0', '0'), (2.58, '2.6', '3'), (5, '5.0', '5'), (3.700000047683716, '3.6', '4')],
)
def test_example_of_a_regression(score, t5, flan):
    """The last score is 3.7 in single precision: T5 rounded its tie to the even side."""
    row = {'sentence1': 'a', 'sentence2': 'b', 'label': score}
    assert one('stsb', row).targets == t5
    assert one('stsb', row, 'flan').targets == flan


def test_example_of_a_generation():
    e2e = {'meaning_representation': 'name[X]', 'human_reference': 'X is.'}
    gem = {'meaning_representation': 'name[X]', 'target': 'X is.', 'references': ['X is.', 'X!']}
    assert one('e2e', e2e).answers == ('X is.',)
    assert one('e2e', gem).answers == ('X is.', 'X!')
    assert one('xsum', {'document': 'Long.', 'summary': 'Short.'}).targets == 'Short.'
    web = one('webnlg', {'input': ['A_B | is | C', 'C | in | D'], 'target': 'x'})
    assert web.inputs == 'A B, is, C; C, in, D'


def test_wsc_simple_keeps_right_referents_only():
    row = {'text': 'Ann saw Bea when she left .', 'span1_text': 'Bea', 'idx': 1}
    row |= {'span2_text': 'she', 'span2_index': 4}
    (kept,) = to_examples(dataset('wsc_simple'), [row | {'label': 0}, row | {'label': 1}])
    assert (kept.inputs, kept.targets) == ('Ann saw Bea when *she* left .', 'Bea')


@pytest.mark.parametrize(
    ('text', 'index', 'expected'),
    [
        ('He said it was " for him," and left . ', 5, 'He said it was " for *him* ," and left .'),
        ('They can use him , but not here .', 2, 'They can use *him* , but not here .'),
    ],
)
def test_wsc_simple_finds_a_pronoun_that_its_index_misses(text, index, expected):
    row = {'text': text, 'span1_text': 'Al', 'span2_text': 'him', 'span2_index': index, 'label': 1}
    assert one('wsc_simple', row | {'idx': 0}).inputs == expected


def test_wsc_simple_without_its_pronoun():
    row = {'text': 'No one .', 'span1_text': 'Al', 'span2_text': 'him', 'span2_index': 0}
    with pytest.raises(UserError, match="wsc_simple/9: the pronoun 'him' is not a word"):
        one('wsc_simple', row | {'label': 1, 'idx': 9})


def test_candidates_of_a_row():
    assert options(dataset('squad'), SQUAD) is None
    assert options(dataset('record'), RECORD) == ('Ann', 'Bea', 'Cy')
