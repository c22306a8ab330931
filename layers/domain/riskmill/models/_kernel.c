/* riskmill's compiled kernel: the hot loops of the models, giving the same bytes as numpy.
 *
 * C99 and Python's limited API (one build serves every Python from 3.11 on), loaded by kernel.py, which checks types and
 * packs terms. Every sum runs in numpy's own order (see pairwise_sum), every product and difference is rounded by
 * itself: build with -ffp-contract=off and without -ffast-math. Functions answer None for what they do not take; numpy
 * then does it, or says what is wrong. They share one arena: calls hold the interpreter's lock, so none overlap.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifndef KERNEL_SOURCE
#define KERNEL_SOURCE "unknown"
#endif

#define DECLINED (-1)

/* Losses above this are refused by numpy with a sentence (occurrences.MAX_LOSS). */
#define MAX_LOSS 1e30
/* As pricing._SURELY_BELOW: sums in another order differ by rounding; a year is left out only when surely below. */
#define SURELY_BELOW (1.0 - 1e-9)
/* Rows whose float64 sums are held at once when losses are rolled up: 512 KB, within a core's cache. */
#define ROLL_UP_ROWS 65536
/* Events whose occurrences are fetched ahead: they lie anywhere in a table larger than a core's cache. */
#define AHEAD 12
#if defined(__GNUC__) || defined(__clang__)
#define PREFETCH(address) __builtin_prefetch(address)
#else
#define PREFETCH(address) ((void)(address))
#endif
#define RADIX_BITS 11
/* Losses that go through the occurrence terms at once. */
#define CHUNK 512
/* Memory that is kept from one call to the next. */
#define ARENA_KEPT ((size_t)256 << 20)

/* ---- memory: one arena, reused by every call --------------------------------------------------------------------- */

static char *arena;
static size_t arena_size, arena_used;

static void arena_start(void) { arena_used = 0; }

/* Makes room for `bytes` in all; what earlier calls left is lost. */
static int arena_room(size_t bytes)
{
    if (bytes > arena_size) {
        size_t wanted = bytes + bytes / 4 + 65536;
        free(arena);
        arena = malloc(wanted);
        arena_size = arena ? wanted : 0;
    }
    return arena != NULL;
}

/* As arena_room, but keeps what is there. */
static int arena_grow(size_t bytes)
{
    if (bytes > arena_size) {
        size_t wanted = bytes + bytes / 4 + 65536;
        char *moved = realloc(arena, wanted);
        if (!moved)
            return 0;
        arena = moved;
        arena_size = wanted;
    }
    return 1;
}

static size_t padded(size_t bytes) { return (bytes + 63) & ~(size_t)63; }

static void *arena_take(size_t bytes)
{
    void *at = arena + arena_used;
    arena_used += padded(bytes);
    return at;
}

/* Gives memory back after an unusually large call. */
static void arena_release(void)
{
    free(arena);
    arena = NULL;
    arena_size = arena_used = 0;
}

/* ---- numpy's order of adding ------------------------------------------------------------------------------------- */

/* numpy's pairwise sum of contiguous float64 (numpy/_core/src/umath/loops_utils.h.src), from 128 numbers on in halves. */
static double pairwise_sum(const double *a, int64_t n)
{
    if (n < 8) {
        double sum = -0.0;
        for (int64_t i = 0; i < n; i++)
            sum += a[i];
        return sum;
    }
    if (n <= 128) {
        double r[8], sum;
        int64_t i;
        for (int k = 0; k < 8; k++)
            r[k] = a[k];
        for (i = 8; i < n - n % 8; i += 8)
            for (int k = 0; k < 8; k++)
                r[k] += a[i + k];
        sum = ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]));
        for (; i < n; i++)
            sum += a[i];
        return sum;
    }
    int64_t half = n / 2;
    half -= half % 8;
    return pairwise_sum(a, half) + pairwise_sum(a + half, n - half);
}

/* np.add.reduce */
static double add_reduce(const double *a, int64_t n) { return n ? 0.0 + pairwise_sum(a, n) : 0.0; }

/* One segment of np.add.reduceat: its first number, then the others. */
static inline double add_segment(const double *a, int64_t n)
{
    if (n == 1)
        return a[0];
    if (n == 2)
        return a[0] + a[1];
    return a[0] + pairwise_sum(a + 1, n - 1);
}

/* ---- terms ------------------------------------------------------------------------------------------------------- */

/* Terms of one layer as kernel.py packs them; infinity where there is no limit. */
typedef struct {
    double ceded_share, retention, limit;   /* occurrence terms */
    double deductible, annual_limit;        /* aggregate terms */
    double share;                           /* our part of the layer */
    int64_t reinstatements, charges;        /* how many, and where their charges begin */
} layer_t;

static inline double excess(double loss, double retention, double limit)
{
    if (retention > 0.0) {
        loss = loss - retention;
        if (!(loss > 0.0))
            loss = 0.0;
    }
    return loss < limit ? loss : limit;
}

static inline double occurrence_loss(const layer_t *t, double loss)
{
    return excess(t->ceded_share == 1.0 ? loss : loss * t->ceded_share, t->retention, t->limit);
}

