"""Query vectors as they come over HTTP: base64 of little-endian float32, or a file of NumPy's format.

Nothing of NumPy's own reader is used: it evaluates headers, and takes types that run code.

Axes: Q queries, D dimension.
"""

import base64
import binascii
import re
from typing import Any

import numpy as np
import numpy.typing as npt

from gindex.errors import ConfigError

_MAGIC = b"\x93NUMPY"
_MOST_HEADER = 4096
_HEADER = re.compile(
    r"\{'descr': '(?P<dtype><f[248])', 'fortran_order': False, "
    r"'shape': \((?P<shape>\d{1,9}(?:, ?\d{1,9})?),?\),? *\}\s*"
)


def decode_base64(text: str, dimension: int) -> npt.NDArray[np.float32]:
    """Return the vector [D] in base64.

    Raises:
        ConfigError: It is no base64, has another length, or holds a NaN or an infinity.
    """
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ConfigError(
            field="vector", expected="base64 of little-endian float32", found="other characters"
        ) from error
    if len(content) != 4 * dimension:
        raise ConfigError(
            field="vector", expected=f"{dimension} numbers in {4 * dimension} bytes", found=f"{len(content)} bytes"
        )
    return _checked(np.frombuffer(content, "<f4"), dimension)


def decode_npy(content: bytes | bytearray, dimension: int) -> npt.NDArray[np.float32]:
    """Return the vectors [Q, D] in a file of NumPy's format, of the shape [D] or [Q, D].

    Raises:
        ConfigError: It is no such file of little-endian floats, of another shape, or holds a NaN or an infinity.
    """
    expected = "a NumPy file of little-endian floats in C order"
    if len(content) < 12 or content[:6] != _MAGIC or content[6] not in (1, 2, 3):
        raise ConfigError(field="vector", expected=expected, found="another format")
    start = 10 if content[6] == 1 else 12
    length = int.from_bytes(content[8:start], "little")
    header = content[start : start + min(length, _MOST_HEADER + 1)].decode("latin-1")
    match = _HEADER.fullmatch(header)
    if len(header) != length or match is None:
        raise ConfigError(field="vector", expected=expected, found="a header that says otherwise")
    shape = tuple(int(size) for size in match["shape"].split(","))
    dtype, body = np.dtype(match["dtype"]), memoryview(content)[start + length :]
    if shape[-1] != dimension or len(body) != int(np.prod(shape, dtype=object)) * dtype.itemsize:
        raise ConfigError(
            field="vector", expected=f"dimension {dimension}", found=f"shape {shape} and {len(body)} bytes"
        )
    return _checked(np.frombuffer(body, dtype).reshape(-1, dimension), dimension)


def _checked(vectors: npt.NDArray[Any], dimension: int) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):
        single: npt.NDArray[np.float32] = np.asarray(vectors, np.float32)
    if not np.isfinite(single).all():
        raise ConfigError(
            field="vector", expected=f"{dimension} finite numbers", found="NaN, infinity or one beyond float32"
        )
    return single
