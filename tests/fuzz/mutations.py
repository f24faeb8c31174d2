"""Sound bytes → damaged or hostile ones: what bad disks, bad copies and bad people make of files.

Most changes are blind. What a checksum would catch at once is mended in half of them, so that they
get as far as bytes that were made to deceive: the checksums of a PNG, the members of a zip archive.
"""

from __future__ import annotations

import io
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Sequence

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_NUMBERS = (0, 1, 2, 3, 4, 7, 8, 16, 17, 31, 32, 64, 100, 127, 128, 255, 256, 4096, 32767, 32768)
_NUMBERS += (65535, 65536, 10**6, 2**24 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1)
_WORDS = ("0", "-1", "1", "null", "true", "{}", "[]", '""', "NaN", "Infinity", "1e999", "1e308")
_WORDS += ("-1e308", "1e-320", "0.5", "99999999999999999999", "9" * 5000, '"a:b"', '"../x"')
_WORDS += ('"\\ud800"', '"\\u001b[2J"', "[" * 500, '{"a":' * 500, "[[1, 2], 3]", '"/etc/passwd"')
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|true|false|null|\w+')


def mutate(data: bytes, source: random.Random, others: Sequence[bytes] = ()) -> bytes:
    """The bytes with one to four changes.

    Args:
        data: a sound file.
        source: decides everything.
        others: sound files of the same kind, to splice with.
    """
    if source.random() < 0.5:
        if data.startswith(_SIGNATURE):
            return _within_png(data, source)
        if data.startswith(b"PK"):
            return _within_zip(data, source)
    changed = bytearray(data)
    for _ in range(source.choice((1, 1, 1, 2, 3, 4))):
        _change(changed, source, others)
    return bytes(changed)


def mutate_text(data: bytes, source: random.Random) -> bytes:
    """JSON, YAML or a table with one to three of its words replaced, taken away or doubled."""
    for _ in range(source.choice((1, 1, 2, 3))):
        tokens = list(_TOKEN.finditer(data))
        if not tokens:
            break
        token = source.choice(tokens)
        how = source.randrange(4)
        if how < 2:
            new = source.choice(_WORDS).encode()
        elif how == 2:
            new = source.choice(tokens)[0]
        else:
            new = b"" if source.random() < 0.5 else token[0] + b", " + token[0]
        data = data[: token.start()] + new + data[token.end() :]
    return data


def _change(data: bytearray, source: random.Random, others: Sequence[bytes]) -> None:
    if not data:
        data += bytes(source.randrange(1, 9))
        return
    near = len(data) if source.random() < 0.5 else min(len(data), 200)  # headers are near
    at = source.randrange(near)
    length = source.choice((1, 2, 4, 8, 12, 16, 64, source.randrange(1, 1 + len(data))))
    match source.randrange(12):
        case 0 | 1:
            data[at] ^= 1 << source.randrange(8)
        case 2:
            data[at] = source.randrange(256)
        case 3 | 4:  # a field that says how many or how long
            size = source.choice((1, 2, 4, 4, 8))
            order = source.choice(("little", "big"))
            number = source.choice(_NUMBERS) % (1 << 8 * size)
            data[at : at + size] = number.to_bytes(size, order)
        case 5:
            del data[at:]
        case 6:
            del data[at : at + length]
        case 7:
            data[at:at] = bytes(source.randrange(256) for _ in range(min(length, 64)))
        case 8:
            data[at:at] = data[at : at + length] * source.choice((1, 1, 2, 50))
        case 9:  # two pieces change places
            other = source.randrange(len(data))
            first, second = sorted((at, other))
            length = min(length, second - first)
            one, two = data[first : first + length], data[second : second + length]
            data[second : second + length] = one
            data[first : first + length] = two
        case 10:
            data[at : at + length] = bytes(min(length, len(data) - at))
        case _:
            splice = source.choice(others) if others else bytes(data)
            data[at:] = splice[source.randrange(1 + len(splice)) if splice else 0 :]


def _within_png(data: bytes, source: random.Random) -> bytes:
    """Chunks changed, swapped, doubled, taken away or renamed, their checksums right again."""
    chunks, at = [], len(_SIGNATURE)
    while at + 8 <= len(data):
        length, name = struct.unpack(">I4s", data[at : at + 8])
        chunks.append([name, data[at + 8 : at + 8 + length]])
        at += 12 + length
    place = source.randrange(len(chunks))
    match source.randrange(7):
        case 0 | 1:
            chunks[place][1] = mutate(chunks[place][1] or b"\0", source)
        case 2:  # the rows themselves, before they are packed
            rows = [n for n, (name, _) in enumerate(chunks) if name == b"IDAT"]
            if rows:
                raw = zlib.decompress(b"".join(chunks[n][1] for n in rows))
                chunks[rows[0]][1] = zlib.compress(mutate(raw, source), 1)
                chunks = [c for n, c in enumerate(chunks) if n not in rows[1:]]
        case 3:
            other = source.randrange(len(chunks))
            chunks[place], chunks[other] = chunks[other], chunks[place]
        case 4:
            chunks[place:place] = [list(chunks[place])] * source.choice((1, 1, 2, 2000))
        case 5:
            del chunks[place]
        case _:
            names = (
                b"IHDR",
                b"IDAT",
                b"PLTE",
                b"tRNS",
                b"eXIf",
                b"acTL",
                b"iCCP",
                b"zTXt",
                b"aBcD",
            )
            chunks[place][0] = source.choice(names)
    return _SIGNATURE + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def _within_zip(data: bytes, source: random.Random) -> bytes:
    """One member changed, renamed or doubled, packed again with sums and lists that are right."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    place = source.randrange(len(members))
    name, body = members[place]
    match source.randrange(5):
        case 0 | 1 | 2:
            members[place] = (name, mutate(body, source, [other for _, other in members]))
        case 3:
            names = ("../x.npy", "/x.npy", "", "a" * 300, "\x1b[2J.npy", f"{name}/", name.upper())
            members[place] = (source.choice(names), body)
        case _:
            members[place : place + 1] = [(f"{number}{name}", body) for number in range(9)]
    stream = io.BytesIO()
    method = source.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, body in members:
            archive.writestr(zipfile.ZipInfo(name), body, method)
    return stream.getvalue()
