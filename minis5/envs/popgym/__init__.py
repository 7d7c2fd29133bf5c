"""The games of POPGym, step by step the same as popgym's, one file each.

Begin with repeat_previous.py, the smallest: header with the rules and the quirks of POPGym that are
kept, levels, state, then configure, reset, step, observe and render (minis5/envs/task.py says what
each must do). The other card games are repeat_first, autoencode, count_recall, higher_lower and
concentration; deck.py is their pack. Boards and machines: battleship, minesweeper,
multiarmed_bandit. Control: cartpole and pendulum, with noise.py. The labyrinths are the longest.
"""
