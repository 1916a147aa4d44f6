"""Published wordings, as data: which text surrounds the fields of which data set.

`{field}` is the field's text. `{field_open}` is a text without its full stop (LM-BFF takes it off
before it goes on), `{field_lower}` one with a small first letter; `[M]` stands for the word to
fill in and becomes T5's first sentinel.
"""

from __future__ import annotations

MASK = '<extra_id_0>'


def _cloze(patterns: dict[str, str]) -> dict[str, str]:
    return {name: pattern.replace('[M]', MASK) for name, pattern in patterns.items()}


# T5 v1.0's supervised tasks (t5/data/preprocessors.py, glue_utils.py). WSC stands twice: as T5 was
# pre-trained on it (wsc_simple, dpr) and in the alternative form with both spans marked.
T5_PATTERNS = {
    'cola': 'cola sentence: {sentence}',
    'sst2': 'sst2 sentence: {sentence}',
    'mrpc': 'mrpc sentence1: {sentence1} sentence2: {sentence2}',
    'qqp': 'qqp question1: {question1} question2: {question2}',
    'stsb': 'stsb sentence1: {sentence1} sentence2: {sentence2}',
    'mnli': 'mnli hypothesis: {hypothesis} premise: {premise}',
    'qnli': 'qnli question: {question} sentence: {sentence}',
    'rte': 'rte sentence1: {sentence1} sentence2: {sentence2}',
    'boolq': 'boolq passage: {passage} question: {question}',
    'cb': 'cb hypothesis: {hypothesis} premise: {premise}',
    'copa': 'copa choice1: {choice1} choice2: {choice2} premise: {premise} question: {question}',
    'multirc': 'multirc question: {question} answer: {response} paragraph: {paragraph}',
    'record': 'record query: {query} entities: {entities} passage: {passage}',
    'superglue_rte': 'rte hypothesis: {hypothesis} premise: {premise}',
    'wic': 'wic sentence1: {sentence1} sentence2: {sentence2} word: {word}',
    'wsc': 'wsc text: {text}',
    'wsc_simple': 'wsc: {sentence}',
    'dpr': 'wsc: {sentence}',
    'squad': 'question: {question} context: {context}',
    'cnn_dailymail': 'summarize: {article}',
    'translate_ende': 'translate English to German: {en}',
    'translate_enfr': 'translate English to French: {en}',
    'translate_enro': 'translate English to Romanian: {en}',
}

# The baselines of the comparison tables (ATTEMPT attempt/data/tasks.py; names of the MRQA sets from
# DePT src/tasks.py). Their targets are digits: verbaliser `digits`.
ATTEMPT_PATTERNS = {
    **{name: T5_PATTERNS[name] for name in ('cola', 'sst2', 'mrpc', 'qqp', 'stsb', 'qnli', 'rte')},
    'mnli': 'mnli premise: {premise} hypothesis: {hypothesis}',
    'boolq': 'superglue-boolq question: {question} passage: {passage}',
    'cb': 'superglue-cb premise: {premise} hypothesis: {hypothesis}',
    'copa': 'superglue-copa premise: {premise} choice1: {choice1} choice2: {choice2}',
    'multirc': 'superglue-multirc question: {question} answer: {answer} paragraph: {paragraph}',
    'record': 'superglue-record record query: {query} entities: {entities} passage: {passage}',
    'superglue_rte': 'superglue-rte premise: {premise} hypothesis: {hypothesis}',
    'wic': 'superglue-wic sentence1: {sentence1} sentence2: {sentence2} word: {word}',
    'wsc': 'superglue-wsc.fixed text: {text}',
    'winogrande': 'winogrande sentence: {sentence} option0: {option1} option1: {option2}',
    'winogrande_attempt': 'winogrande sentence: {sentence} option0: {option1} option1: {option2}',
    'yelp': 'yelp_polarity sentence: {text}',
    'scitail': 'scitail premise: {premise} hypothesis: {hypothesis}',
    'paws': 'paws sentence1: {sentence1} sentence2: {sentence2}',
    **{
        name: f'{name} question: {{question}} context: {{context}}'
        for name in ('squad', 'nq', 'hotpotqa', 'searchqa', 'newsqa')
    },
}

