"""Cutouts that come as bytes, from anybody."""

import pytest

from nenya.errors import DataError
from nenya.search.queries import _parse

HEADERS = [
    "{'descr': '<f4', 'fortran_order': False, 'shape': ((((8, 8)",
    "{'descr': (), 'fortran_order': False, 'shape': (8, 8), }",
    "{'descr': ('<f4',), 'fortran_order': False, 'shape': (8, 8), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (True,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (2**70, 0), }",
    f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2**70}, 0), }}",
    f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({'1, ' * 100}), }}",
]


@pytest.mark.parametrize("header", HEADERS)
def test_a_hostile_header_of_an_array_is_a_mistake_and_no_fault(header):
    packed = header.encode().ljust(246 if len(header) < 240 else 502) + b"\n"
    content = b"\x93NUMPY\x01\x00" + len(packed).to_bytes(2, "little") + packed + b"\0\0\0\0"
    with pytest.raises(DataError, match=r"cannot be read|is damaged"):
        _parse(content, "x.npy")
