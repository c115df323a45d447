#ifndef TOMBOLA_SINGLE
/* The same for 32 examples: each number of an example stands beside those of the others. */
static void @NAME@_@KIND@_many(const float *x, float *y, const struct @NAME@_product *p)
{
    const float *w = p->weights;
    const @INDEX@ *i = p->index;
    const uint16_t *n = p->steps;
@TOP@    for (int32_t b = 0; b < p->blocks; b++) {
        const float *z = x + 32 * p->bases[b];
        const int last = b == p->blocks - 1;
        for (int32_t g = 0; g < p->groups; g++, w += 8 * *n, i += @STEP@ * *n@SKIP@, n++)
            for (int j = 0; j < 8; j++) {
                float *q = y + 32 * (8 * g + j);
@FIRST@#ifdef @NAME@_VECTORS
                const @NAME@_vector low = @NAME@_ALL(p->low), high = @NAME@_ALL(p->high);
                const float c = p->bias[8 * g + j];
                const @NAME@_vector d = @NAME@_ALL(c);
                @NAME@_vector a0 = b == 0 ? d : @NAME@_READ(q), a1 = b == 0 ? d : @NAME@_READ(q + 8);
                @NAME@_vector a2 = b == 0 ? d : @NAME@_READ(q + 16), a3 = b == 0 ? d : @NAME@_READ(q + 24);
                for (int32_t k = 0; k < *n; k++) {
                    const float f = w[8 * k + j], *r = z + 32 * @PLACE@;
                    const @NAME@_vector v = @NAME@_ALL(f);
                    a0 += v * @NAME@_READ(r);
                    a1 += v * @NAME@_READ(r + 8);
                    a2 += v * @NAME@_READ(r + 16);
                    a3 += v * @NAME@_READ(r + 24);
                }
                if (last) {
                    @NAME@_CLAMP(a0, low, high);
                    @NAME@_CLAMP(a1, low, high);
                    @NAME@_CLAMP(a2, low, high);
                    @NAME@_CLAMP(a3, low, high);
                }
                @NAME@_AT(q) = a0;
                @NAME@_AT(q + 8) = a1;
                @NAME@_AT(q + 16) = a2;
                @NAME@_AT(q + 24) = a3;
#else
                if (b == 0)
                    for (int e = 0; e < 32; e++) q[e] = p->bias[8 * g + j];
                for (int32_t k = 0; k < *n; k++) {
                    const float f = w[8 * k + j], *r = z + 32 * @PLACE@;
                    for (int e = 0; e < 32; e++) q[e] += f * r[e];
                }
                for (int e = 0; last && e < 32; e++) q[e] = @NAME@_clamp(q[e], p->low, p->high);
#endif
            }
    }
}
#endif

