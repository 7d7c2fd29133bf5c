"""Which library an array belongs to, and moving it; without a GPU."""

import sys

import numpy as np
from simulated_driver import fake_cupy

from minis5.arrays import DLPACK_CUDA, array_module, as_array, move, on_gpu, to_host


class Interface:
    __cuda_array_interface__ = {}  # noqa: RUF012  as little as is looked at


class Exported:
    def __init__(self, device):
        self.device = device

    def __dlpack_device__(self):
        return self.device, 0


def test_arrays_are_found_where_they_live(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(1))
    host, there, exported, other = np.ones(3), Interface(), Exported(DLPACK_CUDA), Exported(1)
    assert as_array(host) is host and to_host(host) is host and move(host, "cpu") is host
    assert (
        as_array(there) == ("asarray", there)
        and as_array(exported) == ("from_dlpack", exported)
        and as_array(other) is other
    )
    assert (
        on_gpu(there)
        and not on_gpu(host)
        and array_module(host) is np
        and array_module(there) is sys.modules["cupy"]
    )
    assert move(host, "cuda")[0] == "asarray"
