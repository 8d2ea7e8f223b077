"""What a pickle would build, found out before anything is built: a file of a few bytes can ask for all the memory.

Torch's restricted unpickler runs no code of a file, but it builds what it is told to: lists in lists without end, byte
arrays and storages of any declared size. Here a pickle is followed operation by operation, as that unpickler does it,
with empty places instead of objects.
"""

from __future__ import annotations

import pickle
from collections.abc import Set
from pickle import UnpicklingError
from typing import IO, Any, NamedTuple

#: Most that the objects of a checkpoint may take beside its tensors, bytes: room for 4 million losses.
MOST_BYTES = 2**27

#: Bytes of an element of each kind of storage that torch writes.
_ELEMENT_BYTES = {
    "BoolStorage": 1, "ByteStorage": 1, "CharStorage": 1, "ShortStorage": 2, "HalfStorage": 2, "BFloat16Storage": 2,
    "IntStorage": 4, "FloatStorage": 4, "LongStorage": 8, "DoubleStorage": 8, "ComplexFloatStorage": 8,
    "ComplexDoubleStorage": 16,
}  # fmt: skip

#: What the tensors and plain containers of a checkpoint are made of.
_NAMES = {
    "collections.OrderedDict", "torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter", "torch.nn.parameter.Parameter", "torch.Size", "torch.device",
    *(f"torch.{storage}" for storage in _ELEMENT_BYTES),
    *(f"torch.{name}" for name in ("float16", "bfloat16", "float32", "float64", "uint8", "int8", "int32", "int64")),
}  # fmt: skip

_SMALL, _OBJECT, _LARGE = 32, 128, 1024  # bytes that a number, a container, a storage or tensor takes at most

#: Operations that put an empty place on the stack: length of the argument, bytes of what they make.
_PUSH = {
    pickle.NONE: (0, _SMALL), pickle.NEWTRUE: (0, _SMALL), pickle.NEWFALSE: (0, _SMALL), pickle.BINFLOAT: (8, _SMALL),
    pickle.EMPTY_LIST: (0, _OBJECT), pickle.EMPTY_DICT: (0, _OBJECT), pickle.EMPTY_SET: (0, 2 * _OBJECT),
}  # fmt: skip
#: Operations that take from the stack and put an empty place there or nothing: how many, and then how many, bytes.
_TAKE = {
    pickle.APPEND: (1, 0, _OBJECT), pickle.SETITEM: (2, 0, 2 * _OBJECT), pickle.BUILD: (1, 0, 4 * _OBJECT),
    pickle.REDUCE: (2, 1, _LARGE), pickle.NEWOBJ: (2, 1, _LARGE),
}  # fmt: skip
_TAKE_TO_MARK = {pickle.APPENDS, pickle.SETITEMS}
_WHOLE_NUMBERS = {pickle.BININT: (4, True), pickle.BININT1: (1, False), pickle.BININT2: (2, False)}
_LENGTH_BYTES = {pickle.BINUNICODE: 4, pickle.SHORT_BINSTRING: 1, pickle.LONG1: 1}
_TUPLES = {pickle.EMPTY_TUPLE: 0, pickle.TUPLE1: 1, pickle.TUPLE2: 2, pickle.TUPLE3: 3}
_MEMO_BYTES = {pickle.BINGET: 1, pickle.BINPUT: 1, pickle.LONG_BINGET: 4, pickle.LONG_BINPUT: 4}
_LONGEST_NAME = 1000
_MOST_MARKS = 1000  # of lists that are not complete; Python's own pickles stop where its recursion does, at as many


class _Name(NamedTuple):
    """A class or function that a pickle names."""

    full: str


