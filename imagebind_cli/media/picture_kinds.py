"""Kinds of picture files that are recognised by their first bytes but not read, each with what to do about it."""

from __future__ import annotations

import re

HEAD = 4096  # bytes by which a kind is recognised; an SVG may begin with a long comment

# Still pictures of phones, and their moving ones, which are videos.
HEIF = re.compile(rb"....ftyp(hei[cxms]|mif[12]|miaf)", re.DOTALL)
HEIF_SEQUENCE = re.compile(rb"....ftyp(hev[cxms]|msf1)", re.DOTALL)

AVIF = re.compile(rb"....ftyp(avif|avis|(mif1|msf1|miaf)[^\0]{0,4}.{0,40}avif)", re.DOTALL)

RAW = "camera raw", "develop it first: dcraw -c -w IN | magick - out.png"

KINDS: tuple[tuple[str, str, str], ...] = (
    (r"\xff\x0a|\0\0\0\x0cJXL ", "JPEG XL", "convert it: djxl in.jxl out.png"),
    (r"(\xef\xbb\xbf)?\s*<(?!.{0,4096}<html).{0,4096}?svg[\s>:]", "SVG", "draw it first: rsvg-convert in.svg -o out.png"),
    (r"....ftypcrx |II.\0....CR|II.\0....HEAPCCDR|IIR[OS]|MMOR|IIU\0|FUJIFILMCCD-RAW|FOVb|\0MRM", *RAW),
    (r".{0,1024}%PDF-", "PDF", "draw it first: pdftoppm -png in.pdf page"),
    (r"%!PS|\xc5\xd0\xd3\xc6", "PostScript", "draw it first: gs -sDEVICE=png16m -o out.png in.ps"),
    (r"8BPS\0\x02", "Photoshop's large format (PSB)", "convert it: magick 'in.psb[0]' out.png"),
    (r"gimp xcf", "GIMP's format (XCF)", "convert it: magick in.xcf -flatten out.png"),
    (r"AT&TFORM", "DjVu", "draw it first: ddjvu -format=tiff in.djvu out.tif"),
    (r"II\xbc", "JPEG XR", "convert it: JxrDecApp -i in.jxr -o out.tif"),
    (r"v/1\x01", "OpenEXR, which has no stated range,", "choose one and save it with 8 bits; as depth it is read"),
    (r"#\?R(ADIANCE|GBE)", "Radiance HDR, which has no stated range,", "choose one and save it with 8 bits"),
    (r".{128}DICM", "DICOM", "choose the range that matters: dcmj2pnm --write-png in.dcm out.png"),
    (r"SIMPLE  =", "FITS", "choose the range that matters and save it with 8 bits"),
    (r"\x1f\x8b", "a file packed with gzip", "unpack it first: gunzip"),
)

PATTERNS = [(re.compile(pattern.encode("latin-1"), re.DOTALL), f"{name} is not supported; {remedy}") for pattern, name, remedy in KINDS]


class UnsupportedKind(ValueError):
    """A picture of a kind that is recognised but not read. Its message is the same for every modality."""


def check_kind(head: bytes) -> None:
    """Refuse a picture of a kind that is not read, by its first bytes.

    Raises:
        UnsupportedKind: it is; the message says what to do.
    """
    for pattern, words in PATTERNS:
        if pattern.match(head):
            raise UnsupportedKind(words)
    if AVIF.match(head):
        raise UnsupportedKind("AVIF needs Pillow 11.3 or newer (pip install -U pillow), or convert it: avifdec in.avif out.png")
    if HEIF.match(head):
        raise UnsupportedKind("HEIC needs pi-heif (pip install 'imagebind-cli[heic]'), or convert it: heif-convert in.heic out.jpg")
