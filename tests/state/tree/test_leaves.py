"""Values without children: each kind keeps its type and its bits."""

from __future__ import annotations

import datetime
import decimal
import pathlib
import uuid
import zoneinfo
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from ckpt_callbacks.errors import ConfigurationError, CorruptSnapshotError, UnstorableError
from ckpt_callbacks.state import decode, encode
from tests.ids import stable
from tests.state.trees import bits, through_memory

NAMED_ZONE = datetime.timezone(datetime.timedelta(hours=5, seconds=1), "here")


@pytest.mark.parametrize(
    "value",
    [
        decimal.Decimal("-0"),
        decimal.Decimal("sNaN12"),
        decimal.Decimal("1.10"),
        uuid.UUID(int=7),
        pathlib.Path("a/b"),
        pathlib.PurePosixPath("/x"),
        pathlib.PureWindowsPath("c:/x"),
        datetime.UTC,
        NAMED_ZONE,
        zoneinfo.ZoneInfo("Europe/Paris"),
        datetime.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Paris")),
        datetime.datetime(2024, 1, 1, microsecond=1, tzinfo=NAMED_ZONE),
        datetime.time(1, fold=1, tzinfo=datetime.UTC),
        torch.float8_e4m3fn,
        torch.device("cuda:1"),
        torch.Size([2, 0]),
        np.dtype("float32"),
        np.dtype(">i4"),
        np.dtype("datetime64[25s]"),
        np.dtype("<U3"),
        np.dtype(ml_dtypes.bfloat16),
        np.float32(0.1),
        np.float64("nan"),
        np.bool_(True),
        np.int64(2**62),
        np.complex128(1 + 2j),
        np.datetime64("NaT"),
        np.timedelta64(5, "ms"),
        np.str_("ü"),
        np.bytes_(b"a\0"),
        ml_dtypes.bfloat16(1.5),
    ],
    ids=stable,
)
def test_kinds_of_leaves(value: Any) -> None:
    """Every kind of the fixed list."""
    restored = through_memory(value)
    assert type(restored) is type(value)
    assert bits(restored) == bits(value)
    assert getattr(restored, "fold", 0) == getattr(value, "fold", 0)
    assert repr(getattr(restored, "tzinfo", None)) == repr(getattr(value, "tzinfo", None))


def test_a_scalar_keeps_a_payload_that_arithmetic_would_lose() -> None:
    """A signalling NaN in half precision is just bits here."""
    value = np.frombuffer(b"\x01\x7d", np.float16)[0]
    assert through_memory(value).tobytes() == b"\x01\x7d"


class Zone(datetime.tzinfo):
    """A time zone of the user's."""


@pytest.mark.parametrize(
    "value", [datetime.datetime(2024, 1, 1, tzinfo=Zone()), np.void(b"ab"), np.dtype("O")], ids=stable
)
def test_leaves_that_are_refused(value: Any) -> None:
    """Zones with code of their own, and numpy types whose bytes mean nothing elsewhere."""
    with pytest.raises(UnstorableError):
        encode(value)


@pytest.mark.parametrize(
    "node",
    [
        {"$": "float", "hex": "00"},
        {"$": "bytes", "base64": "*"},
        {"$": "fraction", "items": [1, 0]},
        {"$": "range", "items": [1, 2]},
        {"$": "decimal", "text": "x"},
        {"$": "datetime", "iso": "x", "fold": 0, "zone": None},
        {"$": "datetime", "iso": "2024-01-01", "fold": 7, "zone": None},
        {"$": "zoneinfo", "key": "../../etc/passwd"},
        {"$": "torch.dtype", "name": "nn"},
        {"$": "torch.device", "name": "moon"},
        {"$": "numpy.dtype", "name": "O"},
        {"$": "numpy.scalar", "dtype": "float32", "hex": "0000"},
        {"$": "uuid"},
        {"$": ["int"]},
    ],
    ids=stable,
)
def test_malformed_leaves(node: Any) -> None:
    """The path, the kind and the reason, never a bare KeyError."""
    with pytest.raises(CorruptSnapshotError, match="at a:"):
        decode({"a": node}, {})


def test_an_element_type_nobody_has_here() -> None:
    """A type that only another version of a library knows is a matter of what is installed, not of the file."""
    with pytest.raises(ConfigurationError, match="ml_dtypes"):
        decode({"$": "numpy.dtype", "name": "bits8"}, {})
