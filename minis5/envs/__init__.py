"""Environments: native ones, compiled and in batches, and foreign ones behind the same call.

Begin with registry.py, which makes them all by name. task.py says what an environment is: a module
of scalar functions on rows of integers and floats. batch_loops.py steps a batch of them, and
states.py checks states that are put back. vector.py and single.py put the loops behind Gymnasium's
interfaces, and actions.py checks what goes in. The environments themselves: popgym/ and control/,
one file a game or task, and memory_chain.py.
compose.py, meta.py and mixture.py make environments of others: several trials an episode,
projections, a task drawn for every episode. random_returns.py has the random policy's returns.
foreign/ is for environments that are not written here.
"""
