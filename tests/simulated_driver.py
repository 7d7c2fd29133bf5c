"""A CuPy that only tells how many GPUs there are, for tests of what is missing."""

from types import SimpleNamespace


def fake_cupy(count):
    """Return a CuPy that sees ``count`` GPUs, or raises ``count`` if it is an error."""

    def device_count():
        if isinstance(count, Exception):
            raise count
        return count

    return SimpleNamespace(
        cuda=SimpleNamespace(runtime=SimpleNamespace(getDeviceCount=device_count)),
        asarray=lambda x: ("asarray", x),
        from_dlpack=lambda x: ("from_dlpack", x),
    )
