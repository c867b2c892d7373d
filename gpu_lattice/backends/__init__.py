"""Where texts are segmented: the CPU or a CUDA device, by the same few functions."""
