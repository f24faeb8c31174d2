"""Hostile archives and clouds: NPZ, PCD, PLY."""

import functools
import io
import stat
import struct
import zipfile

from tests.scans.hostile.corpus import cuts, one_file
from tests.scans.hostile.pictures import SOUND_PNG
from tests.scans.hostile.points import BODY, SOUND_NPY, XYZ, described, npy_header, object_array

# ------------------------------------------------------------------------------ NPZ and archives


def zipped(members, method=zipfile.ZIP_DEFLATED, change=None):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            if change:
                change(info)
            archive.writestr(info, data)
    return stream.getvalue()


def flagged(data, flag):
    """Set a flag bit in every local and central header."""
    data = bytearray(data)
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(signature)
        while at >= 0:
            data[at + offset] |= flag
            at = data.find(signature, at + 4)
    return bytes(data)


def resized(data, size):
    """Lie about the inflated size in the central directory."""
    data = bytearray(data)
    at = data.find(b"PK\x01\x02")
    struct.pack_into("<I", data, at + 24, size)
    return bytes(data)


def linked(info):
    info.external_attr = (stat.S_IFLNK | 0o777) << 16


def repeated():
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of the duplicate that is wanted here
        return zipped([("xyz.npy", SOUND_NPY)] * 2)


def npz_bomb():
    """A point map of 8000×8000 zeros, which a few hundred kilobytes hold."""
    stream = io.BytesIO()
    head = npy_header(described("(8000, 8000, 3)"))
    with (
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("xyz.npy", "w") as member,
    ):
        member.write(head)
        for _ in range(768):
            member.write(bytes(1_000_000))
    return stream.getvalue()


@functools.cache
def crowded():
    return zipped([(f"{i}.npy", b"") for i in range(120_000)], zipfile.ZIP_STORED)


SOUND_NPZ = zipped([("xyz.npy", SOUND_NPY)])
for at in cuts(SOUND_NPZ):
    one_file(f"npz cut at {at}", "xyz", "a.npz", SOUND_NPZ[:at])
ARCHIVES = {
    "climbing out": lambda: zipped([("../../xyz.npy", SOUND_NPY)]),
    "climbing out half-way": lambda: zipped([("a/../../xyz.npy", SOUND_NPY)]),
    "with an absolute name": lambda: zipped([("/etc/xyz.npy", SOUND_NPY)]),
    "with a drive letter": lambda: zipped([("C:/xyz.npy", SOUND_NPY)]),
    "with backslashes": lambda: zipped([("..\\xyz.npy", SOUND_NPY)]),
    "with a home folder": lambda: zipped([("~/xyz.npy", SOUND_NPY)]),
    "with a line break in a name": lambda: zipped([("xyz\n.npy", SOUND_NPY)]),
    "with an empty name": lambda: zipped([("", SOUND_NPY)]),
    "with a symbolic link": lambda: zipped([("xyz.npy", b"/etc/passwd")], change=linked),
    "with a member twice": repeated,
    "encrypted": lambda: flagged(SOUND_NPZ, 1),
    "compressed by bzip2": lambda: zipped([("xyz.npy", SOUND_NPY)], zipfile.ZIP_BZIP2),
    "compressed by lzma": lambda: zipped([("xyz.npy", SOUND_NPY)], zipfile.ZIP_LZMA),
    "with 120000 members": crowded,
    "behind a picture": lambda: SOUND_PNG + SOUND_NPZ,
    "whose sizes lie low": lambda: resized(SOUND_NPZ, 100),
    "whose sizes lie high": lambda: resized(SOUND_NPZ, 10**6),
    "whose size is 4 GB": lambda: resized(SOUND_NPZ, 2**32 - 2),
    "without its list": lambda: SOUND_NPZ[: SOUND_NPZ.index(b"PK\x01\x02")],
    "that is empty": lambda: zipped([]),
}
for label, content in ARCHIVES.items():
    one_file(f"npz {label}", "xyz", "a.npz", content)
one_file("npz bomb", "xyz", "a.npz", npz_bomb)
one_file(
    "npz of two arrays, none named xyz",
    "xyz",
    "a.npz",
    lambda: zipped([("one.npy", SOUND_NPY), ("two.npy", SOUND_NPY)]),
)
one_file("npz of pickled objects", "xyz", "a.npz", lambda: zipped([("xyz.npy", object_array())]))
one_file(
    "npz with a damaged member", "xyz", "a.npz", lambda: zipped([("xyz.npy", SOUND_NPY[:300])])
)


# ------------------------------------------------------------------------------------ PCD, PLY


def pcd(data="binary", body=None, **changes):
    lines = {
        "VERSION": ".7",
        "FIELDS": "x y z",
        "SIZE": "4 4 4",
        "TYPE": "F F F",
        "COUNT": "1 1 1",
        "WIDTH": "16",
        "HEIGHT": "12",
        "POINTS": "192",
        **changes,
    }
    head = "".join(f"{name} {value}\n" for name, value in lines.items() if value is not None)
    return f"{head}DATA {data}\n".encode() + (BODY if body is None else body)


def lzf(body, stored=None, size=None):
    size = len(BODY) if size is None else size
    return struct.pack("<II", len(body) if stored is None else stored, size) + body


