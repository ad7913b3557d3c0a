"""Kernels run under Triton's interpreter here: on CPU tensors, one program after another."""

import pytest

pytest.importorskip("triton")


@pytest.fixture(autouse=True)
def products_of_bfloat16(monkeypatch):
    """Let the interpreter multiply bfloat16 numbers: it takes their bits for integers."""
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder

    dot = InterpreterBuilder.create_dot

    def widened(self, a, b, *rest):
        if a.dtype.scalar == tl.bfloat16:  # products of such numbers are exact in float32
            a, b = (self.create_fp_ext(x, tl.float32) for x in (a, b))
        return dot(self, a, b, *rest)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", widened)