class Weighing:
    """The sum of what the pickles of a file would take.

    Args:
        allowed: Full names that may stand in them beside those that tensors and plain containers need.

    Attributes:
        num_bytes: What their objects take, at most.
        storage_bytes: What the storages take that they declare.
    """

    def __init__(self, allowed: Set[str]) -> None:
        self.num_bytes = 0
        self.storage_bytes = 0
        self._names = _NAMES | allowed
        self._storages: set[str] = set()

    def add(self, file: IO[bytes]) -> None:
        """Follow one pickle to its end.

        Args:
            file: Open at its beginning.

        Raises:
            UnpicklingError: It names what is not allowed, would take too much, or is no pickle.
            EOFError: It has no end.
        """
        try:
            _Walk(self, file).to_the_end()
        except (IndexError, KeyError, UnicodeDecodeError) as error:  # something is taken that was never put there
            raise UnpicklingError("its list of objects is none") from error

    def take(self, num_bytes: int) -> None:
        """Add what an object takes."""
        self.num_bytes += num_bytes
        if self.num_bytes > MOST_BYTES:
            raise UnpicklingError(f"its objects would take more than {MOST_BYTES >> 20} MB, its tensors not counted")

    def name(self, full: str) -> _Name:
        """A name, if it is allowed."""
        if full not in self._names:
            shown = full if full.isprintable() else ascii(full)
            raise UnpicklingError(f"GLOBAL {shown[:100]} was not expected in a checkpoint")
        return _Name(full)

    def storage(self, what: object) -> None:
        """Add a storage, of which torch writes ``("storage", type, key, location, elements, ...)``; each key once."""
        self.take(_LARGE)
        if not isinstance(what, tuple) or len(what) not in (5, 6) or what[0] != "storage":
            raise UnpicklingError("it refers to something that is no storage of a tensor")
        kind, key, elements = what[1], what[2], what[4]
        element_bytes = _ELEMENT_BYTES.get(kind.full.removeprefix("torch.")) if isinstance(kind, _Name) else None
        if element_bytes is None or not isinstance(key, str) or not isinstance(elements, int) or elements < 0:
            raise UnpicklingError("it declares a storage of unknown type or size")
        if key not in self._storages:
            self._storages.add(key)
            self.storage_bytes += elements * element_bytes


class _Walk:
    """One pickle under way; names and methods as in `pickle.Unpickler`, with None for objects."""

    def __init__(self, weighing: Weighing, file: IO[bytes]) -> None:
        self._weighing = weighing
        self._file = file
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def to_the_end(self) -> None:
        take, read = self._weighing.take, self._file.read
        while (operation := read(1)) != pickle.STOP:
            if operation in _PUSH:
                length, num_bytes = _PUSH[operation]
                self._read(length)
                self._stack.append(None)
                take(num_bytes)
            elif operation in _MEMO_BYTES:
                self._remember(operation)
            elif operation in _TAKE:
                taken, put, num_bytes = _TAKE[operation]
                for _ in range(taken):
                    self._stack.pop()
                self._stack += [None] * put
                take(num_bytes)
            else:
                self._other(operation)

    def _read(self, length: int) -> bytes:
        found = self._file.read(length)
        if len(found) < length:
            raise EOFError("it ends too early")
        return found

    def _remember(self, operation: bytes) -> None:
        place = int.from_bytes(self._read(_MEMO_BYTES[operation]), "little")
        if operation in (pickle.BINGET, pickle.LONG_BINGET):
            self._weighing.take(_SMALL)
            self._stack.append(self._memo[place])
        else:
            self._weighing.take(_OBJECT if place > 0xFF else _SMALL)
            self._memo[place] = self._stack[-1]

    def _other(self, operation: bytes) -> None:
        take = self._weighing.take
        if operation == pickle.MARK:
            take(_OBJECT)
            if len(self._outer) >= _MOST_MARKS:
                raise UnpicklingError(f"it puts more than {_MOST_MARKS} lists into each other")
            self._outer.append(self._stack)
            self._stack = []
        elif operation in _TAKE_TO_MARK:
            take(_OBJECT + _SMALL * len(self._to_mark()))
        elif operation == pickle.TUPLE:
            items = self._to_mark()
            take(_OBJECT + _SMALL * len(items))
            self._stack.append(tuple(items))
        elif operation in _TUPLES:
            take(_OBJECT)
            items = [self._stack.pop() for _ in range(_TUPLES[operation])]
            self._stack.append(tuple(reversed(items)))
        elif operation in _WHOLE_NUMBERS:
            take(_SMALL)
            length, signed = _WHOLE_NUMBERS[operation]
            self._stack.append(int.from_bytes(self._read(length), "little", signed=signed))
        elif operation in _LENGTH_BYTES:
            length = int.from_bytes(self._read(_LENGTH_BYTES[operation]), "little")
            take(_OBJECT + 4 * length)  # four bytes a character, if one of them needs four
            found = self._read(length)
            is_number = operation == pickle.LONG1
            self._stack.append(int.from_bytes(found, "little", signed=True) if is_number else found.decode("latin-1"))
        elif operation == pickle.GLOBAL:
            take(_SMALL)
            self._stack.append(self._weighing.name(f"{self._line()}.{self._line()}"))
        elif operation == pickle.BINPERSID:
            self._weighing.storage(self._stack.pop())
            self._stack.append(None)
        elif operation == pickle.PROTO:
            self._read(1)
        elif not operation:
            raise EOFError("it ends too early")
        else:
            raise UnpicklingError(f"it has an operation {operation!r} that torch does not write")

    def _to_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._outer.pop()
        return items

    def _line(self) -> str:
        line = self._file.readline(_LONGEST_NAME)
        if not line.endswith(b"\n"):
            raise EOFError("a name in it has no end")
        return line[:-1].decode()
