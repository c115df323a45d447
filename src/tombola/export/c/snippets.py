"""Pieces of C in which activations, and the layouts of products, differ."""

from __future__ import annotations

FORMULAS = {
    "relu": "x < 0.0f ? 0.0f : x",
    "relu6": "x < 0.0f ? 0.0f : x > 6.0f ? 6.0f : x",
    "hardtanh": "x < low ? low : x > high ? high : x",
    "leaky_relu": "x < 0.0f ? low * x : x",
    "elu": "x < 0.0f ? low * expm1f(x) : x",
    "gelu": "0.5f * x * (1.0f + erff(x * 0.707106781f))",
    "gelu_tanh": "0.5f * x * (1.0f + tanhf(0.797884561f * (x + 0.044715f * x * x * x)))",
    "sigmoid": "1.0f / (1.0f + expf(-x))",
    "hardsigmoid": "x < -3.0f ? 0.0f : x > 3.0f ? 1.0f : x / 6.0f + 0.5f",
    "tanh": "tanhf(x)",
    "silu": "x / (1.0f + expf(-x))",
    "hardswish": "x < -3.0f ? 0.0f : x > 3.0f ? x : x * (x + 3.0f) / 6.0f",
}
"""C of each activation; its parameters are low and high."""


STRAIGHT = {"TOP": "", "NEXT": "", "SKIP": ""}

PRODUCTS: dict[str, dict[str, str]] = {
    "linear": {
        "INDEX": "uint16_t",
        "BEGIN": "",
        "READ": """uint32_t s, t, u, v;
                memcpy(&s, i, sizeof s);
                memcpy(&t, i + 2, sizeof t);
                memcpy(&u, i + 4, sizeof u);
                memcpy(&v, i + 6, sizeof v);
                const @NAME@_vector f = {z[s & 0xffff], z[s >> 16], z[t & 0xffff], z[t >> 16],
                                         z[u & 0xffff], z[u >> 16], z[v & 0xffff], z[v >> 16]};""",
        "LANES": "",
        "ADD": "a[j] += w[j] * z[i[j]];",
        "STEP": "8",
        "FIRST": "",
        "PLACE": "i[8 * k + j]",
        **STRAIGHT,
    },
    "window": {
        "INDEX": "uint8_t",
        "BEGIN": "",
        "READ": """uint16_t c, d, e, h; /* two places each */
                memcpy(&c, i, sizeof c);
                memcpy(&d, i + 2, sizeof d);
                memcpy(&e, i + 4, sizeof e);
                memcpy(&h, i + 6, sizeof h);
                const float *r = z + *s;
                const @NAME@_vector f = {r[c & 0xff], r[c >> 8], r[d & 0xff], r[d >> 8],
                                         r[e & 0xff], r[e >> 8], r[h & 0xff], r[h >> 8]};""",
        "LANES": "",
        "ADD": "a[j] += w[j] * z[*s + i[j]];",
        "STEP": "8",
        "FIRST": "",
        "PLACE": "(s[k] + i[8 * k + j])",
        "TOP": "    const uint16_t *s = p->starts;\n",
        "NEXT": ", s++",
        "SKIP": ", s += *n",
    },
    "delta": {
        "INDEX": "uint8_t",
        "BEGIN": "            uint64_t s = 0, t = 0; /* four inputs of 16 bits each */\n",
        "READ": """uint64_t d;
                memcpy(&d, i, sizeof d);
                s += d & 0x00ff00ff00ff00ffu;
                t += d >> 8 & 0x00ff00ff00ff00ffu;
                const @NAME@_vector f = {z[s & 0xffff], z[s >> 16 & 0xffff], z[s >> 32 & 0xffff], z[s >> 48],
                                         z[t & 0xffff], z[t >> 16 & 0xffff], z[t >> 32 & 0xffff], z[t >> 48]};""",
        "LANES": "            int32_t s[8] = {0, 0, 0, 0, 0, 0, 0, 0};\n",
        "ADD": "a[j] += w[j] * z[s[j] += i[j % 4 * 2 + j / 4]];",
        "STEP": "8",
        "FIRST": "                int32_t s = 0;\n",
        "PLACE": "(s += i[8 * k + j % 4 * 2 + j / 4])",
        **STRAIGHT,
    },
    "shared": {"INDEX": "uint16_t", "STEP": "1", "FIRST": "", "PLACE": "i[k]", **STRAIGHT},
}
"""The parts of a product's kernels in which the layouts differ.

For one example INDEX, BEGIN and READ with vectors, LANES and ADD without; for many STEP, FIRST and PLACE. TOP, NEXT and
SKIP move through the starts of windows.
"""
