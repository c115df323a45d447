static void @NAME@_gather(const float *x, const int32_t *from, float *y, int32_t count)
{
    for (int32_t i = 0; i < count; i++) y[i] = x[from[i]];
}

