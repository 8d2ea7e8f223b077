"""Codecs of HDF5 datasets: which a dataset needs, whether they are here, and what a packed chunk unpacks to."""

from __future__ import annotations

import contextlib
import importlib
import zlib
from pathlib import Path
from types import ModuleType
from typing import Literal

import h5py

from nenya.errors import DataError

_SZIP, _BLOSC, _LZ4, _BITSHUFFLE, _ZSTANDARD = 4, 32001, 32004, 32008, 32015
#: Where a packed chunk says how many bytes it unpacks to: from byte, to byte, byte order.
_HEADERS: dict[int, tuple[int, int, Literal["big", "little"]]] = {
    _SZIP: (0, 4, "little"),
    _BLOSC: (4, 8, "little"),
    _LZ4: (0, 8, "big"),
    _BITSHUFFLE: (0, 8, "big"),
}
#: Filters that leave a chunk about as long as it is: shuffling, checksums, rounding to fewer digits.
_NO_CODECS = (
    h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_NBIT, h5py.h5z.FILTER_SCALEOFFSET,
    32022, 32023, 32024,  # BitGroom, granular BitRound, BitRound
)  # fmt: skip
_SPARE = 2**16
_MOST_FOLD = 1032  # that gzip can pack
_HARMLESS = 256 * 2**20  # that may be unpacked to find that it is too much


def is_stored_plainly(dataset: h5py.Dataset) -> bool:
    """Whether the bytes in the file are those of the NumPy type: HDF5 has types that NumPy has not, e.g. of 12 bits."""
    return bool(h5py.h5t.py_create(dataset.dtype, logical=True) == dataset.id.get_type())


def require_codecs(dataset: h5py.Dataset, path: Path) -> None:
    """Make sure that HDF5 can unpack a dataset; the package with more codecs is imported where one needs it.

    Raises:
        DataError: A codec is not installed, or chunks are packed twice: what a chunk unpacks to can be bounded for the
            codec that packed it last only, and 20 KB may unpack to 3 GB.
    """
    packing = [name or f"HDF5 filter {code}" for code, values, name in _filters(dataset) if not _is_plain(code, values)]
    if len(packing) > 1:
        raise DataError(
            f"{path}: dataset {dataset.name[1:]!r} is compressed {len(packing)} times in a row: "
            f"{', then '.join(packing)}. Expected one codec: rewrite the file with h5repack -f GZIP=1."
        )
    unknown = [(code, name) for code, name in filters_of(dataset) if not h5py.h5z.filter_avail(code)]
    if not unknown:
        return
    with contextlib.suppress(ImportError):
        importlib.import_module("hdf5plugin")  # registers its codecs with HDF5
    for code, name in unknown:
        if not h5py.h5z.filter_avail(code):
            raise DataError(
                f"{path}: dataset {dataset.name[1:]!r} is compressed with {name or 'a codec'} (HDF5 filter {code}), "
                "which is not installed here. Expected a codec of HDF5's own or of hdf5plugin: pip install "
                "'nenya[codecs]', or rewrite the file with h5repack -f GZIP=1."
            )


def _is_plain(code: int, values: tuple[int, ...]) -> bool:
    """Whether a filter is no codec: bitshuffle is one only where its fifth setting names a codec inside."""
    return code in _NO_CODECS or (code == _BITSHUFFLE and not any(values[4:5]))


def _filters(dataset: h5py.Dataset) -> list[tuple[int, tuple[int, ...], str]]:
    """Number, settings and name of the filters that a chunk went through, in the order of writing."""
    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(position) for position in range(properties.get_nfilters())]
    return [(code, tuple(values), name.decode(errors="replace")) for code, _, values, name in filters]


def filters_of(dataset: h5py.Dataset) -> list[tuple[int, str]]:
    """Number and name of the filters that a chunk went through, in the order of writing."""
    return [(code, name) for code, _, name in _filters(dataset)]


def gzip_filters(dataset: h5py.Dataset) -> tuple[int, ...]:
    """The filters of a dataset that `ChunkReader` undoes itself; none where it had better not.

    Only with gzip, whose checksum tells a chunk that is not what it seems.
    """
    filters = tuple(code for code, _ in filters_of(dataset))
    rest = filters[1:] if filters[:1] == (h5py.h5z.FILTER_SHUFFLE,) else filters
    known = ((h5py.h5z.FILTER_DEFLATE,), (h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_FLETCHER32))
    return filters if rest in known and is_stored_plainly(dataset) else ()


def inflate(data: bytes, size: int, library: ModuleType = zlib) -> bytes:
    """Unpack what gzip has packed, and not more than it should be: 4 MB may unpack to 4 GB.

    Args:
        data: Packed.
        size: Bytes that it should unpack to.
        library: zlib, or one with its interface.

    Raises:
        OSError: It unpacks to more.
        zlib.error: It is not what gzip has packed, or is not whole.
    """
    stream = library.decompressobj()
    unpacked: bytes = stream.decompress(data, size + 1)  # other threads run meanwhile
    if len(unpacked) > size:
        raise OSError(f"a chunk of {size} bytes is found to unpack to more")
    if not stream.eof:
        raise zlib.error("the stream is not whole")
    return unpacked


def outermost_filter(dataset: h5py.Dataset) -> int:
    """The codec that packed the chunks last, if its streams say to how much they unpack, or gzip; else 0.

    Such as HDF5 has to unpack, which makes room for whatever the stream says.
    """
    filters = _filters(dataset)
    if not filters:
        return 0
    code, values, _ = filters[-1]
    if _is_plain(code, values):  # without a codec there is no header
        return 0
    return code if code in (*_HEADERS, _ZSTANDARD, h5py.h5z.FILTER_DEFLATE) else 0


def require_bounded(code: int, data: bytes, size: int) -> None:
    """Make sure that a packed chunk does not unpack to far more than it should.

    Args:
        code: HDF5's number of the codec, one that `outermost_filter` gives.
        data: Packed.
        size: Bytes of the chunk's pixels; what earlier filters leave of them may be a little more.

    Raises:
        OSError: It says, or is found, to unpack to more than twice that.
    """
    most = 2 * size + _SPARE
    if code == h5py.h5z.FILTER_DEFLATE:
        if len(data) * _MOST_FOLD > most + _HARMLESS:
            with contextlib.suppress(zlib.error):  # HDF5 will say what is wrong with it
                inflate(data, most)
        return
    claimed = _zstandard_size(data) if code == _ZSTANDARD else _header_size(data, *_HEADERS[code])
    if claimed > most:
        raise OSError(f"a chunk of {size} bytes says that it unpacks to {claimed}")


def _header_size(data: bytes, begin: int, end: int, order: Literal["big", "little"]) -> int:
    return int.from_bytes(data[begin:end], order)


def _zstandard_size(data: bytes) -> int:
    """The size of the contents that a Zstandard frame notes; 0 where it does not (RFC 8878, 3.1.1.1)."""
    if data[:4] != b"\x28\xb5\x2f\xfd":
        return 0
    flags = data[4]
    single, dictionary, width = flags >> 5 & 1, (0, 1, 2, 4)[flags & 3], (0, 2, 4, 8)[flags >> 6]
    width = width or single
    begin = 5 + (not single) + dictionary
    return int.from_bytes(data[begin : begin + width], "little") + (256 if width == 2 else 0)
