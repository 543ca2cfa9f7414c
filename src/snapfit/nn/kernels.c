/* The pieces of an encoder layer between its matrix products, each in one pass over memory, forwards and backwards.

   Built on demand and called by kernels.py, where the arguments are described. Arrays are
   contiguous and row-major. NUMBER is float or bf16 (this file includes itself once for each); sums are in float.
   Threads write disjoint parts, and what threads sum is joined in a fixed order: equal inputs give equal bits. Functions return 0, or 1 when there
   is no memory for what they need meanwhile. */

#ifndef NUMBER

#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

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

/* C[m][n] = sum over k of A(m, k) B[k][n], with A(m, k) = a[m * by_row + k * by_depth] and n a multiple of LANES:
   small products that stay in the first cache, four rows and up to two vectors at a time in registers. */
static void product(long rows, long columns, long depth, const float *a, long by_row, long by_depth, const float *b,
                    float *c) {
    for (long row = 0; row < rows; row += 4) {
        long some = rows - row < 4 ? rows - row : 4;
        const float *a0 = a + row * by_row, *a1 = a0 + (some > 1) * by_row, *a2 = a0 + (some > 2) * 2 * by_row;
        const float *a3 = a0 + (some > 3) * 3 * by_row;
        long column = 0;
        for (; column + 2 * LANES <= columns; column += 2 * LANES) {
            vector s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0}, t0 = {0}, t1 = {0}, t2 = {0}, t3 = {0};
            for (long k = 0; k < depth; k++) {
                vector left = *(const vector *)(b + k * columns + column);
                vector right = *(const vector *)(b + k * columns + column + LANES);
                long at = k * by_depth;
                s0 += a0[at] * left, t0 += a0[at] * right;
                s1 += a1[at] * left, t1 += a1[at] * right;
                s2 += a2[at] * left, t2 += a2[at] * right;
                s3 += a3[at] * left, t3 += a3[at] * right;
            }
            vector left[4] = {s0, s1, s2, s3}, right[4] = {t0, t1, t2, t3};
            for (long r = 0; r < some; r++) {
                *(vector *)(c + (row + r) * columns + column) = left[r];
                *(vector *)(c + (row + r) * columns + column + LANES) = right[r];
            }
        }
        for (; column < columns; column += LANES) {
            vector s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
            for (long k = 0; k < depth; k++) {
                vector left = *(const vector *)(b + k * columns + column);
                long at = k * by_depth;
                s0 += a0[at] * left, s1 += a1[at] * left, s2 += a2[at] * left, s3 += a3[at] * left;
            }
            vector left[4] = {s0, s1, s2, s3};
            for (long r = 0; r < some; r++) *(vector *)(c + (row + r) * columns + column) = left[r];
        }
    }
}

static long longest_of(const int64_t *starts, long documents) {
    long longest = 0;
    for (long d = 0; d < documents; d++)
        if (starts[d + 1] - starts[d] > longest) longest = starts[d + 1] - starts[d];
    return longest;
}

#define JOINED(name, type) JOINED_(name, type)
#define JOINED_(name, type) name##_##type
#define NAMED(name) JOINED(name, NUMBER)
#define FROM(x) JOINED(from, NUMBER)(x)
#define TO(x) JOINED(to, NUMBER)(x)

#define NUMBER float
#include "kernels.c"
#undef NUMBER
#define NUMBER bf16
#include "kernels.c"
#undef NUMBER

/* ------------------------------------------------------------ optimizer */

