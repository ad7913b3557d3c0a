import pytest
import torch

from nf2vec_cli.core.device import use_bfloat16

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("units", "used"),
    [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx512_f": True}, False)],
)
def test_a_cpu_uses_bfloat16_where_it_has_units_for_it(monkeypatch, units, used):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units, raising=False)

    assert use_bfloat16("auto", CPU) is used
    assert use_bfloat16("bfloat16", CPU) is True
    assert use_bfloat16("float32", CPU) is False
