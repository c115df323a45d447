/* A product in which the eight outputs of a group read the same inputs: one index for eight weights. */
static void @NAME@_shared(const float *x, float *y, const struct @NAME@_product *p)
{
    const float *w = p->weights;
    const uint16_t *i = p->index;
    const uint16_t *n = p->steps;
    for (int32_t b = 0; b < p->blocks; b++) {
        const float *z = x + p->bases[b];
        int last = b == p->blocks - 1;
#ifdef @NAME@_VECTORS
        const @NAME@_vector low = @NAME@_ALL(p->low), high = @NAME@_ALL(p->high);
        for (int32_t g = 0; g < p->groups; g++, n++) {
            @NAME@_vector a0 = b == 0 ? @NAME@_READ(p->bias + 8 * g) : @NAME@_READ(y + 8 * g);
            @NAME@_vector a1 = @NAME@_ALL(0), a2 = a1, a3 = a1;
            int32_t k = *n;
            for (; k > 3; k -= 4, w += 32, i += 4) {
                const float f0 = z[i[0]], f1 = z[i[1]], f2 = z[i[2]], f3 = z[i[3]];
                const @NAME@_vector v0 = @NAME@_ALL(f0), v1 = @NAME@_ALL(f1);
                const @NAME@_vector v2 = @NAME@_ALL(f2), v3 = @NAME@_ALL(f3);
                a0 += v0 * @NAME@_READ(w);
                a1 += v1 * @NAME@_READ(w + 8);
                a2 += v2 * @NAME@_READ(w + 16);
                a3 += v3 * @NAME@_READ(w + 24);
            }
            for (; k > 0; k--, w += 8, i++) {
                const float f = z[*i];
                const @NAME@_vector v = @NAME@_ALL(f);
                a0 += v * @NAME@_READ(w);
            }
            a0 += (a1 + a2) + a3;
            if (last) {
                @NAME@_CLAMP(a0, low, high);
            }
            @NAME@_AT(y + 8 * g) = a0;
        }
#else
        for (int32_t g = 0; g < p->groups; g++, n++) {
            float a[8];
            for (int j = 0; j < 8; j++) a[j] = b == 0 ? p->bias[8 * g + j] : y[8 * g + j];
            for (int32_t k = *n; k > 0; k--, w += 8, i++)
                for (int j = 0; j < 8; j++) a[j] += w[j] * z[*i];
            for (int j = 0; j < 8; j++) y[8 * g + j] = last ? @NAME@_clamp(a[j], p->low, p->high) : a[j];
        }
#endif
    }
}

