// The part of CUDA that the kernels use, for a C++ compiler. Blocks and threads run one after another; a kernel with
// barriers is launched in blocks of one thread, which each_lane (warp.cuh) lets do every lane's part.
#pragma once
#include <cstring>
#include <utility>

#define __global__
#define __device__
#define __shared__ static
#define __restrict__ __restrict
#define __forceinline__ inline
#define __align__(n) alignas(n)
#define __launch_bounds__(n)

struct Index {
    unsigned x;
};
static Index threadIdx, blockIdx, blockDim, gridDim;

struct alignas(16) int4 {
    int x, y, z, w;
};

inline int4 __ldg(const int4* from) { return *from; }

inline void __syncthreads() {}

inline unsigned __umulhi(unsigned a, unsigned b) {
    return static_cast<unsigned>(static_cast<unsigned long long>(a) * b >> 32);
}

inline double __longlong_as_double(long long bits) {
    double value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline long long __double_as_longlong(double value) {
    long long bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline double __hiloint2double(int high, int low) {
    return __longlong_as_double(static_cast<long long>(static_cast<unsigned long long>(high) << 32) | static_cast<unsigned>(low));
}

inline unsigned long long atomicAdd(unsigned long long* to, unsigned long long value) {
    return std::exchange(*to, *to + value);
}

inline long long atomicMin(long long* to, long long value) { return std::exchange(*to, value < *to ? value : *to); }

// args: the address of each argument, as cuLaunchKernel takes them. reversed: the last thread goes first.
template <class... Args, std::size_t... I>
void launch(void (*kernel)(Args...), unsigned grid, unsigned block, bool reversed, void** args,
            std::index_sequence<I...>) {
    gridDim.x = grid;
    blockDim.x = block;
    const unsigned long long n = static_cast<unsigned long long>(grid) * block;
    for (unsigned long long i = 0; i < n; ++i) {
        const unsigned long long index = reversed ? n - 1 - i : i;
        blockIdx.x = static_cast<unsigned>(index / block);
        threadIdx.x = static_cast<unsigned>(index % block);
        kernel(*static_cast<Args*>(args[I])...);
    }
}

template <class... Args>
void launch(void (*kernel)(Args...), unsigned grid, unsigned block, bool reversed, void** args) {
    launch(kernel, grid, block, reversed, args, std::index_sequence_for<Args...>{});
}
