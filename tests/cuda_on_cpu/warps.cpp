// How a multiprocessor would run a kernel built by g++: which lanes go together, what each warp asks of the caches.
//
// A kernel compiled with -fsanitize=thread and -fsanitize-coverage=trace-pc calls a function here at every load, store and
// basic block. Threads are recorded one by one (as fibers, which wait for one another at barriers), and 32 of them are
// replayed as a warp: lanes go on together while they are at the same block in the same iteration of the same loops, and
// wait for the others where paths meet again, as compilers arrange it. Loops are found in the blocks that were seen to
// follow each other, so a kernel is recorded once for these, and once more, on the same data, to be replayed.
//
// Resident blocks take turns, a step of each warp at a time. L1 is LRU over 128-byte lines of four sectors, written
// through; behind it is this multiprocessor's share of L2, once with lines of one sector and once with whole lines, which
// bounds what a real one does from both sides. L2 is written back. Tables, which all multiprocessors read, are always in L2.
#include <dlfcn.h>
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

typedef std::uint64_t u64;

namespace {

constexpr unsigned LANES = 32, SECTOR = 32, LINE = 128, BANKS = 32;
constexpr std::size_t STACK = 1 << 16;
// An event is a block's number with BLOCK, or an address with the size in bytes, the number of its site, and STORE.
constexpr u64 BLOCK = 1ull << 63, STORE = 1ull << 62, SIZE_SHIFT = 48, SITE_SHIFT = 53;
constexpr u64 ADDRESS = (1ull << SIZE_SHIFT) - 1, SIZE = 31, SITE = 511;

struct Traffic {  // of one array; host_device's traced twin reads it field by field
    u64 loads, load_lanes, load_sectors, stores, store_lanes, store_sectors, l2_loads, l2_waits;
    u64 dram_sectors, dram_waits, dram_lines;
};

struct Array {
    u64 base, size, is_table;
};

std::vector<Array> arrays;        // the kernel's arguments; the last one is shared memory
std::vector<Traffic> traffic;     // of each

struct Places {  // in code, numbered as they are met, and how often warps and lanes were there
    std::vector<u64> pcs, warps, lanes;
    std::unordered_map<u64, int> numbers;

    void start() { pcs.clear(), numbers.clear(), warps.clear(), lanes.clear(); }
    int number(u64 pc) {
        const auto [at, is_new] = numbers.try_emplace(pc, static_cast<int>(pcs.size()));
        if (is_new) pcs.push_back(pc), warps.push_back(0), lanes.push_back(0);
        return at->second;
    }
    void count(int i, u64 n_lanes) { ++warps[i], lanes[i] += n_lanes; }
};

Places blocks, sites;  // basic blocks; loads and stores
std::set<std::pair<int, int>> edges;  // blocks that follow each other; -1 is the start
bool is_replay = false;
std::vector<u64>* trace = nullptr;  // of the thread that runs
int last_block = -1;

void note(const void* at, u64 size, bool is_store, void* pc) {
    if (!trace || !is_replay) return;
    const u64 site = static_cast<u64>(sites.number(reinterpret_cast<u64>(pc)));
    if (site > SITE) std::fprintf(stderr, "a kernel with more than %d loads and stores\n", int(SITE)), std::abort();
    trace->push_back((reinterpret_cast<u64>(at) & ADDRESS) | size << SIZE_SHIFT | site << SITE_SHIFT | (is_store ? STORE : 0));
}

// Lines, each with the sectors that are in it, and those that must be written back; the one that was not used for longest
// leaves.
class Cache {
    struct Entry {
        u64 line;
        unsigned sectors, dirty, before, after;  // in the order of their last uses
    };
    const unsigned sectors_per_line;
    std::size_t capacity = 0;
    std::vector<Entry> entries;
    std::unordered_map<u64, unsigned> where;
    unsigned first = 0, last = 0;

