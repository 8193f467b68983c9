/* One decode step through a decoder layer: each row is the newest token of a document of its own.

   `prepared_layers.py` is the plain version, and names and order follow it; `compiled_layers.py` fills the structures.
   Every number of a row is summed in the same order whatever rows stand beside it. Vectors are the compiler's own
   extension (GCC, Clang): one text serves every processor, and only a sum of four 8-bit products has forms of its own.
   All threads call the functions with an `omp for`: it shares the loop among them, and ends at a barrier. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif
#ifdef __SSE2__
#include <immintrin.h>
#endif

#define BLOCK_ROWS 4 /* rows of the input whose sums stand in registers together */
#if defined(__AVX512F__)
#define LANES 16
#define BLOCK_OUT 4 /* rows of a float matrix beside them */
#define PANELS 4    /* panels of a matrix of integers beside them */
#elif defined(__AVX__)
#define LANES 8
#define BLOCK_OUT 2
#define PANELS 2
#else
#define LANES 4
#define BLOCK_OUT 4
#define PANELS 2
#endif

/* Sums of pairs of 16-bit products, where the processor has them. */
#if LANES == 16 && defined(__AVX512BW__)
#define PAIRS(a, b) (ints)_mm512_madd_epi16((__m512i)(a), (__m512i)(b))
#elif LANES == 8 && defined(__AVX2__)
#define PAIRS(a, b) (ints)_mm256_madd_epi16((__m256i)(a), (__m256i)(b))
#elif LANES == 4 && defined(__SSE2__)
#define PAIRS(a, b) (ints)_mm_madd_epi16((__m128i)(a), (__m128i)(b))
#endif

#define INLINE static inline __attribute__((always_inline))

const int64_t lorgnette_lanes = LANES; /* outs of a panel */
const int64_t lorgnette_tile = 64;     /* rows of a prompt that are multiplied together, so that their bytes stay near */

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef float loose __attribute__((vector_size(4 * LANES), aligned(4), may_alias)); /* anywhere in memory */
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef int32_t loose_ints __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t loose_int __attribute__((aligned(1), may_alias));
typedef int16_t shorts __attribute__((vector_size(4 * LANES)));

typedef struct {
    const float *weight;  /* [out, in], or NULL where the weights are integers */
    const int8_t *packed; /* panels of LANES rows of the matrix, each [in / 4, LANES, 4], filled up with 0 */
    const float *steps;   /* [out], the size of a step of each of these rows */
    const int32_t *start; /* [out], -128 times the sum of each: takes back the 128 that is in each byte of the input */
    const float *bias;    /* [out], or NULL; of integers it is filled up to whole panels, as steps and start are */
    int64_t out, in;
    int64_t levels; /* steps on each side of zero of an 8-bit input */
} Product;

typedef struct {
    Product qkv, output, gate_up, down;
    const float *attention_norm, *mlp_norm;           /* [width] */
    const float *attention_post_norm, *mlp_post_norm; /* [width], or NULL */
    const float *query_norm, *key_norm;               /* [head width], or NULL */
    int64_t width, heads, kv_heads, head_width, mlp_width;
    int64_t window;      /* 0: all */
    int64_t norm_offset; /* 1: norms multiply by weight + 1 */
    int64_t gelu;        /* 1: gelu (tanh) in place of silu */
    float eps, query_scale, cap /* 0: none */;
} Layer;

typedef struct {
    int64_t rows, longest, threads;
    const int64_t *starts, *lengths; /* [rows], first slot, and tokens with the new one */
    float *normed, *qkv, *attended, *gate_up, *gated, *ranges, *scores;
    uint8_t *integers; /* [rows, in to whole fours] */
} Pass;

typedef struct {
    float *keys, *values;   /* [slots, kv heads, head width] */
    const float *cos, *sin; /* [rows, head width], or NULL: the layer does not turn */
} Tables;

INLINE vec load(const float *at) { return *(const loose *)at; }

#define SHUFFLE __builtin_shufflevector

