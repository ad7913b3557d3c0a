"""Steps that are done many times as one."""

from contextlib import nullcontext
from types import SimpleNamespace

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


def test_a_graph_whose_recording_failed_is_not_replayed(monkeypatch):
    """Stand-ins for CUDA: only what is recorded and replayed counts here."""
    recorded, replayed, broken = [], [], [False]

    def step():
        if broken[0]:
            raise ValueError("no memory")
        recorded.append(1)

    for name in ("device", "graph", "stream"):
        monkeypatch.setattr(torch.cuda, name, nullcontext)
    stream = SimpleNamespace(wait_stream=lambda _: None)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
    graph = SimpleNamespace(replay=lambda: replayed.append(1))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graph)
    many = Repeated(step, 3, torch.device("cuda"))
    many()

    broken[0] = True
    for _ in range(2):
        with pytest.raises(ValueError, match="no memory"):
            many()
    assert not replayed

    broken[0] = False
    many()
    many()
    assert (len(recorded), len(replayed)) == (3 + 3, 2)