/* The sum of squares of each array, in double. kinds: 1 for bf16, 0 for float. */
int sums_of_squares(long arrays, const void *const *data, const long *sizes, const char *kinds, double *sums) {
    for (long a = 0; a < arrays; a++) {
        double sum = 0.0;
        long n = sizes[a], blocks = (n + 4095) / 4096;
        double *parts = malloc(sizeof(double) * (size_t)(blocks ? blocks : 1));
        if (!parts) return 1;
#pragma omp parallel for schedule(static) if (n > 32768)
        for (long block = 0; block < blocks; block++) {
            long end = (block + 1) * 4096 < n ? (block + 1) * 4096 : n;
            float s = 0.0f;
            if (kinds[a])
                for (long i = block * 4096; i < end; i++) {
                    float x = from_bf16(((const bf16 *)data[a])[i]);
                    s += x * x;
                }
            else
                for (long i = block * 4096; i < end; i++) {
                    float x = ((const float *)data[a])[i];
                    s += x * x;
                }
            parts[block] = s;
        }
        for (long block = 0; block < blocks; block++) sum += parts[block];
        free(parts);
        sums[a] = sum;
    }
    return 0;
}

/* One step of AdamW over float arrays; gradients may be bf16 and are multiplied by `scale`. Returns 1 when every new
   weight is finite. */
int adamw(long arrays, float *const *weights, const void *const *gradients, const char *kinds, float *const *means,
          float *const *squares, const long *sizes, const float *rates, const float *decays, float beta1, float beta2,
          float eps, float correction1, float correction2, float scale) {
    int finite = 1;
    float root = sqrtf(correction2);
    for (long a = 0; a < arrays; a++) {
        float *restrict w = weights[a], *restrict m = means[a], *restrict v = squares[a];
        const float *restrict g = gradients[a];
        const bf16 *restrict h = gradients[a];
        float keep = 1.0f - rates[a] * decays[a], rate = rates[a] / correction1;
        long n = sizes[a];
        char half = kinds[a];
#pragma omp parallel for schedule(static) reduction(& : finite) if (n > 16384)
        for (long block = 0; block < (n + 1023) / 1024; block++) {
            long end = (block + 1) * 1024 < n ? (block + 1) * 1024 : n;
            float buffer[1024];
            long start = block * 1024;
            if (half)
                for (long i = start; i < end; i++) buffer[i - start] = from_bf16(h[i]) * scale;
            else
                for (long i = start; i < end; i++) buffer[i - start] = g[i] * scale;
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
            finite &= good;
        }
    }
    return finite;
}

#else /* ------------------------------------------------------------ once for float, once for bf16 */

/* One head of one document as floats, the bias added: rows [length][wide], and turned [wide][long_], zeros beyond. */
static inline void NAMED(head_rows)(const NUMBER *from, long stride, const float *bias, long length, long width,
                                    float factor, float *rows) {
    long wide = PADDED(width);
    for (long j = 0; j < length; j++) {
        for (long c = 0; c < width; c++) rows[j * wide + c] = (FROM(from[j * stride + c]) + bias[c]) * factor;
        for (long c = width; c < wide; c++) rows[j * wide + c] = 0.0f;
    }
}

static inline void NAMED(turn)(const float *rows, long length, long width, float *turned) {
    long wide = PADDED(width), padded = PADDED(length);
    for (long c = 0; c < wide; c++) {
        for (long j = 0; j < length; j++) turned[c * padded + j] = rows[j * wide + c];
        for (long j = length; j < padded; j++) turned[c * padded + j] = 0.0f;
    }
}

/* Softmax attention inside each document. qkv: [tokens, 3, heads, width], to which `bias` [3, heads, width] is added.
   starts: [documents + 1]. Writes out [tokens, heads, width] and the log of the softmax's sum [tokens, heads]. */
