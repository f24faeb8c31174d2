"""Table 11: MVTec 3D-AD, category by category, all shots.

    python experiments/table11.py --dataset mvtec3d --data-root ROOT --encoder dinov2-base
    python experiments/table11.py --quick

Expected (paper, means): I-AUROC 0.963, AUPRO 0.973; weakest tire (0.880), strongest rope (0.996).
Cost: (2 recipes + the methods of `--methods`) x 10 categories x 5 draws, all shots.
"""

from harness.options import Options
from harness.table import Table, TableRow, measured_rows, run_table
from paper import CITED, OURS, TABLE11

_METHODS = tuple(dict.fromkeys(name for table in TABLE11.values() for name in table))


def published(method: str, category: str) -> dict[str, float]:
    """A method's figures of a category, or of "mean", where the paper has them."""
    found = {metric: table.get(method, {}).get(category) for metric, table in TABLE11.items()}
    return {metric: value for metric, value in found.items() if value is not None}


TABLE = Table(
    11,
    "MVTec 3D-AD by category",
    (
        *(
            TableRow(f"mean of {name}", shots=0, paper=published(name, "mean"), cited=CITED)
            for name in _METHODS
            if name != OURS
        ),
        TableRow(OURS, shots=0),
    ),
    by_category=True,
    category_paper=lambda category: published(OURS, category),
)


def choose(options: Options) -> Table:
    """The table, and below it what was measured."""
    return TABLE.with_rows(*measured_rows(options, shots=0))


if __name__ == "__main__":
    run_table(choose)
