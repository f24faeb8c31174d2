"""Table 8: Real-IAD D3, category by category, all shots.

    python experiments/table08.py --dataset real_iad_d3 --data-root ROOT --encoder dinov2-base
    python experiments/table08.py --quick

Claim: best P-AUROC (0.961 on average), second-best I-AUROC (0.873; D3M, which has a third kind of
picture, 0.890). The paper's table has lost PIRN's own columns but for these averages and two
categories; the other systems' averages are cited, and every method of `--methods` is measured.
Cost: (2 recipes + the methods measured) x 20 categories x 5 draws, all shots.
"""

from harness.options import Options
from harness.table import Table, TableRow, measured_rows, run_table
from paper import CITED, TABLE8, TABLE8_OURS

TABLE = Table(
    8,
    "Real-IAD D3",
    (
        *(
            TableRow(f"mean of {method}", shots=0, paper=figures, cited=CITED)
            for method, figures in TABLE8["mean"].items()
        ),
        TableRow("PIRN", shots=0),
    ),
    of="Real-IAD D3",
    by_category=True,
    category_paper=lambda category: TABLE8_OURS.get(category, {}),
)


def choose(options: Options) -> Table:
    """The table, and below it what was measured."""
    return TABLE.with_rows(*measured_rows(options, shots=0))


if __name__ == "__main__":
    run_table(choose)