static inline double annual_recovery(const layer_t *t, double total)
{
    return excess(total, t->deductible, t->annual_limit);
}

/* Recoveries in the order of events of one year in which aggregate terms bind: f(x1 + .. + xk) - f(x1 + .. + xk-1). */
static inline void recover_in_order(const layer_t *t, const double *x, double *recovery, int64_t n)
{
    double running = 0.0, before = 0.0;
    for (int64_t i = 0; i < n; i++) {
        running = running + x[i];
        double after = annual_recovery(t, running), paid = after - before;
        recovery[i] = paid < x[i] ? paid : x[i];
        before = after;
    }
}

/* Reinstatement premium of a year as a fraction of the annual premium (as contracts.reinstatement_fraction adds it). A
 * part of nothing adds nothing, so it is left out: most years use up no more than the first reinstatement.
 */
static inline double reinstated(const layer_t *t, const double *charges, double annual)
{
    const double *charge = charges + t->charges, limit = t->limit;
    double sum = charge[0] * (annual < limit ? annual : limit) / limit;
    for (int64_t j = 1; j < t->reinstatements && annual > (double)j * limit; j++)
        sum = sum + charge[j] * excess(annual, (double)j * limit, limit) / limit;
    return sum;
}

/* Whether a year's reinstatement premium can be anything but 0. */
static inline int reinstates(const layer_t *t) { return t->reinstatements > 0 && t->limit != 0.0; }

/* LAYER_STATS of annual recoveries; `spare` has room for as many numbers. */
static void layer_stats(const layer_t *t, const double *charges, const double *restrict annual, int64_t years,
                        double trials, int64_t exhausted, double *restrict spare, double *stats)
{
    int64_t attached = 0;
    for (int64_t y = 0; y < years; y++)
        spare[y] = annual[y] * annual[y];
    for (int64_t y = 0; y < years; y++)
        attached += annual[y] > 0.0;
    stats[0] = trials;
    stats[1] = add_reduce(annual, years);
    stats[2] = add_reduce(spare, years);
    stats[3] = (double)attached;
    stats[4] = (double)exhausted;
    stats[5] = 0.0;
    if (!reinstates(t))
        return;
    for (int64_t y = 0; y < years; y++)
        spare[y] = reinstated(t, charges, annual[y]);
    stats[5] = add_reduce(spare, years);
}

/* Years that exhaust a layer with an aggregate limit. */
static int64_t count_exhausted(double annual_limit, const double *annual, int64_t years)
{
    /* A recovery of nothing exhausts nothing, also where the limit is 0. */
    const double least = annual_limit > 0.0 ? annual_limit : INFINITY;
    int64_t exhausted = 0;
    for (int64_t y = 0; y < years; y++)
        exhausted += annual[y] >= least;
    return exhausted;
}

/* ---- a deal on its own ELT --------------------------------------------------------------------------------------- */

/* A YET, inverted (occurrences.YetIndex), and packed: an occurrence is its row, then its place within its year, then
 * zeros, from the highest bit on. Occurrences are grouped by event, in the order of time within one.
 */
typedef struct {
    const uint64_t *occurrences;
    const int32_t *trial;  /* of each of them */
    const int32_t *begin;  /* of each event's occurrences: by id [ids + 1], or else by slot [slots + 1] */
    const int32_t *events; /* event of each slot [slots] */
    const int16_t *day;    /* of each row */
    int64_t rows, slots, ids, trials;
    int64_t row_bits, place_bits;
} yet_t;

/* Where the event's occurrences begin, and how many there are. `from` is where the search for the next event starts. */
static inline int64_t occurrences_of(const yet_t *yet, int32_t event, int64_t *from, int64_t *begin)
{
    if (yet->ids) {
        if (event >= yet->ids)
            return 0;
        *begin = yet->begin[event];
        return yet->begin[event + 1] - *begin;
    }
    int64_t low = *from, high = yet->slots;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (yet->events[middle] < event)
            low = middle + 1;
        else
            high = middle;
    }
    *from = low;
    if (low == yet->slots || yet->events[low] != event)
        return 0;
    *begin = yet->begin[low];
    return yet->begin[low + 1] - *begin;
}

