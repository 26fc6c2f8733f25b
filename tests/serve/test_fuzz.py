"""Requests made from the OpenAPI document, and bytes given to the vector decoder: refused or answered, never a 500."""

import base64

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

from gindex.errors import ConfigError
from gindex.serve.vector_formats import decode_base64, decode_npy

schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis")


def test_requests_of_the_document(served):
    """What the document allows, and what it does not, for each operation."""
    document = schemathesis.openapi.from_url(f"{served.url}/openapi.json")
    known = schemathesis.checks
    checks = [
        known.not_a_server_error,
        *known.CHECKS.get_by_names(["response_schema_conformance", "content_type_conformance"]),
    ]
    operations = [found.ok() for found in document.get_all_operations()]
    assert len(operations) >= 11
    seen = set()
    for operation in operations:
        for mode in schemathesis.GenerationMode:

            @settings(max_examples=12, deadline=None, database=None, suppress_health_check=list(HealthCheck))
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case):
                if "name" in case.path_parameters and len(seen) % 4:
                    case.path_parameters["name"] = "index"
                response = case.call()
                if response.content == b"Invalid HTTP request received.":  # the HTTP server's own words
                    assert len(response.request.url) > 65_000 and response.status_code == 400
                    return
                case.validate_response(response, checks=checks)
                seen.add((case.operation.path, response.status_code))

            try:
                ask()
            except Unsatisfiable:  # an operation without parameters cannot be asked wrongly
                assert mode.is_negative
    assert {200, 404, 422} <= {status for _, status in seen}


D = 16


def npy(header: bytes, body: bytes, version: int = 1) -> bytes:
    length = len(header).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + body


def refused_or_right(decode, content) -> None:
    try:
        found = decode(content, D)
    except ConfigError:
        return
    assert found.dtype == np.float32 and found.shape[-1] == D and np.isfinite(found).all()


HEADERS = st.builds(
    "{{'descr': '{}', 'fortran_order': {}, 'shape': {}, }}{}".format,
    st.sampled_from(["<f4", "<f8", "<f2", ">f4", "|O", "<i4", "|V4", "<f4,<f4"]),
    st.sampled_from(["False", "True", "0"]),
    st.one_of(
        st.sampled_from([f"({D},)", f"(2, {D})", f"({D}, 2)", f"(0, {D})", "()", f"(-1, {D})", f"({10**12}, {D})"]),
        st.text(max_size=20),
    ),
    st.sampled_from(["", "\n", " " * 40 + "\n", "\n__import__('os')"]),
).map(lambda text: text.encode("latin-1", "replace"))


@given(content=st.one_of(st.binary(max_size=300), st.builds(npy, HEADERS, st.binary(max_size=300), st.integers(0, 4))))
def test_npy_decoder_with_anything(content):
    refused_or_right(decode_npy, content)


@given(
    content=st.one_of(
        st.text(max_size=120), st.binary(min_size=60, max_size=68).map(lambda b: base64.b64encode(b).decode())
    )
)
def test_base64_decoder_with_anything(content):
    refused_or_right(decode_base64, content)


@given(
    rows=st.integers(1, 4),
    dtype=st.sampled_from(["<f4", "<f8", "<f2"]),
    seed=st.integers(0, 2**32 - 1),
    flat=st.booleans(),
)
def test_what_numpy_writes_is_read(rows, dtype, seed, flat):
    import io

    vectors = np.random.default_rng(seed).standard_normal((1 if flat else rows, D)).astype(dtype)
    out = io.BytesIO()
    np.save(out, vectors[0] if flat else vectors)
    np.testing.assert_array_equal(decode_npy(out.getvalue(), D), vectors.astype(np.float32))
    text = base64.b64encode(vectors[0].astype("<f4").tobytes()).decode()
    np.testing.assert_array_equal(decode_base64(text, D), vectors[0].astype(np.float32))
