"""A step of work that is done many times: on a GPU as one CUDA graph, else one after another."""

from __future__ import annotations

from collections.abc import Callable

import torch


class Repeated:
    """`times` steps as one; the step works on tensors in place and asks nothing of the host.

    On CUDA the first call runs the steps one by one, on a stream of its own: kernels are compiled
    and buffers allocated, and the steps count. The second call records them as a graph, and from
    then on a call is one launch. Elsewhere each call runs the steps: the graph's twin.
    """

    def __init__(self, step: Callable[[], None], times: int, device: torch.device) -> None:
        self.step, self.times, self.device = step, times, device
        self.graph: torch.cuda.CUDAGraph | None = None
        self._warm = False

    def __call__(self) -> None:
        """Do the steps."""
        if self.device.type != "cuda":
            self._one_by_one()
            return
        with torch.cuda.device(self.device):
            if not self._warm:
                self._warm_up()
                return
            if self.graph is None:
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    self._one_by_one()
                self.graph = graph  # only now: a step that raises leaves none to replay
            self.graph.replay()

    def _warm_up(self) -> None:
        here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            self._one_by_one()
        here.wait_stream(aside)
        self._warm = True

    def _one_by_one(self) -> None:
        for _ in range(self.times):
            self.step()