    void unlink(unsigned i) {
        const Entry& entry = entries[i];
        (i == first ? first : entries[entry.before].after) = entry.after;
        (i == last ? last : entries[entry.after].before) = entry.before;
    }
    void put_first(unsigned i) {
        entries[i].after = first, entries[first].before = i, first = i;
    }

   public:
    unsigned written_back = 0;  // sectors, by the last touch

    explicit Cache(unsigned sectors_per_line) : sectors_per_line(sectors_per_line) {}

    void start(std::size_t bytes) {
        capacity = std::max<std::size_t>(1, bytes / (SECTOR * sectors_per_line));
        entries.clear(), where.clear();
    }

    // Whether the line and the sector were there; they are now.
    std::pair<bool, bool> touch(u64 sector, bool is_dirty) {
        const u64 line = sector / sectors_per_line;
        const unsigned bit = 1u << sector % sectors_per_line;
        written_back = 0;
        const auto [found, is_new] = where.try_emplace(line, static_cast<unsigned>(entries.size()));
        if (!is_new) {
            if (found->second != first) unlink(found->second), put_first(found->second);
        } else if (entries.size() < capacity) {
            entries.push_back({line, 0, 0, 0, 0});
            if (entries.size() == 1) first = last = 0;
            else put_first(found->second);
        } else {
            const unsigned victim = last;
            written_back = static_cast<unsigned>(__builtin_popcount(entries[victim].dirty));
            where.erase(entries[victim].line);
            if (victim != first) unlink(victim), put_first(victim);
            entries[victim].line = line, entries[victim].sectors = entries[victim].dirty = 0;
            where[line] = victim;
        }
        Entry& entry = entries[first];
        const bool has_sector = entry.sectors & bit;
        entry.sectors |= bit;
        if (is_dirty) entry.dirty |= bit;
        return {!is_new, has_sector};
    }
};

Cache l1{LINE / SECTOR}, l2{1}, l2_of_lines{LINE / SECTOR};

std::size_t array_of(u64 address) {
    for (std::size_t i = 0; i < arrays.size(); ++i)
        if (address - arrays[i].base < arrays[i].size) return i;
    return arrays.size();
}

// Whether DRAM is asked.
bool reach_l2(u64 sector, Traffic& of, bool is_store) {
    const bool hit = l2.touch(sector, is_store).second;
    of.dram_sectors += l2.written_back;
    of.dram_lines += !l2_of_lines.touch(sector, is_store).first && !is_store;
    of.dram_lines += l2_of_lines.written_back != 0;
    of.dram_sectors += !hit && !is_store;
    return !hit && !is_store;
}

// The loops of a kernel, by the order in which its blocks are met and by which of them dominate which.
struct Loops {
    std::vector<int> place;                // of each block in reverse postorder
    std::vector<std::vector<int>> around;  // the headers of the loops that a block is in, outermost first

