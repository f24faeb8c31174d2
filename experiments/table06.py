"""Table 6: decoder layers, L.

    python experiments/table06.py --dataset mvtec3d --data-root ROOT --encoder dinov2-base
    python experiments/table06.py --quick

Claim: L = 2 is best; deeper decoders overfit a few shots.
Expected (paper, 10 shots, I-AUROC at L = 1, 2, 4, 8): 0.921, 0.924, 0.913, 0.869.
Cost: 4 rows x 2 recipes x 10 categories x 5 draws; compiling and training grow with L.
"""

from harness.table import Table, TableRow, main
from paper import TABLE6

TABLE = Table(
    6,
    "number of decoder layers L",
    tuple(
        TableRow(f"L = {count}", {"decoder.layers": int(count)}, paper=figures)
        for count, figures in TABLE6.items()
    ),
)

if __name__ == "__main__":
    main(TABLE)
