"""CUDA C++ readings of the stages, compiled at run time.

Contract: float64 + * and comparisons only, compiled without fused multiply-add; the ids are those of kernels.cpu, bit
for bit. tests/cuda_on_cpu compiles the same sources with a C++ compiler and runs them without a GPU.
"""
