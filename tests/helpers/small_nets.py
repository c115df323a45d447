"""Networks, a criterion and arms as a user would write them, named in studies as `small_nets:name`."""

import torch
from torch import nn
from torch.nn import functional

from tombola.work import InitialState, Shuffle


def mlp(input_shape, classes, hidden=(12, 8)):
    widths = [torch.Size(input_shape).numel(), *hidden]
    layers = [nn.Flatten()]
    for inputs, outputs in zip(widths, hidden, strict=False):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], classes))


def pretrained_backbone(input_shape, classes):
    """The weights of its first layer come from elsewhere."""
    module = mlp(input_shape, classes)
    nn.init.normal_(module[1].weight, generator=torch.Generator().manual_seed(7))
    return module


SHARED = nn.Linear(5, 3)


def shared():
    """Return one module in all calls, as a factory with the module outside would."""
    return SHARED


def conv_norm(input_shape, classes):
    """Convolution and batch norm; tanh, so that no gradient is exactly zero."""
    channels, height, width = input_shape
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * (height // 2) * (width // 2), 10),
        nn.BatchNorm1d(10),
        nn.Tanh(),
        nn.Linear(10, classes),
    )


def conv_norm_dropout(input_shape, classes):
    """Convolution, batch norm and dropout."""
    channels, height, width = input_shape
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(6 * height * width, classes),
    )


def hooked(input_shape, classes):
    """Linear layers with hooks."""
    module = mlp(input_shape, classes, (9,))
    for layer in (module[1], module[3]):
        layer.register_forward_hook(lambda *_: None)
    return module


def projected(input_shape, classes):
    """Return a network behind random features that no state_dict holds."""
    module = mlp(input_shape, classes)
    module.kept = torch.randn(torch.Size(input_shape).numel())
    module.register_forward_pre_hook(lambda module, args: (args[0].flatten(1) * module.kept,))
    return module


class Dropping(nn.Module):
    """Dropout as a layer and as a function, and batch norm."""

    def __init__(self, input_shape, classes):
        super().__init__()
        self.fc1 = nn.Linear(torch.Size(input_shape).numel(), 12)
        self.norm = nn.BatchNorm1d(12)
        self.drop = nn.Dropout(0.3)
        self.fc2 = nn.Linear(12, classes)

    def forward(self, x):
        x = self.drop(torch.relu(self.norm(self.fc1(x.flatten(1)))))
        return self.fc2(functional.dropout(x, 0.2, self.training))


class Backwards(nn.Module):
    """The output layer is defined first and used last."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 3)
        self.body = nn.Linear(5, 6)

    def forward(self, x):
        return self.head(torch.relu(self.body(x)))


class Shared(nn.Module):
    """One layer used twice, the second time before the output layer."""

    def __init__(self):
        super().__init__()
        self.entry = nn.Linear(5, 6)
        self.twice = nn.Linear(6, 6)
        self.exit = nn.Linear(6, 3)

    def forward(self, x):
        x = torch.relu(self.twice(torch.relu(self.entry(x))))
        return self.exit(torch.relu(self.twice(x)))


class Tied(nn.Module):
    """Two layers that hold the same weight."""

    def __init__(self, input_shape=(5,), classes=5):
        super().__init__()
        width = torch.Size(input_shape).numel()
        self.encoder = nn.Linear(width, 6, bias=False)
        self.middle = nn.Linear(6, width, bias=False)
        self.decoder = nn.Linear(width, 6, bias=False)
        self.decoder.weight = self.encoder.weight
        self.exit = nn.Linear(6, classes)

    def forward(self, x):
        x = torch.relu(self.middle(torch.relu(self.encoder(x.flatten(1)))))
        return self.exit(torch.relu(self.decoder(x)))


def frozen(input_shape, classes):
    """A pretrained first layer that is not to be trained."""
    module = mlp(input_shape, classes)
    module[1].requires_grad_(False)
    return module


def lazy(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.ReLU(), nn.Linear(8, classes))


def three_classes():
    """Takes neither the shape nor the classes of the data, and knows too few classes."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))


def flat_scores(snapshots):
    """A criterion to which all weights are equal."""
    return {name: torch.zeros_like(weight) for name, weight in snapshots.final.items()}


def late_random(trial, level, repeat):
    """An arm: the one-shot mask shuffled, with newly drawn weights."""
    shuffle = Shuffle(stream="control", repeat=repeat, level=level)
    return InitialState(draw=repeat + 1), trial.one_shot(level).model_copy(update={"shuffle": shuffle})


def no_rule(trial, level, repeat):
    """An arm that returns the wrong thing."""
    return trial.rewound


not_callable = 3


class TiedWithSwitch(nn.Module):
    """Two layers that hold one weight, and a bool buffer, which can't be pruned or compared by size."""

    def __init__(self, input_shape=(1, 8, 8), classes=10):
        super().__init__()
        self.a, self.b = nn.Linear(64, 64), nn.Linear(64, 64)
        self.b.weight = self.a.weight
        self.output = nn.Linear(64, classes)
        self.register_buffer("switch", torch.ones(64, dtype=torch.bool))

    def forward(self, x):
        return self.output(torch.relu(self.b(torch.relu(self.a(x.flatten(1))) * self.switch)))


def drawn_anywhere(snapshots):
    """Score at random without the generator that there is for it."""
    return {name: torch.rand_like(weight) for name, weight in snapshots.final.items()}


def no_answer(snapshots):
    """A criterion that forgets to return."""


def arrays(snapshots):
    """A criterion that returns NumPy arrays."""
    return {name: weight.numpy() for name, weight in snapshots.final.items()}


def takes_two(snapshots, layer):
    """A criterion that asks for too much."""


def one_layer(snapshots):
    """A criterion that leaves a layer out."""
    return {"fc1.weight": snapshots.final["fc1.weight"]}


def sees_examples(snapshots):
    """A method at initialisation: the size of the gradient."""
    module = snapshots.network()
    inputs, targets = snapshots.examples()
    loss = functional.cross_entropy(module(inputs), targets)
    parameters = dict(module.named_parameters())
    gradients = torch.autograd.grad(loss, [parameters[name] for name in snapshots.start])
    return {name: gradient.abs() for name, gradient in zip(snapshots.start, gradients, strict=True)}


def own_at_init(trial, level, repeat):
    """An arm: pruned at initialisation by a method of one's own."""
    return trial.initial, trial.at_init("small_nets:sees_examples", level, repeat)


def last_layers_first(snapshots):
    """A criterion by which the last layer goes first, then the one before it."""
    names = list(snapshots.final)
    return {name: torch.full_like(snapshots.final[name], -float(names.index(name))) for name in names}


class Bent(nn.Module):
    """relu(x)^1.5, which has a first derivative everywhere, and at 0 no second one."""

    def forward(self, x):
        return (x * (x > 0)) ** 1.5


def bent(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(input_shape).numel(), 12), Bent(), nn.Linear(12, classes))


class Tokens(nn.Module):
    """Reads pixels as 17 grey levels: an embedding, attention, and a matrix outside any layer."""

    def __init__(self, input_shape, classes):
        super().__init__()
        self.table = nn.Embedding(17, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.matrix = nn.Parameter(torch.randn(8, classes))

    def forward(self, x):
        tokens = self.table((x.flatten(1) * 4 + 8).clamp(0, 16).long()[:, ::8])
        return self.attention(tokens, tokens, tokens, need_weights=False)[0].mean(1) @ self.matrix
