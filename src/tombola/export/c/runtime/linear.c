static void @NAME@_linear(const float *x, float *y, const struct @NAME@_product *p)
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
            @NAME@_vector a = b == 0 ? @NAME@_READ(p->bias + 8 * g) : @NAME@_READ(y + 8 * g);
            for (int32_t k = *n; k > 0; k--, w += 8, i += 8) {
                uint64_t s, t;
                memcpy(&s, i, sizeof s);
                memcpy(&t, i + 4, sizeof t);
                const @NAME@_vector v = {
                    z[(uint16_t)s], z[(uint16_t)(s >> 16)], z[(uint16_t)(s >> 32)], z[s >> 48],
                    z[(uint16_t)t], z[(uint16_t)(t >> 16)], z[(uint16_t)(t >> 32)], z[t >> 48]};
                a += v * @NAME@_READ(w);
            }
            if (last) @NAME@_CLAMP(a, low, high);
            @NAME@_AT(y + 8 * g) = a;
        }
#else
        for (int32_t g = 0; g < p->groups; g++, n++) {
            float a[8];
            for (int j = 0; j < 8; j++) a[j] = b == 0 ? p->bias[8 * g + j] : y[8 * g + j];
            for (int32_t k = *n; k > 0; k--, w += 8, i += 8)
                for (int j = 0; j < 8; j++) a[j] += w[j] * z[i[j]];
            for (int j = 0; j < 8; j++) y[8 * g + j] = last ? @NAME@_clamp(a[j], p->low, p->high) : a[j];
        }
#endif
    }
}

