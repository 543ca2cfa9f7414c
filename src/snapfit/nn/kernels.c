/* The pieces of an encoder layer between its matrix products, each in one pass over memory, forwards and backwards, and
   AdamW.

   Built on demand and called by kernels.py, where the arguments are described. Arrays are contiguous and row-major;
   NUMBER is float or bf16, sums are in float. Threads write disjoint parts, and what threads sum is joined in a fixed
   order: equal inputs give equal bits. Functions return 0, or 1 when there is no memory for what they need meanwhile. */

#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

typedef uint16_t bf16;

static inline float from_float(float x) { return x; }
static inline float to_float(float x) { return x; }

static inline float from_bf16(bf16 x) {
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

/* Rounds to nearest, ties to even; a NaN stays one. */
static inline bf16 to_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return (bf16)((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
}

/* Arrays of floats as numbers. */
static inline void narrow_float(const float *from, float *to, long n) { memcpy(to, from, sizeof(float) * (size_t)n); }

static inline void narrow_bf16(const float *from, bf16 *to, long n) {
    long i = 0;
#ifdef __AVX512BF16__
    for (; i + 16 <= n; i += 16) _mm256_storeu_si256((void *)(to + i), (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(from + i)));
#endif
    for (; i < n; i++) to[i] = to_bf16(from[i]);
}

/* e^x to 2 units in the last place for x <= 0 or moderate; 0 below -87. Branchless, so that it is vectorised. */
static inline float exponential(float x) {
    x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    float n = nearbyintf(x * 1.44269504088896341f);
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t bits = ((int32_t)n + 127) << 23;
    float scale;
    memcpy(&scale, &bits, 4);
    return p * scale;
}

/* The normal distribution function at x, and e^(-x^2/2): Abramowitz and Stegun 7.1.26, absolute error below 1.5e-7. */
static inline float normal(float x, float *gauss) {
    float z = fabsf(x) * 0.70710678118654752f;
    float e = exponential(-z * z);
    float t = 1.0f / (1.0f + 0.3275911f * z);
    float tail = ((((1.061405429f * t - 1.453152027f) * t + 1.421413741f) * t - 0.284496736f) * t + 0.254829592f) * t * e;
    *gauss = e;
    return x < 0.0f ? 0.5f * tail : 1.0f - 0.5f * tail;
}

/* Whether an element is kept: a hash of its place and the key, uniform in 32 bits ("lowbias32" by C. Wellons). */
static inline uint32_t hashed(uint32_t place, uint32_t key) {
    uint32_t x = place * 0x9e3779b9u + key;
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    x ^= x >> 16;
    return x;
}

static inline int finite_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return (bits & 0x7f800000u) != 0x7f800000u;
}

/* Zeros for n sums of each thread; NULL when there is no memory. A thread's own begin at its number times n. */
static float *sums_of_threads(long n) { return calloc((size_t)(omp_get_max_threads() * n), sizeof(float)); }

/* Adds the threads' partial sums in order, and frees them. */
static void join(float *sums, float *partial, long n) {
    int threads = omp_get_max_threads();
    for (long i = 0; i < n; i++) {
        float sum = 0.0f;
        for (int t = 0; t < threads; t++) sum += partial[t * n + i];
        sums[i] = sum;
    }
    free(partial);
}

/* Sixteen floats, of any alignment. */
typedef float vector __attribute__((vector_size(64), aligned(4), may_alias));
#define LANES 16
#define PADDED(n) (((n) + LANES - 1) / LANES * LANES)
#define STRETCH 512 /* numbers of a row that are held as floats before they are narrowed */

/* A tile of C[m][n] = sum over k of A(m, k) B[k][n], see `product`: HIGH rows and WIDE vectors of columns, kept in
   registers meanwhile. Rows beyond the last repeat it and are not written. */
#define TILE(HIGH, WIDE)                                                                                               \
    static inline void tile_##HIGH##_##WIDE(long rows, long columns, long depth, const float *a, long by_row,          \
                                            long by_depth, const float *b, float *c) {                                 \
        vector sums[HIGH][WIDE] = {0};                                                                                 \
        const float *from[HIGH];                                                                                       \
        for (long r = 0; r < HIGH; r++) from[r] = a + (r < rows ? r : rows - 1) * by_row;                              \
        for (long k = 0; k < depth; k++)                                                                               \
            for (long w = 0; w < WIDE; w++) {                                                                          \
                vector right = *(const vector *)(b + k * columns + w * LANES);                                         \
                for (long r = 0; r < HIGH; r++) sums[r][w] += from[r][k * by_depth] * right;                           \
            }                                                                                                          \
        for (long r = 0; r < HIGH; r++)                                                                                \
            if (r < rows)                                                                                              \
                for (long w = 0; w < WIDE; w++) *(vector *)(c + r * columns + w * LANES) = sums[r][w];                 \
    }
