"""Ranks on several GPUs, one process a GPU: NCCL sums what is on the GPUs.

Messages, and sums of arrays on the host, go through the communicator that started the ranks
(minis5/rl/comm.py, mpi.py). It also hands NCCL's unique id from rank 0 to the others.

NCCL's sums are queued on a stream and can be recorded in a graph. They are the same bits on every
rank, but their order is that of NCCL's rings and trees, not that of the ranks.

If a rank dies, the sums that the others have queued never end, and no signal interrupts a process
that waits for CUDA. So nobody waits there: `NCCLComm.wait` asks again and again whether the stream
is done and whether the others live. If one has failed, it raises RankError, and `close` aborts
NCCL's communicator, so that what is queued ends. Rank 0 then ends the other processes, as on the
CPU. NCCL meets in a thread, which can be left behind, and connects all GPUs then, so that no later
call waits for another rank.

Leaves out: more than one GPU a process; a rank that is replaced; MIG, which NCCL does not know; a
rank that dies while another loads the kernels of its first minibatch, if the driver waits then.
Source: NCCL's user guide, "Fault tolerance" and "Using NCCL with CUDA graphs"; cupy.cuda.nccl of
CuPy 14.2. Specification and CPU form: minis5/rl/comm.py. None of it has run on a GPU so far.
Tests: tests/rl/test_nccl.py (simulator), tests/gpu/test_nccl.py.
"""

import os
import socket
import time
import warnings
from pathlib import Path
from threading import Thread

import numpy as np

from minis5.arrays import DeviceError, on_gpu
from minis5.ops import form_of
from minis5.rl import comm as cpu
from minis5.rl.workers import RankError
from minis5_cuda.launch import use_device

LOOK = 0.05  # seconds between two looks at the other ranks
SLEEP = 1e-4  # seconds between two questions whether a stream is done
LAST = 1.0  # seconds that NCCL has for its end
INSTALL = "pip install 'minis5[nccl]'"


def load_nccl():
    """Return cupy.cuda.nccl.

    Raises
    ------
    DeviceError
        CuPy cannot load NCCL.
    """
    with warnings.catch_warnings(record=True) as told:  # CuPy's, of many lines
        warnings.simplefilter("always")
        from cupy.cuda import nccl
    if not nccl.available:
        lines = " ".join(str(warning.message) for warning in told).split("Reason: ")[-1].split()
        why = " ".join(lines[: lines.index("You")] if "You" in lines else lines)
        got = f" ({why})" if why else ""
        raise DeviceError(
            f"workers: several GPUs need NCCL, which CuPy could not load{got}; {INSTALL}, or ask "
            "for --workers 1"
        )
    return nccl


def choose(visible):
    """Return which of its GPUs each rank takes: the first that no lower rank has taken.

    Parameters
    ----------
    visible : list of list
        For each rank the GPUs that CUDA shows it, in CUDA's order, by names that differ from GPU to
        GPU, of all hosts.

    Raises
    ------
    ValueError
        None is left for a rank.
    """
    taken, chosen = set(), []
    for rank, gpus in enumerate(visible):
        free = [i for i, gpu in enumerate(gpus) if gpu not in taken]
        if not free:
            raise ValueError(
                f"workers: expected a GPU for each rank of a host, got none for rank {rank}, which "
                f"sees {len(gpus)} that others have; start fewer ranks there, or let CUDA see more "
                "GPUs (CUDA_VISIBLE_DEVICES)"
            )
        chosen.append(free[0])
        taken.add(gpus[free[0]])
    return chosen


def visible_gpus():
    """Return the names of the GPUs that CUDA shows this process: (host, place on its PCI bus)."""
    from cupy.cuda import runtime

    try:
        host = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        host = socket.gethostname()
    return [(host, runtime.deviceGetPCIBusId(i)) for i in range(runtime.getDeviceCount())]


