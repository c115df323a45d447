/* Put zeros before, between and after the rows of planes. */
static void @NAME@_clear(float *y, const int32_t *to, int32_t channels, int32_t row, int32_t height, int32_t width,
                         int32_t head, int32_t tail)
{
    for (int32_t c = 0; c < channels; c++) {
        float *q = y + to[c];
        memset(q - head, 0, (size_t)head * sizeof *q);
        for (int32_t i = 0; i < height; i++)
            for (int32_t j = width; j < row; j++) q[i * row + j] = 0.0f;
        memset(q + height * row, 0, (size_t)tail * sizeof *q);
    }
}

