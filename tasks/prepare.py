"""Row clean-ups: from a row as TFDS gives it to one whose fields are strings.

A prepared row may also hold `answers` (all accepted texts, the training target first) and
`options` (the candidate texts of this row). Sources: t5/data/preprocessors.py for what T5 saw,
tensorflow_datasets for the columns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from pt2tt_jax.errors import UserError

Row = Mapping[str, Any]

# RE2's \s, which T5's preprocessors ran on; Python's also matches Unicode spaces.
SPACE = r'[\t\n\f\r ]'
WORD = r'[^\t\n\f\r ]+'


def candidates(*fields: str) -> Callable[[Row], Row]:
    """The texts of these fields are the candidates of a choice."""
    return lambda row: {**row, 'options': tuple(row[field] for field in fields)}


def references(column: str) -> Callable[[Row], Row]:
    """Several accepted texts: `references` and `target` as GEM has them, or one `column`."""

    def clean(row: Row) -> Row:
        found = [row[key] for key in ('target', column) if row.get(key)]
        answers = tuple(dict.fromkeys([*found, *row.get('references', ())]))
        return {**row, 'answers': answers}

    return clean


def webnlg(row: Row) -> Row:
    """Triples on one line, `subject, predicate, object; ...`, as FLAN wrote them."""
    triples = '; '.join(row['input']).replace('_', ' ').replace(' | ', ', ')
    return {**references('target')(row), 'input_string': triples}


def reading(row: Row) -> Row:
    """SQuAD and MRQA: the accepted answers, and the article's title in plain words."""
    answers = row['answers']
    texts = answers['text'] if isinstance(answers, Mapping) else answers
    return {**row, 'answers': tuple(texts), 'title': row.get('title', '').replace('_', ' ')}


def multirc(row: Row) -> Row:
    """MultiRC without its HTML: line breaks become spaces, bold marks go."""
    texts = {
        key: re.sub('</?b>', '', row[key].replace('<br>', ' '))
        for key in ('question', 'answer', 'paragraph')
    }
    return {**row, **texts}


def record(row: Row) -> Row:
    """ReCoRD: highlights become sentences of the passage, the entities one comma-separated field.

    An `@highlight` line closes the sentence before it with a full stop unless it has a mark.
    """
    passage = re.sub(r'([.?!"\'])\n@highlight\n', r'\1 ', row['passage'])
    return {
        **row,
        'passage': passage.replace('\n@highlight\n', '. '),
        'entities': ', '.join(row['entities']),
        'options': tuple(row['entities']),
        'answers': tuple(row['answers']),
    }


def winogrande_attempt(row: Row) -> Row:
    """WinoGrande as ATTEMPT, DePT and ADePT read it: the first option twice, the second never.

    Only for comparison with numbers made that way (attempt/data/tasks.py, class WinoGrande).
    """
    return candidates('option1', 'option2')({**row, 'option2': row['option1']})


def wsc(row: Row) -> Row:
    """WSC with `* noun *` and `# pronoun #` marked in the text.

    >>> row = {'text': 'Ann saw Bea when she left .', 'span1_text': 'Bea', 'span1_index': 2,
    ...        'span2_text': 'she', 'span2_index': 4}
    >>> wsc(row)['text']
    'Ann saw * Bea * when # she # left .'
    """
    text = _mark(row['text'], row['span1_text'], row['span1_index'], '*')
    # The two marks count as words for a pronoun that follows them.
    shift = 2 if row['span1_index'] < row['span2_index'] else 0
    return {**row, 'text': _mark(text, row['span2_text'], row['span2_index'] + shift, '#')}


def _mark(text: str, span: str, index: int, mark: str) -> str:
    """`text` with `mark` on both sides of `span`, its word number `index`; unchanged if absent."""
    start = re.match(f'(?:{WORD}{SPACE}){{{index}}}', text)
    if start is None or not text.startswith(span, start.end()):
        return text
    return f'{start[0]}{mark} {span} {mark}{text[start.end() + len(span) :]}'


def wsc_simple(row: Row) -> Row:
    """WSC as T5 was pre-trained on it: the pronoun in asterisks, the noun as the answer.

    >>> row = {'text': 'Ann saw Bea when she left .', 'span1_text': 'Bea',
    ...        'span2_text': 'she', 'span2_index': 4}
    >>> wsc_simple(row)['sentence']
    'Ann saw Bea when *she* left .'
    """
    words = row['text'].split(' ')
    at = row['span2_index']
    if not (0 <= at < len(words) and words[at] == row['span2_text']):
        words = row['text'].strip(' ').split(' ')
        at = _nearest_word(words, row['span2_text'], at)
    pronoun = row['span2_text']
    rest = words[at][len(pronoun) :]
    marked = [*words[:at], f'*{pronoun}*', *([rest] if rest else []), *words[at + 1 :]]
    return {**row, 'sentence': ' '.join(marked), 'answers': (row['span1_text'],)}


def _nearest_word(words: list[str], pronoun: str, at: int) -> int:
    """Where `pronoun`, perhaps with punctuation behind it, stands closest to word `at`.

    Two of WSC's indices point at a neighbour, or at a word with its quotation mark.
    """
    found = [i for i, word in enumerate(words) if re.fullmatch(re.escape(pronoun) + r'\W*', word)]
    if not found:
        raise UserError(f'the pronoun {pronoun!r} is not a word of {" ".join(words)!r}.')
    return min(found, key=lambda i: abs(i - at))


def dpr(row: Row) -> Row:
    """Definite pronoun resolution in the form of `wsc_simple`: its first pronoun is the one.

    >>> dpr({'sentence': 'Ann thanked Bea because she helped.', 'pronoun': 'she',
    ...      'candidates': ['Ann', 'Bea'], 'label': 1})['sentence']
    'Ann thanked Bea because *she* helped.'
    """
    pattern = f' ({re.escape(row["pronoun"])})([ .,])'
    sentence = re.sub(pattern, r' *\1*\2', row['sentence'], count=1)
    names = tuple(row['candidates'])
    return {**row, 'sentence': sentence, 'options': names, 'answers': (names[row['label']],)}