_READING = '{context} Question: {question} Answer: [M]'
_ENTAILS = '{premise} Question: {hypothesis} ? the Answer: [M] .'
_SAME = '{sentence1} [M], {sentence2_lower}'

# GLUE: LM-BFF run_experiment.sh; SuperGLUE: OpenPrompt scripts/SuperGLUE; sets of the same shape
# share a wording, and multirc, wsc, winogrande and the reading sets have ours.
MANUAL_PATTERNS = _cloze(
    {
        'sst2': '{sentence} It was [M].',
        'yelp': '{text} It was [M].',
        'demo_sentiment': '{text} It was [M].',
        'cola': '{sentence} This is [M].',
        'mrpc': _SAME,
        'paws': _SAME,
        'stsb': _SAME,
        'qqp': '{question1} [M], {question2_lower}',
        'mnli': '{premise_open}? [M], {hypothesis_lower}',
        'scitail': '{premise_open}? [M], {hypothesis_lower}',
        'demo_entailment': '{premise_open}? [M], {hypothesis_lower}',
        'qnli': '{question_open}? [M], {sentence_lower}',
        'rte': '{sentence1_open}? [M], {sentence2_lower}',
        'boolq': '{passage} Question: {question} ? the Answer: [M] .',
        'superglue_rte': _ENTAILS,
        'cb': '{premise} {hypothesis} ? the answer : [M]',
        'wic': '{sentence1} {sentence2} the {word}? the [M]',
        'multirc': '{paragraph} Question: {question} Is the answer "{answer}"? [M].',
        'wsc': '{text} Are the two marked the same? [M].',
        'winogrande': '{sentence} Is it {option1} or {option2}? [M].',
        **dict.fromkeys(('squad', 'nq', 'hotpotqa', 'searchqa', 'newsqa'), _READING),
    }
)

_QQP = '{{question1_open}}{} {{question2_lower}}'
_MNLI = '{{premise_open}}{} {{hypothesis_lower}}'
_QNLI = '{{question_open}}{} {{sentence_lower}}'
_PAIR = '{{sentence1_open}}{} {{sentence2_lower}}'

# The best automatic template of each of LM-BFF's seeds (princeton-nlp/LM-BFF auto_template/). It
# published none for SuperGLUE.
LMBFF_PATTERNS: dict[int, dict[str, str]] = {
    13: _cloze(
        {
            'sst2': '{sentence} And that is [M].',
            'qqp': _QQP.format('?[M], I was wondering'),
            'mnli': _MNLI.format(".[M] that's because"),
            'qnli': _QNLI.format("?[M], it's true,"),
        }
    ),
    21: _cloze(
        {
            'sst2': '{sentence} A [M] film.',
            'qqp': _QQP.format('?[M], no,'),
            'mnli': _MNLI.format('.[M], because'),
            'qnli': _QNLI.format('?[M], but'),
        }
    ),
    42: _cloze(
        {
            'sst2': '{sentence} A [M] one.',
            'qqp': _QQP.format('?[M],but'),
            'mnli': _MNLI.format('.[M], you are right,'),
            'qnli': _QNLI.format('?[M]. Yes,'),
            'rte': _PAIR.format('.[M], I believe'),
            'mrpc': _PAIR.format('.[M]!'),
            'stsb': _PAIR.format('.[M]sir'),
            'cola': '{sentence} You are [M].',
        }
    ),
    87: _cloze(
        {
            'sst2': '{sentence} This is [M].',
            'qqp': _QQP.format('?[M]. So'),
            'mnli': _MNLI.format('.[M], in the end,'),
            'qnli': _QNLI.format('?[M]. In the same way,'),
        }
    ),
    100: _cloze(
        {
            'sst2': "{sentence} It's [M].",
            'qqp': _QQP.format('?[M].'),
            'mnli': _MNLI.format(".[M], it's true,"),
            'qnli': _QNLI.format('?[M], it is possible that'),
        }
    ),
}
