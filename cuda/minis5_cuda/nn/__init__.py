"""Kernels of minis5/nn, in files of the same names."""
