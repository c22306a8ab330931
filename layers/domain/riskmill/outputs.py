"""What a job makes: named numpy arrays, stored as safetensors.

safetensors is a small well-kept format (a JSON header, then the raw little-endian bytes) that reads without a copy.
Arrays are written sorted by dtype size and name, so the same arrays always give the same bytes.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from riskmill.errors import ModelError

type Array = np.ndarray[Any, np.dtype[Any]]


class Arrays(dict[str, Array]):
    """Named arrays of one object, with a memo for what is derived from them (an index, say).

    The memo lives and dies with the object, so a worker that holds a shared input in memory derives its index once,
    however many jobs read it. It is never stored.
    """

    def __init__(self, arrays: dict[str, Array] | None = None) -> None:
        super().__init__(arrays or {})
        self._memo: dict[str, Any] = {}

    def derive[T](self, name: str, make: Callable[["Arrays"], T]) -> T:
        """Return what `make` derives from these arrays, made once for each `name`."""
        if name not in self._memo:
            self._memo[name] = make(self)
        return self._memo[name]  # type: ignore[no-any-return]

    @property
    def nbytes(self) -> int:
        """Bytes held by the arrays themselves."""
        return sum(array.nbytes for array in self.values())


def encode(arrays: dict[str, Array]) -> bytes:
    """Return the bytes of these arrays; equal arrays give equal bytes. Raises ModelError for other dtypes."""
    for name, array in arrays.items():
        if array.dtype.kind not in "iufb":
            raise ModelError(f"output {name!r} has dtype {array.dtype}, which cannot be stored")
    return bytes(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))


def decode(data: bytes) -> Arrays:
    """Return the arrays in these bytes. Raises ModelError when they are not a safetensors file."""
    try:
        return Arrays(load(data))
    except SafetensorError as error:
        raise ModelError(f"not a safetensors object: {error}") from error


def rounded(values: Array, digits: int) -> Array:
    """Return float64 values with so many significant digits, as decimal text has them; nan and inf stay."""
    texts = [float(f"{value:.{digits}g}") for value in values.ravel().tolist()]
    return np.array(texts, np.float64).reshape(values.shape)