/* The sums of the lanes of four vectors, each in the same order. */
#define TOTALS(name, type, whole, half, quarter)                                                                       \
    INLINE quarter name##_quarter(whole v) { return QUARTER(v, half); }                                                \
    INLINE quarter name(whole a, whole b, whole c, whole d) {                                                          \
        quarter e = name##_quarter(a), f = name##_quarter(b), g = name##_quarter(c), h = name##_quarter(d);            \
        quarter ef = SHUFFLE(e, f, 0, 4, 1, 5) + SHUFFLE(e, f, 2, 6, 3, 7);                                            \
        quarter gh = SHUFFLE(g, h, 0, 4, 1, 5) + SHUFFLE(g, h, 2, 6, 3, 7);                                            \
        return SHUFFLE(ef, gh, 0, 1, 4, 5) + SHUFFLE(ef, gh, 2, 3, 6, 7);                                              \
    }
#define IN_TWO(v) (SHUFFLE(v, v, 0, 1, 2, 3) + SHUFFLE(v, v, 4, 5, 6, 7))
#define IN_FOUR(v, half)                                                                                               \
    ({                                                                                                                 \
        half both = SHUFFLE(v, v, 0, 1, 2, 3, 4, 5, 6, 7) + SHUFFLE(v, v, 8, 9, 10, 11, 12, 13, 14, 15);               \
        IN_TWO(both);                                                                                                  \
    })
#if LANES == 16
#define QUARTER(v, half) IN_FOUR(v, half)
#elif LANES == 8
#define QUARTER(v, half) IN_TWO(v)
#else
#define QUARTER(v, half) v
#endif

typedef float float4 __attribute__((vector_size(16)));
typedef float float8 __attribute__((vector_size(32)));
typedef float loose4 __attribute__((vector_size(16), aligned(4), may_alias));

TOTALS(totals, float, vec, float8, float4)

INLINE float total(vec sums) { return totals(sums, sums, sums, sums)[0]; }

INLINE float dot(const float *a, const float *b, int64_t n) {
    vec sums = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) sums += load(a + i) * load(b + i);
    float sum = total(sums);
    for (; i < n; i++) sum += a[i] * b[i];
    return sum;
}

INLINE float exponential(float x) { /* within 2 units of the last place, and a loop of it becomes vectors */
    x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    float whole = (x * 1.44269504f + 12582912.0f) - 12582912.0f; /* the nearest integer */
    float rest = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    float y = 1.9875691500e-4f;
    y = y * rest + 1.3981999507e-3f;
    y = y * rest + 8.3334519073e-3f;
    y = y * rest + 4.1665795894e-2f;
    y = y * rest + 1.6666665459e-1f;
    y = y * rest + 5.0000001201e-1f;
    y = y * rest * rest + rest + 1.0f;
    union { int32_t bits; float value; } power = {.bits = (127 + (int32_t)whole) * (1 << 23)};
    return y * power.value;
}

INLINE float tangent(float x) { return 1.0f - 2.0f / (exponential(2.0f * x) + 1.0f); }

/* root mean square norm of one vector; `out` may be `x` */
static void norm(const Layer *layer, float *out, const float *x, const float *weight, int64_t n) {
    float scale = 1.0f / sqrtf(dot(x, x, n) / n + layer->eps), offset = layer->norm_offset;
    for (int64_t i = 0; i < n; i++) out[i] = x[i] * scale * (weight[i] + offset);
}

static void norm_rows(const Pass *pass, const Layer *layer, float *out, const float *x, const float *weight) {
#pragma omp for
    for (int64_t row = 0; row < pass->rows; row++)
        norm(layer, out + row * layer->width, x + row * layer->width, weight, layer->width);
}

/* The products of `outs` rows of a matrix and `rows` rows of the input: constants, so that sums stay in registers. */
INLINE void float_block(const Product *p, int64_t first, const float *x, int outs, int rows, float4 *sums) {
    vec acc[BLOCK_OUT][BLOCK_ROWS];
    for (int o = 0; o < outs; o++)
        for (int r = 0; r < rows; r++) acc[o][r] = (vec){0};
    const float *weight = p->weight + first * p->in;
    int64_t k = 0;
    for (; k + LANES <= p->in; k += LANES) {
        vec w[BLOCK_OUT];
#pragma GCC unroll 4
        for (int o = 0; o < outs; o++) w[o] = load(weight + o * p->in + k);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            vec one = load(x + r * p->in + k);
#pragma GCC unroll 4
            for (int o = 0; o < outs; o++) acc[o][r] += w[o] * one;
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
        vec none = acc[0][r];
        sums[r] = totals(none, outs > 1 ? acc[1][r] : none, outs > 2 ? acc[2][r] : none, outs > 3 ? acc[3][r] : none);
        for (int64_t i = k; i < p->in; i++)
            for (int o = 0; o < outs; o++) sums[r][o] += weight[o * p->in + i] * x[r * p->in + i];
    }
}

