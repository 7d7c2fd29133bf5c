"""The program of a test in the simulator: `python simulated_main.py MODULE CALL`.

Without arguments it serves: it imports what all tests need, and forks for each line of JSON that it
reads (simulator.py). A process that it spawns runs this file too, under another name, and so has
the same stand-ins.
"""

import gc
import json
import os
import sys
import traceback

import simulated_cupy
import simulator
import tested_kernels

simulated_cupy.install()
simulator.mend()
simulator.small_blocks()


def run(module, call):
    """Return the exit status of a call of a module's function."""
    with tested_kernels.watched(f"{module}.{call.partition('(')[0]}"):
        code = eval(f"__import__({module!r}).{call}")
    return code if type(code) is int else 0  # that of a command line


def become(environment, folder, path, output):
    """Give this process the environment, the working folder, the path and the output of a test."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path.insert(1, path)
    for source, number in ((os.devnull, 0), (output, 1), (output, 2)):
        opened = os.open(source, os.O_RDWR | os.O_APPEND)
        os.dup2(opened, number)
        os.close(opened)


def serve():
    """Fork for each request, and answer with the exit status."""
    import minis5_cuda.register  # noqa: F401
    import pytest  # noqa: F401

    import minis5.public  # noqa: F401

    gc.freeze()
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        module, call, *where = json.loads(line)
        if (child := os.fork()) == 0:
            code = 1
            try:
                become(*where)
                code = run(module, call)
            except SystemExit as error:
                code = error.code if type(error.code) is int else int(error.code is not None)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=answers, flush=True)


if __name__ == "__main__":
    if sys.argv[1:]:
        sys.exit(run(*sys.argv[1:]))
    serve()
