/* The maximum or the average of windows that divide planes evenly. */
static void @NAME@_adaptive(const float *x, const int32_t *from, int32_t row, int32_t height, int32_t width, float *y,
                            const int32_t *to, int32_t to_row, int32_t to_height, int32_t to_width, int32_t channels,
                            int average)
{
    for (int32_t c = 0; c < channels; c++)
        for (int32_t i = 0; i < to_height; i++)
            for (int32_t j = 0; j < to_width; j++) {
                const int32_t top = i * height / to_height, left = j * width / to_width;
                const int32_t bottom = ((i + 1) * height + to_height - 1) / to_height;
                const int32_t right = ((j + 1) * width + to_width - 1) / to_width;
                float best = -INFINITY, sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
                for (int32_t u = top; u < bottom; u++) {
                    const float *p = x + from[c] + u * row;
                    int32_t v = left;
                    if (average)
                        for (; v + 4 <= right; v += 4)
                            for (int k = 0; k < 4; k++) sums[k] += p[v + k];
                    for (; v < right; v++) {
                        best = p[v] > best || p[v] != p[v] ? p[v] : best;
                        sums[0] += p[v];
                    }
                }
                y[to[c] + i * to_row + j] =
                    average ? (sums[0] + sums[1] + (sums[2] + sums[3])) / (float)((bottom - top) * (right - left))
                            : best;
            }
}