/* To each sum come four products of the bytes in its lane, unsigned in `x` and signed in `weight`. */
INLINE ints add_four(ints sums, ints x, ints weight) {
#if defined(__AVX512VNNI__)
    return (ints)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)x, (__m512i)weight);
#elif defined(PAIRS)
    shorts odd = (shorts)weight >> 8, even = (shorts)weight << 8 >> 8;
    return sums + PAIRS(x >> 8 & 0x00ff00ff, odd) + PAIRS(x & 0x00ff00ff, even);
#else
    for (int byte = 0; byte < 32; byte += 8) sums += (x >> byte & 255) * (weight << (24 - byte) >> 24);
    return sums;
#endif
}

#define FOURS(n) (((n) + 3) / 4)

/* The sums of `panels` panels and `rows` rows: constants, as above. Each row of the matrix has its own lane, so that
   nothing is added across lanes. Of `next`, `lines` vectors are asked of memory in each round. */
INLINE void integer_block(const Product *p, int64_t panel, const uint8_t *x, int panels, int rows, const int8_t *next,
                          int lines, ints sums[PANELS][BLOCK_ROWS]) {
    int64_t fours = FOURS(p->in);
    const int8_t *weight = p->packed + panel * fours * 4 * LANES;
    for (int i = 0; i < panels; i++)
        for (int r = 0; r < rows; r++) sums[i][r] = *(const loose_ints *)(p->start + (panel + i) * LANES);
    for (int64_t k = 0; k < fours; k++) {
        ints w[PANELS];
#pragma GCC unroll 4
        for (int i = 0; i < panels; i++) w[i] = *(const loose_ints *)(weight + (i * fours + k) * 4 * LANES);
        for (int i = 0; i < lines; i++) __builtin_prefetch(next + (k * lines + i) * 4 * LANES, 0, 2);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            ints one = (ints){0} + *(const loose_int *)(x + (r * fours + k) * 4);
#pragma GCC unroll 4
            for (int i = 0; i < panels; i++) sums[i][r] = add_four(sums[i][r], one, w[i]);
        }
    }
}

/* Rows in 8-bit integers, 128 for 0, each over its own range. A row with NaN or infinity has the range NaN. */
static void round_rows(const Pass *pass, const Product *p, const float *x) {
    int64_t n = p->in;
#pragma omp for
    for (int64_t row = 0; row < pass->rows; row++) {
        const float *one = x + row * n;
        float range = 0, odd = 0;
#pragma omp simd reduction(max : range) reduction(+ : odd)
        for (int64_t i = 0; i < n; i++) {
            float size = fabsf(one[i]);
            range = size > range ? size : range;
            odd += one[i] * 0.0f;
        }
        float scale = range > 0 && odd == 0 ? p->levels / range : 0;
        uint8_t *out = pass->integers + row * FOURS(n) * 4;
        for (int64_t i = 0; i < n; i++) {
            float level = odd == 0 ? one[i] * scale : 0;
            out[i] = (uint8_t)(int32_t)((level + 12582912.0f) - 12582912.0f + 128.0f);
        }
        pass->ranges[row] = range / p->levels + odd;
    }
}

INLINE void float_rows(const Pass *pass, const Product *p, int64_t o, const float *x, int64_t row, int outs, int rows,
                       float *y, const float *more) {
    float4 sums[BLOCK_ROWS];
    float_block(p, o, x + row * p->in, outs, rows, sums);
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
        float *at = y + (row + r) * p->out + o;
        const float *add = more ? more + (row + r) * p->out + o : NULL;
        if (outs == 4) {
            float4 sum = sums[r];
            if (p->bias) sum += *(const loose4 *)(p->bias + o);
            *(loose4 *)at = add ? sum + *(const loose4 *)add : sum;
        } else
            for (int i = 0; i < outs; i++) {
                float sum = sums[r][i];
                if (p->bias) sum += p->bias[o + i];
                at[i] = add ? sum + add[i] : sum;
            }
    }
}

