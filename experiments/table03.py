"""Table 3: one modality alone, and both.

    python experiments/table03.py --dataset mvtec3d --data-root ROOT --encoder dinov2-base
    python experiments/table03.py --quick

Claim: normals alone are better than RGB alone, and both better than either. The detector of one
modality sees the same photographs, background and all, as the detector of both.
Expected (paper, MVTec 3D-AD, 10 shots, I-AUROC): RGB 0.827, normals 0.879, both 0.922.
Cost: 9 rows x 2 recipes x 10 categories x 5 draws.
"""

from harness.table import Table, TableRow, main
from paper import TABLE3

_STREAMS = {
    "RGB": ("rgb",),
    "normals": ("normals",),
    "RGB + normals": ("rgb", "normals"),
}
TABLE = Table(
    3,
    "modalities",
    tuple(
        TableRow(
            f"{shots or 'all'} shots: {name}", shots=shots, paper=paper, modalities=_STREAMS[name]
        )
        for (shots, name), paper in TABLE3.items()
    ),
    quick_shots={5: 5},
)

if __name__ == "__main__":
    main(TABLE)