int NAMED(attention_forward)(const NUMBER *qkv, const float *bias, const int64_t *starts, long documents, long heads,
                              long width, float scale, NUMBER *out, float *logsum) {
    long features = heads * width, stride = 3 * features, wide = PADDED(width);
    long longest = longest_of(starts, documents), most_padded = PADDED(longest);
    int failed = 0;
#pragma omp parallel
    {
        float *queries = malloc(sizeof(float) * (size_t)(longest * wide * 4 + wide * most_padded + longest * most_padded));
        if (!queries)
#pragma omp atomic write
            failed = 1;
        float *keys = queries + longest * wide, *values = keys + longest * wide, *mixed = values + longest * wide;
        float *turned = mixed + longest * wide, *scores = turned + wide * most_padded;
#pragma omp for schedule(static, 4)
        for (long task = 0; task < documents * heads; task++) {
            if (!queries) continue;
            long document = task / heads, head = task % heads, start = starts[document];
            long length = starts[document + 1] - start, padded = PADDED(length);
            const NUMBER *base = qkv + start * stride + head * width;
            const float *shift = bias + head * width;
            NAMED(head_rows)(base, stride, shift, length, width, scale, queries);
            NAMED(head_rows)(base + features, stride, shift + features, length, width, 1.0f, keys);
            NAMED(head_rows)(base + 2 * features, stride, shift + 2 * features, length, width, 1.0f, values);
            NAMED(turn)(keys, length, width, turned);
            product(length, padded, wide, queries, wide, 1, turned, scores);
            for (long i = 0; i < length; i++) {
                float *row = scores + i * padded, most = row[0], total = 0.0f;
                for (long j = 1; j < length; j++) most = row[j] > most ? row[j] : most;
                for (long j = length; j < padded; j++) row[j] = most - 1000.0f;
                for (long j = 0; j < padded; j++) row[j] = exponential(row[j] - most);
                for (long j = length; j < padded; j++) row[j] = 0.0f;
                for (long j = 0; j < padded; j++) total += row[j];
                for (long j = 0; j < padded; j++) row[j] /= total;
                logsum[(start + i) * heads + head] = most + logf(total);
            }
            product(length, wide, length, scores, padded, 1, values, mixed);
            for (long i = 0; i < length; i++)
                for (long c = 0; c < width; c++)
                    out[(start + i) * features + head * width + c] = TO(mixed[i * wide + c]);
        }
        free(queries);
    }
    return failed;
}

/* The gradient of attention_forward: reads `gradient` of out, writes `result` as qkv. */
int NAMED(attention_backward)(const NUMBER *qkv, const float *bias, const int64_t *starts, long documents, long heads,
                               long width, float scale, const float *logsum, const NUMBER *gradient, NUMBER *result) {
    long features = heads * width, stride = 3 * features, wide = PADDED(width);
    long longest = longest_of(starts, documents), most_padded = PADDED(longest);
    int failed = 0;
#pragma omp parallel
    {
        long rows = longest * wide, square = longest * most_padded;
        float *queries = malloc(sizeof(float) * (size_t)(rows * 7 + wide * most_padded + square * 2 + wide));
        if (!queries)
#pragma omp atomic write
            failed = 1;
        float *keys = queries + rows, *values = keys + rows, *dout = values + rows, *dqueries = dout + rows;
        float *dkeys = dqueries + rows, *dvalues = dkeys + rows, *turned = dvalues + rows;
        float *scores = turned + wide * most_padded, *dscores = scores + square, *zeros = dscores + square;
        memset(zeros, 0, sizeof(float) * (size_t)wide);
#pragma omp for schedule(static, 4)
        for (long task = 0; task < documents * heads; task++) {
            if (!queries) continue;
            long document = task / heads, head = task % heads, start = starts[document];
            long length = starts[document + 1] - start, padded = PADDED(length);
            const NUMBER *base = qkv + start * stride + head * width;
            const float *shift = bias + head * width;
            NUMBER *into = result + start * stride + head * width;
            NAMED(head_rows)(base, stride, shift, length, width, scale, queries);
            NAMED(head_rows)(base + features, stride, shift + features, length, width, 1.0f, keys);
            NAMED(head_rows)(base + 2 * features, stride, shift + 2 * features, length, width, 1.0f, values);
            NAMED(head_rows)(gradient + start * features + head * width, features, zeros, length, width, 1.0f, dout);
            NAMED(turn)(keys, length, width, turned);
            product(length, padded, wide, queries, wide, 1, turned, scores);
            NAMED(turn)(values, length, width, turned);
            product(length, padded, wide, dout, wide, 1, turned, dscores);
            for (long i = 0; i < length; i++) {
                float *row = scores + i * padded, *slope = dscores + i * padded, mean = 0.0f;
                float least = logsum[(start + i) * heads + head];
                for (long j = length; j < padded; j++) row[j] = least - 1000.0f;
                for (long j = 0; j < padded; j++) row[j] = exponential(row[j] - least);
                for (long j = length; j < padded; j++) row[j] = 0.0f;
                for (long j = 0; j < padded; j++) mean += row[j] * slope[j];
                for (long j = 0; j < padded; j++) slope[j] = row[j] * (slope[j] - mean);
            }
            product(length, wide, length, dscores, padded, 1, keys, dqueries);
            product(length, wide, length, dscores, 1, padded, queries, dkeys);
            product(length, wide, length, scores, 1, padded, dout, dvalues);
            for (long i = 0; i < length; i++)
                for (long c = 0; c < width; c++) {
                    into[i * stride + c] = TO(dqueries[i * wide + c] * scale);
                    into[i * stride + features + c] = TO(dkeys[i * wide + c]);
                    into[i * stride + 2 * features + c] = TO(dvalues[i * wide + c]);
                }
        }
        free(queries);
    }
    return failed;
}