PLANES = XYZ.transpose(2, 0, 1).tobytes()  # compressed points are stored field by field
LITERALS = b"".join(b"\x1f" + PLANES[at : at + 32] for at in range(0, len(PLANES), 32))
for at in cuts(pcd())[:-1]:
    one_file(f"pcd cut at {at}", "xyz", "a.pcd", pcd()[:at])
for label, data in {
    "width that lies": pcd(WIDTH="160"),
    "points that lie": pcd(POINTS="19200"),
    "grid of 10^6×10^6": pcd(WIDTH="1000000", HEIGHT="1000000", POINTS="1000000000000"),
    "negative width": pcd(WIDTH="-16", HEIGHT="-12"),
    "no points": pcd(WIDTH="0", HEIGHT="0", POINTS="0", body=b""),
    "width in words": pcd(WIDTH="sixteen"),
    "without a grid": pcd(WIDTH="192", HEIGHT="1"),
    "no size": pcd(WIDTH=None),
    "no fields": pcd(FIELDS=None),
    "fields without z": pcd(FIELDS="x y w"),
    "the field x twice": pcd(FIELDS="x x y z", SIZE="4 4 4 4", TYPE="F F F F", COUNT="1 1 1 1"),
    "an unknown type": pcd(TYPE="F F Q"),
    "a size of three bytes": pcd(SIZE="4 4 3"),
    "a field of 10^9 values": pcd(COUNT="1 1 1000000000"),
    "unequal lists": pcd(SIZE="4 4"),
    "an unknown encoding": pcd("binary_encrypted"),
    "bytes behind its end": pcd(body=BODY + b"more"),
    "ascii words": pcd("ascii", b"one two three\n" * 192),
    "ascii too few": pcd("ascii", b"1 2 3\n" * 191),
    "ascii too many": pcd("ascii", b"1 2 3\n" * 193),
    "ascii number of a megabyte": pcd("ascii", b"1" * (1 << 20) + b" 2 3\n" * 192),
    "lzf cut short": pcd("binary_compressed", lzf(LITERALS[:-20])),
    "lzf size that lies": pcd("binary_compressed", lzf(LITERALS, size=10**9)),
    "lzf stored size that lies": pcd("binary_compressed", lzf(LITERALS, stored=10**9)),
    "lzf copy from before its beginning": pcd("binary_compressed", lzf(b"\xff\xff\xff" * 99)),
    "lzf that unpacks to more": pcd("binary_compressed", lzf(b"\0\0" + b"\xe0\xff\0" * 4000)),
    "lzf without its sizes": pcd("binary_compressed", b"\1\0"),
    "a header without end": b"VERSION .7\n" + b"# comment\n" * 20_000,
    "a header of other letters": pcd(FIELDS="x y \xe9"),
}.items():
    one_file(f"pcd {label}", "xyz", "a.pcd", data)


def lzf_bomb():
    """A legal size and 88-fold copies: 60 million points of zeros."""
    grid = {"WIDTH": "10000", "HEIGHT": "6000", "POINTS": "60000000"}
    body = b"\0\0" + b"\xe0\xff\0" * (720_000_000 // 264)
    return pcd("binary_compressed", lzf(body, size=720_000_000), **grid)


one_file("pcd lzf bomb", "xyz", "a.pcd", lzf_bomb)


def ply(
    form="binary_little_endian 1.0",
    count=192,
    properties=("float x", "float y", "float z"),
    notes=("obj_info num_cols 16", "obj_info num_rows 12"),
    before=(),
    body=BODY,
    end="end_header\n",
):
    lines = ["ply", f"format {form}", *notes, *before, f"element vertex {count}"]
    lines += [f"property {name}" for name in properties]
    return ("\n".join(lines) + "\n" + end).encode() + body


for at in cuts(ply())[:-1]:
    one_file(f"ply cut at {at}", "xyz", "a.ply", ply()[:at])
for label, data in {
    "count that lies": ply(count=19_200, notes=("obj_info num_cols 160", "obj_info num_rows 120")),
    "count of 10^12": ply(count=10**12, notes=("comment width 1000000", "comment height 1000000")),
    "no vertices": ply(count=0),
    "negative count": ply(count=-192),
    "count in words": ply(count="many"),
    "a list in each vertex": ply(properties=("list uchar int x", "float y", "float z")),
    "faces before its vertices": ply(before=("element face 3", "property list uchar int i")),
    "an unknown type": ply(properties=("quad x", "quad y", "quad z")),
    "no z": ply(properties=("float x", "float y")),
    "the property x twice": ply(properties=("float x", "float x", "float y", "float z")),
    "an unknown format": ply("binary_middle_endian 1.0"),
    "no format": ply("1.0"),
    "version 2": ply("ascii 2.0"),
    "no grid": ply(notes=()),
    "a grid that does not fit": ply(notes=("obj_info num_cols 17", "obj_info num_rows 12")),
    "a grid in words": ply(notes=("obj_info num_cols wide",)),
    "no end of its header": ply(end=""),
    "ascii words": ply("ascii 1.0", body=b"a b c\n" * 192),
    "ascii too few": ply("ascii 1.0", body=b"1 2 3\n" * 100),
    "magic missing": ply()[3:],
}.items():
    one_file(f"ply {label}", "xyz", "a.ply", data)
