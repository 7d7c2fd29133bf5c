"""The program of a test in the simulator: `python simulated_main.py MODULE CALL`.

A process that it spawns runs this file too, under another name, and so has the same stand-ins.
"""

import sys

import simulated_cupy
import simulator
import tested_kernels

simulated_cupy.install()
simulator.mend()
simulator.small_blocks()

if __name__ == "__main__":
    module, call = sys.argv[1:]
    with tested_kernels.watched(f"{module}.{call.partition('(')[0]}"):
        code = eval(f"__import__({module!r}).{call}")
    sys.exit(code if type(code) is int else 0)  # that of a command line