TILE(4, 2)
TILE(8, 1)

/* C[m][n] = sum over k of A(m, k) B[k][n], with A(m, k) = a[m * by_row + k * by_depth] and n a multiple of LANES:
   small products that stay in the first cache. */
static void product(long rows, long columns, long depth, const float *a, long by_row, long by_depth, const float *b,
                    float *c) {
    long column = 0;
    for (; column + 2 * LANES <= columns; column += 2 * LANES)
        for (long row = 0; row < rows; row += 4)
            tile_4_2(rows - row, columns, depth, a + row * by_row, by_row, by_depth, b + column, c + row * columns + column);
    if (column < columns)
        for (long row = 0; row < rows; row += 8)
            tile_8_1(rows - row, columns, depth, a + row * by_row, by_row, by_depth, b + column, c + row * columns + column);
}

/* turned[c][r] = rows[r][c]; both counts are multiples of LANES. */
static void turn(const float *rows, long high, long wide, float *turned) {
    for (long r = 0; r < high; r += LANES)
        for (long c = 0; c < wide; c += LANES) {
            const float *from = rows + r * wide + c;
            float *to = turned + c * high + r;
#ifdef __AVX512F__
            __m512 x[LANES], y[LANES];
            for (int i = 0; i < LANES; i++) x[i] = _mm512_loadu_ps(from + i * wide);
            for (int i = 0; i < LANES; i += 2) {
                y[i] = _mm512_unpacklo_ps(x[i], x[i + 1]);
                y[i + 1] = _mm512_unpackhi_ps(x[i], x[i + 1]);
            }
            for (int i = 0; i < LANES; i++) { /* x[4 g + q]: rows 4 g to 4 g + 3 of columns q, 4 + q, 8 + q, 12 + q */
                __m512d low = _mm512_castps_pd(y[i / 4 * 4 + i % 4 / 2]);
                __m512d high_ = _mm512_castps_pd(y[i / 4 * 4 + i % 4 / 2 + 2]);
                x[i] = _mm512_castpd_ps(i % 2 ? _mm512_unpackhi_pd(low, high_) : _mm512_unpacklo_pd(low, high_));
            }
            for (int q = 0; q < 4; q++) {
                __m512 even = _mm512_shuffle_f32x4(x[q], x[4 + q], 0x88), odd = _mm512_shuffle_f32x4(x[q], x[4 + q], 0xdd);
                __m512 even_ = _mm512_shuffle_f32x4(x[8 + q], x[12 + q], 0x88);
                __m512 odd_ = _mm512_shuffle_f32x4(x[8 + q], x[12 + q], 0xdd);
                _mm512_storeu_ps(to + q * high, _mm512_shuffle_f32x4(even, even_, 0x88));
                _mm512_storeu_ps(to + (4 + q) * high, _mm512_shuffle_f32x4(odd, odd_, 0x88));
                _mm512_storeu_ps(to + (8 + q) * high, _mm512_shuffle_f32x4(even, even_, 0xdd));
                _mm512_storeu_ps(to + (12 + q) * high, _mm512_shuffle_f32x4(odd, odd_, 0xdd));
            }
#else
            for (int i = 0; i < LANES; i++)
                for (int j = 0; j < LANES; j++) to[j * high + i] = from[i * wide + j];
#endif
        }
}

static long longest_of(const int64_t *starts, long documents) {
    long longest = 0;
    for (long d = 0; d < documents; d++)
        if (starts[d + 1] - starts[d] > longest) longest = starts[d + 1] - starts[d];
    return longest;
}

#define BLOCK 1024 /* numbers of an array that a thread takes at a time in the optimizer */
#define BLOCKS(n) (((n) + BLOCK - 1) / BLOCK)

