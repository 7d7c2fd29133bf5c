"""Kernels of minis5/rl, in files of the same names."""
