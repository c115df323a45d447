/* The maximum of windows (counts -2) or their average: over padded (-1) or real (0) places, or divided by counts. */
static void @NAME@_pool(const float *x, const int32_t *from, int32_t row, int32_t height, int32_t width, float *y,
                        const int32_t *to, int32_t to_row, int32_t to_height, int32_t to_width, int32_t channels,
                        const int32_t *window, int32_t counts)
{
    const int32_t kernel_h = window[0], kernel_w = window[1], down = window[2], right = window[3];
    const int32_t pad_h = window[4], pad_w = window[5], step_h = window[6], step_w = window[7];
    for (int32_t c = 0; c < channels; c++)
        for (int32_t i = 0; i < to_height; i++)
            for (int32_t j = 0; j < to_width; j++) {
                const int32_t top = i * down - pad_h, left = j * right - pad_w;
                float best = -INFINITY, sum = 0.0f;
                int32_t inside = 0, tall = height + pad_h - top, wide = width + pad_w - left;
                for (int32_t u = 0; u < kernel_h; u++) {
                    const int32_t line = top + u * step_h;
                    if (line < 0 || line >= height) continue;
                    for (int32_t v = 0; v < kernel_w; v++) {
                        const int32_t place = left + v * step_w;
                        if (place < 0 || place >= width) continue;
                        const float here = x[from[c] + line * row + place];
                        best = here > best || here != here ? here : best;
                        sum += here;
                        inside++;
                    }
                }
                if (tall > kernel_h) tall = kernel_h;
                if (wide > kernel_w) wide = kernel_w;
                y[to[c] + i * to_row + j] =
                    counts == -2 ? best : sum / (float)(counts > 0 ? counts : counts < 0 ? tall * wide : inside);
            }
}

