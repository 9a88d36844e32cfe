"""The kind of a file by its name or first bytes: which files of a folder are of other kinds, and what an archive holds."""

from __future__ import annotations

import codecs
import fnmatch
import os
import re
import shlex
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from imagebind_cli.errors import UsageError

PICTURE = (
    "jpg jpeg jpe jfif png apng gif webp bmp dib tif tiff ppm pgm pbm pnm pfm exr hdr jp2 j2k jxl heic heif hif avif ico icns svg tga psd "
    "dng cr2 cr3 nef arw orf rw2 raf"
)
ANIMATED = "gif webp apng avif"
VIDEO = "mp4 m4v mkv webm mov avi mpg mpeg wmv flv f4v 3gp 3g2 ts mts m2ts vob ogv mxf asf"
SOUND = "wav wave flac ogg oga opus mp3 mp2 m4a m4b aac wma aif aiff aifc amr ape au caf mka wv ac3"
TABLE = "csv tsv parquet"
ARRAY = "npy npz h5 hdf5 mat"
TEXT = "txt md rst log rtf html htm pdf doc docx odt tex epub srt vtt xls xlsx ods ppt pptx"
RECORD = (
    "json jsonl ndjson xml yaml yml toml ini cfg conf xmp aae plist db sqlite lnk url nfo m3u m3u8 cue md5 sha1 sha256 lock mid midi store"
)
CODE = "py pyc ipynb sh bat c h cpp js css exe dll so"
WEIGHTS = "pt pth ckpt safetensors onnx pkl pickle faiss"
ARCHIVE = "zip gz tgz bz2 tbz tbz2 xz txz zst tzst lz4 7z rar"

KNOWN = frozenset(" ".join((PICTURE, VIDEO, SOUND, TABLE, ARRAY, TEXT, RECORD, CODE, WEIGHTS, ARCHIVE)).split())
MAP = f"{PICTURE} {ARRAY} {TABLE}"
# Suffixes of the files that may be of each modality, readable or not.
READ = {
    modality: frozenset(suffixes.split())
    for modality, suffixes in {
        "image": PICTURE,
        "video": f"{VIDEO} {ANIMATED}",
        "vision": f"{PICTURE} {VIDEO}",
        "audio": f"{SOUND} {VIDEO}",
        "depth": MAP,
        "thermal": MAP,
        "imu": f"{TABLE} {ARRAY} txt zip",
        "text": "",
    }.items()
}

# What `--include kind:NAME` takes.
KINDS = {
    name: frozenset(suffixes.split())
    for name, suffixes in {"image": PICTURE, "video": VIDEO, "audio": SOUND, "table": TABLE, "array": ARRAY, "archive": ARCHIVE}.items()
}
KIND = "kind:"

# Names, without suffix or with that of a text, of the papers that come with a dataset.
PAPERS = "readme license licence copying changelog notice authors contributing makefile dockerfile sha256sums md5sums"

COMPRESSED = {
    "gzip": (rb"\x1f\x8b", "gunzip -c"),
    "bzip2": (rb"BZh[1-9]1AY&SY", "bunzip2 -c"),
    "xz": (rb"\xfd7zXZ\0", "xz -dc"),
    "Zstandard": (rb"\x28\xb5\x2f\xfd", "zstd -dc"),
    "LZ4": (rb"\x04\x22\x4d\x18", "lz4 -dc"),
}
PACKED = {"ZIP": rb"PK(\x03\x04|\x05\x06)", "7-Zip": rb"7z\xbc\xaf\x27\x1c", "RAR": rb"Rar!\x1a\x07"}
HEAD = 4096  # bytes by which a kind is recognised
# First bytes of files that are given where a sound or a video is needed, and what they are.
FIRST_BYTES = {
    "a picture": rb"\xff\xd8\xff|\x89PNG\r\n|GIF8[79]a|BM.{4}\0\0\0\0|II[*+]\0|MM\0[*+]|RIFF.{4}WEBP|.{4}ftyp(hei[cxms]|mif1|avif)|8BPS",
    "a program": rb"\x7fELF|MZ.{58}|\xcf\xfa\xed\xfe",
    "a PDF document": rb"%PDF-",
    "an array of NumPy": rb"\x93NUMPY",
    "an HDF5 file": rb"\x89HDF\r\n",
    "a database of SQLite": rb"SQLite format 3\0",
    "a playlist, which names other files": rb"#EXTM3U|<\?xml.{0,1024}<MPD\b",
    "a document in a ZIP file": rb"PK\x03\x04.{26}(\[Content_Types\]\.xml|_rels/|mimetype)",
    "a script": rb"#!",
}
OFFICE = (b"[Content_Types].xml", b"_rels/", b"mimetype")  # first members of ZIP files that are documents


