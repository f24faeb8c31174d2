"""Table 2: what each module contributes.

    python experiments/table02.py --dataset mvtec3d --data-root ROOT --encoder dinov2-base
    python experiments/table02.py --quick

Claim: without BPA (softmax in its place), without APR (prototypes as learned) or without MNC the
system is worse, and without all three by far.
Expected (paper, MVTec 3D-AD, 10 shots, I-AUROC): none 0.828, without BPA 0.883, APR 0.916,
MNC 0.867; all 0.922.
Cost: 5 rows x 2 recipes x 10 categories x 5 draws.
"""

from harness.table import Table, TableRow, main
from paper import TABLE2

_OFF = {
    "BPA": ("decoder.assignment", "softmax"),
    "APR": ("decoder.context", "none"),
    "MNC": ("decoder.communicate", False),
}
TABLE = Table(
    2,
    "contribution of each component",
    tuple(
        TableRow(
            "without " + " and ".join(missing) if missing else "BPA, APR and MNC",
            tuple(_OFF[name] for name in missing),
            paper=figures,
        )
        for label, figures in TABLE2.items()
        for missing in [[name for name in _OFF if name not in label.split()]]
    ),
)

if __name__ == "__main__":
    main(TABLE)