/* Sorts keys by their `bits` highest bits; returns where the sorted keys are: `a` or `b`. */
static uint64_t *sort_keys(uint64_t *a, uint64_t *b, int64_t n, int64_t bits)
{
    if (n < 48) {
        for (int64_t i = 1; i < n; i++) {
            uint64_t key = a[i];
            int64_t k = i;
            for (; k && a[k - 1] > key; k--)
                a[k] = a[k - 1];
            a[k] = key;
        }
        return a;
    }
    static uint32_t counts[3][1 << RADIX_BITS];
    int passes = (int)((bits + RADIX_BITS - 1) / RADIX_BITS);
    int digit = (int)((bits + passes - 1) / passes), lowest = 64 - digit * passes;
    uint64_t mask = ((uint64_t)1 << digit) - 1;
    for (int p = 0; p < passes; p++)
        memset(counts[p], 0, sizeof counts[p][0] << digit);
    if (passes == 2)
        for (int64_t i = 0; i < n; i++) {
            uint64_t key = a[i];
            counts[0][key >> lowest & mask]++;
            counts[1][key >> (64 - digit)]++;
        }
    else
        for (int64_t i = 0; i < n; i++)
            for (int p = 0; p < passes; p++)
                counts[p][a[i] >> (lowest + p * digit) & mask]++;
    for (int p = 0; p < passes; p++) {
        uint32_t *count = counts[p], at = 0;
        for (int64_t d = 0; d < (int64_t)1 << digit; d++) {
            uint32_t size = count[d];
            count[d] = at;
            at += size;
        }
        int shift = lowest + p * digit;
        for (int64_t i = 0; i < n; i++) {
            uint64_t key = a[i];
            b[count[key >> shift & mask]++] = key;
        }
        uint64_t *sorted = b;
        b = a;
        a = sorted;
    }
    return a;
}

/* What a call made, in the arena, until its wrapper has copied it. */
static const int32_t *made_row;
static const void *made_loss;
static size_t made_size;

/* Occurrences of events that a layer with a deductible may pay for: those of years that may reach it. */
static void reach_deductible(const yet_t *yet, const layer_t *t, const double *x, int64_t n, const int64_t *begin,
                             const int64_t *count, double *total, uint8_t *reached)
{
    double enough = t->deductible * SURELY_BELOW;
    for (int64_t i = 0; i < n; i++)
        if (x[i] != 0.0)
            for (int64_t k = begin[i]; k < begin[i] + count[i]; k++)
                total[yet->trial[k]] += x[i];
    for (int64_t i = 0; i < n; reached += count[i], i++)
        if (x[i] != 0.0)
            for (int64_t k = 0; k < count[i]; k++)
                reached[k] |= total[yet->trial[begin[i] + k]] > enough;
    for (int64_t i = 0; i < n; i++)
        if (x[i] != 0.0)
            for (int64_t k = begin[i]; k < begin[i] + count[i]; k++)
                total[yet->trial[k]] = 0.0;
}

/* What a layer makes of a year: its annual recovery, the square of that, the reinstatement premium's fraction, our part
 * of what its only occurrence recovers, and what it adds to the counts of exhausted (high) and attached (low) years.
 */
typedef struct {
    double annual, squared, reinstated, paid;
    uint64_t counts;
} year_t;
#define EXHAUSTED ((uint64_t)1 << 32)

static inline year_t year_of(const layer_t *t, const double *charges, double total, double largest)
{
    year_t made = {.annual = annual_recovery(t, total)};
    made.squared = made.annual * made.annual;
    made.reinstated = reinstates(t) ? reinstated(t, charges, made.annual) : 0.0;
    if (made.annual > 0.0)
        /* Without an aggregate limit, an occurrence that takes the whole limit exhausts the layer. */
        made.counts = 1 + (t->annual_limit < INFINITY ? made.annual >= t->annual_limit
                                                       : t->limit < INFINITY && largest >= t->limit) * EXHAUSTED;
    return made;
}

/* One layer on all years: adds our part of its recoveries to `sum` and fills its LAYER_STATS. Most years have one
 * occurrence, so what such a year comes to is worked out once for each event [hits]. annual, squared and fraction have
 * room for every year, x and recovery for every occurrence of one.
 */
static void recover_layer(const layer_t *layer, const double *charges, const double *by_event, int64_t hits,
                          const uint32_t *event, const int32_t *starts, int64_t years, double trials, year_t *restrict of_event,
                          double *restrict x, double *restrict recovery, double *restrict sum, double *restrict annual,
                          double *restrict squared, double *restrict fraction, double *stats)
{
    /* A copy: what is stored below cannot change it, so it stays in registers. */
    const layer_t own = *layer, *t = &own;
    const int whole = t->share == 1.0, premium = reinstates(t);
    const double binds = t->deductible > 0.0 ? t->deductible : t->annual_limit, share = t->share;
    uint64_t counts = 0;
    for (int64_t h = 0; h < hits; h++) {
        double loss = by_event[h];
        of_event[h] = year_of(t, charges, loss, loss);
        double a = of_event[h].annual, paid = loss > binds ? (a < loss ? a : loss) : t->deductible > 0.0 ? 0.0 : loss;
        of_event[h].paid = whole ? paid : paid * share;
    }
    for (int64_t y = 0; y < years; y++) {
        int64_t first = starts[y], size = starts[y + 1] - first;
        if (size == 1) {
            const year_t *made = of_event + event[first];
            annual[y] = made->annual;
            squared[y] = made->squared;
            fraction[y] = made->reinstated;
            sum[first] += made->paid;
            counts += made->counts;
            continue;
        }
        double largest = 0.0;
        for (int64_t i = 0; i < size; i++) {
            x[i] = by_event[event[first + i]];
            largest = x[i] > largest ? x[i] : largest;
        }
        double total = add_segment(x, size);
        year_t made = year_of(t, charges, total, largest);
        annual[y] = made.annual;
        squared[y] = made.squared;
        fraction[y] = made.reinstated;
        counts += made.counts;
        const double *paid = x;
        if (total > binds) {
            recover_in_order(t, x, recovery, size);
            paid = recovery;
        } else if (t->deductible > 0.0)
            continue;
        for (int64_t i = 0; i < size; i++)
            sum[first + i] += whole ? paid[i] : paid[i] * share;
    }
    stats[0] = trials;
    stats[1] = add_reduce(annual, years);
    stats[2] = add_reduce(squared, years);
    stats[3] = (double)(counts & (EXHAUSTED - 1));
    stats[4] = (double)(counts / EXHAUSTED);
    stats[5] = premium ? add_reduce(fraction, years) : 0.0;
}

