"""Twelve levels of the DeepMind Control Suite, one file a task, equal to dm_control's to rounding.

Begin with physics.py (masses, inertias, soft limits) and reward.py (the shapes of rewards), then
pendulum.py, the smallest task. point_mass.py and reacher.py add limits, cartpole.py and acrobot.py
the method of Runge and Kutta. ball_in_cup.py comes next, with contact.py for its string and
contacts; then finger.py, with fingertip.py (where it touches) and finger_forces.py (how hard).
"""
