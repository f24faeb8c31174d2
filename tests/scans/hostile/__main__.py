"""Read every hostile file once; print what came out, its processor time and peak memory."""

import json
import sys
import time
from pathlib import Path

from pirn_jax.errors import BadInputError
from tests.scans import layouts
from tests.scans.hostile.corpus import CASES
from tests.scans.hostile.datasets import read_all
from tests.scans.hostile.peak import peak_memory, reset_peak


def main(folder):
    """Read every case once; JSON lines: name, error, processor seconds, bytes the peak grew by."""
    # One sound scan first, so that libraries loaded on first use do not count as a case's memory.
    layouts.mvtec3d(Path(folder) / "sound", "bagel")
    read_all("mvtec3d", Path(folder) / "sound", "bagel")
    for number, (name, build) in enumerate(CASES.items()):
        here = Path(folder) / str(number)
        here.mkdir()
        attempt = build(here)
        before, start = reset_peak(), time.process_time()
        try:
            attempt()
            result = "read"
        except BadInputError as error:
            complete = error.problem and error.remedy and error.path
            result = "BadInputError" if complete else f"incomplete: {error!r}"
        except BaseException as error:
            result = repr(error)
        seconds, grown = time.process_time() - start, peak_memory() - before
        sys.stdout.write(json.dumps([name, result, seconds, grown]) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
