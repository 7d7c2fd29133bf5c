"""Environments that are not written here, behind the same calls.

wrappers.py does for any gymnasium.Env what meta.py and mixture.py do for native ones: projections,
trials, a task drawn for every episode. dmc.py has the tasks of the DeepMind Control Suite itself,
if dm_control is installed. observed.py leaves out texts, and says that MiniGrid's cells are
categories; partial.py hides some numbers. make.py makes batches by id; named.py looks up what a
text names. batch.py steps them and checks what comes back, processes.py divides them among
processes.
"""
