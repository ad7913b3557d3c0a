"""Kernels run under Triton's interpreter: on CPU tensors, one program after another.

On a machine with a GPU the same tests run on it, with the kernels as they are compiled there
(`TRITON_INTERPRET=1` calls the interpreter back).
"""

import os

import pytest

pytest.importorskip("triton")

NATIVE = os.environ["TRITON_INTERPRET"] == "0"


@pytest.fixture(autouse=True)
def on_the_gpu(monkeypatch):
    """Make the tests' tensors on the GPU where kernels are compiled; the draws stay the CPU's.

    Ops and models go to the twins, as they do for CPU tensors, unless a test says otherwise.
    """
    if not NATIVE:
        yield
        return
    monkeypatch.setenv("NF2VEC_KERNELS", "reference")
    import torch
    from torch.overrides import TorchFunctionMode

    class Drawn(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            given = kwargs or {}
            drawn = given.get("generator")
            if drawn is not None and drawn.device.type == "cpu" and "device" not in given:
                return function(*args, **given, device="cpu").cuda()
            return function(*args, **given)

    with torch.device("cuda"), Drawn():
        yield


@pytest.fixture(autouse=True)
def bfloat16_as_on_a_gpu(monkeypatch):
    """Mend the interpreter's bfloat16: it multiplies the bits as integers, and rounds to zero."""
    if NATIVE:
        return
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
