"""What each export format does with each network of the zoo, so that a change from exported to refused shows too.

"=" means that the export computes what PyTorch computes. Any other word is the layer that the refusal names, and
"(network)" stands for the network itself.
"""

from __future__ import annotations

FORMATS = ("compact", "packed", "pytorch", "c", "onnx")

_TABLE = """
depthwise-separable           =              =              =              =              =
depthwise-multiplier          =              =              =              =              =
grouped                       =              =              =              =              =
strided                       =              =              =              =              =
dilated                       =              =              =              =              =
asymmetric-padding            =              =              =              =              =
constant-padding              =              =              =              =              =
same-padding-even-kernel      =              =              =              =              =
reflect-padding               0              =              =              0              =
circular-padding              0              =              =              0              =
cropping                      (network)      =              =              (network)      =
one-axis                      =              =              =              =              =
one-axis-dilated              =              =              =              =              =
three-axes                    =              =              =              0              =
transposed                    up             =              =              up             =
transposed-one-axis           2              =              =              2              =
upsampled                     1              =              =              1              =
pixel-shuffle                 2              =              =              2              =
channel-shuffle               =              =              =              =              =
dense-block                   =              =              =              =              =
inception                     =              =              =              =              =
residual                      =              =              =              =              =
residual-strided              =              =              =              =              =
inverted-bottleneck           =              =              =              =              =
fire                          =              =              =              =              =
batch-norm                    =              =              =              =              =
batch-norm-not-affine         =              =              =              =              =
batch-norm-without-statistics norm           =              =              norm           =
batch-norm-first              =              =              =              =              =
layer-norm                    norm           =              =              norm           =
group-norm                    norm           =              =              norm           =
instance-norm                 norm           =              =              norm           =
rms-norm                      norm           =              =              norm           =
local-response-norm           norm           =              =              norm           =
max-pool                      =              =              =              =              =
max-pool-overlapping          =              =              =              =              =
max-pool-ceil                 =              =              =              =              =
max-pool-dilated              =              =              =              =              =
average-pool                  =              =              =              =              =
average-pool-ceil             =              =              =              =              =
average-pool-inside           =              =              =              =              =
average-pool-divisor          =              =              =              =              (network)
adaptive-average              =              =              =              =              =
adaptive-maximum              =              =              =              =              pool
power-average-pool            pool           =              =              pool           =
one-axis-pools                =              =              =              =              =
one-axis-adaptive-maximum     =              =              =              =              pool
global-average                =              =              =              =              =
global-maximum                (network)      =              =              (network)      =
relu                          =              =              =              =              =
relu-in-place                 =              =              =              =              =
relu6                         =              =              =              =              =
leaky-relu                    =              =              =              =              =
leaky-relu-in-place           =              =              =              =              =
prelu                         activation     =              =              activation     =
elu                           =              =              =              =              =
selu                          activation     =              =              activation     =
celu                          activation     =              =              activation     =
gelu                          =              =              =              =              =
gelu-tanh                     =              =              =              =              =
sigmoid                       =              =              =              =              =
hardsigmoid                   =              =              =              =              =
tanh                          =              =              =              =              =
silu                          =              =              =              =              =
mish                          activation     =              =              activation     =
hardswish                     =              =              =              =              =
hardtanh                      =              =              =              =              =
softplus                      activation     =              =              activation     =
softsign                      activation     =              =              activation     =
softmax                       =              =              =              =              =
glu                           activation.1   =              =              activation.1   =
mlp                           =              =              =              =              =
no-biases                     =              =              =              =              =
view                          =              =              =              =              (network)
unflatten                     =              =              =              =              =
permute                       =              =              =              =              =
chunk-and-split               =              =              =              =              =
slices                        =              =              =              =              =
last-step                     (network)      =              =              (network)      =
unbind-and-stack              (network)      =              =              (network)      =
gather                        0              =              =              0              =
expand                        (network)      =              =              (network)      =
repeat                        (network)      =              =              (network)      =
flip-and-roll                 (network)      =              =              (network)      =
channels-last                 =              =              =              =              =
scalar-output                 =              =              =              =              =
scalar-inputs                 =              =              =              =              =
across-examples               (network)      =              =              (network)      =
fixed-batch                   (network)      =              =              (network)      (network)
number-of-examples            (network)      =              =              (network)      (network)
squeezed                      =              =              =              =              =
one-number                    (network)      =              =              (network)      =
shared-layer                  =              =              =              =              =
shared-convolution            =              =              =              =              =
two-branches-of-one-layer     =              =              =              =              =
two-inputs                    (network)      =              =              (network)      (network)
two-outputs                   (network)      =              =              (network)      (network)
named-outputs                 (network)      =              =              (network)      (network)
constants-added               =              =              =              =              =
scaled-sum                    (network)      =              =              (network)      =
division                      (network)      =              =              (network)      =
functional-weights            =              =              =              =              =
bare-matrix                   =              =              =              =              =
computed-weight               =              =              =              =              =
einsum                        (network)      =              =              (network)      =
weight-norm                   =              =              =              =              =
orthogonal                    =              =              =              =              first.parametrizations.weight.0
dropout                       =              =              =              =              =
dropout-of-channels           =              =              =              =              =
dropout-always                (network)      =              =              (network)      (network)
in-place-sum                  =              =              =              =              =
in-place-after-use            =              =              =              =              =
shared-bias                   =              =              =              =              =
tied-autoencoder              =              =              =              =              =
weight-as-number              =              =              =              =              =
scalar-parameter              =              =              =              =              =
small-integers                =              =              =              =              =
unused-layer                  =              =              =              =              =
unused-branch                 =              =              =              =              =
identity                      =              =              =              =              =
branch                        choice         =              =              choice         choice
branch-of-the-network         (network)      =              =              (network)      (network)
float64                       (network)      =              =              (network)      =
float64-output                (network)      =              =              (network)      =
bfloat16                      (network)      first          =              (network)      first
complex-weights               0              0.first        =              0              0.first
embedding                     table          =              =              table          =
lstm                          memory         =              =              memory         =
gru                           memory         =              =              memory         =
cell                          cell           =              =              cell           =
attention                     attention      =              =              attention      =
attention-by-hand             0              =              =              0              =
transformer                   layer.self_attn=              =              layer.self_attn=
mixer                         =              =              =              =              =
"""

EXPECTED: dict[str, dict[str, str]] = {
    name: dict(zip(FORMATS, cells, strict=True)) for name, *cells in map(str.split, _TABLE.strip().splitlines())
}
"""Format -> cell of each network."""
