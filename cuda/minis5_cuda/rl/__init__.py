"""The kernels of minis5/rl, in files of the same names. Read in this order:

    distributions    log-probability, entropy and samples of actions
    rollout          the collector: steps of all environments, recorded in blocks and replayed
    outcome          what the environments' step leaves in a rollout
    last_values      the values of last observations of truncated episodes, a block at a time
    persistent       the same for a small network, all steps by one launch: what fits
    persistent_network, persistent_kernel    its network, and the steps around it
    agent            the two heads side by side
    loss             the terms of PPO's loss and their gradients
    adam             the update of the parameters
    comm             ranks on several GPUs: sums by NCCL
    ranks            what they do together in a pass: counts, moments, sums
    ppo              the passes over a rollout: minibatches, recorded in blocks and replayed
    tally            what a minibatch leaves: figures, and whether target_kl has ended the passes

Leaves out: the advantages, which are a scan in reversed time (minis5/rl/gae.py). Nothing here has
run on a GPU so far.
"""
