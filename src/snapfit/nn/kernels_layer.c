/* The pieces of a layer for arrays of NUMBER, float or bf16: kernels.c includes this once for each. */

/* One head of one document as floats, the bias added: [high][wide], zeros beyond. */
static inline void NAMED(head_rows)(const NUMBER *restrict from, long stride, const float *restrict bias, long length,
                                    long width, float factor, long high, float *restrict rows) {
    long wide = PADDED(width);
    for (long j = 0; j < length; j++) {
        for (long c = 0; c < width; c++) rows[j * wide + c] = (FROM(from[j * stride + c]) + bias[c]) * factor;
        for (long c = width; c < wide; c++) rows[j * wide + c] = 0.0f;
    }
    memset(rows + length * wide, 0, sizeof(float) * (size_t)((high - length) * wide));
}

/* Queries (scaled, with zeros up to `high`), keys and values of one head of one document; `qkv` is where its first
   token's queries are. */
static inline void NAMED(head_of)(const NUMBER *qkv, const float *bias, long features, long length, long width,
                                  float scale, long high, float *queries, float *keys, float *values) {
    long stride = 3 * features;
    NAMED(head_rows)(qkv, stride, bias, length, width, scale, high, queries);
    NAMED(head_rows)(qkv + features, stride, bias + features, length, width, 1.0f, length, keys);
    NAMED(head_rows)(qkv + 2 * features, stride, bias + 2 * features, length, width, 1.0f, length, values);
}

/* e^(scores - the largest) of each query, in place. scores: [keys][queries]. totals: their sums, by query. */
static inline void NAMED(exponentials)(float *restrict scores, long keys, long queries, float *restrict most,
                                       float *restrict totals) {
    memcpy(most, scores, sizeof(float) * (size_t)queries);
    memset(totals, 0, sizeof(float) * (size_t)queries);
    for (long j = 1; j < keys; j++) {
        const float *row = scores + j * queries;
        for (long i = 0; i < queries; i++) most[i] = row[i] > most[i] ? row[i] : most[i];
    }
    for (long j = 0; j < keys; j++) {
        float *row = scores + j * queries;
        for (long i = 0; i < queries; i++) {
            row[i] = exponential(row[i] - most[i]);
            totals[i] += row[i];
        }
    }
}

/* From exponentials and the gradients of the shares that they stand for: shares in their place, and gradients of scores.
   totals become their inverses. */
static inline void NAMED(softmax_gradient)(float *restrict scores, float *restrict slopes, long keys, long queries,
                                           float *restrict totals, float *restrict means) {
    memset(means, 0, sizeof(float) * (size_t)queries);
    for (long j = 0; j < keys; j++)
        for (long i = 0; i < queries; i++) means[i] += scores[j * queries + i] * slopes[j * queries + i];
    for (long i = 0; i < queries; i++) {
        totals[i] = 1.0f / totals[i];
        means[i] *= totals[i];
    }
    for (long j = 0; j < keys; j++) {
        float *row = scores + j * queries, *slope = slopes + j * queries;
        for (long i = 0; i < queries; i++) {
            row[i] *= totals[i];
            slope[i] = row[i] * (slope[i] - means[i]);
        }
    }
}

/* Softmax attention inside each document. qkv: [tokens, 3, heads, width], to which `bias` [3, heads, width] is added.
   starts: [documents + 1]. Writes out [tokens, heads, width]. Scores are kept by key, so that what is done for each
   query is done for sixteen at once. */
int NAMED(attention_forward)(const NUMBER *qkv, const float *bias, const int64_t *starts, long documents, long heads,
                              long width, float scale, NUMBER *out) {
    long features = heads * width, stride = 3 * features, wide = PADDED(width);
    long most_high = PADDED(longest_of(starts, documents)), part = most_high * wide;
    int failed = 0;
#pragma omp parallel
    {
        float *queries = malloc(sizeof(float) * (size_t)(part * 5 + most_high * most_high + 2 * most_high));
        if (!queries)
#pragma omp atomic write
            failed = 1;
        float *keys = queries + part, *values = keys + part, *mixed = values + part, *turned = mixed + part;
        float *scores = turned + part, *most = scores + most_high * most_high, *totals = most + most_high;
#pragma omp for schedule(static, 4)
        for (long task = 0; task < documents * heads; task++) {
            if (!queries) continue;
            long document = task / heads, head = task % heads, start = starts[document];
            long length = starts[document + 1] - start, high = PADDED(length);
            NAMED(head_of)(qkv + start * stride + head * width, bias + head * width, features, length, width, scale, high,
                           queries, keys, values);
            turn(queries, high, wide, turned);
            product(length, high, wide, keys, wide, 1, turned, scores);
            NAMED(exponentials)(scores, length, high, most, totals);
            product(length, wide, length, scores, 1, high, values, mixed);
            for (long i = 0; i < length; i++) {
                float share = 1.0f / totals[i];
                for (long c = 0; c < width; c++) mixed[i * wide + c] *= share;
                NARROW(mixed + i * wide, out + (start + i) * features + head * width, width);
            }
        }
        free(queries);
    }
    return failed;
}

