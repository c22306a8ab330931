/* Runs the kernel on numbers of its own making and prints a hash of every byte that it gives: the same on any machine.
 *
 * Built and run by test_kernel.py, natively and for arm64 under qemu, without Python: its symbols stay unresolved.
 */
#include "_kernel.c"

#include <stdio.h>

enum { TRIALS = 3000, PER_TRIAL = 10, ROWS = TRIALS * PER_TRIAL, EVENTS = 400, LAYERS = 3, ROUNDS = 60 };

static uint64_t state = 88172645463325252u, hash = 1469598103934665603u;

static uint64_t draw(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static double uniform(void) { return (double)(draw() >> 11) * 0x1p-53; }

static void mix(const void *bytes, size_t size)
{
    const unsigned char *at = bytes;
    for (size_t i = 0; i < size; i++) {
        hash ^= at[i];
        hash *= 1099511628211u;
    }
}

static uint64_t occurrences[ROWS];
static int32_t trial[ROWS], grouped[ROWS], event_of[ROWS], event[EVENTS], events[EVENTS];
static int32_t begin[EVENTS + 1];
static int64_t starts[TRIALS];
static int16_t day[ROWS];
static double mean[EVENTS], x[ROWS], recovery[ROWS], annual[TRIALS];

int main(void)
{
    for (int i = 0; i < ROWS; i++) {
        trial[i] = i / PER_TRIAL;
        event_of[i] = (int32_t)(draw() % EVENTS);
    }
    int at = 0;
    for (int e = 0; e < EVENTS; e++) {
        begin[e] = at;
        events[e] = e;
        for (int i = 0; i < ROWS; i++)
            if (event_of[i] == e) {
                occurrences[at] = (uint64_t)i << (64 - 15) | (uint64_t)(i % PER_TRIAL) << (64 - 15 - 4);
                grouped[at++] = trial[i];
            }
    }
    begin[EVENTS] = at;
    yet_t yet = {occurrences, grouped, begin, events, day, ROWS, EVENTS, EVENTS, TRIALS, 15, 4};
    for (int t = 0; t < TRIALS; t++)
        starts[t] = (int64_t)t * PER_TRIAL;
    for (int round = 0; round < ROUNDS; round++) {
        int64_t n = 0;
        for (int e = 0; e < EVENTS; e++)
            if (uniform() < 0.6) {
                double part = uniform();
                event[n] = e;
                mean[n++] = 1e3 / (0.001 + part * part);
            }
        layer_t layers[LAYERS];
        double charges[3] = {1.0, 0.35, 0.0}, stats[LAYERS * 6], rate = uniform();
        charges[2] = uniform();
        for (int l = 0; l < LAYERS; l++) {
            layers[l].ceded_share = l == 1 ? uniform() : 1.0;
            layers[l].retention = uniform() * 20000;
            layers[l].limit = 1000 + uniform() * 30000;
            layers[l].deductible = l == 2 ? uniform() * 50000 : 0.0;
            layers[l].annual_limit = 10000 + uniform() * 90000;
            layers[l].share = uniform();
            layers[l].reinstatements = l ? 2 : 3;
            layers[l].charges = 0;
        }
        int64_t count =
            price_deal(&yet, event, mean, n, round % 2 ? 1.0 : rate, layers, charges, LAYERS, 1, 0, 0, stats);
        mix(made_row, (size_t)count * sizeof *made_row);
        mix(made_loss, (size_t)count * made_size);
        mix(stats, sizeof stats);
        double deductible = uniform() * 3e5, limit = uniform() * 5e5, sum;
        for (int i = 0; i < ROWS; i++)
            x[i] = uniform() * 1e5;
        event_order(x, ROWS, starts, TRIALS, round % 2 ? deductible : 0.0, limit, recovery, annual);
        mix(recovery, sizeof recovery);
        mix(annual, sizeof annual);
        sum = add_reduce(x, ROWS - round);
        mix(&sum, sizeof sum);
    }
    printf("%016llx\n", (unsigned long long)hash);
    return 0;
}
