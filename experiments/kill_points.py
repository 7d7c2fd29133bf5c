"""Count what a process does to the files of one folder, and kill it before one of these operations.

`Operations` takes the place of the functions of Python that open, write, flush, rename and remove.
A write counts twice: the kill comes before it, or when half of it is in the file.

Leaves out: what libraries in C do to files. Tests: tests/run/test_kill.py.
"""

import builtins
import io
import os
import re
import signal

BY_PATH = ("replace", "rename", "unlink", "remove", "mkdir", "rmdir", "truncate")
BY_DESCRIPTOR = ("fsync", "ftruncate")


class Operations:
    """Operations of this process (not of its children) on files in a folder.

    Parameters
    ----------
    folder : path
        The folder itself counts too.
    fatal : int
        The process is killed before this one, counted from 1; 0 kills none.

    Attributes
    ----------
    names : list of str
        What has happened, such as "fsync state.npz".
    """

    def __init__(self, folder, fatal=0):
        self.folder, self.fatal, self.names = os.path.realpath(folder), fatal, []
        self._process = os.getpid()

    def count(self, name, path):
        """Count an operation on ``path``; be killed if it is the fatal one."""
        if os.getpid() != self._process or not isinstance(path, (str, bytes, os.PathLike)):
            return False
        path = os.path.realpath(os.fsdecode(path))
        if path != self.folder and os.path.dirname(path) != self.folder:
            return False
        file = re.sub(r"^\.(.*)\.\d+\.tmp$", r"\1's temporary file", os.path.basename(path))
        self.names.append(f"{name} {'the folder' if path == self.folder else file}")
        if len(self.names) == self.fatal:
            os.kill(self._process, signal.SIGKILL)
        return True

    def install(self):
        """Put counting functions in the place of Python's own, for the rest of this process."""
        for name in BY_PATH:
            setattr(os, name, self._by_path(name, getattr(os, name)))
        for name in BY_DESCRIPTOR:
            setattr(os, name, self._by_descriptor(name, getattr(os, name)))
        os.open = self._opener(os.open)
        builtins.open = io.open = self._file_opener(io.open)

    def _by_path(self, name, function):
        def counted(path, *arguments, **options):
            self.count(name, path)
            return function(path, *arguments, **options)

        return counted

    def _by_descriptor(self, name, function):
        def counted(descriptor, *arguments):
            number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
            self.count(name, os.readlink(f"/proc/self/fd/{number}"))
            return function(descriptor, *arguments)

        return counted

    def _opener(self, function):
        def counted(path, flags, *arguments, **options):
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self.count("open", path)
            return function(path, flags, *arguments, **options)

        return counted

    def _file_opener(self, function):
        def counted(path, mode="r", *arguments, **options):
            counts = set(mode) & set("wax+") and self.count("open", path)
            file = function(path, mode, *arguments, **options)
            # a picture is written in dozens of small parts, and drawn anew on resuming
            return Halves(file, self, path) if counts and not str(path).endswith(".png") else file

        return counted


class Halves:
    """A file that makes two writes of one."""

    def __init__(self, file, operations, path):
        self._file, self._count, self._path = file, operations.count, path

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()

    def write(self, data):
        """Write ``data`` in two parts, both of which reach the system at once."""
        half = len(data) // 2
        self._count("write", self._path)
        self._file.write(data[:half])
        self._file.flush()
        self._count("write the second half of", self._path)
        return half + self._file.write(data[half:])
