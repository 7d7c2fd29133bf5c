"""Environments that are not written here, behind the same calls.

wrappers.py does for any gymnasium.Env what meta.py and mixture.py do for native ones: projections,
trials, a task drawn for every episode. dmc.py has the tasks of the DeepMind Control Suite itself,
if dm_control is installed. observed.py leaves out texts, and says that MiniGrid's cells are
categories. processes.py divides a batch among processes.
"""