    void find() {
        const int n = static_cast<int>(blocks.pcs.size());
        std::vector<std::vector<int>> next(n + 1), previous(n + 1);  // n is the start
        for (const auto& [from, to] : edges) {
            next[from < 0 ? n : from].push_back(to);
            previous[to].push_back(from < 0 ? n : from);
        }
        std::vector<int> postorder, state(n + 1, 0), stack{n};
        std::vector<std::size_t> at(n + 1, 0);
        state[n] = 1;
        while (!stack.empty()) {
            const int block = stack.back();
            if (at[block] < next[block].size()) {
                const int to = next[block][at[block]++];
                if (!state[to]) state[to] = 1, stack.push_back(to);
            } else {
                postorder.push_back(block), stack.pop_back();
            }
        }
        const std::vector<int> order(postorder.rbegin(), postorder.rend());
        place.assign(n + 1, 0);
        for (int i = 0; i < static_cast<int>(order.size()); ++i) place[order[i]] = i;
        std::vector<int> dominator(n + 1, -1);
        dominator[n] = n;
        for (bool changed = true; changed;) {
            changed = false;
            for (int block : order) {
                if (block == n) continue;
                int best = -1;
                for (int from : previous[block]) {
                    if (dominator[from] < 0) continue;
                    for (int a = from; best >= 0 && a != best;) {
                        if (place[a] > place[best]) a = dominator[a];
                        else best = dominator[best];
                    }
                    if (best < 0) best = from;
                }
                if (dominator[block] != best) dominator[block] = best, changed = true;
            }
        }
        std::map<int, std::set<int>> bodies;
        for (const auto& [from, to] : edges) {
            if (from < 0) continue;
            int up = from;
            while (up != to && up != n) up = dominator[up];
            if (up != to) continue;
            std::set<int>& body = bodies[to];
            body.insert(to);
            std::vector<int> todo{from};
            while (!todo.empty()) {
                const int block = todo.back();
                todo.pop_back();
                if (body.insert(block).second)
                    for (int before : previous[block]) todo.push_back(before);
            }
        }
        around.assign(n, {});
        std::vector<std::pair<std::size_t, int>> by_size;
        for (const auto& [header, body] : bodies) by_size.push_back({body.size(), header});
        std::sort(by_size.rbegin(), by_size.rend());
        for (const auto& [size, header] : by_size)
            for (int block : bodies[header]) around[block].push_back(header);
    }
};

Loops loops;
constexpr int DEPTH = 8;

struct Lane {
    std::vector<u64> events;
    std::size_t at = 0;
    int block = -1, depth = 0;
    std::array<int, DEPTH> iterations{};
    std::array<int, 2 * DEPTH + 1> key{};  // places and iterations, from the outermost loop inwards

    bool done() const { return at >= events.size(); }

    // Enter the block that is next.
    void enter() {
        const int to = static_cast<int>(events[at] & ~BLOCK);
        const std::vector<int>& inner = loops.around[to];
        const int n = static_cast<int>(inner.size());
        int common = 0;
        if (block >= 0) {
            const std::vector<int>& outer = loops.around[block];
            while (common < n && common < static_cast<int>(outer.size()) && inner[common] == outer[common]) ++common;
        }
        for (int i = 0; i < common; ++i)
            if (inner[i] == to) ++iterations[i], common = i + 1;
        for (int i = common; i < n; ++i) iterations[i] = 0;
        block = to, depth = n;
        key.fill(-1);
        for (int i = 0; i < n; ++i) key[2 * i] = loops.place[inner[i]], key[2 * i + 1] = iterations[i];
        key[2 * n] = loops.place[to];
    }
};

struct Warp {
    std::vector<Lane> lanes;

    // The lanes that are behind all others go through one block; false if all are done.
    bool step() {
        std::array<Lane*, LANES> active;
        unsigned n = 0;
        for (Lane& lane : lanes) {
            if (lane.done()) continue;
            if (n == 0 || lane.key < active[0]->key) active[0] = &lane, n = 1;
            else if (lane.key == active[0]->key) active[n++] = &lane;
        }
        if (n == 0) return false;
        blocks.count(active[0]->block, n);
        for (unsigned i = 0; i < n; ++i) ++active[i]->at;
        while (access(active, n)) {}
        for (unsigned i = 0; i < n; ++i)
            if (!active[i]->done()) active[i]->enter();
        return true;
    }

