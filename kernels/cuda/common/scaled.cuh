// float64 with an exponent of its own, for segments whose forward scores leave the normal range.
//
// mantissa in [0.5, 1), zero is (0, 0); every operation rounds once, to 53 bits. As long as plain float64 stays normal it
// gives the same mantissas, so either may be used (reference.py, Number). Powers of two are made from their bits.
#pragma once
#include "common/text.cuh"

struct Scaled {
    double mantissa;
    i64 exponent;
};

// A difference of exponents at which the smaller of two numbers is far below half a unit in the last place of the other.
constexpr i64 FAR_BELOW = -900;

__device__ __forceinline__ double power_of_two(i64 exponent) { return __longlong_as_double((1023 + exponent) << 52); }

// value * 2^exponent, for a value that is 0 or normal and positive.
__device__ __forceinline__ Scaled scaled(double value, i64 exponent) {
    if (value == 0.0) return {0.0, 0};
    const i64 bits = __double_as_longlong(value);
    const i64 mantissa = (bits & 0x000FFFFFFFFFFFFF) | 0x3FE0000000000000;
    return {__longlong_as_double(mantissa), exponent + (bits >> 52) - 1022};
}

// value * 2^by for by <= 0, or 0 if that is too little to count.
__device__ __forceinline__ double lowered(double value, i64 by) {
    return value == 0.0 || by < FAR_BELOW ? 0.0 : value * power_of_two(by);
}

__device__ __forceinline__ Scaled add(Scaled a, Scaled b) {
    if (a.mantissa == 0.0) return b;
    if (b.mantissa == 0.0) return a;
    const i64 exponent = a.exponent > b.exponent ? a.exponent : b.exponent;
    return scaled(lowered(a.mantissa, a.exponent - exponent) + lowered(b.mantissa, b.exponent - exponent), exponent);
}

// a - b for b <= a.
__device__ __forceinline__ Scaled subtract(Scaled a, Scaled b) {
    return scaled(a.mantissa - lowered(b.mantissa, b.exponent - a.exponent), a.exponent);
}

__device__ __forceinline__ bool greater(Scaled a, Scaled b) {
    if (a.mantissa == 0.0 || b.mantissa == 0.0) return a.mantissa > b.mantissa;
    return a.exponent > b.exponent || (a.exponent == b.exponent && a.mantissa > b.mantissa);
}
