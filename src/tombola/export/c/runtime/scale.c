/* y = scale * x + shift; one number of each a channel, or with `each` one a place. */
static void @NAME@_scale(const float *x, const int32_t *from, int32_t row, float *y, const int32_t *to, int32_t to_row,
                         int32_t height, int32_t width, int32_t channels, const float *scale, const float *shift,
                         int each)
{
    for (int32_t c = 0; c < channels; c++)
        for (int32_t i = 0; i < height; i++) {
            const float *p = x + from[c] + i * row;
            float *q = y + to[c] + i * to_row;
            const int32_t k = each ? (c * height + i) * width : c;
            for (int32_t j = 0; j < width; j++) q[j] = scale[k + (each ? j : 0)] * p[j] + shift[k + (each ? j : 0)];
        }
}