/* The deal's YELT: returns how many rows have a loss (made_row, made_loss) and fills stats [n_layers, 6].
 * Event losses are means times `rate`. Occurrences count on days first_day to last_day, or all of them.
 */
static int64_t price_deal(const yet_t *yet, const int32_t *event, const double *mean, int64_t n, double rate,
                                   const layer_t *layers, const double *charges, int64_t n_layers, int64_t every_day,
                                   int64_t first_day, int64_t last_day, double *stats)
{
    /* As whole numbers, bits of losses rise with the losses; those of negative numbers and of no number are above. */
    const double largest = MAX_LOSS;
    uint64_t most, worst = 0;
    memcpy(&most, &largest, sizeof most);
    for (int64_t i = 0; i < n; i++) {
        uint64_t bits;
        memcpy(&bits, mean + i, sizeof bits);
        worst = bits > worst ? bits : worst;
    }
    int bad = (n && event[0] < 0) || worst > most;
    for (int64_t i = 1; i < n; i++)
        bad |= event[i] <= event[i - 1];
    int64_t event_bits = 64 - yet->row_bits - yet->place_bits, deductibles = 0;
    if (bad || (event_bits < 32 && n >> event_bits))
        return DECLINED;
    for (int64_t l = 0; l < n_layers; l++)
        deductibles += layers[l].deductible > 0.0;

    /* What each event brings to each layer, and which events bring anything. */
    size_t events = padded((size_t)n * 8), by_trial = deductibles ? padded((size_t)yet->trials * 8) : 0;
    size_t before = 3 * events + (size_t)n_layers * events + by_trial + 1024;
    arena_start();
    if (!arena_room(before))
        return DECLINED;
    double *losses = arena_take((size_t)(n * n_layers) * 8);
    int64_t *begin = arena_take((size_t)n * 8), *count = arena_take((size_t)n * 8);
    int32_t *hit = arena_take((size_t)n * 4);
    int64_t hits = 0, bound = 0, from = 0;
    for (int64_t l = 0; l < n_layers; l++) {
        const layer_t t = layers[l];
        double *x = losses + l * n;
        if (rate == 1.0)
            for (int64_t i = 0; i < n; i++)
                x[i] = occurrence_loss(&t, mean[i]);
        else
            for (int64_t i = 0; i < n; i++)
                x[i] = occurrence_loss(&t, mean[i] * rate);
    }
    for (int64_t i = 0; i < n; i++) {
        int some = 0;
        for (int64_t l = 0; l < n_layers; l++)
            some |= losses[l * n + i] > 0.0;
        hit[hits] = (int32_t)i;
        hits += some;
    }
    for (int64_t h = 0; h < hits; h++) {
        count[h] = occurrences_of(yet, event[hit[h]], &from, begin + h);
        bound += count[h];
    }
    /* From here on events are the hits. The losses move up within their layer, so nothing is overwritten unread. */
    for (int64_t l = 0; l < n_layers; l++)
        for (int64_t h = 0; h < hits; h++)
            losses[l * n + h] = losses[l * n + hit[h]];

    /* Room for the occurrences. The arena may move, so what is in it so far is kept by its place. */
    size_t many = padded((size_t)(bound + 1) * 8);
    ptrdiff_t losses_at = (char *)losses - arena, begin_at = (char *)begin - arena, count_at = (char *)count - arena;
    if (!arena_grow(before + 8 * many + padded((size_t)hits * sizeof(year_t)) + 1024))
        return DECLINED;
    losses = (double *)(void *)(arena + losses_at);
    begin = (int64_t *)(void *)(arena + begin_at);
    count = (int64_t *)(void *)(arena + count_at);

    uint8_t *reached = NULL;
    if (deductibles) {
        double *total = arena_take((size_t)yet->trials * 8);
        reached = arena_take((size_t)bound);
        memset(total, 0, (size_t)yet->trials * 8);
        memset(reached, 0, (size_t)bound);
        for (int64_t l = 0; l < n_layers; l++)
            if (layers[l].deductible > 0.0)
                reach_deductible(yet, layers + l, losses + l * n, hits, begin, count, total, reached);
    }
    uint64_t *keys = arena_take((size_t)bound * 8), *other = arena_take((size_t)bound * 8);
    int64_t m = 0;
    int row_shift = (int)(64 - yet->row_bits);
    for (int64_t h = 0, at = 0; h < hits; at += count[h], h++) {
        if (h + AHEAD < hits) {
            const uint64_t *next = yet->occurrences + begin[h + AHEAD];
            PREFETCH(next);
            PREFETCH(next + 8);
            PREFETCH(next + 16);
        }
        const uint64_t *o = yet->occurrences + begin[h];
        int all = !deductibles;
        for (int64_t l = 0; l < n_layers && !all; l++)
            all = !(layers[l].deductible > 0.0) && losses[l * n + h] > 0.0;
        if (all && every_day) {
            for (int64_t k = 0; k < count[h]; k++)
                keys[m + k] = o[k] | (uint64_t)h;
            m += count[h];
            continue;
        }
        for (int64_t k = 0; k < count[h]; k++) {
            int64_t day = yet->day[o[k] >> row_shift];
            keys[m] = o[k] | (uint64_t)h;
            m += (all || reached[at + k]) && (every_day || (day >= first_day && day <= last_day));
        }
    }
    uint64_t *sorted = sort_keys(keys, other, m, yet->row_bits);

    /* In the order of time: rows, their events, where years begin. */
    int32_t *row = arena_take((size_t)m * 4), *starts = arena_take((size_t)(m + 1) * 4);
    uint32_t *of = arena_take((size_t)m * 4);
    double *x = arena_take((size_t)m * 8), *recovery = arena_take((size_t)m * 8), *sum = arena_take((size_t)m * 8);
    double *fraction = arena_take((size_t)m * 8);
    year_t *of_event = arena_take((size_t)hits * sizeof *of_event);
    uint64_t event_mask = ((uint64_t)1 << event_bits) - 1, place_mask = ((uint64_t)1 << yet->place_bits) - 1;
    int64_t years = 0, last = -1;
    for (int64_t i = 0; i < m; i++) {
        uint64_t key = sorted[i];
        int64_t at = (int64_t)(key >> row_shift), year = at - (int64_t)(key >> event_bits & place_mask);
        row[i] = (int32_t)at;
        of[i] = (uint32_t)(key & event_mask);
        starts[years] = (int32_t)i;
        years += year != last;
        last = year;
    }
    starts[years] = (int32_t)m;
    /* The keys are used up: annual recoveries take their place. */
    double *annual = (double *)(void *)keys, *squared = (double *)(void *)other;
    memset(sum, 0, (size_t)m * 8);
    for (int64_t l = 0; l < n_layers; l++)
        recover_layer(layers + l, charges, losses + l * n, hits, of, starts, years, (double)yet->trials, of_event, x,
                      recovery, sum, annual, squared, fraction, stats + l * 6);
    float *loss = (float *)(void *)x;
    int64_t kept = 0;
    for (int64_t i = 0; i < m; i++) {
        float ours = (float)sum[i];
        row[kept] = row[i];
        loss[kept] = ours;
        kept += ours > 0.0f;
    }
    made_row = row;
    made_loss = loss;
    made_size = sizeof *loss;
    return kept;
}

