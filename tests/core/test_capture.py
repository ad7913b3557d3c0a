"""Steps that are done many times as one."""

import pytest
import torch

from nf2vec_cli.core.capture import Repeated


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_every_call_does_all_steps(device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    x = torch.zeros(3, device=device)
    many = Repeated(lambda: x.add_(1), 4, x.device)

    seen = []
    for _ in range(4):
        many()
        seen.append(x.tolist())

    assert seen == [[4.0] * 3, [8.0] * 3, [12.0] * 3, [16.0] * 3]
