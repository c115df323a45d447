/* y[c][i][j] = x[c][top + i * down][left + j * right], `fill` outside of the planes of x. */
static void @NAME@_copy(const float *x, const int32_t *from, int32_t row, int32_t height, int32_t width, float *y,
                        const int32_t *to, int32_t to_row, int32_t to_height, int32_t to_width, int32_t channels,
                        int32_t top, int32_t left, int32_t down, int32_t right, float fill)
{
    int32_t first = left >= 0 ? 0 : (-left + right - 1) / right;
    int32_t last = left >= width ? 0 : (width - left + right - 1) / right;
    if (first > to_width) first = to_width;
    if (last > to_width) last = to_width;
    if (last < first) last = first;
    for (int32_t c = 0; c < channels; c++) {
        for (int32_t i = 0; i < to_height; i++) {
            int32_t line = top + i * down;
            int32_t begin = line >= 0 && line < height ? first : to_width;
            int32_t end = line >= 0 && line < height ? last : to_width;
            float *q = y + to[c] + i * to_row;
            for (int32_t j = 0; j < begin; j++) q[j] = fill;
            if (begin < end) {
                const float *p = x + from[c] + line * row;
                if (right == 1) memcpy(q + begin, p + (left + begin), (size_t)(end - begin) * sizeof *q);
                else if (right == 2) for (int32_t j = begin; j < end; j++) q[j] = p[left + 2 * j];
                else for (int32_t j = begin; j < end; j++) q[j] = p[left + j * right];
            }
            for (int32_t j = end; j < to_width; j++) q[j] = fill;
        }
    }
}

