// The trie of reversed pieces: a walk backwards from e finds the arcs into e, shortest first.
#pragma once
#include "common/text.cuh"

// A node is one load: x its base, y its check, z and w the low and high half of its value, the weight or the score of the
// piece that ends here, or of an unknown arc where the walk has gone a symbol that is no piece; NaN where no arc ends. The child of a node by a byte is slot base + byte if that slot's check is the
// node; base + 255 always exists.
typedef int4 Node;

struct Walk {
    int node;
    int base;
};

struct __align__(16) Arc {
    double value;
    int length;
    int node;  // UNKNOWN for a symbol that is not in the trie
};

__device__ __forceinline__ bool is_arc(double value) { return value == value; }

__device__ __forceinline__ Walk root(const Node* nodes) { return {0, nodes[0].x}; }

__device__ __forceinline__ bool descend(const Node* nodes, Walk& walk, u8 byte, double& value) {
    const int slot = walk.base + byte;
    const Node next = __ldg(nodes + slot);
    value = __hiloint2double(next.w, next.z);
    if (next.y != walk.node) return false;
    walk = {slot, next.x};
    return true;
}

// visit(value, length, node) every arc into e that begins at or after start, shortest first; node is UNKNOWN for a symbol
// that is not in the trie.
template <class Visit>
__device__ __forceinline__ void visit_arcs(const u8* text, i64 start, i64 e, const Node* nodes, double unk_value,
                                           Visit visit) {
    const int symbol = symbol_into(text, e);
    int length = 0;
    double value;
    Walk walk = root(nodes);
    while (length < e - start && descend(nodes, walk, text[e - length - 1], value)) {
        ++length;
        if (is_arc(value)) visit(value, length, walk.node);
    }
    if (length < symbol) visit(unk_value, symbol, UNKNOWN);
}

// Write the arcs into e that begin at or after start; returns how many.
__device__ inline int find_arcs(const u8* text, i64 start, i64 e, const Node* nodes, double unk_value, Arc* arcs) {
    int n = 0;
    visit_arcs(text, start, e, nodes, unk_value,
               [&](double value, int length, int node) { arcs[n++] = {value, length, node}; });
    return n;
}

// The id of the piece that is exactly text[start..stop), or -1.
__device__ inline int find_piece(const u8* text, i64 start, i64 stop, const Node* nodes, const int* piece_at) {
    Walk walk = root(nodes);
    double value;
    for (i64 p = stop; p > start; --p)
        if (!descend(nodes, walk, text[p - 1], value)) return -1;
    return piece_at[walk.node];
}
