"""The facts about a machine: libraries with their versions, and CPUs within what may be used."""

import os
import platform

import numpy as np

import minis5
from minis5.run.machine import available_cpus, machine, versions


def test_versions():
    found = versions()
    assert found["minis5"] == minis5.__version__ and found["numpy"] == np.__version__
    assert found["python"] == platform.python_version()
    assert set(found) == {"python", "minis5", "numpy", "numba", "scipy", "gymnasium"}


def test_machine():
    facts = machine()
    assert set(facts) == {"system", "processor", "cpus"} and all(facts.values())
    assert facts["cpus"] == available_cpus()


def test_cpus_follow_the_affinity(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3}, raising=False)
    assert available_cpus() == 1
