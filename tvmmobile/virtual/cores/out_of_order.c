/* How an out-of-order core schedules a block that runs over and over: the rules that out_of_order.py states, in the numbers it writes down. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef int64_t cycles_t;

/* A kind of pipeline. `taken` counts its pipelines that are taken in each cycle. From cycle `from` up to `upto`, without it, none is free for
   what takes this kind. */
struct kind {
    int pipelines, part_of, entries, queue, parts[2], once;
    int32_t *taken;
    cycles_t length, from, upto;
    int waiting; /* in its queue: when they leave it, the latest ones of all so far, earliest first */
    cycles_t *leaves;
};

struct core {
    int window, instructions_per_cycle, micro_operations_per_cycle, dispatch_latency, base_latency, passes, kinds, registers;
    struct kind *kind;
    cycles_t instructions, micro_operations; /* dispatched, and the slots that passed unused */
    cycles_t *in_flight, flying, place;      /* when each micro-operation in the window leaves it: a ring */
    cycles_t retired;
    cycles_t *ready, *early;
    int *chain; /* of a register's early result, -1 for none */
    int failed;
};

static cycles_t larger(cycles_t one, cycles_t other) { return one > other ? one : other; }

static int reach(struct core *core, struct kind *kind, cycles_t cycle) {
    if (cycle < kind->length) return 1;
    cycles_t length = larger(2 * kind->length, cycle + 1024);
    int32_t *taken = realloc(kind->taken, (size_t)length * sizeof *taken);
    if (!taken) { core->failed = 1; return 0; }
    memset(taken + kind->length, 0, (size_t)(length - kind->length) * sizeof *taken);
    kind->taken = taken;
    kind->length = length;
    return 1;
}

static int is_free(struct core *core, int kind, cycles_t cycle) {
    for (int k = kind; k >= 0; k = core->kind[k].part_of) {
        if (!reach(core, &core->kind[k], cycle)) return 1;
        if (core->kind[k].taken[cycle] >= core->kind[k].pipelines) return 0;
    }
    return 1;
}

static void enter(struct kind *queue, cycles_t leaves) {
    int at = queue->waiting;
    if (at == queue->entries) {
        if (leaves <= queue->leaves[0]) return;
        memmove(queue->leaves, queue->leaves + 1, (size_t)(--at) * sizeof *queue->leaves);
    } else queue->waiting++;
    for (; at > 0 && queue->leaves[at - 1] > leaves; at--) queue->leaves[at] = queue->leaves[at - 1];
    queue->leaves[at] = leaves;
}

/* The first cycle in which that many more can enter. */
static cycles_t room_in(const struct kind *queue, int entries) {
    int missing = queue->waiting + (entries < queue->entries ? entries : queue->entries) - queue->entries;
    return missing > 0 ? queue->leaves[missing - 1] : 0;
}

static int waiting_in(const struct kind *queue, cycles_t now) {
    int left = queue->waiting;
    while (left > 0 && queue->leaves[queue->waiting - left] <= now) left--;
    return left;
}

/* Take as many free slots of a kind from `start` on; the cycle of the last one. */
static cycles_t take(struct core *core, int port, cycles_t start, int cycles) {
    struct kind *kind = &core->kind[port];
    int queue = kind->queue;
    if (start < kind->from || start > kind->upto) kind->from = kind->upto = start;
    cycles_t at = kind->upto;
    for (;;) {
        while (!is_free(core, port, at)) at++;
        if (core->failed) return at;
        for (int k = port; k >= 0; k = core->kind[k].part_of) core->kind[k].taken[at]++;
        if (queue >= 0) {
            enter(&core->kind[queue], at);
            if (kind->once) queue = -1;
        }
        if (--cycles == 0) {
            kind->upto = at;
            return at;
        }
    }
}

static cycles_t room_for(const struct core *core, const int32_t *ports, int count) {
    cycles_t cycle = 0;
    for (int i = 0; i < count; i++) {
        const struct kind *kind = &core->kind[ports[2 * i]];
        if (kind->parts[0] >= 0) {
            cycles_t one = room_in(&core->kind[core->kind[kind->parts[0]].queue], 1);
            cycles_t other = room_in(&core->kind[core->kind[kind->parts[1]].queue], 1);
            cycle = larger(cycle, one < other ? one : other);
        } else if (kind->queue >= 0) cycle = larger(cycle, room_in(&core->kind[kind->queue], kind->once ? 1 : ports[2 * i + 1]));
    }
    return cycle;
}

static cycles_t dispatch(struct core *core, int micro_operations, cycles_t room) {
    cycles_t cycle = larger(room, core->instructions / core->instructions_per_cycle);
    cycle = larger(cycle, core->micro_operations / core->micro_operations_per_cycle);
    if (core->flying == core->window) cycle = larger(cycle, core->in_flight[core->place]);
    core->instructions = larger(core->instructions, cycle * core->instructions_per_cycle) + 1;
    core->micro_operations = larger(core->micro_operations, cycle * core->micro_operations_per_cycle) + micro_operations;
    return cycle;
}

