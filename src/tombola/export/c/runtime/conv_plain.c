#ifndef @NAME@_VECTORS
static void @NAME@_conv@SUFFIX@(float *work, const struct @NAME@_convolution@SUFFIX@ *c, int32_t tile)
{
    for (int32_t t = 0; t < c->places; t += tile) {
        const float *w = c->weights;
        const @OFFSET@ *o = c->offsets;
        const @OFFSET@ *n = c->counts;
        for (int32_t g = 0; g < c->groups; g++) {
            const float *x = work + c->bases[g] + t;
            for (int32_t r = 0; r < c->outputs; r++, n++) {
                float *y = work + c->target[r] + t;
                float a[112];
                for (int32_t j = 0; j < tile; j++) {
                    a[j] = g > 0 ? y[j] : c->bias[r];
                    if (g == 0 && c->around) a[j] += work[c->around[r] + t + j];
                }
                for (int32_t k = (int32_t)*n; k > 0; k--, w++, o++)
                    for (int32_t j = 0; j < tile; j++) a[j] += *w * x[*o + j];
                for (int32_t j = 0; j < tile; j++)
                    y[j] = g == c->groups - 1 ? @NAME@_clamp(a[j], c->low, c->high) : a[j];
            }
        }
    }
}
#endif

