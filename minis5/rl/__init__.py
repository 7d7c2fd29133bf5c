"""The agent and its trainer.

In the order in which to read them:

    agent            encoder, memory core, two heads; acting step by step
    distributions    categorical, multi-categorical, Gaussian
    rollout          T steps of experience, across automatic resets
    gae              advantages, as the scan run backwards in time
    loss             PPO's loss and its gradient, term by term
    adam             Adam with clipping by the global norm
    ppo              the loop: collect, replay from the stored state, update

When needed:

    config           AgentConfig, PPOConfig
    images           convolutions of observations that are images
    actions          between a distribution and an action space
    masks            which actions are legal, from the environment to the logits
    normalize        running normalisation of observations and rewards
    first_value      where the critic starts
    doors            checks of what an agent is given; rows: distributions; learning_doors: the
                     loss, advantages and Adam
    autoreset        how a vector environment begins and ends episodes
    rates            parameters that learn at another rate
    comm             several processes that train one agent; workers starts and watches them,
                     channel carries their messages; mpi has the same for ranks of MPI
    agent_file       an agent in one .npz; spaces_json writes its spaces,
                     settings_json checks its settings
    weight_names     names of weights in other programs; weights_out writes them, weights_in reads
                     them, array_file has their formats
    malloc           asks the C library to keep freed memory
"""
