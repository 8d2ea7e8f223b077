"""What a file is, by its first bytes, and what to do about it: for files of another kind than was expected."""

from __future__ import annotations

import re

#: Enough for every mark below: that of a tar file stands at byte 257.
HEAD_BYTES = 4096

_UNPACK = "Unpack it"
_CONVERT = "Convert it: nccopy -k nc4 OLD.nc NEW.nc"
_NETCDF = f"For a granule or a grid: nenya cutouts OLD.nc --out cutouts.h5. Or, if it holds cutouts, c{_CONVERT[1:]}"
_CUT = "Cutouts [N, H, W] have to be cut from it and written to HDF5"
_PICTURE = "Read the pictures and write them to one HDF5 dataset [N, H, W]"
_BINARY = "Transfer it again as it is (FTP: binary; Git: mark it as binary in .gitattributes)"
_ARRAYS = "Load the arrays and write them to HDF5 with h5py"

#: Offset, first bytes, what the file is, what to do. The first that fits counts.
_MARKS: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"CDF\x01", "a netCDF-3 file (classic format)", _NETCDF),
    (0, b"CDF\x02", "a netCDF-3 file (64-bit offset)", _NETCDF),
    (0, b"CDF\x05", "a netCDF-3 file (CDF-5, 64-bit data)", _CONVERT),
    (0, b"\x0e\x03\x13\x01", "an HDF4 file, another format than HDF5", "Convert it: h4toh5 OLD.hdf NEW.h5"),
    *(
        (0, mark, "an HDF5 file that a transfer as text has damaged (its line ends or 8th bits were changed)", _BINARY)
        for mark in (
            b"\x89HDF\n\x1a\n",
            b"\x89HDF\r\r\n",
            b"\x89HDF\r\x1a",
            b"\x09HDF\r\n",
            b"\xef\xbf\xbdHDF",
            b"\xc2\x89HDF",
        )
    ),
    (0, b"\x1f\x8b", "compressed with gzip", f"{_UNPACK}: gunzip"),
    (0, b"\x1f\x9d", "compressed with compress (.Z)", f"{_UNPACK}: gunzip"),
    (0, b"BZh", "compressed with bzip2", f"{_UNPACK}: bunzip2"),
    (0, b"\xfd7zXZ\x00", "compressed with xz", f"{_UNPACK}: unxz"),
    (0, b"\x28\xb5\x2f\xfd", "compressed with Zstandard", f"{_UNPACK}: unzstd"),
    (0, b"\x04\x22\x4d\x18", "compressed with LZ4", f"{_UNPACK}: unlz4"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", f"{_UNPACK}: 7z x"),
    (0, b"Rar!\x1a\x07", "a RAR archive", f"{_UNPACK}: unrar x"),
    (257, b"ustar", "a tar archive", f"{_UNPACK}: tar -xf"),
    (0, b"\x93NUMPY", "a NumPy array (.npy)", _ARRAYS),
    (0, b"MATLAB 5.0 MAT-file", "a MATLAB 5 file (.mat)", "Save it in MATLAB with '-v7.3', which is HDF5"),
    (0, b"MATLAB 7.3 MAT-file", "a MATLAB 7.3 file without its HDF5 part", "Copy or save it anew"),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG picture", _PICTURE),
    (0, b"\xff\xd8\xff", "a JPEG picture", _PICTURE),
    (0, b"GIF8", "a GIF picture", _PICTURE),
    (0, b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 picture", _PICTURE),
    (0, b"II*\x00", "a TIFF picture", _PICTURE),
    (0, b"MM\x00*", "a TIFF picture", _PICTURE),
    (0, b"II+\x00", "a TIFF picture", _PICTURE),
    (0, b"MM\x00+", "a TIFF picture", _PICTURE),
    (0, b"GRIB", "a GRIB file", _CUT),
    (0, b"BUFR", "a BUFR file", _CUT),
    (0, b"SIMPLE  =", "a FITS file", _CUT),
    (0, b"PAR1", "a Parquet table", _ARRAYS),
    (0, b"ARROW1", "an Arrow table", _ARRAYS),
    (0, b"SQLite format 3\x00", "an SQLite database", _ARRAYS),
    (0, b"%PDF", "a PDF document", "Check images_file"),
)

#: The beginning of a text, what it is, what to do. A mark of the order of bytes may stand in front.
_TEXTS: tuple[tuple[str, str, str], ...] = (
    (r"version https://(git-lfs|hawser)\.github\.com", "a Git LFS pointer, a note in place of the data",
     "Fetch the data: git lfs pull"),
    (r"(\.\.?[/\\])*(\.git)?[/\\]?annex[/\\]objects[/\\]", "a git-annex pointer, a note in place of the data",
     "Fetch the data: git annex get"),
)  # fmt: skip

#: Files in a folder that is a Zarr store.
ZARR_FILES = ("zarr.json", ".zgroup", ".zarray", ".zmetadata")


def name_format(head: bytes) -> tuple[str, str]:
    """Say what a file is that HDF5 does not know.

    Args:
        head: Its first `HEAD_BYTES` bytes; all, where there are fewer.

    Returns:
        What it is, to follow "it is", and what to do, a sentence without its full stop.
    """
    if not head:
        return "empty (0 bytes)", "It was not written or not copied to its end: make or copy it anew"
    if not head.strip(b"\0"):
        return "zeros at its beginning", "Its writing or download was not finished: make or copy it anew"
    unknown = f"of a format unknown here (its first bytes are {head[:8].hex(' ')})", "Check images_file"
    return name_marked(head) or _text(head) or unknown


def name_marked(head: bytes) -> tuple[str, str] | None:
    """Like `name_format`, for formats that begin with a mark of their own; None for others, text among them."""
    for offset, mark, name, advice in _MARKS:
        if head.startswith(mark, offset):
            return name, advice
    start = head[:200].removeprefix(b"\xef\xbb\xbf").decode("latin-1")
    for mark_of_text, name, advice in _TEXTS:
        if re.match(mark_of_text, start):
            return name, advice
    if head.startswith(b"PK\x03\x04"):
        return _zip(head)
    if re.match(rb"\x80[\x02-\x05]", head):
        return "a Python pickle (.pkl, .pth)", f"{_ARRAYS}; open pickles only of people whom you trust"
    return None


def _zip(head: bytes) -> tuple[str, str]:
    """A zip archive, by the name of the first file in it."""
    first = head[30 : 30 + int.from_bytes(head[26:28], "little")]
    if first.endswith(b".npy"):
        return "NumPy arrays (.npz)", _ARRAYS
    if first.endswith((b"/data.pkl", b"/.format_version", b"/byteorder")):
        return "a PyTorch file (.pth)", _ARRAYS
    if first.startswith((b"[Content_Types].xml", b"_rels/", b"docProps/", b"xl/", b"word/")):
        return "an Office document (.xlsx, .docx, ...)", _ARRAYS
    if first.rpartition(b"/")[2].decode("latin-1") in ZARR_FILES:
        return "a zipped Zarr store", "Open it with xarray or zarr and write the array to HDF5"
    return "a zip archive", f"{_UNPACK}: unzip"


def _text(head: bytes) -> tuple[str, str] | None:
    """Text of some kind; None if it is none."""
    coding = "utf-16" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    text = head.decode(coding, errors="replace").split("\0", 1)[0].strip()
    printable = sum(letter != "\ufffd" and (letter.isprintable() or letter.isspace()) for letter in text)
    if not text or printable < 0.95 * len(text):
        return None
    begin = text[:200].lower()
    again = "the download gave this in place of the data (a login or an error): open it to see, and download again"
    if begin.startswith(("<!doctype html", "<html")):
        return "an HTML page", f"Perhaps {again}"
    if begin.startswith("<"):
        return "XML text", f"Perhaps {again}"
    if begin.startswith("{") and '"zarr_format"' in text:
        return (
            "a part of a Zarr store (metadata as JSON)",
            "Open the store with xarray or zarr and write the array to HDF5",
        )
    if begin.startswith("{") and ('"refs"' in text or '.zarray"' in text):
        return (
            "a kerchunk reference file, a note of where the data lie",
            "Open it with xarray and write the array to HDF5",
        )
    if re.match(r"[{\[]\s*[\"{\[\d}\]]", begin):
        return "JSON text", f"Perhaps {again}"
    if re.search(r"^outs:", text, re.MULTILINE) and "md5:" in text:
        return "a DVC pointer, a note in place of the data", "Fetch the data: dvc pull"
    line = text.splitlines()[0][:40]
    if re.search(r"[,;\t]", line):
        return f"a table as text (CSV), which begins with {line!r}", _ARRAYS
    return f"text, which begins with {line!r}", "Check images_file"
