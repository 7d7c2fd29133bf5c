"""The kernels of minis5/rl, in files of the same names. Read in this order:

    distributions    log-probability, entropy and samples of actions
    rollout          the collector: one step of all environments, recorded once and replayed
    outcome          what the environments' step leaves in a rollout
    persistent       the same for a small network, all steps by one launch: what fits
    persistent_network, persistent_kernel    its network, and the steps around it
    loss             the terms of PPO's loss and their gradients
    adam             the update of the parameters
    comm             ranks on several GPUs: sums by NCCL
    ranks            what they do together in a pass: counts, moments, sums
    ppo              the passes over a rollout: one minibatch, recorded once and replayed

Leaves out: the advantages, which are a scan in reversed time (minis5/rl/gae.py). Nothing here has
run on a GPU so far.
"""
