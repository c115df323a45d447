/* Of each row: 'm' its mean, 's' its softmax, 'l' the logarithm of that. */
static void @NAME@_rows(char kind, const float *x, float *y, int32_t rows, int32_t length)
{
    for (int32_t r = 0; r < rows; r++) {
        const float *p = x + r * length;
        float top = p[0], sum = 0.0f;
        if (kind == 'm') {
            for (int32_t j = 0; j < length; j++) sum += p[j];
            y[r] = sum / (float)length;
            continue;
        }
        for (int32_t j = 1; j < length; j++) top = p[j] > top ? p[j] : top;
        for (int32_t j = 0; j < length; j++) sum += expf(p[j] - top);
        for (int32_t j = 0; j < length; j++) {
            const float z = p[j] - top;
            y[r * length + j] = kind == 's' ? expf(z) / sum : z - logf(sum);
        }
    }
}

