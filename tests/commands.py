"""The command line as a user meets it who made a mistake."""

from __future__ import annotations

import pytest

from pt2tt_jax.cli import main


def failure(capsys, arguments: list[str]) -> str:
    """The one sentence with which a command ends."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    message = capsys.readouterr().err.strip()
    assert len(message.splitlines()) == 1
    return message