static void multiply_floats(const Pass *pass, const Product *p, const float *x, float *y, const float *more) {
    int64_t blocks = (p->out + BLOCK_OUT - 1) / BLOCK_OUT;
#pragma omp for schedule(static)
    for (int64_t b = 0; b < blocks; b++) {
        int64_t o = b * BLOCK_OUT, row = 0;
        if (o + BLOCK_OUT <= p->out) {
            for (; row + BLOCK_ROWS <= pass->rows; row += BLOCK_ROWS)
                float_rows(pass, p, o, x, row, BLOCK_OUT, BLOCK_ROWS, y, more);
            if (row + 2 <= pass->rows) {
                float_rows(pass, p, o, x, row, BLOCK_OUT, 2, y, more);
                row += 2;
            }
            if (row < pass->rows) float_rows(pass, p, o, x, row, BLOCK_OUT, 1, y, more);
        } else
            for (; row < pass->rows; row++)
                for (int64_t i = o; i < p->out; i++) float_rows(pass, p, i, x, row, 1, 1, y, more);
    }
}

INLINE void integer_rows(const Pass *pass, const Product *p, int64_t panel, int64_t row, int panels, int rows, float *y,
                         const float *more) {
    /* While these panels are used, the next ones are asked of memory: all by the only block of rows, or one by each of
       several blocks, so that memory works as long as the processor does. */
    int64_t bytes = FOURS(p->in) * 4, part = row / BLOCK_ROWS, several = pass->rows >= 2 * BLOCK_ROWS;
    int lines = several ? part < PANELS : row ? 0 : PANELS;
    const int8_t *next = p->packed + (panel + panels + part) * LANES * bytes;
    ints sums[PANELS][BLOCK_ROWS];
    integer_block(p, panel, pass->integers + row * bytes, panels, rows, next, lines, sums);
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int i = 0; i < panels; i++) {
            int64_t o = (panel + i) * LANES, place = (row + r) * p->out + o;
            vec sum = __builtin_convertvector(sums[i][r], vec) * load(p->steps + o) * pass->ranges[row + r];
            if (p->bias) sum += load(p->bias + o);
            if (o + LANES <= p->out)
                *(loose *)(y + place) = more ? sum + load(more + place) : sum;
            else
                for (int64_t lane = 0; o + lane < p->out; lane++)
                    y[place + lane] = more ? sum[lane] + more[place + lane] : sum[lane];
        }
}

INLINE void all_integer_rows(const Pass *pass, const Product *p, int64_t panel, int panels, float *y,
                             const float *more) {
    int64_t row = 0;
    for (; row + BLOCK_ROWS <= pass->rows; row += BLOCK_ROWS)
        integer_rows(pass, p, panel, row, panels, BLOCK_ROWS, y, more);
    for (; row + 2 <= pass->rows; row += 2) integer_rows(pass, p, panel, row, panels, 2, y, more);
    if (row < pass->rows) integer_rows(pass, p, panel, row, panels, 1, y, more);
}

static void multiply_integers(const Pass *pass, const Product *p, float *y, const float *more) {
    int64_t panels = (p->out + LANES - 1) / LANES;
#pragma omp for schedule(static)
    for (int64_t b = 0; b < (panels + PANELS - 1) / PANELS; b++) {
        int64_t panel = b * PANELS;
        if (panel + PANELS <= panels)
            all_integer_rows(pass, p, panel, PANELS, y, more);
        else
            for (; panel < panels; panel++) all_integer_rows(pass, p, panel, 1, y, more);
    }
}

/* y = x times the matrix, plus `more` where it is given (which may be y): a block of the matrix is read once for all
   rows. */
static void multiply(const Pass *pass, const Product *p, const float *x, float *y, const float *more) {
    if (p->weight) {
        multiply_floats(pass, p, x, y, more);
    } else {
        round_rows(pass, p, x);
        multiply_integers(pass, p, y, more);
    }
}

