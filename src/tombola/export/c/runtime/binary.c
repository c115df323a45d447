/* y = a + b, a - b or a * b. A `down` or `right` of 0 stays in one row or at one number. */
static void @NAME@_binary(char kind, const float *a, const int32_t *a_from, int32_t a_down, int32_t a_right,
                          const float *b, const int32_t *b_from, int32_t b_down, int32_t b_right, float *y,
                          const int32_t *to, int32_t row, int32_t height, int32_t width, int32_t channels)
{
    for (int32_t c = 0; c < channels; c++)
        for (int32_t i = 0; i < height; i++) {
            const float *p = a + a_from[c] + i * a_down;
            const float *q = b + b_from[c] + i * b_down;
            float *z = y + to[c] + i * row;
            if (kind == '+' && a_right && b_right)
                for (int32_t j = 0; j < width; j++) z[j] = p[j] + q[j];
            else if (kind == '+')
                for (int32_t j = 0; j < width; j++) z[j] = p[j * a_right] + q[j * b_right];
            else if (kind == '-')
                for (int32_t j = 0; j < width; j++) z[j] = p[j * a_right] - q[j * b_right];
            else
                for (int32_t j = 0; j < width; j++) z[j] = p[j * a_right] * q[j * b_right];
        }
}

