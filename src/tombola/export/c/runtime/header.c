/*
@ABOUT@ *
 * Compile it with speed in mind, such as: cc -std=c99 -O3 -march=native -ffp-contract=fast -c @NAME@.c
 * and link with -lm.
 */
#ifndef @NAME@_H
#define @NAME@_H

#ifdef __cplusplus
extern "C" {
#endif

#define @NAME@_INPUTS @INPUTS@ /* float32 in an example: @SHAPE@ */
#define @NAME@_OUTPUTS @OUTPUTS@ /* float32 in a result */
#define @NAME@_WORK @WORK@ /* float32 of working memory for one example at a time */
#define @NAME@_BATCH_WORK @MANYWORK@ /* the same for batches */

/* Compute the network for one example. Not for several threads at a time: they would share the working memory. */
void @NAME@_run(const float *in, float *out);

/* The same with working memory of the caller's, one for each thread: zeros at first, best aligned to 64 bytes. */
void @NAME@_run_in(float *work, const float *in, float *out);

/* The same two for `count` examples, one after another in memory. Define TOMBOLA_SINGLE to leave them out. */
void @NAME@_run_batch(const float *in, float *out, int count);
void @NAME@_batch_in(float *work, const float *in, float *out, int count);

#ifdef __cplusplus
}
#endif

#endif
