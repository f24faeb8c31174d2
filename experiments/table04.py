"""Table 4: FLOPs and latency.

    python benchmarks/latency.py --json benchmarks/results/latency.json
    python benchmarks/systems.py --json benchmarks/results/latency_systems.json
    python experiments/table04.py

Puts the paper's figures, cited, beside what `benchmarks/latency.py` measured: it runs the detector,
the same model in plain PyTorch and two of the other systems in turn, at 224 x 224 and batch 1, and
keeps the hardware in its JSON; `benchmarks/systems.py` does so with three more. Files measured at
another size are left out; AST alone sees a larger photograph, and its row says so. Nothing is run
here; the machine is never the paper's (RTX 4090).
Expected (paper): M3DM 263.27 G, 21.61 ms; CFM 552.53 G, 60.57 ms; FIND 728.46 G, 76.09 ms; PIRN
103.36 G, 17.49 ms.
Cost: seconds.
"""

import csv
import io
from pathlib import Path
from typing import Any

from harness.options import Options
from harness.options import command as own_command
from paper import TABLE4
from pirn_jax import command
from pirn_jax.errors import BadInputError
from pirn_jax.storage import read_object, write_whole

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"
MAKES = "python benchmarks/latency.py --json benchmarks/results/latency.json"
SIZE = 224


def measured(folder: Path = RESULTS) -> list[tuple[Path, dict[str, Any]]]:
    """The benchmark's files that hold the table's rows, of pictures of 224²."""
    found = []
    for path in sorted(folder.glob("latency*.json")):
        document = read_object(path)
        if not isinstance(document.get("table_4"), list):
            raise BadInputError("no rows of Table 4 in it", f"make it again: {MAKES}", path)
        encoders = document.get("encoders", {}).values()
        if all(one.get("size", SIZE) == SIZE for one in encoders):
            found.append((path, document))
    return found


def lines(found: list[tuple[Path, dict[str, Any]]]) -> list[list[str]]:
    """System, GFLOPs, milliseconds, where from."""
    rows = [
        [name, f"{row['gflops']:.2f}", f"{row['milliseconds']:.2f}", "paper, cited: RTX 4090"]
        for name, row in TABLE4.items()
    ]
    for path, document in found:
        machine = document.get("environment", {})
        device, processor = machine.get("device", ""), machine.get("processor", "")
        where = f"measured: {device} ({processor}), {path.name}"
        for row in document["table_4"]:
            if row.get("measured"):
                flops = "" if row.get("gflops") is None else f"{row['gflops']:.2f}"
                rows.append([str(row["system"]), flops, f"{row['ms']:.2f}", where])
    return rows


def main(options: Options) -> None:
    """Print the table, and write it."""
    found = measured()
    if options.dry_run:
        print(f"nothing to run; {len(found)} files of benchmarks/latency.py to read")
        return
    head = ["system", "GFLOPs", "latency, ms", "source"]
    rows = lines(found)
    if found:
        note = (
            "FLOPs: one multiply-add counts 2. Latency: median, pictures on the device. `pirn` "
            "is the trained decoder, recipe `default` or `paper`; `mixture` runs by default."
        )
    else:
        note = f"**No measurement of ours is at hand.** Make one: `{MAKES}`"
    text = "\n".join(
        [
            "# Table 4: efficiency at 224 × 224, batch 1\n",
            f"    {own_command()}\n",
            f"| {' | '.join(head)} |",
            "| --- | ---: | ---: | --- |",
            *(f"| {' | '.join(row)} |" for row in rows),
            f"\n{note}\n",
        ]
    )
    print(text)
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([head, *rows])
    write_whole(options.out / "table04.md", text.encode())
    write_whole(options.out / "table04.csv", stream.getvalue().encode())


if __name__ == "__main__":
    command.run(main, Options)
