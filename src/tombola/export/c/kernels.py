"""The convolution kernel: one for each size of tile, whose sums the compiler holds in registers."""

from __future__ import annotations

from tombola.export.c.layout import LANES


def conv_kernel(name: str, vectors: int, suffix: str, offset: str) -> str:
    """Return C that computes a sparse convolution in tiles of so many vectors.

    For one output plane the sums of a tile stay in registers while its live weights pass: each costs one load of the
    weight, one of its offset, and one multiply-add with a load for each vector.

    Args:
        name: prefix of all names.
        vectors: of a tile.
        suffix: of the kernel's and its struct's name.
        offset: C type of the offsets.
    """
    each = range(vectors)
    indent = " " * 20

    def rows(line: str) -> str:
        return "".join(f"{indent}{line.format(j=j, at=LANES * j)}\n" for j in each)

    sums = ", ".join(f"a{j}" for j in each)
    tile = vectors * LANES
    return f"""static void {name}_conv{tile}{suffix}(float *work, const struct {name}_convolution{suffix} *c)
{{
#ifdef {name}_VECTORS
    const {name}_vector low = {name}_ALL(c->low), high = {name}_ALL(c->high);
    for (int32_t t = 0; t < c->places; t += {tile}) {{
        const float *w = c->weights;
        const {offset} *o = c->offsets, *n = c->counts;
        for (int32_t g = 0; g < c->groups; g++) {{
            const float *x = work + c->bases[g] + t;
            for (int32_t r = 0; r < c->outputs; r++, n++) {{
                float *y = work + c->target[r] + t;
                {name}_vector {sums};
                if (g == 0) {{
                    const float b = c->bias[r];
                    const {name}_vector v = {name}_ALL(b);
{rows("a{j} = v;")}                    if (c->around) {{
                        const float *z = work + c->around[r] + t;
{rows(f"a{{j}} += {name}_READ(z + {{at}});")}                    }}
                }} else {{
                    if (*n == 0 && g < c->groups - 1) continue;
{rows(f"a{{j}} = {name}_READ(y + {{at}});")}                }}
                for (int32_t k = (int32_t)*n; k > 0; k--, w++, o++) {{
                    const float f = *w, *z = x + *o;
                    const {name}_vector v = {name}_ALL(f);
{rows(f"a{{j}} += v * {name}_READ(z + {{at}});")}                }}
                if (g == c->groups - 1 && c->low > -INFINITY) {{
{rows(f"{name}_LEAST(a{{j}}, low);")}                }}
                if (g == c->groups - 1 && c->high < INFINITY) {{
{rows(f"{name}_MOST(a{{j}}, high);")}                }}
{rows(f"{name}_AT(y + {{at}}) = a{{j}};").replace(indent, " " * 16)}            }}
        }}
    }}
#else
    {name}_conv{suffix}(work, c, {tile});
#endif
}}

"""