/* In place: the norm of a head, its turn by the position, and its scale. */
static void turn(const Layer *layer, const Tables *tables, float *head, int64_t row,
                 const float *weight, float scale) {
    int64_t n = layer->head_width, half = n / 2;
    if (weight) norm(layer, head, head, weight, n);
    if (tables->cos) {
        const float *cos = tables->cos + row * n, *sin = tables->sin + row * n;
        for (int64_t i = 0; i < half; i++) {
            float low = head[i], high = head[i + half];
            head[i] = low * cos[i] + high * sin[i];
            head[i + half] = high * cos[i + half] + low * sin[i + half];
        }
    }
    if (scale != 1)
        for (int64_t i = 0; i < n; i++) head[i] *= scale;
}

/* Queries and keys are turned, and new keys and values stored. */
static void store(const Pass *pass, const Layer *layer, const Tables *tables) {
    int64_t n = layer->head_width, inner = layer->kv_heads * n, all = layer->heads + 2 * layer->kv_heads;
#pragma omp for
    for (int64_t row = 0; row < pass->rows; row++) {
        float *heads = pass->qkv + row * all * n, *keys = heads + layer->heads * n;
        for (int64_t h = 0; h < layer->heads; h++)
            turn(layer, tables, heads + h * n, row, layer->query_norm, layer->query_scale);
        for (int64_t h = 0; h < layer->kv_heads; h++) turn(layer, tables, keys + h * n, row, layer->key_norm, 1);
        int64_t slot = pass->starts[row] + pass->lengths[row] - 1;
        memcpy(tables->keys + slot * inner, keys, inner * sizeof(float));
        memcpy(tables->values + slot * inner, keys + inner, inner * sizeof(float));
    }
}

#define AHEAD 24 /* slots that are asked of memory before they are read: those of one head do not lie side by side */

/* The place AHEAD slots behind slot `s`; behind the last slot stand those of `next`. */
INLINE const float *ahead_of(const float *slots, const float *next, ptrdiff_t stride, int64_t seen, int64_t s) {
    s += AHEAD;
    return s < seen ? slots + s * stride : next + (s - seen) * stride;
}

/* Scores of up to four query heads and the slots of their document: constants, so that sums stay in registers. */
INLINE void score(const float *queries, const float *keys, const float *next, ptrdiff_t stride, int64_t seen, int heads,
                  int64_t n, float *scores, ptrdiff_t apart) {
    float scale = 1.0f / sqrtf((float)n);
    int64_t s = 0;
    for (; s + 4 <= seen && n % LANES == 0; s += 4) {
        const float *key = keys + s * stride, *ahead = ahead_of(keys, next, stride, seen, s);
        vec acc[4][4];
        for (int r = 0; r < heads; r++)
            for (int j = 0; j < 4; j++) acc[r][j] = (vec){0};
        for (int64_t i = 0; i < n; i += LANES) {
            vec k[4];
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++) {
                k[j] = load(key + j * stride + i);
                __builtin_prefetch(ahead + j * stride + i);
            }
#pragma GCC unroll 4
            for (int r = 0; r < heads; r++) {
                vec query = load(queries + r * n + i);
#pragma GCC unroll 4
                for (int j = 0; j < 4; j++) acc[r][j] += query * k[j];
            }
        }
#pragma GCC unroll 4
        for (int r = 0; r < heads; r++)
            *(loose4 *)(scores + r * apart + s) = totals(acc[r][0], acc[r][1], acc[r][2], acc[r][3]) * scale;
    }
    for (; s < seen; s++)
        for (int r = 0; r < heads; r++) scores[r * apart + s] = dot(queries + r * n, keys + s * stride, n) * scale;
}

static void softmax(float *scores, int64_t seen, float cap) {
    float most = -INFINITY, sum = 0;
    if (cap > 0)
        for (int64_t s = 0; s < seen; s++) scores[s] = cap * tangent(scores[s] / cap);
#pragma omp simd reduction(max : most)
    for (int64_t s = 0; s < seen; s++) most = scores[s] > most ? scores[s] : most;
#pragma omp simd reduction(+ : sum)
    for (int64_t s = 0; s < seen; s++) {
        scores[s] = exponential(scores[s] - most);
        sum += scores[s];
    }
    float part = 1.0f / sum;
    for (int64_t s = 0; s < seen; s++) scores[s] *= part;
}

