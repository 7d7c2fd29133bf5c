"""A stand-in for CuPy without a GPU: NumPy underneath, Numba's simulator for kernels.

All of minis5 that runs on CuPy arrays runs here too. The stand-in is stricter than CuPy. An array
is wrapped, so that nothing works by accident which CuPy refuses: mixing with NumPy arrays,
implicit conversion, functions that CuPy does not have. (A test looks for FUNCTIONS and METHODS in
the real CuPy if it can be imported.) While `recording`, as in a CUDA graph, it is an error to
wait for the GPU or to copy from the host. There are SIMULATED_GPUS GPUs (a variable of the
environment), by default one. The sums of several are in simulated_nccl.py.

Leaves out: streams (it only knows which is current), memory pools, speed.
"""

import os
import sys
import threading
import types
import weakref
from contextlib import contextmanager

import numpy as np

FUNCTIONS = """arange array asarray ascontiguousarray broadcast_to clip empty empty_like exp eye
full full_like log maximum minimum moveaxis multiply ones ones_like rint sqrt sum
where zeros zeros_like""".split()
METHODS = "all any argmax astype conj copy max mean min ravel reshape sum take transpose".split()

__version__ = "simulated"
recording = False  # as within a CUDA graph
recorded_sums = 0  # of NCCL, in this recording
waits = 0  # how often the host waited
stuck = False  # a sum was queued that never ends, because another rank is gone
addresses = weakref.WeakValueDictionary()  # where arrays are that were asked for it


def _wait(what):
    global waits
    if recording:
        raise RuntimeError(f"{what} waits for the GPU, while recording")
    if stuck:
        raise AssertionError(f"{what} waits for a sum that never ends; nothing can interrupt it")
    waits += 1


def unwrap(x):
    """Return what NumPy can compute with."""
    if isinstance(x, ndarray):
        return x._a
    if isinstance(x, np.ndarray) and x.ndim:
        raise TypeError(f"Unsupported type {type(x)}")  # CuPy's words
    if isinstance(x, tuple | list):
        return type(x)(map(unwrap, x))
    return x


def wrap(x):
    if isinstance(x, tuple):
        return tuple(map(wrap, x))
    return ndarray(np.asarray(x)) if isinstance(x, np.ndarray | np.generic) else x