/* out = norm(residual + dropout(y + bias)) * gamma + beta, row by row, and the same as numbers where `narrow` is given;
   y becomes the normalised rows before gamma. threshold: an element is dropped when its hash is below; 0 drops none.
   Writes 1 / standard deviation of each row. */
int NAMED(norm_forward)(NUMBER *y, const float *bias, const float *residual, const float *gamma, const float *beta,
                        float eps, long rows, long features, uint32_t threshold, float kept, uint32_t key, float *out,
                        NUMBER *narrow, float *inverse) {
    int failed = 0;
#pragma omp parallel
    {
        float *z = malloc(sizeof(float) * (size_t)features);
        if (!z)
#pragma omp atomic write
            failed = 1;
#pragma omp for schedule(static)
        for (long row = 0; row < rows; row++) {
            if (!z) continue;
            NUMBER *at = y + row * features;
            const float *from = residual + row * features;
            float *to = out + row * features;
            uint32_t place = (uint32_t)(row * features);
            float sum = 0.0f, spread = 0.0f;
            if (threshold)
                for (long c = 0; c < features; c++) {
                    float x = FROM(at[c]) + bias[c];
                    x = hashed(place + (uint32_t)c, key) < threshold ? 0.0f : x * kept;
                    z[c] = from[c] + x;
                    sum += z[c];
                }
            else
                for (long c = 0; c < features; c++) {
                    z[c] = from[c] + FROM(at[c]) + bias[c];
                    sum += z[c];
                }
            float mean = sum / (float)features;
            for (long c = 0; c < features; c++) spread += (z[c] - mean) * (z[c] - mean);
            float scale = 1.0f / sqrtf(spread / (float)features + eps);
            for (long c = 0; c < features; c++) {
                float x = (z[c] - mean) * scale;
                at[c] = TO(x);
                to[c] = x * gamma[c] + beta[c];
            }
            if (narrow)
                for (long c = 0; c < features; c++) narrow[row * features + c] = TO(to[c]);
            inverse[row] = scale;
        }
        free(z);
    }
    return failed;
}

/* The gradient of norm_forward, whose own is gradient + more (more may be NULL): through the residual into `through`,
   through y into `dropped`; and the sums over rows for gamma, beta and bias into sums [3, features]. */
