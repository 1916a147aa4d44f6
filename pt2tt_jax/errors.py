"""Errors that a user can mend: one clear sentence that says what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Input, option or file that cannot be used.

    The command line prints the message alone and exits with status 2; in Python it is an
    ordinary exception.
    """


class OutOfMemory(UserError):
    """A model, or a population of them, for which a device has no room."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence that points from a misspelt `name` to the closest of `known`."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return f'Did you mean {" or ".join(map(repr, close))}?'
    if not known:
        return 'None is known.'
    more = f' and {len(known) - 20} more' if len(known) > 20 else ''
    return f'Known: {", ".join(known[:20])}{more}.'
