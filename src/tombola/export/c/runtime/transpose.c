#ifndef TOMBOLA_SINGLE
/* Put the used inputs of up to 32 examples side by side; beyond the last one stand those of the first. */
static void @NAME@_beside(const float *in, float *x, const int32_t *used, int32_t count, int n)
{
    for (int32_t k = 0; k < count; k++) {
        const float *p = in + used[k];
        float *q = x + 32 * used[k];
        for (int e = 0; e < 32; e++) q[e] = p[e < n ? e * @NAME@_INPUTS : 0];
    }
}
#endif

