"""A work is killed at each of its operations, taken up again, and must end as if it never was."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from tests.kills.states import every_state, put
from tests.kills.works import Work, outcome


def kill_at_every_operation(
    work: Work,
    folder: Path,
    *,
    step: int = 1,
    tell: Callable[[int, int], None] = lambda done, of: None,
) -> int:
    """Kill, check what is left, go on, and compare the end.

    Args:
        work: what is killed.
        folder: to do it in.
        step: so many states on each time.
        tell: called with how many are done, of how many.

    Returns:
        How many kills there were.

    Raises:
        AssertionError: something half-written was read, or the end is another.
    """
    root = folder / "root"
    shutil.rmtree(folder, ignore_errors=True)
    root.mkdir(parents=True)
    work.before(root)
    with every_state(root, folder / "kept") as states:
        work.do(root)
    undisturbed = outcome(root)
    work.check(root)
    taken = states.copies[::step]
    for number, state in enumerate(taken):
        put(state, root)
        work.check(root)
        work.again(root)
        found = outcome(root)
        assert found.keys() == undisturbed.keys(), state
        wrong = [name for name, content in found.items() if content != undisturbed[name]]
        assert wrong == [], state
        tell(number + 1, len(taken))
    return len(taken)
