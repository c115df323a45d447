/* The maximum of windows of 2x2 that do not overlap. */
static void @NAME@_pool2(const float *x, const int32_t *from, int32_t row, float *y, const int32_t *to, int32_t to_row,
                         int32_t to_height, int32_t to_width, int32_t channels)
{
    for (int32_t c = 0; c < channels; c++)
        for (int32_t i = 0; i < to_height; i++) {
            const float *p = x + from[c] + 2 * i * row;
            const float *q = p + row;
            float *z = y + to[c] + i * to_row;
            int32_t j = 0;
#ifdef @NAME@_VECTORS
            for (; j + 8 <= to_width; j += 8) {
                const @NAME@_vector a = @NAME@_READ(p + 2 * j), b = @NAME@_READ(q + 2 * j);
                const @NAME@_vector d = @NAME@_READ(p + 2 * j + 8), e = @NAME@_READ(q + 2 * j + 8);
                @NAME@_bits m = (@NAME@_bits)(a > b) | (@NAME@_bits)(a != a);
                const @NAME@_vector f = (@NAME@_vector)((m & (@NAME@_bits)a) | (~m & (@NAME@_bits)b));
                m = (@NAME@_bits)(d > e) | (@NAME@_bits)(d != d);
                const @NAME@_vector h = (@NAME@_vector)((m & (@NAME@_bits)d) | (~m & (@NAME@_bits)e));
                const @NAME@_vector even = {f[0], f[2], f[4], f[6], h[0], h[2], h[4], h[6]};
                const @NAME@_vector odd = {f[1], f[3], f[5], f[7], h[1], h[3], h[5], h[7]};
                m = (@NAME@_bits)(even > odd) | (@NAME@_bits)(even != even);
                @NAME@_AT(z + j) = (@NAME@_vector)((m & (@NAME@_bits)even) | (~m & (@NAME@_bits)odd));
            }
#endif
            for (; j < to_width; j++) {
                const float a = p[2 * j], b = p[2 * j + 1], d = q[2 * j], e = q[2 * j + 1];
                const float f = a > b || a != a ? a : b, h = d > e || d != d ? d : e;
                z[j] = f > h || f != f ? f : h;
            }
        }
}

