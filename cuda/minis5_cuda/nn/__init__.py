"""The kernels of minis5/nn, in files of the same names. Read in this order:

    scan_textbook    Blelloch's scan as in the textbook: slow, and short
    scan             how the fast scan divides time among threads, and the launchers of its kernels
    scan_kernels     those kernels: forward and backward, chunked and sequential
    scan_steps       what they are made of: loads, ⊕, the two sweeps
    scan_look_back   how tiles that run at the same time find the state before them
    layers           bias and activation, layer normalisation, gates
    s5, discretize   the S5 layer around its scan: skip connection; Λ̄, w and the matrices
    matrices         the matrices of all S5 layers in one launch, and their gradients
    s5_core          the stack of S5 layers as a whole, in fewer launches
    gru, lstm        one step of a recurrent layer
    attention_loops, attention       self-attention: forward and backward; an agent's one step
    conv             columns of images for a matrix product

Leaves out: matrix products (blas.py). None of these kernels has run on a GPU so far.
"""
