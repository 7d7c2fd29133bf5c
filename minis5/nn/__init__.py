"""Layers and memory cores, without autodiff: every forward is above its backward.

In the order in which to read them:

    scan             the resettable linear recurrence and its adjoint
    hippo            the initial values of an S5 layer
    discretize       Λ and a step become Λ̄ and w
    layers           dense layers, LayerNorm, activations and gates
    s5               the S5 layer: matrix products around the scan
    s5_core          the stack of S5 layers, the paper's memory
    cores            the protocol that every core follows, and the table of cores
    parameters       trees of parameters, random initial values
    scalars          tanh, sigmoid, gelu and exp for compiled loops

When needed:

    layer_doors, doors    what layers and cores check before a compiled loop sees it

The other cores, for comparison:

    rnn, gru, lstm                  code that GRU and LSTM share; one file for each
    attention_loops, attention      causal self-attention over a window of past steps
    mlp                             dense layers, without memory

For observations that are images:

    conv             convolutions: columns of an image, then one matrix product
"""