class ndarray:
    """cupy.ndarray, as far as minis5 uses it."""

    __array_ufunc__ = None
    __slots__ = ("_a",)

    def __init__(self, a):
        self._a = a

    def __array__(self, *args, **kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    @property
    def __cuda_array_interface__(self):
        return {**self._a.__array_interface__, "version": 3, "stream": Stream.entered[-1].ptr or 1}

    @property
    def data(self):
        addresses[self._a.ctypes.data] = self._a
        return types.SimpleNamespace(ptr=self._a.ctypes.data)

    def get(self):
        _wait("get")
        return self._a.copy()

    def view(self, kind):
        return self._a if kind is np.ndarray else ndarray(self._a.view(kind))

    def __getitem__(self, index):
        if _is_mask(index):
            _wait("indexing with a mask")
        return ndarray(np.asarray(self._a[unwrap(index)]))

    def __setitem__(self, index, value):
        if _is_mask(index):
            _wait("indexing with a mask")
        self._a[unwrap(index)] = unwrap(value)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __len__(self):
        return len(self._a)

    def __repr__(self):
        return f"simulated {self._a!r}"


def _is_mask(index):
    parts = index if isinstance(index, tuple) else (index,)
    return any(getattr(part, "dtype", None) == np.bool_ for part in parts)


def _property(name):
    def get(self):
        return (
            wrap(getattr(self._a, name))
            if name in ("T", "real", "imag")
            else getattr(self._a, name)
        )

    def put(self, value):
        setattr(self._a, name, unwrap(value))

    return property(get, put)


def _method(name):
    def method(self, *args, **kwargs):
        function = getattr(self._a, name)
        return wrap(function(*map(unwrap, args), **{k: unwrap(v) for k, v in kwargs.items()}))

    return method


def _operator(name):
    def operate(self, *others):
        result = getattr(self._a, name)(*map(unwrap, others))
        if result is NotImplemented:
            return NotImplemented
        return self if name.startswith("__i") and name != "__invert__" else wrap(result)

    return operate


def _scalar(name):
    def convert(self):
        _wait(name)
        return getattr(self._a, name)()

    return convert


for _name in "shape dtype ndim size itemsize nbytes strides flags T real imag".split():
    setattr(ndarray, _name, _property(_name))
for _name in METHODS:
    setattr(ndarray, _name, _method(_name))
for _name in "add sub mul truediv floordiv mod pow and or xor matmul lshift rshift".split():
    for _kind in ("", "r", "i"):
        setattr(ndarray, f"__{_kind}{_name}__", _operator(f"__{_kind}{_name}__"))
for _name in "lt le eq ne gt ge neg abs invert".split():
    setattr(ndarray, f"__{_name}__", _operator(f"__{_name}__"))
for _name in "bool int float index".split():
    setattr(ndarray, f"__{_name}__", _scalar(f"__{_name}__"))
ndarray.item = _scalar("item")
ndarray.__hash__ = None


def asarray(x, dtype=None):
    """Return a copy of a host array; of a device array the same memory, if the dtype is right."""
    if isinstance(x, ndarray):
        return x if dtype is None or x.dtype == dtype else ndarray(x._a.astype(dtype))
    if recording:
        raise RuntimeError(
            "while recording: a copy from the host, or a look at another library's array"
        )
    if hasattr(type(x), "__cuda_array_interface__"):  # Numba's
        return asarray(ndarray(x._ary), dtype)
    return ndarray(np.array(x, dtype))


array = asarray


def concatenate(arrays, axis=0):
    if recording and len(arrays) > 8:
        raise RuntimeError(
            "while recording: cupy.concatenate of more than eight arrays copies from the host"
        )
    return wrap(np.concatenate(unwrap(list(arrays)), axis=axis))


def __getattr__(name):
    value = getattr(np, name)
    if name in FUNCTIONS:
        return lambda *args, **kwargs: wrap(
            value(*map(unwrap, args), **{k: unwrap(v) for k, v in kwargs.items()})
        )
    if isinstance(value, type | float):
        return value
    raise AttributeError(
        f"simulated CuPy has no {name}; does the real one? Then add it to FUNCTIONS"
    )


class Stream:
    entered = []  # the last one is the current one

    def __init__(self, null=False, non_blocking=False):
        self.ptr = 0 if null else id(self)

    def __enter__(self):
        self.entered.append(self)
        return self

    def __exit__(self, *error):
        self.entered.pop()

    def synchronize(self):
        _wait("synchronize")

    @property
    def done(self):
        if recording:
            raise RuntimeError("done, while recording")
        return not stuck


class Event:
    done = True

    def record(self, stream=None):
        pass


Stream.null = Stream(null=True)
Stream.entered.append(Stream.null)
current = threading.local()  # its number: the GPU that is current in a thread


def device_count():
    return int(os.environ.get("SIMULATED_GPUS", "1"))


class Device:
    """A GPU; a context in which it is the current one of this thread."""

    def __init__(self, number=None):
        self.id = getattr(current, "number", 0) if number is None else number
        assert 0 <= self.id < device_count(), f"there is no GPU {self.id}"
        self.before = []

    def use(self):
        current.number = self.id

    def __enter__(self):
        self.before.append(Device().id)
        self.use()
        return self

    def __exit__(self, *error):
        current.number = self.before.pop()


cuda = types.SimpleNamespace(
    Device=Device,
    Stream=Stream,
    Event=Event,
    get_current_stream=lambda: Stream.entered[-1],
    runtime=types.SimpleNamespace(
        getDeviceCount=device_count,
        getDevice=lambda: Device().id,
        deviceGetPCIBusId=lambda device: f"0000:{device:02X}:00.0",
        getDeviceProperties=lambda device: {"name": b"simulated", "totalGlobalMem": 0},
        driverGetVersion=lambda: 0,
        runtimeGetVersion=lambda: 0,
    ),
    memory=types.SimpleNamespace(OutOfMemoryError=type("OutOfMemoryError", (MemoryError,), {})),
)


@contextmanager
def recorded(graph=True):
    """Record what is done within, as it were, or replay it as the recording of ``graph``."""
    global recording, recorded_sums
    recording, recorded_sums = graph, 0
    try:
        yield
    finally:
        recording = False


def _not_recorded(copy):
    """Make one of Numba's copies between host and device an error while recording."""

    def checked(*args, **kwargs):
        if recording:
            raise RuntimeError(f"{copy.__name__}, while recording")
        return copy(*args, **kwargs)

    return checked


def install():
    """Become CuPy for this process, and know Numba's simulated arrays."""
    import simulated_nccl
    from numba import cuda as numba_cuda
    from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

    sys.modules["cupy"], sys.modules["cupy.cuda"] = sys.modules[__name__], cuda
    cuda.nccl = simulated_nccl
    FakeCUDAArray.__cuda_array_interface__ = property(
        lambda self: {**self._ary.__array_interface__, "stream": None}
    )
    numba_cuda.as_cuda_array = lambda a, sync=True: FakeCUDAArray(a._a)
    for name in ("copy_to_host", "copy_to_device"):
        setattr(FakeCUDAArray, name, _not_recorded(getattr(FakeCUDAArray, name)))