int NAMED(norm_backward)(const NUMBER *normal_rows, const float *gradient, const NUMBER *more, const float *inverse,
                         const float *gamma, long rows, long features, uint32_t threshold, float kept, uint32_t key,
                         float *through, NUMBER *dropped, float *sums) {
    int failed = 0;
    float *partial = sums_of_threads(3 * features);
    if (!partial) return 1;
#pragma omp parallel
    {
        float *own = partial + omp_get_thread_num() * 3 * features;
        float *dgamma = own, *dbeta = own + features, *dbias = own + 2 * features;
        float *up = malloc(sizeof(float) * (size_t)features);
        if (!up)
#pragma omp atomic write
            failed = 1;
#pragma omp for schedule(static)
        for (long row = 0; row < rows; row++) {
            if (!up) continue;
            const NUMBER *x = normal_rows + row * features, *g = more + row * features;
            float *z = through + row * features;
            NUMBER *d = dropped + row * features;
            uint32_t place = (uint32_t)(row * features);
            float sum = 0.0f, product = 0.0f;
            if (more)
                for (long c = 0; c < features; c++) up[c] = gradient[row * features + c] + FROM(g[c]);
            else
                for (long c = 0; c < features; c++) up[c] = gradient[row * features + c];
            for (long c = 0; c < features; c++) {
                float normalised = FROM(x[c]), inner = up[c] * gamma[c];
                dgamma[c] += up[c] * normalised;
                dbeta[c] += up[c];
                sum += inner;
                product += inner * normalised;
            }
            float mean = sum / (float)features, slope = product / (float)features, scale = inverse[row];
            for (long c = 0; c < features; c++) z[c] = (up[c] * gamma[c] - mean - FROM(x[c]) * slope) * scale;
            if (threshold)
                for (long c = 0; c < features; c++) {
                    float passed = hashed(place + (uint32_t)c, key) < threshold ? 0.0f : z[c] * kept;
                    d[c] = TO(passed);
                    dbias[c] += passed;
                }
            else
                for (long c = 0; c < features; c++) {
                    d[c] = TO(z[c]);
                    dbias[c] += z[c];
                }
        }
        free(up);
    }
    join(sums, partial, 3 * features);
    return failed;
}

/* out = gelu(u + bias), the exact one. */
int NAMED(gelu_forward)(const NUMBER *u, const float *bias, long rows, long features, NUMBER *out) {
#pragma omp parallel for schedule(static)
    for (long row = 0; row < rows; row++)
        for (long c = 0; c < features; c++) {
            float x = FROM(u[row * features + c]) + bias[c], gauss;
            out[row * features + c] = TO(x * normal(x, &gauss));
        }
    return 0;
}

/* gradient becomes that of u; sums [features]: over rows, for the bias. */
int NAMED(gelu_backward)(NUMBER *gradient, const NUMBER *u, const float *bias, long rows, long features, float *sums) {
    float *partial = sums_of_threads(features);
    if (!partial) return 1;
#pragma omp parallel
    {
        float *own = partial + omp_get_thread_num() * features;
#pragma omp for schedule(static)
        for (long row = 0; row < rows; row++)
            for (long c = 0; c < features; c++) {
                float x = FROM(u[row * features + c]) + bias[c], gauss;
                float below = normal(x, &gauss);
                float value = FROM(gradient[row * features + c]) * (below + x * gauss * 0.398942280401432678f);
                gradient[row * features + c] = TO(value);
                own[c] += value;
            }
    }
    join(sums, partial, features);
    return 0;
}

/* The sum of each column, for a bias. */
int NAMED(column_sums)(const NUMBER *x, long rows, long features, float *sums) {
    float *partial = sums_of_threads(features);
    if (!partial) return 1;
#pragma omp parallel
    {
        float *own = partial + omp_get_thread_num() * features;
#pragma omp for schedule(static)
        for (long row = 0; row < rows; row++)
            for (long c = 0; c < features; c++) own[c] += FROM(x[row * features + c]);
    }
    join(sums, partial, features);
    return 0;
}

#endif
