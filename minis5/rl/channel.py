"""Messages between two processes, either of which may die at any moment, in mid-message too.

No read and no write waits: the caller waits, with a deadline, and looks after the other process
meanwhile. There is no lock and no thread that a dead process could leave behind. A message that was
cut short never arrives.

Leaves out: more than two ends. Tests: tests/rl/test_channel.py, tests/rl/test_comm.py.
"""

import os
import select
import struct
from collections import deque

HEADER = struct.Struct("<?Q")  # whether it is an error; how many bytes follow
CHUNK = 1 << 18  # bytes of one read: a socket holds about as many
PATIENCE = 0.2  # seconds between two looks at the other processes


class Channel:
    """One end of a pipe for whole messages in both directions.

    Parameters
    ----------
    connection : multiprocessing.connection.Connection
        One end of a ``multiprocessing.Pipe()``; only its file descriptor is used.

    Attributes
    ----------
    messages : deque of bytes
        What has arrived and was not yet taken.
    error : str or None
        The last message of an end that has failed.
    over : bool
        The other end is closed: nothing will arrive any more.
    """

    def __init__(self, connection):
        self._connection, self._fd = connection, connection.fileno()
        os.set_blocking(self._fd, False)
        self._bytes, self.messages, self.error, self.over = bytearray(), deque(), None, False
        self._readable, self._writable = select.poll(), select.poll()
        self._readable.register(self._fd, select.POLLIN)
        self._writable.register(self._fd, select.POLLOUT)

    def read(self):
        """Take in what has arrived, without waiting."""
        while not self.over:
            try:
                data = os.read(self._fd, CHUNK)
            except BlockingIOError:
                break
            except ConnectionError:
                data = b""
            self.over = not data
            self._bytes += data
        while len(self._bytes) >= HEADER.size:
            is_error, length = HEADER.unpack_from(self._bytes)
            end = HEADER.size + length
            if len(self._bytes) < end:
                break
            message = bytes(memoryview(self._bytes)[HEADER.size : end])
            del self._bytes[:end]
            if is_error:
                self.error = message.decode(errors="replace")
            else:
                self.messages.append(message)

    def take(self):
        """Return the next message, or None if it is not here yet."""
        if not self.messages:
            self.read()
        return self.messages.popleft() if self.messages else None

    def wait(self):
        """Wait a little, until something arrives; return the next message or None."""
        self._readable.poll(PATIENCE * 1000)
        return self.take()

    def write(self, message, check, is_error=False):
        """Send bytes; whenever there is no room, call ``check()`` and wait a little.

        Raises
        ------
        ConnectionError
            The other end is closed.
        Exception
            What ``check`` raises.
        """
        for part in (HEADER.pack(is_error, len(message)), message):
            rest = memoryview(part)
            while rest:
                try:
                    rest = rest[os.write(self._fd, rest) :]
                except BlockingIOError:
                    check()
                    self._writable.poll(PATIENCE * 1000)

    def close(self):
        """Close this end."""
        self._connection.close()
        self.over = True
