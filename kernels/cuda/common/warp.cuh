// A warp that works in steps. A block is one warp; what is not in a step is the same for all lanes.
#pragma once

constexpr int LANES = 32;

// Every lane does the step once, and sees all that lanes wrote in the steps before. (A block of fewer threads than
// lanes is as good: each thread then does several lanes' part.)
template <class Step>
__device__ __forceinline__ void each_lane(Step step) {
    __syncthreads();
    for (int lane = threadIdx.x; lane < LANES; lane += blockDim.x) step(lane);
    __syncthreads();
}
