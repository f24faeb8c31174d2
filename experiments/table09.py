"""Table 9: how tokens are assigned to prototypes (BPA).

    python experiments/table09.py --dataset mvtec3d --data-root ROOT --encoder dinov2-base
    python experiments/table09.py --quick

Claim: balanced optimal transport is better than softmax, linear and sigmoid attention. Softmax is
also Table 2's row without BPA.
Expected (paper, MVTec 3D-AD, 10 shots): I-AUROC 0.832, 0.845, 0.878, 0.922.
Cost: 4 rows x 2 recipes x 10 categories x 5 draws, 60 epochs each; see README.md.

A row of your own: an assignment by its import path, as in `pirn_jax.transport.assignments`.
"""

from harness.table import Table, TableRow, main
from paper import TABLE9

_NAMES = {
    "softmax attention": "softmax",
    "linear attention": "linear",
    "sigmoid attention": "sigmoid",
    "balanced optimal transport": "ot",
}
TABLE = Table(
    9,
    "assignment of tokens to prototypes in BPA",
    tuple(
        TableRow(label, {"decoder.assignment": name}, paper=TABLE9[label])
        for label, name in _NAMES.items()
    ),
)

if __name__ == "__main__":
    main(TABLE)
