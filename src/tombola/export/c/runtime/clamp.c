#ifndef @NAME@_VECTORS
static float @NAME@_clamp(float x, float low, float high)
{
    return x < low ? low : x > high ? high : x;
}
#endif

