/* Compute up to 32 examples side by side. */
static void @NAME@_many(float *work, const float *in, float *out, int n)
{
    float *x = work, *y = work + 32 * @NAME@_INPUTS;
    @NAME@_beside(in, x, @READ@, @COUNT@, n);
@STEPS@    for (int e = 0; e < n; e++)
        for (int32_t k = 0; k < @NAME@_OUTPUTS; k++) out[e * @NAME@_OUTPUTS + k] = y[32 * @WRITTEN@[k] + e];
}