/* ---- many layers on one subject ---------------------------------------------------------------------------------- */

/* LAYER_STATS of layers on one subject [n_layers, 6]. `falling` holds its losses from the largest, `rank` their trials,
 * numbered as they first appear there, `largest` each trial's largest loss.
 */
static int64_t quote_layers(const double *falling, const int32_t *rank, const int64_t *taken, int64_t n_trials,
                                     const double *largest, const layer_t *layers, const double *charges,
                                     int64_t n_layers, double trials, double *stats)
{
    arena_start();
    if (!arena_room(2 * padded((size_t)n_trials * 8) + 4096))
        return DECLINED;
    double *annual = arena_take((size_t)n_trials * 8), *spare = arena_take((size_t)n_trials * 8);
    for (int64_t l = 0; l < n_layers; l++) {
        const layer_t t = layers[l];
        int64_t years = 0, count = taken[l], exhausted = 0;
        for (int64_t from = 0; from < count; from += CHUNK) {
            int64_t size = count - from < CHUNK ? count - from : CHUNK;
            double x[CHUNK];
            for (int64_t i = 0; i < size; i++)
                x[i] = occurrence_loss(&t, falling[from + i]);
            for (int64_t i = 0; i < size; i++) {
                int64_t year = rank[from + i];
                /* A trial that is seen for the first time has the next number. */
                double before = year == years ? 0.0 : annual[year];
                years += year == years;
                annual[year] = before + x[i];
            }
        }
        for (int64_t y = 0; y < years; y++)
            annual[y] = annual_recovery(&t, annual[y]);
        if (t.annual_limit < INFINITY)
            exhausted = count_exhausted(t.annual_limit, annual, years);
        else if (t.limit < INFINITY)
            for (int64_t y = 0; y < years; y++)
                exhausted += occurrence_loss(&t, largest[y]) >= t.limit && annual[y] > 0.0;
        layer_stats(&t, charges, annual, years, trials, exhausted, spare, stats + l * 6);
    }
    return n_layers;
}

/* ---- recoveries in the order of events --------------------------------------------------------------------------- */