static void leave(struct core *core, cycles_t done, int micro_operations) {
    core->retired = larger(core->retired, done);
    for (int i = 0; i < micro_operations; i++) {
        core->in_flight[core->place] = core->retired;
        core->place = (core->place + 1) % core->window;
        if (core->flying < core->window) core->flying++;
    }
}

/* Of a kind with parts the one with fewer waiting takes it, of equals the first; longer ones take both in turn. */
static cycles_t take_all(struct core *core, const int32_t *ports, int count, cycles_t start, cycles_t now) {
    cycles_t end = start;
    for (int i = 0; i < count; i++) {
        int port = ports[2 * i], cycles = ports[2 * i + 1], first = core->kind[port].parts[0], other = core->kind[port].parts[1];
        if (first < 0) {
            end = larger(end, take(core, port, start, cycles));
            continue;
        }
        if (waiting_in(&core->kind[core->kind[other].queue], now) < waiting_in(&core->kind[core->kind[first].queue], now)) {
            int swapped = first;
            first = other;
            other = swapped;
        }
        int second = cycles <= core->passes ? 0 : cycles / 2;
        end = larger(end, take(core, first, start, cycles - second));
        if (second) end = larger(end, take(core, other, start, second));
    }
    return end;
}

/* One operation; returns what is behind it. */
static const int32_t *run(struct core *core, const int32_t *at) {
    int micro_operations = *at++, chain = *at++, chain_latency = *at++, accumulator = *at++, handed_over = *at++;
    int update = *at++, updated = *at++, count = *at++;
    cycles_t now = dispatch(core, micro_operations, room_for(core, at, count));
    cycles_t dispatched = now + core->dispatch_latency, start = dispatched;
    const int32_t *ports = at;
    at += 2 * count;
    int reads = *at++;
    for (int i = 0; i < reads; i++) {
        int name = at[i], taken_over = i == 0 && name == accumulator && chain >= 0 && core->chain[name] == chain;
        start = larger(start, taken_over ? core->early[name] : core->ready[name]);
    }
    at += reads;
    cycles_t end = take_all(core, ports, count, start, now), done = end;
    if (updated >= 0) core->ready[updated] = take(core, update, larger(dispatched, core->ready[updated]), 1) + core->base_latency;
    int writes = *at++;
    for (int i = 0; i < writes; i++, at += 2) {
        core->ready[at[0]] = end + at[1];
        core->chain[at[0]] = -1;
        done = larger(done, end + at[1]);
    }
    int awaited = *at++;
    for (int i = 0; i < awaited; i++) done = larger(done, core->ready[*at++]);
    if (handed_over >= 0) {
        core->chain[handed_over] = chain;
        core->early[handed_over] = end + chain_latency;
    }
    leave(core, done, micro_operations);
    return at;
}

static int read_core(struct core *core, const int32_t *at) {
    core->window = *at++, core->instructions_per_cycle = *at++, core->micro_operations_per_cycle = *at++;
    core->dispatch_latency = *at++, core->base_latency = *at++, core->passes = *at++, core->registers = *at++, core->kinds = *at++;
    core->kind = calloc((size_t)core->kinds + 1, sizeof *core->kind);
    core->in_flight = calloc((size_t)core->window, sizeof *core->in_flight);
    core->ready = calloc((size_t)core->registers + 1, sizeof *core->ready);
    core->early = calloc((size_t)core->registers + 1, sizeof *core->early);
    core->chain = malloc(((size_t)core->registers + 1) * sizeof *core->chain);
    if (!core->kind || !core->in_flight || !core->ready || !core->early || !core->chain) return 0;
    for (int i = 0; i < core->registers; i++) core->chain[i] = -1;
    for (int i = 0; i < core->kinds; i++) {
        struct kind *kind = &core->kind[i];
        kind->pipelines = *at++, kind->part_of = *at++, kind->entries = *at++;
        kind->queue = *at++, kind->parts[0] = *at++, kind->parts[1] = *at++, kind->once = *at++;
        if (kind->entries && !(kind->leaves = calloc((size_t)kind->entries, sizeof *kind->leaves))) return 0;
    }
    return 1;
}

/* When the last of each of `trips` runs of `count` operations has left the window, in `retired`; 0 where memory is short. */
__attribute__((visibility("default"))) int
schedule(const int32_t *tables, const int32_t *operations, int32_t count, int32_t trips, int64_t *retired) {
    struct core core = {0};
    int read = read_core(&core, tables);
    for (int trip = 0; read && !core.failed && trip < trips; trip++) {
        const int32_t *at = operations;
        for (int i = 0; i < count && !core.failed; i++) at = run(&core, at);
        retired[trip] = core.retired;
    }
    for (int i = 0; core.kind && i < core.kinds; i++) free(core.kind[i].taken), free(core.kind[i].leaves);
    free(core.kind), free(core.in_flight), free(core.ready), free(core.early), free(core.chain);
    return read && !core.failed;
}
