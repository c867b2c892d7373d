// The pieces in the order of their bytes: piece i is values[offsets[i]..offsets[i + 1]), its id ids[i].
#pragma once
#include "common/text.cuh"

// -1, 0 or 1 if the bytes a come before, equal or come after the bytes b.
__device__ inline int compare(const u8* a, i64 a_length, const u8* b, i64 b_length) {
    for (i64 i = 0; i < a_length && i < b_length; ++i)
        if (a[i] != b[i]) return a[i] < b[i] ? -1 : 1;
    return a_length < b_length ? -1 : a_length > b_length ? 1 : 0;
}

struct SortedPieces {
    const u8* values;
    const i64* offsets;
    const int* ids;
    i64 n;

    // The index of text[start..stop) among them, or -1.
    __device__ i64 find(const u8* text, i64 start, i64 stop) const {
        i64 low = 0, high = n - 1;
        while (low <= high) {
            const i64 middle = (low + high) / 2;
            const int order =
                compare(text + start, stop - start, values + offsets[middle], offsets[middle + 1] - offsets[middle]);
            if (order == 0) return middle;
            if (order < 0) high = middle - 1;
            else low = middle + 1;
        }
        return -1;
    }
};