/* Recoveries of occurrence losses and of years [starts]; returns how many years bind, as contracts.event_order_recovery. */
static int64_t event_order(const double *x, int64_t n, const int64_t *starts, int64_t years, double deductible,
                                    double limit, double *recovery, double *annual)
{
    const layer_t t = {.ceded_share = 1.0, .limit = INFINITY, .deductible = deductible, .annual_limit = limit};
    double binds = deductible > 0.0 ? deductible : limit;
    int64_t bound = 0;
    for (int64_t y = 0; y < years; y++) {
        int64_t first = starts[y], size = (y + 1 < years ? starts[y + 1] : n) - first;
        if (first < 0 || size < 1 || first + size > n)
            return DECLINED;
        double total = add_segment(x + first, size);
        annual[y] = annual_recovery(&t, total);
        if (total > binds) {
            recover_in_order(&t, x + first, recovery + first, size);
            bound++;
        } else if (deductible > 0.0)
            memset(recovery + first, 0, (size_t)size * 8);
        else
            memcpy(recovery + first, x + first, (size_t)size * 8);
    }
    return bound;
}

/* ---- sums of groups ---------------------------------------------------------------------------------------------- */

typedef struct {
    const int32_t *row;
    const void *loss;
    int64_t size, is_double;
} yelt_t;

static int is_yelt(const yelt_t *c)
{
    int bad = c->size && c->row[0] < 0;
    for (int64_t i = 1; i < c->size; i++)
        bad |= c->row[i] <= c->row[i - 1];
    if (c->is_double) {
        const double *loss = c->loss;
        for (int64_t i = 0; i < c->size; i++)
            bad |= !(loss[i] >= 0.0 && loss[i] < INFINITY);
    } else {
        const float *loss = c->loss;
        for (int64_t i = 0; i < c->size; i++)
            bad |= !(loss[i] >= 0.0f && loss[i] < INFINITY);
    }
    return !bad;
}

/* The sum of YELTs, in their order on each row, in float64; returns how many rows are above 0 (made_row, made_loss). */
static int64_t roll_up(const yelt_t *children, int64_t n)
{
    int64_t end = 0, entries = 0;
    for (int64_t c = 0; c < n; c++) {
        if (!is_yelt(children + c))
            return DECLINED;
        entries += children[c].size;
        if (children[c].size && children[c].row[children[c].size - 1] >= end)
            end = (int64_t)children[c].row[children[c].size - 1] + 1;
    }
    int64_t most = entries < end ? entries : end;
    arena_start();
    /* One entry more than can be kept: the last one is written before it is known whether it counts. */
    if (!arena_room(padded((size_t)n * 8) + padded(ROLL_UP_ROWS * 8) + padded((size_t)(most + 1) * 8) * 2 + 4096))
        return DECLINED;
    int64_t *at = arena_take((size_t)n * 8);
    double *total = arena_take(ROLL_UP_ROWS * 8), *loss = arena_take((size_t)(most + 1) * 8);
    int32_t *row = arena_take((size_t)(most + 1) * 4);
    memset(at, 0, (size_t)n * 8);
    int64_t kept = 0;
    for (int64_t first = 0; first < end; first += ROLL_UP_ROWS) {
        int64_t size = end - first < ROLL_UP_ROWS ? end - first : ROLL_UP_ROWS, last = first + size;
        memset(total, 0, (size_t)size * 8);
        for (int64_t c = 0; c < n; c++) {
            const yelt_t child = children[c];
            int64_t i = at[c];
            if (child.is_double)
                for (; i < child.size && child.row[i] < last; i++)
                    total[child.row[i] - first] += ((const double *)child.loss)[i];
            else
                for (; i < child.size && child.row[i] < last; i++)
                    total[child.row[i] - first] += (double)((const float *)child.loss)[i];
            at[c] = i;
        }
        for (int64_t r = 0; r < size; r++) {
            row[kept] = (int32_t)(first + r);
            loss[kept] = total[r];
            kept += total[r] > 0.0;
        }
    }
    made_row = row;
    made_loss = loss;
    made_size = sizeof *loss;
    return kept;
}

/* The member, the trial and the loss of each year in which a member has a loss; returns how many there are. */
static int64_t annual_losses(const int64_t *offsets, int64_t members, const int32_t *row, const float *loss,
                             int64_t entries, const int32_t *trial, int64_t rows, int64_t *member, int32_t *year,
                             double *annual)
{
    if (offsets[0] != 0 || offsets[members] != entries)
        return DECLINED;
    for (int64_t m = 0; m < members; m++)
        if (offsets[m + 1] < offsets[m])
            return DECLINED;
    for (int64_t i = 0; i < entries; i++)
        if (row[i] < 0 || row[i] >= rows)
            return DECLINED;
    arena_start();
    if (!arena_room(padded((size_t)entries * 8) + 64))
        return DECLINED;
    double *x = arena_take((size_t)entries * 8);
    int64_t years = 0;
    for (int64_t m = 0; m < members; m++)
        for (int64_t i = offsets[m]; i < offsets[m + 1]; years++) {
            int32_t t = trial[row[i]];
            int64_t size = 0;
            do
                x[size++] = (double)loss[i++];
            while (i < offsets[m + 1] && trial[row[i]] == t);
            member[years] = m;
            year[years] = t;
            annual[years] = add_segment(x, size);
        }
    return years;
}

