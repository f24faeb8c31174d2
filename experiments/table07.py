"""Table 7: how APR gathers an image's tokens for each prototype.

    python experiments/table07.py --dataset mvtec3d --data-root ROOT --encoder dinov2-base
    python experiments/table07.py --quick

Claim: balanced optimal transport is a little better than the nearest tokens (top-k), and the mean
of all tokens is the worst.
Expected (paper, MVTec 3D-AD, 10 shots, I-AUROC): without APR 0.916, global 0.915, top-k 0.921,
balanced optimal transport 0.922.
Cost: 4 rows x 2 recipes x 10 categories x 5 draws.
"""

from harness.table import Table, TableRow, main
from paper import TABLE7

_CONTEXTS = {
    "without APR": "none",
    "global averaging": "global",
    "top-k averaging": "topk",
    "balanced optimal transport": "ot",
}
TABLE = Table(
    7,
    "aggregation of tokens in APR",
    tuple(
        TableRow(label, {"decoder.context": name}, paper=TABLE7[label])
        for label, name in _CONTEXTS.items()
    ),
)

if __name__ == "__main__":
    main(TABLE)
