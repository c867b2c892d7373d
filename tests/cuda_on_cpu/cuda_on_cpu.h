// The part of CUDA that the kernels use, for a C++ compiler. Blocks and threads run one after another; a kernel with
// barriers is launched in blocks of one thread, which each_lane (warp.cuh) lets do every lane's part.
#pragma once
#include <cstring>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#ifdef SIMT
#define __shared__ static __attribute__((section("shared_memory")))
#else
#define __shared__ static
#endif
#define __restrict__ __restrict
#define __forceinline__ inline
#define __align__(n) alignas(n)
#define __launch_bounds__(...)

struct Index {
    unsigned x;
};
static Index threadIdx, blockIdx, blockDim, gridDim;

struct alignas(16) int4 {
    int x, y, z, w;
};

inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }

// One load or store, whatever becomes of its parts.
typedef int Four __attribute__((vector_size(16), may_alias));
inline int4 __ldg(const int4* from) {
    const Four loaded = *reinterpret_cast<const Four*>(from);
    return {loaded[0], loaded[1], loaded[2], loaded[3]};
}
inline void __stwb(int4* to, int4 value) {
    *reinterpret_cast<Four*>(to) = Four{value.x, value.y, value.z, value.w};
}

#ifdef SIMT  // threads run as lanes of warps (warps.cpp), and so wait for each other
extern "C" void simt_barrier();
extern "C" char __start_shared_memory[] __attribute__((weak)), __stop_shared_memory[] __attribute__((weak));
extern "C" void find_shared_memory(unsigned long long* span) {
    span[0] = reinterpret_cast<unsigned long long>(__start_shared_memory);
    span[1] = static_cast<unsigned long long>(__stop_shared_memory - __start_shared_memory);
}
extern "C" void simt_launch(unsigned grid, unsigned block, void (*thread)(void*, unsigned long), void* kernel);
inline void __syncthreads() {
    const Index me = threadIdx;
    simt_barrier();
    threadIdx = me;
}
#else
inline void __syncthreads() {}
#endif

inline void __syncwarp() {}

inline unsigned __umulhi(unsigned a, unsigned b) {
    return static_cast<unsigned>(static_cast<unsigned long long>(a) * b >> 32);
}

// Byte i of the result is that of the eight bytes, a's lowest first, which digit i of the selector names.
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
    const unsigned long long bytes = static_cast<unsigned long long>(b) << 32 | a;
    unsigned result = 0;
    for (unsigned i = 0; i < 4; ++i)
        result |= static_cast<unsigned>(bytes >> 8 * (selector >> 4 * i & 7) & 0xFF) << 8 * i;
    return result;
}

inline int __clz(int bits) { return bits == 0 ? 32 : __builtin_clz(static_cast<unsigned>(bits)); }

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }

inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return static_cast<unsigned>((static_cast<unsigned long long>(high) << 32 | low) >> (shift & 31));
}

inline unsigned __funnelshift_rc(unsigned low, unsigned high, unsigned shift) {
    return shift >= 32 ? high : __funnelshift_r(low, high, shift);
}

inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    return static_cast<unsigned>((static_cast<unsigned long long>(high) << 32 | low) << (shift & 31) >> 32);
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

inline int __double2loint(double value) { return static_cast<int>(__double_as_longlong(value)); }
inline int __double2hiint(double value) { return static_cast<int>(__double_as_longlong(value) >> 32); }

inline double __hiloint2double(int high, int low) {
    return __longlong_as_double(static_cast<long long>(static_cast<unsigned long long>(high) << 32) | static_cast<unsigned>(low));
}

inline unsigned long long atomicAdd(unsigned long long* to, unsigned long long value) {
    return std::exchange(*to, *to + value);
}

inline long long atomicMin(long long* to, long long value) { return std::exchange(*to, value < *to ? value : *to); }

inline int atomicMax(int* to, int value) { return std::exchange(*to, value > *to ? value : *to); }

// CuPy compiles with -ftz=true: floats below the normal range are zeros. This does so for whatever runs meanwhile, to
// float64 too, which is right for no kernel but those that keep their sums in floats.
struct Flushing {
    const unsigned before;
#if defined(NUMBER) && defined(__SSE2__)
    Flushing() : before(__builtin_ia32_stmxcsr()) {
        if (std::is_same_v<NUMBER, float>) __builtin_ia32_ldmxcsr(before | 0x8040);
    }
    ~Flushing() { __builtin_ia32_ldmxcsr(before); }
#else
    Flushing() : before(0) {}
#endif
};

// Basic blocks that a thread goes through, and the most of any thread so far, in a build that counts them.
static unsigned long long steps, most_steps;
#ifdef COUNT_STEPS
extern "C" __attribute__((no_sanitize_coverage)) void __sanitizer_cov_trace_pc() { ++steps; }
#endif
extern "C" unsigned long long take_most_steps() { return std::exchange(most_steps, 0); }

// args: the address of each argument, as cuLaunchKernel takes them. reversed: the last thread goes first.
template <class... Args, std::size_t... I>
void launch(void (*kernel)(Args...), unsigned grid, unsigned block, bool reversed, void** args,
            std::index_sequence<I...>) {
    gridDim.x = grid;
    blockDim.x = block;
    const Flushing flushing;
#ifdef SIMT
    auto thread = [&](unsigned long index) {
        blockIdx.x = static_cast<unsigned>(index / block);
        threadIdx.x = static_cast<unsigned>(index % block);
        kernel(*static_cast<Args*>(args[I])...);
    };
    using Thread = decltype(thread);
    simt_launch(grid, block, [](void* one, unsigned long index) { (*static_cast<Thread*>(one))(index); }, &thread);
    return;
#endif
    const unsigned long long n = static_cast<unsigned long long>(grid) * block;
    for (unsigned long long i = 0; i < n; ++i) {
        const unsigned long long index = reversed ? n - 1 - i : i;
        blockIdx.x = static_cast<unsigned>(index / block);
        threadIdx.x = static_cast<unsigned>(index % block);
        steps = 0;
        kernel(*static_cast<Args*>(args[I])...);
        if (steps > most_steps) most_steps = steps;
    }
}

template <class... Args>
void launch(void (*kernel)(Args...), unsigned grid, unsigned block, bool reversed, void** args) {
    launch(kernel, grid, block, reversed, args, std::index_sequence_for<Args...>{});
}
