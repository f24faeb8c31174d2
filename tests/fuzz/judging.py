"""One damaged input, read: what came of it, and whether that may be.

A reader may give what it read, or the package's own error with the file's name in it. Everything
else is a finding: another exception, more than `SECONDS` of processor time, more than `MEMORY`
above what the process held, a reading that breaks its promises, or one of something sealed that
differs from the clean one and does not say so. That a process ends or hangs is seen by whoever
started it (`running`).
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pirn_jax.errors import PirnError
from tests.fuzz.mutations import mutate, mutate_text
from tests.scans.hostile.peak import peak_memory, reset_peak

SECONDS = 2.0
MEMORY = 64 << 20
SOUND = ("read", "refused")
FINDINGS = ("foreign", "unnamed", "changed", "hang", "memory", "crash")
OUTCOMES = SOUND + FINDINGS
TEXT = (".json", ".yaml", ".csv", ".jsonl")

Files = Mapping[str, bytes]
"""A sound example: what its files hold, by their path in its folder."""


class Kind(NamedTuple):
    """What is read, and how.

    Attributes:
        name: of the kind.
        sound: examples that can be read.
        read: what reads a folder with such files. It may return something; of what is sealed it
            returns all that came out, or None where that is to be made anew.
        sealed: what is read must be what the clean example gives.
        share: how often it is taken, relative to others; reading some kinds takes longer.
        reseal: makes seals right again after a change, as one who wants to deceive would; applied
            to a third of the inputs, which then may differ.
    """

    name: str
    sound: Sequence[Files]
    read: Callable[[Path], object]
    sealed: bool = False
    share: float = 1.0
    reseal: Callable[[Path], None] | None = None


class Verdict(NamedTuple):
    """One of `OUTCOMES`, and what was seen."""

    outcome: str
    detail: str = ""


class Judge:
    """Damages and reads inputs of one kind; the same number of a seed is the same input.

    Args:
        kind: of the inputs.
        folder: to write them in.
        seed: of all of them.
    """

    def __init__(self, kind: Kind, folder: Path, seed: int):
        self._kind, self._folder, self._seed = kind, folder, seed
        self._clean = []
        for files in kind.sound:
            self._write(files)
            self._clean.append(kind.read(folder))  # raises where it is not sound

    def _write(self, files: Files) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        for name, content in files.items():
            path = self._folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def damage(self, number: int) -> tuple[int, bool]:
        """Write an input; returns which example it was made of, and whether seals were mended."""
        source = random.Random(f"{self._seed} {self._kind.name} {number}")
        example = source.randrange(len(self._kind.sound))
        files = self._kind.sound[example]
        name = source.choice(sorted(files))
        if Path(name).suffix in TEXT and source.random() < 0.6:
            content = mutate_text(files[name], source)
        else:
            suffix = Path(name).suffix
            others = [
                other
                for some in self._kind.sound
                for title, other in some.items()
                if title.endswith(suffix)
            ]
            content = mutate(files[name], source, others)
        self._write({**files, name: content})
        resealed = self._kind.reseal is not None and source.random() < 1 / 3
        if self._kind.reseal is not None and resealed:
            self._kind.reseal(self._folder)
        return example, resealed

    def judge(self, number: int) -> Verdict:
        """Make the input of that number, read it, and say what came of it."""
        example, resealed = self.damage(number)
        before, start = reset_peak(), time.process_time()
        try:
            found = self._kind.read(self._folder)
        except PirnError as error:
            named = bool(error.path) and bool(error.problem)
            verdict = Verdict("refused" if named else "unnamed", str(error))
        except BaseException as error:
            verdict = Verdict("foreign", f"{type(error).__name__}: {error}"[:300])
        else:
            if found is None and self._clean[example] is not None:
                verdict = Verdict("refused")  # and made anew
            elif self._kind.sealed and not resealed and found != self._clean[example]:
                verdict = Verdict("changed")
            else:
                verdict = Verdict("read")
        seconds, grown = time.process_time() - start, peak_memory() - before
        if seconds > SECONDS:
            return Verdict("hang", f"{seconds:.1f} s, {verdict}")
        if grown > MEMORY:
            return Verdict("memory", f"{grown >> 20} MiB, {verdict}")
        return verdict
