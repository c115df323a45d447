void @NAME@_run_in(float *work, const float *in, float *out)
{
@STEPS@}

void @NAME@_batch_in(float *work, const float *in, float *out, int count)
{
    for (int i = 0; i < count; i++, in += @NAME@_INPUTS, out += @NAME@_OUTPUTS) @NAME@_run_in(work, in, out);
}

#if defined(__GNUC__)
static float @NAME@_work[@NAME@_WORK] __attribute__((aligned(64)));
#else
static float @NAME@_work[@NAME@_WORK];
#endif

void @NAME@_run(const float *in, float *out)
{
    @NAME@_run_in(@NAME@_work, in, out);
}

void @NAME@_run_batch(const float *in, float *out, int count)
{
    @NAME@_batch_in(@NAME@_work, in, out, count);
}