@form_of(cpu.Comm)
class NCCLComm(cpu.Comm):
    """One of the ranks, with a GPU of its own, which it makes the current one.

    It is a context, at whose end `close` is called. Alone, a rank keeps the GPU that is current.

    Parameters
    ----------
    host : minis5.rl.comm.Comm
        The ranks, on the host. All of them make an NCCLComm at the same time.

    Attributes
    ----------
    graphs : list of minis5_cuda.graphs.Graph or Series
        Those in which sums may be recorded. `close` drops them first, because NCCL waits for them.

    Raises
    ------
    DeviceError
        CuPy cannot load NCCL, or NCCL cannot connect the GPUs.
    ValueError
        There are more ranks than GPUs.
    RankError
        Another rank has failed.
    """

    def __init__(self, host):
        self.host, self.rank, self.size = host, host.rank, host.size
        self.graphs, self._nccl = [], None
        if self.size > 1:
            self._types = self._take_gpu(load_nccl())

    @staticmethod
    def check_ranks(ranks, here):
        """Raise DeviceError without NCCL, ValueError if ``ranks`` are more than this host's GPUs.

        here: whether all of them are to run on this host.
        """
        from cupy.cuda import runtime

        load_nccl()
        if here and ranks > (gpus := runtime.getDeviceCount()):
            raise ValueError(
                f"workers: expected at most {gpus}, a GPU that CUDA sees for each, got {ranks}; "
                f"ask for --workers {gpus}, or let CUDA see more GPUs (CUDA_VISIBLE_DEVICES)"
            )

    def _take_gpu(self, nccl):
        """Take a GPU and meet the other ranks; return NCCL's number of each dtype."""
        from cupy.cuda import Device

        visible = self.gather(visible_gpus())
        chosen, name = self.broadcast(
            None if self.rank else (choose(visible), nccl.get_unique_id())
        )
        use_device(chosen[self.rank])
        device, met = Device(chosen[self.rank]), []
        device.use()
        os.environ.setdefault("NCCL_RUNTIME_CONNECT", "0")  # connect now, not in the first sum

        def meet():
            try:
                with device:  # a thread has a current GPU of its own
                    met.append(nccl.NcclCommunicator(self.size, name, self.rank))
            except Exception as error:
                met.append(error)

        began, thread = time.perf_counter(), Thread(target=meet, daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(LOOK)
            if thread.is_alive():
                self.check(time.perf_counter() - began)
        if isinstance(met[0], Exception):
            raise DeviceError(
                f"workers: NCCL could not connect the GPUs of {self.size} ranks ({met[0]}); "
                "NCCL_DEBUG=WARN in the environment tells more, --workers 1 needs none"
            ) from met[0]
        self._nccl, self._sum = met[0], nccl.NCCL_SUM
        return {np.dtype("f4"): nccl.NCCL_FLOAT32, np.dtype("f8"): nccl.NCCL_FLOAT64}

    def gather(self, obj):
        return self.host.gather(obj)

    def broadcast(self, obj):
        return self.host.broadcast(obj)

    def check(self, waited=0.0):
        self.host.check(waited)

    def allreduce(self, vector):
        if not on_gpu(vector):
            return self.host.allreduce(vector)
        total = vector.copy()
        self.add_up(total)
        return total

    def add_up(self, vector):
        """Replace a vector on the GPU by its sum over the ranks.

        The work is queued on the current stream, and may be recorded in one of `graphs`.

        Parameters
        ----------
        vector : (n,) C-contiguous float32 or float64 array
            Of one size and dtype on all ranks. In a recording, it must stay where it is.

        Raises
        ------
        TypeError, ValueError
            Another dtype; not contiguous.
        """
        from cupy.cuda import get_current_stream

        if self.size == 1:
            return
        if vector.dtype not in self._types:
            raise TypeError(f"vector: expected float32 or float64, got {vector.dtype}; cast it")
        if not vector.flags.c_contiguous:
            raise ValueError("vector: expected a contiguous one, got one with gaps; copy it")
        address, kind = vector.data.ptr, self._types[vector.dtype]
        stream = get_current_stream().ptr
        self._nccl.allReduce(address, address, vector.size, kind, self._sum, stream)

    def wait(self, stream):
        """Wait until what is queued on ``stream`` is done, sums over the ranks among it.

        Raises
        ------
        RankError
            Another rank has failed, or NCCL has lost it.
        """
        began = looked = time.perf_counter()
        while not stream.done:
            now = time.perf_counter()
            if now - began > cpu.SPIN:
                time.sleep(SLEEP)
            if now - looked > LOOK:
                looked = now
                self.check(now - began)
                self._check_nccl()

    def _check_nccl(self):
        try:
            self._nccl.check_async_error()
        except RuntimeError as error:  # NcclError
            raise RankError(f"NCCL lost another rank ({error})") from error

    def close(self):
        """Let go of NCCL; sums that are still queued end without a result."""
        for graph in self.graphs:
            graph.drop()
        self.graphs, nccl, self._nccl = [], self._nccl, None
        if nccl is not None:
            # ncclCommAbort may wait for a recording that the driver has not let go of yet
            thread = Thread(target=nccl.abort, daemon=True)
            thread.start()
            thread.join(LAST)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()
