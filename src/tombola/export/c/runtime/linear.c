static void @NAME@_@KIND@(const float *x, float *y, const struct @NAME@_product *p)
{
    const float *w = p->weights;
    const @INDEX@ *i = p->index;
    const uint16_t *n = p->steps;
@TOP@    for (int32_t b = 0; b < p->blocks; b++) {
        const float *z = x + p->bases[b];
        int last = b == p->blocks - 1;
#ifdef @NAME@_VECTORS
        const @NAME@_vector low = @NAME@_ALL(p->low), high = @NAME@_ALL(p->high);
        for (int32_t g = 0; g < p->groups; g++, n++) {
            @NAME@_vector a = b == 0 ? @NAME@_READ(p->bias + 8 * g) : @NAME@_READ(y + 8 * g);
@BEGIN@            for (int32_t k = *n; k > 0; k--, w += 8, i += 8@NEXT@) {
                @READ@
                a += f * @NAME@_READ(w);
            }
            if (last) {
                @NAME@_CLAMP(a, low, high);
            }
            @NAME@_AT(y + 8 * g) = a;
        }
#else
        for (int32_t g = 0; g < p->groups; g++, n++) {
            float a[8];
@LANES@            for (int j = 0; j < 8; j++) a[j] = b == 0 ? p->bias[8 * g + j] : y[8 * g + j];
            for (int32_t k = *n; k > 0; k--, w += 8, i += 8@NEXT@)
                for (int j = 0; j < 8; j++) @ADD@
            for (int j = 0; j < 8; j++) y[8 * g + j] = last ? @NAME@_clamp(a[j], p->low, p->high) : a[j];
        }
#endif
    }
}

