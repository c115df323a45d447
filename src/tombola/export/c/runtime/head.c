#include "@HEADER@"

#include <math.h>
#include <stdint.h>
#include <string.h>

/* Vectors of eight float32 where the compiler has them. Define TOMBOLA_PLAIN to do without. */
#if defined(__GNUC__) && !defined(TOMBOLA_PLAIN) && defined(__BYTE_ORDER__) && \
    __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define @NAME@_VECTORS 1
typedef float @NAME@_vector __attribute__((vector_size(32), aligned(4), may_alias));
typedef int32_t @NAME@_bits __attribute__((vector_size(32), aligned(4), may_alias));
#define @NAME@_AT(p) (*(@NAME@_vector *)(p))
#define @NAME@_READ(p) (*(const @NAME@_vector *)(p))
#define @NAME@_ALL(x) {x, x, x, x, x, x, x, x}
/* a where it does not lie below (above) a limit, else the limit; what is not a number stays so. */
#define @NAME@_LEAST(a, low) (a) = @NAME@_SELECT((a) < (low), low, a)
#define @NAME@_MOST(a, high) (a) = @NAME@_SELECT((a) > (high), high, a)
#define @NAME@_SELECT(where, b, a) \
    (@NAME@_vector)(((@NAME@_bits)(where) & (@NAME@_bits)(b)) | (~(@NAME@_bits)(where) & (@NAME@_bits)(a)))
#define @NAME@_CLAMP(a, low, high) @NAME@_LEAST(a, low); @NAME@_MOST(a, high)
#endif

