"""A stand-in for cupy.cuda.nccl beside simulated_cupy.py: it adds up over processes, by sockets.

It is stricter than NCCL, which would hang or write rubbish: sums must agree in size, dtype and
operation on all ranks and with the arrays at the addresses; arrays must be contiguous; stream and
GPU must be the current ones; two ranks must not have one GPU; and in a recording (device_checks.py:
strict_graphs) each sum must have the addresses that it had in the replay before.

As NCCL's, a sum is queued: the call returns also if another rank is gone. Then the sum never ends.
The result is NaN, and for simulated_cupy the stream is never done, until `abort`.

Leaves out: networks, and all but allReduce. Tests: tests/rl/test_nccl.py.
"""

import secrets
from multiprocessing.connection import Client, Listener

import numpy as np
import simulated_cupy

available = True
NCCL_SUM, NCCL_FLOAT32, NCCL_FLOAT64 = 0, 7, 8  # as in nccl.h
DTYPES = {NCCL_FLOAT32: np.dtype("f4"), NCCL_FLOAT64: np.dtype("f8")}
ID_BYTES = 128

_listeners = {}  # unique id: where rank 0 waits for the others


class NcclError(RuntimeError):
    pass


def get_unique_id():
    name = secrets.token_hex(16)
    unique = name.encode().ljust(ID_BYTES, b"\0")
    _listeners[unique] = Listener(_address(unique), "AF_UNIX")
    return unique


def _address(unique):
    return "\0minis5-" + unique.rstrip(b"\0").decode()  # no file


class NcclCommunicator:
    def __init__(self, ndev, commId, rank):
        assert isinstance(commId, bytes) and len(commId) == ID_BYTES
        self.rank, self.ndev, self.device = rank, ndev, simulated_cupy.Device().id
        self.recorded = {}  # (graph, number of the sum in it): its buffers and size
        if rank == 0:
            with _listeners.pop(commId) as listener:
                found = [listener.accept() for _ in range(ndev - 1)]
            told = [link.recv() for link in found]  # (rank, GPU)
            devices = {device for _, device in told} | {self.device}
            fault = None if len(devices) == ndev else "Duplicate GPU detected"
            self.links = [link for _, link in sorted(zip(told, found, strict=True))]
            for link in self.links:
                link.send(fault)
        else:
            self.links = [Client(_address(commId), "AF_UNIX")]
            self.links[0].send((rank, self.device))
            fault = self.links[0].recv()
        if fault:
            raise NcclError(fault)

    def allReduce(self, sendbuf, recvbuf, count, datatype, op, stream):
        if self.links is None:
            raise NcclError("NCCL_ERROR_INVALID_ARGUMENT: the communicator was aborted")
        buffers = [self._array(address, count, datatype) for address in (sendbuf, recvbuf)]
        if op != NCCL_SUM or stream != simulated_cupy.Stream.entered[-1].ptr:
            raise NcclError(f"a sum on the current stream, got operation {op}, stream {stream}")
        if self.device != simulated_cupy.Device().id:
            raise NcclError("the communicator is of another GPU than the current one")
        if simulated_cupy.recording:
            key = id(simulated_cupy.recording), simulated_cupy.recorded_sums
            call = sendbuf, recvbuf, count, datatype
            if self.recorded.setdefault(key, call) != call:
                raise RuntimeError("while replaying: a sum at other addresses than were recorded")
            simulated_cupy.recorded_sums += 1
        source, out = buffers
        total = self._total((count, datatype), source) if not simulated_cupy.stuck else None
        simulated_cupy.stuck = total is None
        out[:] = np.nan if total is None else total

    def _array(self, address, count, datatype):
        array = simulated_cupy.addresses.get(address)
        if array is None:
            raise NcclError(f"{address}: no array is there")
        if array.dtype != DTYPES.get(datatype) or array.size != count:
            got = f"{array.dtype} {array.shape}"
            raise NcclError(f"expected {count} of NCCL's type {datatype}, got {got}")
        if not array.flags.c_contiguous:
            raise NcclError("the array has gaps")
        return array.reshape(-1)

    def _total(self, call, mine):
        """Return the sum over the ranks, or None if one is gone."""
        try:
            if self.rank:
                self.links[0].send((call, mine))
                total = self.links[0].recv()
                if isinstance(total, str):
                    raise NcclError(total)
                return total
            calls, parts = zip((call, mine), *(link.recv() for link in self.links), strict=True)
        except (EOFError, OSError):
            if self.rank == 0:
                self._answer(None)
            return None
        if len(set(calls)) > 1:
            fault = f"the ranks' sums are of other sizes or dtypes: {calls}"
            self._answer(fault)
            raise NcclError(fault)
        total = np.empty_like(mine)
        for r, piece in enumerate(np.array_split(np.arange(mine.size), self.ndev)):
            total[piece] = parts[r][piece]  # as in a ring, each rank begins a piece
            for other in range(r + 1, r + self.ndev):
                total[piece] += parts[other % self.ndev][piece]
        self._answer(total)
        return total

    def _answer(self, what):
        for link in self.links:
            try:
                link.send(what)
            except OSError:  # it is gone; the next sum tells
                pass

    def check_async_error(self):
        pass

    def abort(self):
        if self.links is not None:
            for link in self.links:
                link.close()
        self.links, simulated_cupy.stuck = None, False