/* ---- what Python calls: buffers in, buffers filled; None for what is declined ------------------------------------ */

#define BUFFERS 16

/* Buffers of one call, released together. */
typedef struct {
    Py_buffer of[BUFFERS];
    int count;
} buffers_t;

static void release(buffers_t *held)
{
    while (held->count)
        PyBuffer_Release(&held->of[--held->count]);
}

/* Takes the next objects of the arguments as buffers of numbers of `size` bytes; 0 on failure, with an error set. */
static int hold(buffers_t *held, PyObject *object, int writable)
{
    if (PyObject_GetBuffer(object, &held->of[held->count], writable ? PyBUF_WRITABLE : PyBUF_SIMPLE) < 0)
        return 0;
    held->count++;
    return 1;
}

static PyObject *answer(int64_t count)
{
    if (count >= 0)
        return PyLong_FromLongLong(count);
    Py_RETURN_NONE;
}

/* Rows and losses that a call made, as two bytearrays; the arena is free again. */
static PyObject *answer_rows(int64_t count)
{
    if (count < 0)
        Py_RETURN_NONE;
    PyObject *row = PyByteArray_FromStringAndSize((const char *)made_row, (Py_ssize_t)((size_t)count * sizeof *made_row));
    PyObject *loss = PyByteArray_FromStringAndSize(made_loss, (Py_ssize_t)((size_t)count * made_size));
    PyObject *both = row && loss ? PyTuple_Pack(2, row, loss) : NULL;
    Py_XDECREF(row);
    Py_XDECREF(loss);
    if (arena_size > ARENA_KEPT)
        arena_release();
    return both;
}

/* Holds the first `n` arguments as buffers, the last `filled` of these to write to. */
static int hold_arguments(buffers_t *held, PyObject *arguments, int n, int filled)
{
    held->count = 0;
    if (PyTuple_Size(arguments) < n) {
        PyErr_SetString(PyExc_TypeError, "too few arguments");
        return 0;
    }
    for (int i = 0; i < n; i++)
        if (!hold(held, PyTuple_GetItem(arguments, i), i >= n - filled)) {
            release(held);
            return 0;
        }
    return 1;
}

#define NUMBERS(held, i, type) ((type *)(held).of[i].buf)
#define LENGTH(held, i, type) ((int64_t)((held).of[i].len / (Py_ssize_t)sizeof(type)))

/* price_deal(occurrences, trial, begin, events, day, event, mean, layers, charges, stats,
 *            (ids, trials, row_bits, place_bits), rate, every_day, first_day, last_day)
 */
static PyObject *py_price_deal(PyObject *module, PyObject *arguments)
{
    (void)module;
    buffers_t held;
    if (!hold_arguments(&held, arguments, 10, 1))
        return NULL;
    PyObject *rest = PyTuple_GetSlice(arguments, 10, PyTuple_Size(arguments)), *result = NULL;
    long long ids, trials, row_bits, place_bits, every_day, first_day, last_day;
    double rate;
    if (rest && PyArg_ParseTuple(rest, "(LLLL)dLLL", &ids, &trials, &row_bits, &place_bits, &rate, &every_day,
                                 &first_day, &last_day)) {
        yet_t yet = {.occurrences = NUMBERS(held, 0, uint64_t),
                     .trial = NUMBERS(held, 1, int32_t),
                     .begin = NUMBERS(held, 2, int32_t),
                     .events = NUMBERS(held, 3, int32_t),
                     .day = NUMBERS(held, 4, int16_t),
                     .slots = LENGTH(held, 3, int32_t),
                     .ids = ids,
                     .trials = trials,
                     .row_bits = row_bits,
                     .place_bits = place_bits};
        result = answer_rows(price_deal(&yet, NUMBERS(held, 5, int32_t), NUMBERS(held, 6, double), LENGTH(held, 5, int32_t),
                                   rate, NUMBERS(held, 7, layer_t), NUMBERS(held, 8, double), LENGTH(held, 7, layer_t),
                                   every_day, first_day, last_day, NUMBERS(held, 9, double)));
    }
    Py_XDECREF(rest);
    release(&held);
    return result;
}

/* quote_layers(falling, rank, taken, largest, layers, charges, stats, trials) */
static PyObject *py_quote_layers(PyObject *module, PyObject *arguments)
{
    (void)module;
    buffers_t held;
    if (!hold_arguments(&held, arguments, 7, 1))
        return NULL;
    PyObject *trials = PyTuple_GetSlice(arguments, 7, 8), *result = NULL;
    double number;
    if (trials && PyArg_ParseTuple(trials, "d", &number))
        result = answer(quote_layers(NUMBERS(held, 0, double), NUMBERS(held, 1, int32_t), NUMBERS(held, 2, int64_t),
                                     LENGTH(held, 3, double), NUMBERS(held, 3, double), NUMBERS(held, 4, layer_t),
                                     NUMBERS(held, 5, double), LENGTH(held, 4, layer_t), number,
                                     NUMBERS(held, 6, double)));
    Py_XDECREF(trials);
    release(&held);
    return result;
}

