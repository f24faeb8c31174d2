"""The published figures of Tables 1 to 11, as data, and where they contradict each other.

Source: Li et al., "PIRN: Prototypical-based Intra-modal Reconstruction with Normality Communication
for Multimodal Anomaly Detection". Metrics are named as ours: i_auroc, p_auroc, aupro_0.3 (AUPRO up
to 30 %), i_f1max. The baselines of Table 1 are cited from their papers or rerun by the authors,
with another choice of shots than ours. None stands for a dash in the paper.
"""

from __future__ import annotations

Figures = dict[str, float]

OURS = "PIRN"
CITED = "cited, other sampling"
"""What stands beside a published figure of another system."""
MEASURED = "measured here, other shots"
"""What stands beside a figure of such a system that is ours."""

NOTES: dict[int, tuple[str, ...]] = {
    1: (
        "10 shots on MVTec 3D-AD: 0.922 here and in Tables 2, 3, 4, 7 and 9, but 0.924 in Table 6 "
        "(L = 2) and 0.923 in Table 10 (DINOv2 ViT-B/14) for what should be the same model; their "
        "P-AUROC and AUPRO differ too (0.991 / 0.966, 0.994 / 0.968, 0.993 / 0.968).",
    ),
    6: (
        "L = 2 is the full model, 0.922 / 0.991 / 0.966 in Table 1, whose P-AUROC and AUPRO are "
        "below those of L = 1 here.",
    ),
    7: ("Global averaging (0.915) is below no APR at all (0.916).",),
    8: (
        "The header announces eight methods, the rows hold seven: the last pair of columns is "
        "D3M's (the text gives D3M 0.890, fork_crimp_terminal 0.819, lego_propeller 0.739), though "
        "it stands under PIRN's head. Of PIRN's own figures the text keeps two averages (0.873 / "
        "0.961) and two categories (fork_crimp_terminal 0.978, lego_propeller 1.000).",
        "AST's averages printed, 0.693 / 0.650, are not those of its categories, 0.763 / 0.690.",
    ),
    10: ("DINOv2 ViT-B/14 is the full model, 0.922 / 0.991 / 0.966 in Table 1.",),
    11: (
        "Means printed that are not those of the categories printed. I-AUROC: BTF 0.865 (their "
        "mean is 0.873), Shape Guided 0.947 (0.950). AUPRO: BTF 0.959 (0.945), CFM 0.971 (0.965).",
    ),
}
"""What to know before comparing with a table."""

_NAMES = ("i_auroc", "p_auroc", "aupro_0.3", "i_f1max")


def _figures(text: str, names: tuple[str, ...] = _NAMES) -> Figures:
    values = [None if word == "-" else float(word) for word in text.split()]
    return {k: v for k, v in zip(names, values, strict=False) if v is not None}


def _table(text: str, names: tuple[str, ...] = _NAMES) -> dict[str, Figures]:
    """Lines of "row: figures"."""
    lines = [line.strip().rpartition(":") for line in text.strip().splitlines()]
    return {row: _figures(figures, names) for row, _, figures in lines}


_TABLE1 = {
    ("mvtec3d", 5): """
        BTF: 0.671 0.980 0.920
        AST: 0.680 0.950 0.903
        M3DM: 0.822 0.984 0.937
        CFM: 0.811 0.986 0.949
        3D-ADNAS: 0.826 - -
        INP-Former: 0.851 0.988 0.957
        PIRN: 0.890 0.990 0.960""",
    ("mvtec3d", 10): """
        BTF: 0.695 0.983 0.928
        AST: 0.689 0.946 0.835
        M3DM: 0.845 0.986 0.943
        CFM: 0.845 0.987 0.954
        3D-ADNAS: 0.848 - -
        INP-Former: 0.885 0.989 0.960
        PIRN: 0.922 0.991 0.966""",
    ("mvtec3d", 50): """
        BTF: 0.806 0.989 0.947
        AST: 0.794 0.974 0.929
        M3DM: 0.907 0.989 0.955
        CFM: 0.906 0.991 0.965
        3D-ADNAS: 0.890 - -
        INP-Former: 0.921 0.991 0.965
        PIRN: 0.945 0.993 0.970""",
    ("mvtec3d", 0): """
        BTF: 0.865 0.992 0.959
        AST: 0.937 0.976 0.944
        M3DM: 0.945 0.992 0.964
        CFM: 0.954 0.993 0.971
        3D-ADNAS: 0.951 - -
        INP-Former: 0.952 0.994 0.971
        PIRN: 0.963 0.994 0.973""",
    ("eyecandies", 5): """
        BTF: 0.652 0.815 0.738
        AST: 0.633 0.741 0.691
        M3DM: 0.764 0.871 0.807
        CFM: 0.795 0.879 0.801
        3D-ADNAS: 0.775 0.875 -
        INP-Former: 0.859 0.946 0.862
        PIRN: 0.895 0.955 0.887""",
    ("eyecandies", 10): """
        BTF: 0.685 0.834 0.806
        AST: 0.671 0.767 0.624
        M3DM: 0.824 0.890 0.812
        CFM: 0.838 0.903 0.825
        3D-ADNAS: 0.807 0.869 -
        INP-Former: 0.872 0.947 0.870
        PIRN: 0.912 0.969 0.896""",
    ("eyecandies", 50): """
        BTF: 0.721 0.856 0.824
        AST: 0.739 0.862 0.715
        M3DM: 0.836 0.933 0.846
        CFM: 0.852 0.926 0.851
        3D-ADNAS: 0.868 0.912 -
        INP-Former: 0.902 0.967 0.892
        PIRN: 0.924 0.975 0.908""",
    ("eyecandies", 0): """
        BTF: 0.740 0.883 0.845
        AST: 0.780 0.902 0.744
        M3DM: 0.882 0.977 0.887
        CFM: 0.881 0.974 0.887
        3D-ADNAS: 0.946 0.970 -
        INP-Former: 0.934 0.981 0.918
        PIRN: 0.948 0.983 0.923""",
}
TABLE1 = {place: _table(text) for place, text in _TABLE1.items()}
"""(dataset, shots; 0: all) → method → figures."""

