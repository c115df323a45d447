void @NAME@_run_in(float *work, const float *in, float *out)
{
@STEPS@}

#ifndef TOMBOLA_SINGLE
@MANY@void @NAME@_batch_in(float *work, const float *in, float *out, int count)
{
@BATCH@    for (; count > 0; count--, in += @NAME@_INPUTS, out += @NAME@_OUTPUTS) @NAME@_run_in(work, in, out);
}
#endif

#if defined(__GNUC__)
#define @NAME@_ALIGNED __attribute__((aligned(64)))
#else
#define @NAME@_ALIGNED
#endif

void @NAME@_run(const float *in, float *out)
{
    static float work[@NAME@_WORK] @NAME@_ALIGNED;
    @NAME@_run_in(work, in, out);
}

#ifndef TOMBOLA_SINGLE
void @NAME@_run_batch(const float *in, float *out, int count)
{
    static float work[@NAME@_BATCH_WORK] @NAME@_ALIGNED;
    @NAME@_batch_in(work, in, out, count);
}
#endif