/* event_order(loss, starts, recovery, annual, deductible, limit) */
static PyObject *py_event_order(PyObject *module, PyObject *arguments)
{
    (void)module;
    buffers_t held;
    if (!hold_arguments(&held, arguments, 4, 2))
        return NULL;
    PyObject *rest = PyTuple_GetSlice(arguments, 4, 6), *result = NULL;
    double deductible, limit;
    if (rest && PyArg_ParseTuple(rest, "dd", &deductible, &limit))
        result = answer(event_order(NUMBERS(held, 0, double), LENGTH(held, 0, double), NUMBERS(held, 1, int64_t),
                                    LENGTH(held, 1, int64_t), deductible, limit, NUMBERS(held, 2, double),
                                    NUMBERS(held, 3, double)));
    Py_XDECREF(rest);
    release(&held);
    return result;
}

/* annual_losses(offsets, row, loss, trial, member, year, annual) */
static PyObject *py_annual_losses(PyObject *module, PyObject *arguments)
{
    (void)module;
    buffers_t held;
    if (!hold_arguments(&held, arguments, 7, 3))
        return NULL;
    PyObject *result = answer(annual_losses(NUMBERS(held, 0, int64_t), LENGTH(held, 0, int64_t) - 1,
                                            NUMBERS(held, 1, int32_t), NUMBERS(held, 2, float),
                                            LENGTH(held, 1, int32_t), NUMBERS(held, 3, int32_t),
                                            LENGTH(held, 3, int32_t), NUMBERS(held, 4, int64_t),
                                            NUMBERS(held, 5, int32_t), NUMBERS(held, 6, double)));
    release(&held);
    return result;
}

/* roll_up([row, loss, row, loss, ...]): losses are float64 where they have twice the bytes of their rows */
static PyObject *py_roll_up(PyObject *module, PyObject *list)
{
    (void)module;
    if (!PyList_Check(list)) {
        PyErr_SetString(PyExc_TypeError, "a list of rows and losses is needed");
        return NULL;
    }
    Py_ssize_t n = PyList_Size(list) / 2, held = 0;
    Py_buffer *buffers = malloc((size_t)(2 * n + 1) * sizeof *buffers);
    yelt_t *children = malloc((size_t)(n + 1) * sizeof *children);
    PyObject *result = NULL;
    if (!buffers || !children)
        PyErr_NoMemory();
    else {
        while (held < 2 * n && PyObject_GetBuffer(PyList_GetItem(list, held), buffers + held, PyBUF_SIMPLE) == 0)
            held++;
        for (Py_ssize_t c = 0; c < held / 2; c++) {
            const Py_buffer *row = buffers + 2 * c, *loss = row + 1;
            children[c].row = row->buf;
            children[c].loss = loss->buf;
            children[c].size = row->len / 4;
            children[c].is_double = row->len > 0 && loss->len == 2 * row->len;
        }
        if (held == 2 * n)
            result = answer_rows(roll_up(children, n));
        while (held)
            PyBuffer_Release(buffers + --held);
    }
    free(buffers);
    free(children);
    return result;
}

/* sums(numbers): their np.add.reduce and np.add.reduceat, for the loader to compare */
static PyObject *py_sums(PyObject *module, PyObject *arguments)
{
    (void)module;
    buffers_t held;
    if (!hold_arguments(&held, arguments, 1, 0))
        return NULL;
    const double *numbers = NUMBERS(held, 0, double);
    int64_t n = LENGTH(held, 0, double);
    PyObject *result = Py_BuildValue("dd", add_reduce(numbers, n), n ? add_segment(numbers, n) : 0.0);
    release(&held);
    return result;
}

/* multiply_add(a, b, c): a * b + c, rounded twice */
static PyObject *py_multiply_add(PyObject *module, PyObject *arguments)
{
    (void)module;
    double a, b, c;
    if (!PyArg_ParseTuple(arguments, "ddd", &a, &b, &c))
        return NULL;
    return PyFloat_FromDouble(a * b + c);
}

static PyMethodDef functions[] = {
    {"price_deal", py_price_deal, METH_VARARGS, "Price a deal on its own event loss table."},
    {"quote_layers", py_quote_layers, METH_VARARGS, "Price many layers on one subject."},
    {"event_order", py_event_order, METH_VARARGS, "Recoveries in the order of events."},
    {"annual_losses", py_annual_losses, METH_VARARGS, "The members' losses by year."},
    {"roll_up", py_roll_up, METH_O, "Sum year-event loss tables."},
    {"sums", py_sums, METH_VARARGS, "Add in numpy's order."},
    {"multiply_add", py_multiply_add, METH_VARARGS, "Multiply, round, add."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_kernel", .m_doc = "riskmill's compiled kernel", .m_size = -1, .m_methods = functions,
};

PyMODINIT_FUNC PyInit__kernel(void)
{
    PyObject *module = PyModule_Create(&definition);
    if (module && PyModule_AddStringConstant(module, "SOURCE", KERNEL_SOURCE) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