@dataclass
class Others:
    """Decides which files in folders and patterns to skip, because they are not meant as inputs, and counts them.

    strict: files of plainly another kind are failures. include: what a file's name must match one of, if there are any: a pattern, `*.jpg`, or
    `kind:video`, a kind of `KINDS`. count: how many files of another kind were skipped.

    Raises:
        UsageError: `include` has an unknown kind.
    """

    strict: bool = False
    include: tuple[str, ...] = ()
    count: int = 0

    def __post_init__(self) -> None:
        for pattern in self.include:
            if pattern.startswith(KIND) and pattern.removeprefix(KIND) not in KINDS:
                raise UsageError(f"--include {pattern}: unknown kind; choose from {', '.join(KIND + name for name in KINDS)}")


def is_included(path: str, patterns: Sequence[str]) -> bool:
    """Check whether a file's name matches one of some patterns or kinds, in upper or lower case; without any every file does."""
    name = os.path.basename(path).lower()
    return not patterns or any(_matches(name, pattern.lower()) for pattern in patterns)


def _matches(name: str, pattern: str) -> bool:
    if pattern.startswith(KIND):
        return os.path.splitext(name)[1][1:] in KINDS[pattern.removeprefix(KIND)]
    return fnmatch.fnmatchcase(name, pattern)


def is_other(path: str, modalities: Iterable[str]) -> bool:
    """Check whether a file is plainly of another kind than one of some modalities, by its name; one of an unknown suffix, or of none, is not."""
    stem, suffix = os.path.splitext(os.path.basename(path).lower())
    suffix = suffix[1:]
    if stem in PAPERS.split() and (not suffix or suffix in TEXT.split()):
        return True
    return suffix in KNOWN and not all(suffix in READ.get(modality, KNOWN) for modality in modalities)


def may_be_zip(modalities: Iterable[str]) -> bool:
    """Check whether a ZIP file may be an input of one of some modalities, and not an archive of inputs."""
    return any("zip" in READ.get(modality, ()) for modality in modalities)


def archive(head: bytes, name: str, then: str = "") -> str | None:
    """Return what an archive or a compressed file is and what to do with it, in words; None if its first bytes are of neither.

    Args:
        head: 512 bytes, or more. name: of the file. then: the command that would read a tar archive on its stdin.
    """
    for kind, (start, command) in COMPRESSED.items():
        if re.match(start, head):
            if not _holds_tar(head, name):
                return f"compressed with {kind}; unpack it first"
            piped = f", or pipe it in: {command} {shlex.quote(name)} | {then}" if then else ""
            return f"a tar archive compressed with {kind}; unpack it{piped}"
    for kind, start in PACKED.items():
        if re.match(start, head) and not head[30:].startswith(OFFICE):
            return f"a {kind} archive; unpack it and give its folder, or its files as a .tar"
    return None


def seeming_kind(head: bytes, name: str = "") -> str | None:
    """Return what a file that is not a sound or a video seems to be, in words; None if its first bytes are of no known kind.

    head: `HEAD` bytes, fewer if the file is shorter. name: of the file.
    """
    for kind, start in FIRST_BYTES.items():
        if re.match(start, head, re.DOTALL):
            return kind
    return archive(head, name) or ("text" if _is_text(head) else None)


def _is_text(head: bytes) -> bool:
    """Check whether bytes are words: UTF-8, perhaps cut in its last character, without control characters."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return bool(text.strip()) and all(character.isprintable() or character in "\t\n\r\f\ufeff" for character in text)


def is_npz(head: bytes) -> bool:
    """Check whether a file's first bytes are those of arrays in a ZIP file."""
    length = int.from_bytes(head[26:28], "little")
    return head.startswith(b"PK\x03\x04") and head[30 : 30 + length].endswith(b".npy")


def _holds_tar(head: bytes, name: str) -> bool:
    try:
        return zlib.decompressobj(wbits=31).decompress(head, 512)[257:262] == b"ustar"
    except zlib.error:  # another compression: too few bytes to recognise its content
        return re.search(r"\.(tar\.\w+|t(gz|bz2?|xz|zst))$", name.lower()) is not None