#define WIDE 4 /* vectors of a head whose sums stand in registers together */

/* Sums of values weighted by the scores of up to four query heads: constants, so that sums stay in registers. */
INLINE void weigh(const float *scores, ptrdiff_t apart, const float *values, const float *next, ptrdiff_t stride,
                  int64_t seen, int heads, int vectors, float *out, int64_t n) {
    vec acc[4][WIDE];
    for (int r = 0; r < heads; r++)
        for (int i = 0; i < vectors; i++) acc[r][i] = (vec){0};
    for (int64_t s = 0; s < seen; s++) {
        const float *ahead = ahead_of(values, next, stride, seen, s);
        vec value[WIDE];
#pragma GCC unroll 4
        for (int i = 0; i < vectors; i++) {
            value[i] = load(values + s * stride + i * LANES);
            __builtin_prefetch(ahead + i * LANES);
        }
#pragma GCC unroll 4
        for (int r = 0; r < heads; r++) {
            float weight = scores[r * apart + s];
#pragma GCC unroll 4
            for (int i = 0; i < vectors; i++) acc[r][i] += weight * value[i];
        }
    }
    for (int r = 0; r < heads; r++)
        for (int i = 0; i < vectors; i++) *(loose *)(out + r * n + i * LANES) = acc[r][i];
}

/* Where the slots that a row sees begin in a table, and how many they are. */
INLINE ptrdiff_t first_slot(const Pass *pass, const Layer *layer, int64_t row, int64_t group, int64_t n,
                            int64_t *seen) {
    int64_t length = pass->lengths[row], oldest = layer->window && length > layer->window ? length - layer->window : 0;
    *seen = length - oldest;
    return ((pass->starts[row] + oldest) * layer->kv_heads + group) * n;
}

/* The query heads of one row that share a key-value head, over the slots of its document; then come slots `next`. */
INLINE void attend_heads(const Pass *pass, const Layer *layer, const Tables *tables, int64_t row, int64_t group,
                         ptrdiff_t next, int64_t n, float *scores) {
    int64_t kv = layer->kv_heads, shared = layer->heads / kv, all = layer->heads + 2 * kv, apart = pass->longest, seen;
    const float *queries = pass->qkv + (row * all + group * shared) * n;
    float *out = pass->attended + (row * layer->heads + group * shared) * n;
    ptrdiff_t first = first_slot(pass, layer, row, group, n, &seen), stride = kv * n;
    const float *keys = tables->keys + first, *values = tables->values + first;
    for (int64_t r = 0; r < shared; r += 4) {
        int64_t heads = shared - r < 4 ? shared - r : 4;
        float *mine = scores + r * apart;
#define HEADS(call) heads == 4 ? call(4) : heads == 3 ? call(3) : heads == 2 ? call(2) : call(1)
#define SCORE(h) score(queries + r * n, keys, values, stride, seen, h, n, mine, apart)
        HEADS(SCORE);
        for (int64_t h = 0; h < heads; h++) softmax(mine + h * apart, seen, layer->cap);
    }
    int64_t i = 0, part;
    for (; i < n; i += part) {
        part = n - i >= WIDE * LANES ? WIDE * LANES : n - i >= LANES ? LANES : 1;
        for (int64_t r = 0; r < shared; r += 4) {
            int64_t heads = shared - r < 4 ? shared - r : 4;
            const float *mine = scores + r * apart;
            float *there = out + r * n + i;
#define WEIGH(h, v) weigh(mine, apart, values + i, tables->keys + next + i, stride, seen, h, v, there, n)
#define WEIGH_WIDE(h) WEIGH(h, WIDE)
#define WEIGH_ONE(h) WEIGH(h, 1)
            if (part == WIDE * LANES)
                HEADS(WEIGH_WIDE);
            else if (part == LANES)
                HEADS(WEIGH_ONE);
            else
                for (int64_t h = 0; h < heads; h++) {
                    float sum = 0;
                    for (int64_t s = 0; s < seen; s++) sum += mine[h * apart + s] * values[s * stride + i];
                    there[h * n] = sum;
                }
        }
    }
}

