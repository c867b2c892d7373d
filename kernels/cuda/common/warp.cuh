// A warp that works in steps. A block is one warp; outside steps, all lanes do the same.
#pragma once

constexpr int LANES = 32;

// Every lane does the step once, and sees all that lanes wrote in earlier steps. (A block may have fewer threads than
// lanes: each thread then does the work of several lanes.)
template <class Step>
__device__ __forceinline__ void each_lane(Step step) {
    __syncthreads();
    for (int lane = threadIdx.x; lane < LANES; lane += blockDim.x) step(lane);
    __syncthreads();
}

// At the end of a loop's body: keeps the compiler from making two loops of it, one in the other, where lanes that have
// ended a round of the inner one would wait for all others.
__device__ __forceinline__ void stay_one_loop() { asm volatile(""); }

// The same, more firmly, where all threads of a warp go round until they return: lanes wait for each other once a round.
__device__ __forceinline__ void meet() { __syncwarp(); }
