"""Kernels run under Triton's interpreter here: on CPU tensors, one program after another."""

import pytest

pytest.importorskip("triton")


@pytest.fixture(autouse=True)
def bfloat16_as_on_a_gpu(monkeypatch):
    """Mend the interpreter's bfloat16: it multiplies the bits as integers, and rounds to zero."""
    import numpy as np
    import torch
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    dot, truncate = InterpreterBuilder.create_dot, InterpreterBuilder.create_fp_trunc

    def widened(self, a, b, *rest):
        if a.dtype.scalar == tl.bfloat16:  # products of such numbers are exact in float32
            a, b = (self.create_fp_ext(x, tl.float32) for x in (a, b))
        return dot(self, a, b, *rest)

    def rounded(self, x, to):
        if (x.dtype.scalar, to.scalar) != (tl.float32, tl.bfloat16):
            return truncate(self, x, to)
        nearest = torch.from_numpy(np.ascontiguousarray(x.data)).bfloat16()
        return TensorHandle(nearest.view(torch.uint16).numpy(), tl.bfloat16)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", widened)
    monkeypatch.setattr(InterpreterBuilder, "create_fp_trunc", rounded)