TABLE2 = _table("""
    - - -: 0.828 0.976 0.952
    - APR MNC: 0.883 0.990 0.956
    BPA - MNC: 0.916 0.990 0.961
    BPA APR -: 0.867 0.988 0.947
    BPA APR MNC: 0.922 0.991 0.966""")
"""The modules that are there → figures; MVTec 3D-AD, 10 shots."""

TABLE3 = {
    (shots, row): figures
    for shots, text in {
        5: """
            RGB: 0.794 0.966 0.890 0.910
            normals: 0.854 0.972 0.912 0.932
            RGB + normals: 0.890 0.990 0.960 0.940""",
        10: """
            RGB: 0.827 0.968 0.901 0.921
            normals: 0.879 0.974 0.920 0.937
            RGB + normals: 0.922 0.991 0.966 0.951""",
        0: """
            RGB: 0.874 0.977 0.917 0.929
            normals: 0.937 0.977 0.928 0.946
            RGB + normals: 0.963 0.994 0.973 0.962""",
    }.items()
    for row, figures in _table(text).items()
}
"""(shots, modalities) → figures; MVTec 3D-AD."""

TABLE4 = _table(
    """
    M3DM: 0.845 263.27 21.61
    CFM: 0.845 552.53 60.57
    FIND: 0.921 728.46 76.09
    PIRN: 0.922 103.36 17.49""",
    ("i_auroc", "gflops", "milliseconds"),
)
"""Method → I-AUROC at 10 shots, GFLOPs and latency at 224 x 224, batch 1; on RTX 4090s."""

TABLE5 = _table("""
    5: 0.954 0.993 0.969 0.957
    10: 0.963 0.994 0.973 0.962
    50: 0.940 0.991 0.966 0.952
    100: 0.901 0.984 0.950 0.947""")
"""Prototypes K → figures; MVTec 3D-AD, all shots."""

TABLE6 = _table("""
    1: 0.921 0.993 0.967
    2: 0.924 0.994 0.968
    4: 0.913 0.992 0.964
    8: 0.869 0.985 0.949""")
"""Decoder layers L → figures; 10 shots."""

TABLE7 = _table("""
    without APR: 0.916 0.990 0.961
    global averaging: 0.915 0.989 0.960
    top-k averaging: 0.921 0.991 0.964
    balanced optimal transport: 0.922 0.991 0.966""")
"""Aggregation of tokens in APR → figures; MVTec 3D-AD, 10 shots."""