    // The next load or store of these lanes, if their block has another one.
    bool access(const std::array<Lane*, LANES>& active, unsigned n) {
        std::array<u64, 3 * LANES> touched;
        unsigned n_touched = 0, n_lanes = 0;
        u64 first = 0;
        for (unsigned i = 0; i < n; ++i) {
            Lane& lane = *active[i];
            if (lane.done() || (lane.events[lane.at] & BLOCK)) continue;
            const u64 event = lane.events[lane.at++], from = event & ADDRESS;
            const u64 size = event >> SIZE_SHIFT & SIZE;
            if (n_lanes++ == 0) first = event;
            for (u64 sector = from / SECTOR; sector <= (from + size - 1) / SECTOR && n_touched < touched.size(); ++sector)
                touched[n_touched++] = sector;
        }
        if (n_lanes == 0) return false;
        sites.count(static_cast<int>(first >> SITE_SHIFT & SITE), n_lanes);
        const std::size_t i_array = array_of(first & ADDRESS);
        if (i_array == arrays.size()) return true;  // the thread's own, in registers
        Traffic& of = traffic[i_array];
        const bool is_store = first & STORE;
        std::sort(touched.begin(), touched.begin() + n_touched);
        const unsigned n_sectors = static_cast<unsigned>(std::unique(touched.begin(), touched.begin() + n_touched) - touched.begin());
        (is_store ? of.stores : of.loads) += 1;
        (is_store ? of.store_lanes : of.load_lanes) += n_lanes;
        (is_store ? of.store_sectors : of.load_sectors) += n_sectors;
        if (i_array + 1 == arrays.size()) return true;  // shared memory
        bool asks_l2 = false, asks_dram = false;
        for (unsigned i = 0; i < n_sectors; ++i) {
            const bool hit = l1.touch(touched[i], false).second;
            if (hit && !is_store) continue;
            asks_dram |= !arrays[i_array].is_table && reach_l2(touched[i], of, is_store);
            asks_l2 |= !is_store;
            of.l2_loads += !is_store;
        }
        of.l2_waits += asks_l2 && !asks_dram;
        of.dram_waits += asks_dram;
        return true;
    }
};

struct Fiber {
    ucontext_t context;
    std::vector<u64>* events;
    int last_block = -1;
    bool done = false;
};

std::vector<Fiber> fibers;
std::vector<std::unique_ptr<char[]>> stacks;
ucontext_t scheduler;
Fiber* running = nullptr;

typedef void (*Thread)(void* kernel, u64 index);
Thread run_thread;
void* run_kernel;

void run_fiber(unsigned low, unsigned high) {
    run_thread(run_kernel, static_cast<u64>(high) << 32 | low);
    running->done = true;
}

// Record the threads of a block into events; where they are one warp, all run up to a barrier in turn.
void record(u64 block, unsigned threads, std::vector<std::vector<u64>>& events) {
    events.assign(threads, {});
    if (threads != LANES) {
        for (unsigned i = 0; i < threads; ++i) {
            trace = &events[i], last_block = -1;
            run_thread(run_kernel, block * threads + i);
        }
        trace = nullptr;
        return;
    }
    fibers.assign(threads, {});
    while (stacks.size() < threads) stacks.emplace_back(new char[STACK]);
    for (unsigned i = 0; i < threads; ++i) {
        const u64 index = block * threads + i;
        fibers[i].events = &events[i];
        getcontext(&fibers[i].context);
        fibers[i].context.uc_stack.ss_sp = stacks[i].get();
        fibers[i].context.uc_stack.ss_size = STACK;
        fibers[i].context.uc_link = &scheduler;
        makecontext(&fibers[i].context, reinterpret_cast<void (*)()>(run_fiber), 2, static_cast<unsigned>(index),
                    static_cast<unsigned>(index >> 32));
    }
    for (bool more = true; more;) {
        more = false;
        for (Fiber& fiber : fibers) {
            if (fiber.done) continue;
            running = &fiber, trace = fiber.events, last_block = fiber.last_block;
            swapcontext(&scheduler, &fiber.context);
            fiber.last_block = last_block;
            more = true;
        }
    }
    trace = nullptr, running = nullptr;
}

struct Resident {
    std::vector<Warp> warps;

    Resident(u64 block, unsigned threads) {
        std::vector<std::vector<u64>> events;
        record(block, threads, events);
        warps.resize((threads + LANES - 1) / LANES);
        for (unsigned i = 0; i < threads; ++i) {
            Lane lane;
            lane.events = std::move(events[i]);
            if (!lane.done()) lane.enter();
            warps[i / LANES].lanes.push_back(std::move(lane));
        }
    }
    bool step() {
        bool more = false;
        for (Warp& warp : warps) more |= warp.step();
        return more;
    }
};

std::size_t resident_blocks = 1;

}  // namespace

