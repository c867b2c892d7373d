"""The stages in CUDA C++, compiled at run time.

Contract: only float64 + * and comparisons, compiled without fused multiply-add; the ids equal those of kernels.cpu.
tests/cuda_on_cpu compiles the same sources with a C++ compiler and runs them without a GPU.
"""