TABLE8_METHODS = ("Cflow", "SimpleNet", "PointMAE", "AST", "PointMAE+PatchCore", "M3DM", "D3M")
TABLE8 = {
    row: {
        method: {"i_auroc": values[f"{k}i"], "p_auroc": values[f"{k}p"]}
        for k, method in enumerate(TABLE8_METHODS)
    }
    for row, values in _table(
        """
    audio_jack_socket: .943 .944 .973 .926 .763 .655 .860 .590 .926 .673 .981 .699 .983 .757
    common_mode_filter: .271 .847 .717 .822 .725 .687 .899 .802 .523 .922 .580 .934 .618 .947
    connector_housing_female: .839 .921 .795 .891 .958 .428 .914 .716 .870 .919 .920 .979 .931 .951
    crimp_s_t_cable_mount_box: .180 .442 .372 .745 .291 .363 .485 .589 .713 .931 .749 .933 .811 .969
    dc_power_connector: .661 .726 .661 .725 .849 .507 .995 .770 .720 .921 .715 .950 .922 .947
    ethernet_connector: .967 .853 .981 .866 1.000 .656 1.000 .906 .947 .956 .983 .978 .996 .970
    ferrite_bead: .529 .914 .408 .806 .634 .717 .894 .817 .913 .932 .965 .966 .967 .978
    fork_crimp_terminal: .462 .657 .416 .945 .422 .62 .595 .773 .769 .952 .780 .964 .819 .946
    fuse_holder: .853 .861 .564 .957 .309 .605 .597 .754 .736 .927 .770 .948 .866 .915
    headphone_jack_socket: .996 .914 .933 .879 .607 .633 .660 .696 .919 .942 .982 .982 .994 .987
    humidity_sensor: .781 .836 .737 .890 .644 .562 .565 .723 .689 .933 .717 .958 .780 .969
    knob_zap: .637 .893 .672 .879 .656 .425 .919 .656 .903 .958 .925 .938 .931 .947
    lattice_block_plug: .833 .852 .790 .898 .769 .776 .842 .919 .911 .923 .917 .958 .939 .941
    lego_pin_connector_plate: .828 .877 .857 .947 .361 .482 .847 .629 .662 .759 .681 .734 .891 .889
    lego_propeller: .615 .739 .939 .799 .348 .620 .471 .703 .540 .727 .530 .773 .739 .863
    limit_switch: .846 .950 .823 .790 .763 .545 .804 .641 .822 .938 .863 .966 .925 .984
    miniature_lifting_motor: .402 .799 .402 .760 .717 .435 .766 .467 .948 .962 .975 .991 .823 .961
    power_jack: .354 .664 .176 .489 .433 .687 .564 .645 .981 .923 .996 .902 .973 .947
    purple_clip_pot: .343 .571 .343 .938 .869 .271 .635 .445 .921 .961 .944 .953 .962 .922
    telephone_spring_switch: .575 .910 .627 .916 .771 .413 .951 .551 .827 .944 .856 .936 .934 .957
    mean: .645 .808 .659 .843 .644 .554 .693 .650 .812 .905 .841 .922 .890 .937""",
        tuple(f"{k}{metric}" for k in range(7) for metric in "ip"),
    ).items()
}
"""Category or "mean" → method → figures; Real-IAD D3, all shots. PIRN's own are `TABLE8_OURS`."""
TABLE8_OURS: dict[str, Figures] = {
    "mean": {"i_auroc": 0.873, "p_auroc": 0.961},
    "fork_crimp_terminal": {"i_auroc": 0.978},
    "lego_propeller": {"i_auroc": 1.000},
}

TABLE9 = _table("""
    softmax attention: 0.832 0.967 0.929
    linear attention: 0.845 0.968 0.931
    sigmoid attention: 0.878 0.976 0.954
    balanced optimal transport: 0.922 0.991 0.966""")
"""Assignment of tokens to prototypes → figures; MVTec 3D-AD, 10 shots."""

TABLE10 = _table("""
    DINO ViT-B/8: 0.892 0.974 0.946
    DINOv2 ViT-B/14: 0.923 0.993 0.968
    DINOv2 ViT-L/14: 0.928 0.994 0.970""")
"""Backbone → figures; MVTec 3D-AD, 10 shots."""

MVTEC3D = ("bagel", "cable_gland", "carrot", "cookie", "dowel", "foam", "peach", "potato", "rope",
           "tire")  # fmt: skip
_TABLE11 = {
    "i_auroc": """
        BTF: .938 .765 .972 .888 .960 .664 .904 .929 .982 .726 .865
        AST: .983 .873 .976 .971 .932 .885 .974 .981 1.000 .797 .937
        M3DM: .994 .909 .972 .976 .960 .942 .973 .899 .972 .850 .945
        CFM: .994 .888 .984 .993 .980 .888 .941 .943 .980 .953 .954
        3D-ADNAS: .997 1.000 .971 .986 .966 .948 .897 .873 1.000 .867 .951
        Shape Guided: .986 .894 .983 .991 .976 .857 .990 .965 .990 .869 .947
        PIRN: .971 .973 .941 .957 .975 .993 .992 .950 .996 .880 .963""",
    "aupro_0.3": """
        BTF: .976 .969 .979 .973 .933 .888 .896 .912 .950 .971 .959
        AST: .970 .947 .981 .939 .913 .906 .979 .982 .889 .940 .944
        M3DM: .970 .971 .979 .950 .941 .932 .977 .971 .971 .975 .964
        CFM: .979 .972 .982 .945 .950 .968 .980 .943 .950 .981 .971
        Shape Guided: .981 .973 .982 .971 .962 .978 .981 .983 .974 .975 .976
        PIRN: .966 .978 .983 .972 .976 .971 .981 .978 .974 .951 .973""",
}
TABLE11 = {metric: _table(text, (*MVTEC3D, "mean")) for metric, text in _TABLE11.items()}
"""Metric → method → category or "mean" → figure; MVTec 3D-AD, all shots."""