static void attend(const Pass *pass, const Layer *layer, const Tables *tables, int64_t thread) {
    int64_t n = layer->head_width, kv = layer->kv_heads, count = pass->rows * kv, seen;
    float *scores = pass->scores + thread * (layer->heads / kv) * pass->longest;
#pragma omp for schedule(static)
    for (int64_t one = 0; one < count; one++) {
        int64_t row = one / kv, group = one % kv, then = one + 1 < count ? one + 1 : one;
        ptrdiff_t next = first_slot(pass, layer, then / kv, then % kv, n, &seen);
        if (n == 64)
            attend_heads(pass, layer, tables, row, group, next, 64, scores);
        else if (n == 128)
            attend_heads(pass, layer, tables, row, group, next, 128, scores);
        else
            attend_heads(pass, layer, tables, row, group, next, n, scores);
    }
}

static void gate(const Pass *pass, const Layer *layer) {
#pragma omp for
    for (int64_t row = 0; row < pass->rows; row++) {
        const float *g = pass->gate_up + row * 2 * layer->mlp_width, *up = g + layer->mlp_width;
        float *out = pass->gated + row * layer->mlp_width;
        if (layer->gelu)
            for (int64_t i = 0; i < layer->mlp_width; i++)
                out[i] = 0.5f * g[i] * (1 + tangent(0.7978845608f * (g[i] + 0.044715f * g[i] * g[i] * g[i]))) * up[i];
        else
            for (int64_t i = 0; i < layer->mlp_width; i++) out[i] = g[i] / (1 + exponential(-g[i])) * up[i];
    }
}

/* The products' sum joins the residual, behind its own norm in families that have one. */
static void add(const Pass *pass, const Layer *layer, const Product *p, const float *x, float *states,
                const float *post_norm) {
    if (!post_norm) {
        multiply(pass, p, x, states, states);
        return;
    }
    multiply(pass, p, x, pass->normed, NULL);
    norm_rows(pass, layer, pass->normed, pass->normed, post_norm);
#pragma omp for
    for (int64_t i = 0; i < pass->rows * layer->width; i++) states[i] += pass->normed[i];
}

/* Hidden states [rows, width] through one layer, in place. */
void lorgnette_decode_layer(const Pass *pass, const Layer *layer, float *keys, float *values, const float *cos,
                            const float *sin, float *states) {
    Tables tables = {keys, values, cos, sin};
#ifdef _OPENMP
#pragma omp parallel num_threads(pass->threads)
#endif
    {
#ifdef _OPENMP
        int64_t thread = omp_get_thread_num();
#else
        int64_t thread = 0;
#endif
        norm_rows(pass, layer, pass->normed, states, layer->attention_norm);
        multiply(pass, &layer->qkv, pass->normed, pass->qkv, NULL);
        store(pass, layer, &tables);
        attend(pass, layer, &tables, thread);
        add(pass, layer, &layer->output, pass->attended, states, layer->attention_post_norm);
        norm_rows(pass, layer, pass->normed, states, layer->mlp_norm);
        multiply(pass, &layer->gate_up, pass->normed, pass->gate_up, NULL);
        gate(pass, layer);
        add(pass, layer, &layer->down, pass->gated, states, layer->mlp_post_norm);
    }
}

/* y = x times one matrix of integers, plus `more` where it is given, for rows of any number. `pass` holds this number,
   threads, and room for the bytes and ranges of a tile. */
void lorgnette_multiply(const Pass *pass, const Product *p, const float *x, float *y, const float *more) {
#ifdef _OPENMP
#pragma omp parallel num_threads(pass->threads)
#endif
    for (int64_t row = 0; row < pass->rows; row += lorgnette_tile) {
        Pass tile = *pass;
        tile.rows = pass->rows - row < lorgnette_tile ? pass->rows - row : lorgnette_tile;
        multiply(&tile, p, x + row * p->in, y + row * p->out, more ? more + row * p->out : NULL);
    }
}