#define NOTE(name, size, is_store) \
    extern "C" void __tsan_##name(void* at) { note(at, size, is_store, __builtin_return_address(0)); }
#define NOTED(size)                                                         \
    NOTE(read##size, size, false) NOTE(unaligned_read##size, size, false)  \
    NOTE(write##size, size, true) NOTE(unaligned_write##size, size, true)
NOTED(1) NOTED(2) NOTED(4) NOTED(8) NOTED(16)
// Of structures, which a GPU moves by at most 16 bytes.
#define NOTE_RANGE(name, is_store)                                                                          \
    extern "C" void __tsan_##name##_range(void* at, std::size_t size) {                                    \
        for (std::size_t i = 0; i < size; i += 16)                                                         \
            note(static_cast<char*>(at) + i, size - i < 16 ? static_cast<int>(size - i) : 16, is_store,    \
                 __builtin_return_address(0));                                                              \
    }
NOTE_RANGE(read, false) NOTE_RANGE(write, true)
extern "C" void __tsan_init() {}
extern "C" void __tsan_func_entry(void*) {}
extern "C" void __tsan_func_exit() {}

extern "C" void __sanitizer_cov_trace_pc() {
    if (!trace) return;
    const int block = blocks.number(reinterpret_cast<u64>(__builtin_return_address(0)));
    if (is_replay) trace->push_back(BLOCK | static_cast<u64>(block));
    else if (last_block != block || !edges.count({last_block, block})) edges.insert({last_block, block});
    last_block = block;
}

extern "C" void simt_barrier() {
    if (running) swapcontext(&running->context, &scheduler);
    else if (trace) std::fprintf(stderr, "a barrier in blocks of more than one warp cannot be simulated\n"), std::abort();
}

// Threads of a kernel, run by what the library of the kernel gives; called with is_replay unset, then set.
extern "C" void simt_launch(unsigned grid, unsigned block, Thread thread, void* kernel) {
    run_thread = thread, run_kernel = kernel;
    if (!is_replay) {
        std::vector<std::vector<u64>> events;
        for (u64 i = 0; i < grid; ++i) record(i, block, events);
        return;
    }
    loops.find();
    std::list<Resident> resident;
    for (u64 next = 0; next < grid || !resident.empty();) {
        while (next < grid && resident.size() < resident_blocks) resident.emplace_back(next++, block);
        for (auto at = resident.begin(); at != resident.end();) {
            if (at->step()) ++at;
            else at = resident.erase(at);
        }
    }
}

extern "C" void simt_start(u64 n_arrays, const Array* given, u64 l1_bytes, u64 l2_bytes) {
    arrays.assign(given, given + n_arrays);
    traffic.assign(n_arrays, {});
    blocks.start(), sites.start(), edges.clear();
    l1.start(l1_bytes), l2.start(l2_bytes), l2_of_lines.start(l2_bytes);
    is_replay = false;
}

extern "C" void simt_replay(u64 blocks) { is_replay = true, resident_blocks = blocks; }
extern "C" u64 simt_num_blocks() { return blocks.pcs.size(); }
extern "C" u64 simt_num_sites() { return sites.pcs.size(); }

// Of every block or site: where it is in its library, and executions by warps and by lanes.
extern "C" void simt_places(bool of_blocks, u64* offsets, u64* warps, u64* lanes) {
    const Places& of = of_blocks ? blocks : sites;
    for (std::size_t i = 0; i < of.pcs.size(); ++i) {
        Dl_info info;
        offsets[i] = dladdr(reinterpret_cast<void*>(of.pcs[i]), &info) ? of.pcs[i] - reinterpret_cast<u64>(info.dli_fbase) : 0;
        warps[i] = of.warps[i], lanes[i] = of.lanes[i];
    }
}

// Whether an outermost loop begins at a block.
extern "C" bool simt_begins_loop(u64 block) {
    return !loops.around[block].empty() && loops.around[block].front() == static_cast<int>(block);
}

extern "C" void simt_traffic(Traffic* out) { std::copy(traffic.begin(), traffic.end(), out); }
