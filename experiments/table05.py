"""Table 5: prototypes per modality, K.

    python experiments/table05.py --dataset mvtec3d --data-root ROOT --encoder dinov2-base
    python experiments/table05.py --quick

Claim: K = 10 is best; with more, anomalies find a prototype near them.
Expected (paper, MVTec 3D-AD, all shots, I-AUROC at K = 5, 10, 50, 100): 0.954, 0.963, 0.940, 0.901.
Cost: 4 rows x 2 recipes x 10 categories x 5 draws, all shots, 8 epochs.
"""

from harness.table import Table, TableRow, main
from paper import TABLE5

TABLE = Table(
    5,
    "number of prototypes K",
    tuple(
        TableRow(f"K = {count}", {"decoder.prototypes": int(count)}, shots=0, paper=figures)
        for count, figures in TABLE5.items()
    ),
)

if __name__ == "__main__":
    main(TABLE)