#define JOINED(name, type) JOINED_(name, type)
#define JOINED_(name, type) name##_##type
#define NAMED(name) JOINED(name, NUMBER)
#define FROM(x) JOINED(from, NUMBER)(x)
#define TO(x) JOINED(to, NUMBER)(x)
#define NARROW(from, to, n) JOINED(narrow, NUMBER)(from, to, n)

#define NUMBER float
#include "kernels_layer.c"
#undef NUMBER
#define NUMBER bf16
#include "kernels_layer.c"
#undef NUMBER

/* ------------------------------------------------------------ optimizer */

/* The sum of squares of each array, in double. kinds: 1 for bf16, 0 for float. Threads go from array to array without
   waiting for each other, here and below. */
int sums_of_squares(long arrays, const void *const *data, const long *sizes, const char *kinds, double *sums) {
    long all = 0;
    for (long a = 0; a < arrays; a++) all += BLOCKS(sizes[a]);
    double *parts = malloc(sizeof(double) * (size_t)(all ? all : 1));
    if (!parts) return 1;
#pragma omp parallel
    {
        double *own = parts;
        for (long a = 0; a < arrays; own += BLOCKS(sizes[a]), a++) {
            long n = sizes[a];
#pragma omp for schedule(static) nowait
            for (long block = 0; block < BLOCKS(n); block++) {
                long end = (block + 1) * BLOCK < n ? (block + 1) * BLOCK : n;
                float s = 0.0f;
                if (kinds[a])
                    for (long i = block * BLOCK; i < end; i++) {
                        float x = from_bf16(((const bf16 *)data[a])[i]);
                        s += x * x;
                    }
                else
                    for (long i = block * BLOCK; i < end; i++) {
                        float x = ((const float *)data[a])[i];
                        s += x * x;
                    }
                own[block] = s;
            }
        }
    }
    const double *own = parts;
    for (long a = 0; a < arrays; own += BLOCKS(sizes[a]), a++) {
        sums[a] = 0.0;
        for (long block = 0; block < BLOCKS(sizes[a]); block++) sums[a] += own[block];
    }
    free(parts);
    return 0;
}

/* Numbers start to end of one array, at most BLOCK: see adamw. */
static int adamw_block(float *restrict w, const void *restrict gradient, int half, float *restrict m, float *restrict v,
                       long start, long end, float keep, float rate, float beta1, float beta2, float eps, float root,
                       float scale) {
    float buffer[BLOCK];
    if (half)
        for (long i = start; i < end; i++) buffer[i - start] = from_bf16(((const bf16 *)gradient)[i]) * scale;
    else
        for (long i = start; i < end; i++) buffer[i - start] = ((const float *)gradient)[i] * scale;
    int good = 1;
    for (long i = start; i < end; i++) {
        float x = buffer[i - start];
        float mean = m[i] + (x - m[i]) * (1.0f - beta1);
        float square = v[i] * beta2 + x * x * (1.0f - beta2);
        float weight = w[i] * keep - rate * mean / (sqrtf(square) / root + eps);
        m[i] = mean;
        v[i] = square;
        w[i] = weight;
        good &= finite_bits(weight);
    }
    return good;
}

/* One step of AdamW over float arrays; gradients may be bf16 and are multiplied by `scale`. copies: where the new
   weights are to be written as bf16 too, or NULL. Returns 1 when every new weight is finite. */
int adamw(long arrays, float *const *weights, bf16 *const *copies, const void *const *gradients, const char *kinds,
          float *const *means, float *const *squares, const long *sizes, const float *rates, const float *decays,
          float beta1, float beta2, float eps, float correction1, float correction2, float scale) {
    int finite = 1;
    float root = sqrtf(correction2);
#pragma omp parallel reduction(& : finite)
    for (long a = 0; a < arrays; a++) {
        float keep = 1.0f - rates[a] * decays[a], rate = rates[a] / correction1;
#pragma omp for schedule(static) nowait
        for (long block = 0; block < BLOCKS(sizes[a]); block++) {
            long start = block * BLOCK, end = start + BLOCK < sizes[a] ? start + BLOCK : sizes[a];
            finite &= adamw_block(weights[a], gradients[a], kinds[a], means[a], squares[a], start, end, keep, rate,
                                  beta1, beta2, eps, root, scale);
            if (copies[a]) narrow_bf16(weights[a] + start, copies[a] + start, end - start);
        }
    }
    return finite;
}