/* The gradient of attention_forward: reads `gradient` of out, writes `result` as qkv. */
int NAMED(attention_backward)(const NUMBER *qkv, const float *bias, const int64_t *starts, long documents, long heads,
                               long width, float scale, const NUMBER *gradient, NUMBER *result) {
    long features = heads * width, stride = 3 * features, wide = PADDED(width);
    long most_high = PADDED(longest_of(starts, documents)), part = most_high * wide, square = most_high * most_high;
    int failed = 0;
#pragma omp parallel
    {
        float *queries = malloc(sizeof(float) * (size_t)(part * 8 + square * 2 + most_high * 3 + wide));
        if (!queries)
#pragma omp atomic write
            failed = 1;
        float *keys = queries + part, *values = keys + part, *dout = values + part, *dqueries = dout + part;
        float *dkeys = dqueries + part, *dvalues = dkeys + part, *turned = dvalues + part;
        float *scores = turned + part, *dscores = scores + square;
        float *most = dscores + square, *totals = most + most_high, *means = totals + most_high, *zeros = means + most_high;
        memset(zeros, 0, sizeof(float) * (size_t)wide);
#pragma omp for schedule(static, 4)
        for (long task = 0; task < documents * heads; task++) {
            if (!queries) continue;
            long document = task / heads, head = task % heads, start = starts[document];
            long length = starts[document + 1] - start, high = PADDED(length);
            NUMBER *into = result + start * stride + head * width;
            NAMED(head_of)(qkv + start * stride + head * width, bias + head * width, features, length, width, scale, high,
                           queries, keys, values);
            NAMED(head_rows)(gradient + start * features + head * width, features, zeros, length, width, 1.0f, high, dout);
            turn(queries, high, wide, turned);
            product(length, high, wide, keys, wide, 1, turned, scores);
            turn(dout, high, wide, turned);
            product(length, high, wide, values, wide, 1, turned, dscores);
            NAMED(exponentials)(scores, length, high, most, totals);
            NAMED(softmax_gradient)(scores, dscores, length, high, totals, means);
            product(length, wide, length, dscores, 1, high, keys, dqueries);
            product(length, wide, length, dscores, high, 1, queries, dkeys);
            product(length, wide, length, scores, high, 1, dout, dvalues);
            for (long i = 0; i < length; i++) {
                for (long c = 0; c < width; c++) dqueries[i * wide + c] *= scale;
                NARROW(dqueries + i * wide, into + i * stride, width);
                NARROW(dkeys + i * wide, into + i * stride + features, width);
                NARROW(dvalues + i * wide, into + i * stride + 2 * features, width);
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
                z[c] = (z[c] - mean) * scale;
                to[c] = z[c] * gamma[c] + beta[c];
            }
            NARROW(z, at, features);
            if (narrow) NARROW(to, narrow + row * features, features);
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
                for (long c = 0; c < features; c++)
                    up[c] = hashed(place + (uint32_t)c, key) < threshold ? 0.0f : z[c] * kept;
            else
                memcpy(up, z, sizeof(float) * (size_t)features);
            NARROW(up, d, features);
            for (long c = 0; c < features; c++) dbias[c] += up[c];
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
        for (long first = 0; first < features; first += STRETCH) {
            long some = features - first < STRETCH ? features - first : STRETCH, at = row * features + first;
            float buffer[STRETCH];
            for (long c = 0; c < some; c++) {
                float x = FROM(u[at + c]) + bias[first + c], gauss;
                buffer[c] = x * normal(x, &gauss);
            }
            NARROW(buffer, out + at, some);
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
            for (long first = 0; first < features; first += STRETCH) {
                long some = features - first < STRETCH ? features - first : STRETCH, at = row * features + first;
                float buffer[STRETCH];
                for (long c = 0; c < some; c++) {
                    float x = FROM(u[at + c]) + bias[first + c], gauss;
                    float below = normal(x, &gauss);
                    buffer[c] = FROM(gradient[at + c]) * (below + x * gauss * 0.398942280401432678f);
                    own[first + c] += buffer[c];
                }
                NARROW(buffer, gradient + at, some);
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

