"""Kernels run under Triton's interpreter here: on CPU tensors, one program after another."""

import pytest

pytest.importorskip("triton")
