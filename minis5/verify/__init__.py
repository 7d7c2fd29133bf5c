"""What others check their scan, layer, memory core, environment and PPO with.

gradients.py compares backward passes with central differences. memory_core.py checks one of
minis5's cores. lockstep.py plays an environment side by side with another.
"""
