"""What every command shares: typed flags, and errors a person can act on instead of a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from pirn_jax.errors import PirnError

USAGE_OR_DATA = 2  # exit code of a run that could not be done as asked


def run(
    main: Callable[..., Any], options: Any = None, arguments: Sequence[str] | None = None
) -> Any:
    """Parse the command line and call `main`.

    Args:
        main: a function whose parameters and docstring become flags and help.
        options: instead, a dataclass whose fields do; `main` is given one.
        arguments: instead of the process's own.

    Returns:
        What `main` returns. A `PirnError` is printed to stderr and ends the process with code 2,
        a keyboard interrupt with 130.
    """
    import tyro

    module = sys.modules["__main__"].__spec__
    program = f"python -m {module.name.removesuffix('.__main__')}" if module else None
    try:
        if options is None:
            return tyro.cli(main, args=arguments, prog=program)
        return main(tyro.cli(options, args=arguments, prog=program))
    except PirnError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        raise SystemExit(USAGE_OR_DATA) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
