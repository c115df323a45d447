"""Reading studies: what extends what, what replaces what, and what is said when something is wrong."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tombola
from tombola.errors import InputError
from tombola.studies import Study, dump_study, load_study, preset_names, preset_text


def write(name, text):
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def refused(match, *arguments, **options):
    """Require that loading is refused, with a message of few lines that matches."""
    with pytest.raises(InputError, match=match) as caught:
        load_study(*arguments, **options)
    assert "Traceback" not in str(caught.value)
    assert "pydantic" not in str(caught.value)
    return str(caught.value)


# What is loaded


def test_every_preset_loads_and_says_what_it_is():
    assert {"demo", "lenet-fashion", "lenet-mnist", "lenet-mnist-global", "lenet-mnist-layerwise"} <= set(
        preset_names()
    )
    for name in preset_names():
        study = load_study(name)
        assert study.name == name
        assert study.description
        assert preset_text(name).startswith("#")


def test_the_lenet_preset_is_the_papers():
    """Figure 2, Section 2 and Appendix G of the paper."""
    study = load_study("lenet-mnist")
    assert study.network.name == "lenet-300-100"
    assert study.network.init == "glorot-normal"
    assert study.network.arguments == {}
    assert (study.data.source, study.data.validation) == ("mnist", 5000)
    training = study.training
    assert (training.optimizer, training.lr, training.batch_size) == ("adam", 1.2e-3, 60)
    assert (training.iterations, training.evaluate_every) == (50_000, 100)
    assert (training.schedule, training.warmup, training.weight_decay) == ("constant", 0, 0.0)
    pruning = study.pruning
    assert (pruning.criterion, pruning.scope, pruning.rate, pruning.output_rate) == ("magnitude", "layer", 0.2, 0.1)
    assert (study.rewind, study.trials) == (0, 5)
    assert {arm.rule: arm.per_trial for arm in study.arms} == {
        "ticket": 1,
        "reinit": 3,
        "random-mask": 2,
        "one-shot": 1,
        "one-shot-reinit": 3,
    }


def test_the_global_preset_is_the_public_studys():
    """SGD 0.01, momentum 0.9, 20 epochs a round, 20 rounds of 20 %, across all layers, rewound to the start."""
    study = load_study("lenet-mnist-global")
    training, pruning = study.training, study.pruning
    assert (training.optimizer, training.lr, training.momentum, training.epochs) == ("sgd", 0.01, 0.9, 20)
    assert (pruning.scope, pruning.rate, pruning.rounds, pruning.exclude, study.rewind) == ("global", 0.2, 20, (), 0)
    assert [arm.rule for arm in study.arms] == ["ticket", "reinit"]
    layerwise = load_study("lenet-mnist-layerwise")
    assert (layerwise.training.optimizer, layerwise.training.momentum, layerwise.training.epochs) == ("adam", 0.0, 20)
    assert (layerwise.pruning.scope, layerwise.pruning.rounds) == ("layer", 20)


def test_fashion_differs_from_mnist_in_its_data_alone():
    fashion, mnist = load_study("lenet-fashion").model_dump(), load_study("lenet-mnist").model_dump()
    assert {field for field in mnist if mnist[field] != fashion[field]} == {"name", "description", "data"}
    ours = {"source": "fashion-mnist", "validation": 5000, "path": None}
    defaults = {"arguments": {}, "normalise": "default", "kind": "image", "stream": False, "stream_workers": 0}
    assert fashion["data"] == ours | defaults


# Extends


def test_a_chain_of_files_and_presets():
    """Each is laid over what it extends, field by field within a section; a list is replaced whole."""
    write("base/first.yaml", "extends: lenet-mnist\nname: first\ntraining: {lr: 1e-2, batch_size: 10}\ntrials: 2\n")
    write("base/second.yaml", "extends: first.yaml\nname: second\ntraining: {lr: 0.5}\narms: [ticket]\n")
    study = load_study(write("third.yaml", "extends: base/second.yaml\nname: third\npruning: {rounds: 3}\n"))
    assert (study.name, study.trials, study.training.lr, study.training.batch_size) == ("third", 2, 0.5, 10)
    assert study.training.iterations == 50_000
    assert (study.pruning.rounds, study.pruning.rate) == (3, 0.2)
    assert [arm.rule for arm in study.arms] == ["ticket"]


@pytest.mark.parametrize(
    ("first", "second"),
    [("b.yaml", "a.yaml"), ("./b.yaml", "./a.yaml"), ("sub/../b.yaml", "sub/../a.yaml")],
    ids=["plain", "dotted", "roundabout"],
)
def test_a_circle_is_said_however_it_is_spelt(first, second):
    Path("sub").mkdir()
    write("b.yaml", f"extends: {second}\nname: b\n")
    assert len(refused("extends refers to itself: .*a.yaml -> .*b.yaml", write("a.yaml", f"extends: {first}\n"))) < 300


def test_a_file_that_extends_itself_is_a_circle():
    refused("refers to itself", write("a.yaml", "extends: a.yaml\nname: a\n"))


@pytest.mark.parametrize(
    ("base", "match"),
    [
        ("lenet-mnits", "unknown study 'lenet-mnits'; did you mean 'lenet-mnist'"),
        ("nowhere.yaml", r"no study file or results folder has the name '.*nowhere\.yaml'"),
        ("[demo, lenet-mnist]", "extends must name one preset or file"),
        ("3", "extends must name one preset or file"),
    ],
)
def test_what_is_extended_must_be_there(base, match):
    refused(match, write("a.yaml", f"extends: {base}\nname: a\n"))


def test_a_study_may_stand_alone():
    text = preset_text("demo")
    assert load_study(write("mine.yaml", text)) == load_study("demo")


# Paths


def test_a_path_in_a_study_file_is_relative_to_that_file(monkeypatch):
    """Wherever tombola is started, and whoever extends it from another folder."""
    write("far/study.yaml", "extends: demo\nname: far\ndata: {source: npz, path: arrays/my.npz, validation: 5}\n")
    expected = str(Path("far/arrays/my.npz").absolute())
    assert load_study("far/study.yaml").data.path == expected
    write("near/study.yaml", "extends: ../far/study.yaml\nname: near\n")
    loaded = load_study("near/study.yaml").data.path
    assert Path(loaded).resolve() == Path(expected).resolve()
    monkeypatch.chdir("far")
    assert load_study("study.yaml").data.path == expected


def test_an_absolute_path_stays():
    text = "extends: demo\nname: a\ndata: {source: npz, path: /somewhere/my.npz, validation: 5}\n"
    assert load_study(write("a/study.yaml", text)).data.path == "/somewhere/my.npz"


@pytest.mark.parametrize(
    ("overrides", "assignments"),
    [
        ({"data": {"source": "npz", "path": "my.npz", "validation": 5}}, []),
        ({}, ["data.source=npz", "data.path=my.npz", "data.validation=5"]),
    ],
    ids=["python", "command-line"],
)
def test_a_path_from_elsewhere_is_relative_to_where_tombola_was_started(overrides, assignments):
    """And is the same file when the study is read again from its results folder."""
    study = load_study("demo", overrides, assignments)
    expected = Path("my.npz").absolute()
    assert Path(study.data.path).absolute() == expected
    write("results/mine/study.yaml", dump_study(study))
    assert Path(load_study("results/mine").data.path).absolute() == expected


# Results folders, and dumping


def test_a_study_is_named_by_its_results_folder():
    study = load_study("lenet-mnist", {"trials": 2, "name": "mine"})
    write("results/mine/study.yaml", dump_study(study))
    assert load_study("results/mine") == study
    assert load_study(str(Path("results/mine").absolute())) == study
    assert Study.load(Path("results/mine"), trials=1).trials == 1
    Path("empty").mkdir()
    refused(r"'empty' is not a results folder: it has no study\.yaml", "empty")


@pytest.mark.parametrize("name", preset_names())
def test_a_dump_reads_back_as_the_same(name):
    study = load_study(name)
    assert load_study(write("dumped.yaml", dump_study(study))) == study


@settings(deadline=None, max_examples=40)
@given(
    st.one_of(st.text(st.characters(codec="utf-8", exclude_categories=("C",)), min_size=1, max_size=20),
              st.sampled_from(["yes", "null", "1e5", "0x1f", "1_000", "- a", "a: b", "#a", "~", "2024-01-01", " a "])),
    st.floats(1e-300, 1e300),
    st.lists(st.integers(1, 10**6), unique=True, max_size=3),
)  # fmt: skip
def test_a_dump_loses_nothing(tmp_path_factory, name, lr, milestones):
    """Names that YAML would take for something else, and floats to the last digit."""
    training = {"lr": lr, "schedule": "step" if milestones else "constant", "milestones": sorted(milestones)}
    arguments = {"hidden": [3], "names": [name], "on": True, "off": None, "lr": lr}
    overrides = {"name": name, "description": name, "training": training, "network": {"arguments": arguments}}
    study = load_study("demo", overrides)
    path = tmp_path_factory.mktemp("dump") / "dumped.yaml"
    path.write_text(dump_study(study))
    assert load_study(str(path)) == study


def test_a_frozen_study_cannot_be_changed():
    """Its jobs' identities hang on it."""
    with pytest.raises(ValueError, match="frozen"):
        load_study("demo").trials = 3


# Overrides


def test_overrides_from_python_nested_and_dotted():
    nested = Study.load("lenet-mnist", trials=1, training={"lr": 0.5}, arms=["ticket", {"reinit": {"per_trial": 2}}])
    dotted = Study.load(
        "lenet-mnist", **{"trials": 1, "training.lr": 0.5, "arms": ["ticket", {"reinit": {"per_trial": 2}}]}
    )
    assert nested == dotted
    assert (nested.trials, nested.training.lr, nested.training.batch_size) == (1, 0.5, 60)
    assert [(arm.rule, arm.per_trial) for arm in nested.arms] == [("ticket", 1), ("reinit", 2)]
    assert load_study("lenet-mnist").training.lr == 1.2e-3


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("training.lr=2e-4", 2e-4),
        ("training.lr=2.0E-4", 2e-4),
        ("training.lr=1", 1.0),
        ("training.iterations=2000", 2000),
        ("training.iterations=2_000", 2000),
        ("training.optimizer=sgd", "sgd"),
        ("pruning.exclude=[output, fc1]", ("output", "fc1")),
        ("pruning.exclude=[]", ()),
        ("pruning.rates={fc1: 0.3}", {"fc1": 0.3}),
        ("pruning.output_rate=null", None),
        ("name=my study", "my study"),
        ("description=a=b", "a=b"),
        ("description='yes'", "yes"),
        ("network.arguments.hidden=[20, 10]", None),
        (" trials =3", 3),
    ],
)
def test_assignments_from_the_command_line(text, value):
    study = load_study("lenet-mnist", {}, [text])
    found = study.model_dump()
    for part in text.partition("=")[0].strip().split("."):
        found = found[part]
    assert found == ([20, 10] if "hidden" in text else value)


def test_a_source_in_short_and_a_field_of_its_section():
    study = load_study("lenet-mnist", assignments=["data=fashion-mnist", "data.validation=6000"])
    assert (study.data.source, study.data.validation) == ("fashion-mnist", 6000)


def test_arms_from_the_command_line():
    (only,) = load_study("demo", {}, ["arms=ticket"]).arms
    assert (only.rule, only.label, only.per_trial) == ("ticket", "ticket", 1)
    arms = load_study("demo", {}, ["arms=[ticket, {reinit: {per_trial: 2, name: fresh}}]"]).arms
    assert [(arm.rule, arm.label, arm.per_trial) for arm in arms] == [("ticket", "ticket", 1), ("reinit", "fresh", 2)]


def test_the_last_assignment_wins():
    assert load_study("demo", {"trials": 2}, ["trials=3", "trials=4"]).trials == 4


def test_iterations_and_epochs_replace_each_other():
    """The budget of the base must not stand in the way of the one that is asked for."""
    by_epochs = load_study("lenet-mnist", {}, ["training.epochs=2"]).training
    assert (by_epochs.iterations, by_epochs.epochs) == (None, 2)
    by_iterations = load_study("lenet-mnist-global", {"training": {"iterations": 7}}).training
    assert (by_iterations.iterations, by_iterations.epochs) == (7, None)
    path = write("a.yaml", "extends: lenet-mnist\nname: a\ntraining: {epochs: 3}\n")
    assert load_study(path).training.iterations is None
    assert load_study(path, {"training.iterations": 9}).training.epochs is None
    refused("exactly one of iterations and epochs", "lenet-mnist", {"training": {"epochs": 1, "iterations": 9}})


def test_global_scope_leaves_the_bases_layer_rates_behind():
    """The paper's preset has a rate of its own for the output layer, which global pruning can't have."""
    pruning = load_study(write("a.yaml", "extends: lenet-mnist\nname: a\npruning: {scope: global}\n")).pruning
    assert (pruning.scope, pruning.rate, pruning.output_rate) == ("global", 0.2, None)
    write("b.yaml", "extends: lenet-mnist\nname: b\npruning: {rates: {fc1: 0.1}}\n")
    assert load_study("b.yaml", {"pruning.scope": "global"}).pruning.rates == {}
    assert load_study("b.yaml", assignments=["pruning.output_rate=null"]).pruning.output_rate is None
    refused("need scope: layer", "demo", {"pruning": {"scope": "global", "output_rate": 0.1}})


def test_a_description_is_of_its_own_file():
    assert load_study(write("a.yaml", "extends: lenet-mnist\nname: a\n")).description == ""
    assert load_study(write("b.yaml", "extends: lenet-mnist\nname: b\ndescription: mine\n")).description == "mine"
    assert load_study("lenet-mnist", {"trials": 1}).description


def test_a_path_object_is_a_path():
    study = load_study("demo", {"data": {"source": "npz", "path": Path("x.npz"), "validation": 5}})
    assert study.data.path == str(Path("x.npz").absolute())


WORDED = {
    "rewind=1.0": "rewind=1.0: a fraction of the budget must be below 1; write iteration 1 as 1",
    "arms=[{of: snip, shufle: true}]": "unknown field 'arms.0.shufle'; did you mean 'shuffle' or 'rule'?",
    "connectivity=true": "connectivity=True: this field does not take true or false; {} takes the defaults",
    "arms=[]": "arms=[]: needs 1 or more entries",
    "arms=3": "arms=3: must be a list, such as [a, b]",
    "arms=[3]": "arms.0=3: must be a section of `field: value` lines",
    "arms=[{rule: reinit, foo: 2}]": "unknown field 'arms.0.foo'; known: criterion, kept, moves, name, of, pattern, "
    "per_trial, pruned, reinit, rule, shuffle, signs, training, transfer, weights",
    "pruning.exclude=fc1": "pruning.exclude='fc1': must be a list, such as [a, b]",
    "network=3": "network=3: must be a section of `field: value` lines, or a name",
    "training=null": "training=None: must be a section of `field: value` lines",
    "network.arguments=3": "network.arguments=3: must be a map, such as {a: 1}",
    "name=3": "name=3: must be a text",
    "name=": "name=None: must be a text",
    "name=''": "name='': must not be empty",
    "trials=many": "trials='many': must be an integer",
    "pruning.rate=x": (
        "pruning.rate='x': the rate is x: it must lie between 0 and 1, or be a list with one for each round"
    ),
    "pruning.scope=glob": "pruning.scope='glob': must be 'layer' or 'global'",
    "training.lr=0": "training.lr=0: must be greater than 0",
}


@pytest.mark.parametrize(("change", "expected"), WORDED.items())
def test_a_wrong_value_is_said_in_one_line_of_our_words(change, expected):
    assert refused("command line: ", "demo", {}, [change]) == f"command line: {expected}"


def test_a_function_in_place_of_its_name():
    for field, value in (("network", refused), ("arms", [refused]), ("pruning.criterion", refused)):
        message = refused(
            "must be a name that other processes can import, 'package.module:function'", "demo", {field: value}
        )
        assert len(message.splitlines()) == 1


def test_a_network_of_ones_own_does_not_inherit_the_init_of_ours():
    """A results folder's study.yaml has every field; glorot-normal there would overwrite pretrained weights."""
    text = preset_text("demo").replace("name: lenet-300-100,", "name: lenet-300-100, init: kaiming-normal,")
    assert "kaiming-normal" in text
    path = write("a.yaml", text)
    assert load_study(path).network.init == "kaiming-normal"
    assert load_study(path, {"network": {"name": "conv-2"}}).network.init == "kaiming-normal"
    assert load_study(path, {"network": {"name": "my_nets:make"}}).network.init == "pytorch"
    changed = {"network": {"name": "my_nets:make", "init": "glorot-normal"}}
    assert load_study(path, changed).network.init == "glorot-normal"


def test_a_plain_string_stands_for_a_section():
    study = load_study("demo", {}, ["network=my_nets:make", "data=mnist"])
    assert study.network.model_dump(exclude_defaults=True) == {
        "name": "my_nets:make",
        "init": "pytorch",
    }  # not the demo's arguments
    assert (study.data.source, study.data.validation) == ("mnist", 200)
    text = "network: lenet-300-100\n" + re.sub("network:.*\n", "", preset_text("demo"))
    assert load_study(write("a.yaml", text)).network.name == "lenet-300-100"


def test_another_source_leaves_the_users_file_behind():
    base = "extends: demo\nname: a\ndata: {source: npz, path: my.npz, validation: 5}\n"
    assert load_study(write("a.yaml", base), {}, ["data.source=digits"]).data.path is None
    assert load_study("a.yaml", {}, ["data.validation=9"]).data.path is not None


# What is wrong


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("trials: 0", r"a\.yaml, line 3: trials=0: .*greater than or equal to 1"),
        ("trials: three", r"a\.yaml, line 3: trials='three': .*integer"),
        ("trials: 1.5", r"a\.yaml, line 3: trials=1\.5: .*integer"),
        ("trials: [1]", r"a\.yaml, line 3: trials=\[1\]: .*integer"),
        ("trials: 2024-01-01", r"a\.yaml, line 3: trials=.*integer"),
        ("rewind: -1", r"a\.yaml, line 3: rewind=-1: must be an iteration"),
        ("training:\n  batch_size: 5\n  lr: fast", r"a\.yaml, line 5: training\.lr='fast': .*number"),
        ("training: {lr: 0}", r"a\.yaml, line 3: training\.lr=0: .*greater than 0"),
        ("training: {lr: .nan}", r"a\.yaml, line 3: training\.lr=nan: "),
        ("training: {optimizer: adamx}", r"line 3: training\.optimizer='adamx': .*did you mean 'adam' or 'adamw'"),
        ("training: fast", r"line 3: training='fast': "),
        ("training: {optimizer: adam, momentum: 0.9}", r"line 3: training: momentum belongs to optimizer: sgd"),
        ("pruning: {rate: 1.5}", r"line 3: pruning\.rate=1\.5: .*between 0 and 1"),
        ("pruning: {rates: {fc1: 20}}", r"line 3: pruning\.rates.*'fc1' is 20.*between 0 and 1"),
        ("pruning: {scope: local}", r"line 3: pruning\.scope='local': .*'layer' or 'global'"),
        ("pruning: {scope: global, output_rate: 0.1}", "line 3: pruning: scope: global compares .*exclude"),
        ("network: {name: x, init: he}", r"line 3: network\.init='he': .*'glorot-normal'"),
        ("data: {source: npz}", "line 3: data: source: npz needs path"),
        ("data: {source: digits, path: a.npz}", "line 3: data: path needs source: npz"),
        ("arms: []", r"line 3: arms.*needs 1 or more"),
        ("arms: [ticket, ticket]", "line 3: arms.*two arms are called 'ticket'"),
        ("arms:\n  - ticket\n  - reinit: {per_trial: 0}", r"line 5: arms\.1.*per_trial=0: "),
        ("arms:\n  - ticket\n  - reinit: {per_trail: 2}", r"line 5: .*'arms\.1\.per_trail'; did you mean 'per_trial'"),
        ("trails: 3", r"line 3: unknown field 'trails'; did you mean 'trials'"),
        ("training:\n  itertions: 3", r"line 4: unknown field 'training\.itertions'; did you mean 'iterations'"),
        ("zzz: 3", "line 3: unknown field 'zzz'; known: .*trials"),
        ("3: 4", "unknown field '3'"),
        ("batch_size: 3", "line 3: unknown field 'batch_size'; did you mean 'training.batch_size'"),
        ("name: ''", "line 3: name='': must not be empty"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named_with_its_value_and_line_and_what_is_allowed(text, match):
    body = "# mine\nextends: demo\n" + text + ("\n" if text.startswith("name") else "\nname: a\n")
    assert len(refused(match, write("a.yaml", body)).splitlines()) == 1


def test_all_that_is_wrong_is_said_at_once():
    message = refused("trials=0", write("a.yaml", "extends: demo\nname: a\ntrials: 0\ntraining: {lr: -1}\n"))
    assert "training.lr=-1" in message
    assert "line 3" in message
    assert "line 4" in message


def test_a_study_without_its_parts_says_which():
    message = refused("network is missing", write("a.yaml", "name: a\ntrials: 2\n"))
    assert all(f"{part} is missing" in message for part in ("data", "training", "pruning", "arms"))
    refused("has no name: add the line `name: my-study`", write("b.yaml", "trials: 2\n"))


def test_a_file_that_was_overridden_is_not_blamed():
    """What is wrong stands in the call, not on line 6 of the preset."""
    for message in (
        refused("training.lr=-1", "lenet-mnist", {"training": {"lr": -1}}),
        refused("training.lr=-1", "lenet-mnist", {"training.lr": -1}),
        refused("per_trial=0", "lenet-mnist", {"arms": ["ticket", {"reinit": {"per_trial": 0}}]}),
    ):
        assert "line" not in message
        assert message.startswith("argument: ")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("trials=0", "command line: trials=0: .*greater than or equal to 1"),
        ("training.lr=fast", r"command line: training\.lr='fast': .*number"),
        ("training={lr: -1}", r"command line: training\.lr=-1: "),
        ("arms=[ticket, {reinit: {per_trial: 0}}]", r"command line: arms\.1.*per_trial=0"),
        ("trails=3", "unknown field 'trails'; did you mean 'trials'"),
        ("traning.lr=3", "unknown field 'traning'; did you mean 'training'"),
        ("lr=3", "unknown field 'lr'; did you mean 'training.lr'"),
        ("data.validation=40%", r"='40%': must be an integer, a number or package.module:function; write 40% as 0.4$"),
        ("data.validation=-1", "data.validation=-1: must be greater than or equal to 0 or greater than 0$"),
        ("training.rate=3", "command line: unknown field 'training.rate'"),
        ("training.lr.x=3", r"command line: training\.lr="),
        ("trials", "'trials' is not an override: write FIELD=VALUE"),
        ("=3", "'=3' is not an override: write FIELD=VALUE"),
        ("arms=[ticket", "arms=.*not valid YAML.*quote the argument, .arms=\\[a, b\\]."),
        ("pruning.densities=[50]", "less than 1; it is a fraction, 0.5 for 50 %"),
        ("pruning.rates=0.5", r"pruning\.rates=0\.5: must be a map of layer to rate, such as \{fc1: 0\.5\}"),
        ("rewind=-1", r"rewind=-1: must be an iteration .*of your own, a snapshot \(step-500\)"),
        ("trials=", "command line: trials=None: .*integer"),
        ("extends=demo", "extends belongs in a study file"),
    ],
)
def test_a_wrong_assignment_is_said(text, match):
    assert len(refused(match, "lenet-mnist", assignments=[text]).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("name: a\ntrials: [1", r"a\.yaml, line \d+: not valid YAML"),
        ("name: a\n trials: 1\n", r"a\.yaml, line 2: not valid YAML"),
        ("name: a\ntrials: 1\ntrials: 2\n", r"a\.yaml, line 3: not valid YAML: .*duplicate"),
        ("name: *nothing\n", r"a\.yaml, line 1: not valid YAML: .*alias"),
        ("name: a\x00b\n", r"a\.yaml.*not valid YAML"),
        ("name: a\n---\nname: b\n", r"a\.yaml.*not valid YAML"),
        ("name: a\ntraining:\n\tlr: 1\n", r"a\.yaml, line 3: not valid YAML: a tab; indent with spaces"),
        ("", r"a\.yaml: a study file needs `field: value` lines"),
        ("- demo\n", r"a\.yaml: a study file needs `field: value` lines"),
        ("just words\n", r"a\.yaml: a study file needs `field: value` lines"),
        ("extends: demo\nname: !!python/object/apply:os.system ['exit 3']\n", r"a\.yaml"),
        ("extends: demo\nname: !mine {a: b}\n", r"a\.yaml"),
    ],
)
def test_what_is_not_yaml_or_no_study_is_said(text, match):
    refused(match, write("a.yaml", text))


def test_a_script_is_started_with_python():
    refused(r"mine\.py is a Python script, not a study file; start it with: python mine\.py", write("mine.py", "x = 1"))


def test_a_file_that_is_no_text_is_said():
    Path("a.yaml").write_bytes(b"name: \xff\xfe\x00")
    refused(r"a\.yaml can't be read", "a.yaml")


def test_merged_and_repeated_yaml_nodes_are_read():
    """`<<` and aliases are YAML that people use."""
    text = "extends: demo\nname: a\ntraining: &t {lr: 0.5}\nnetwork: {name: lenet-300-100, arguments: {<<: *t, x: 1}}\n"
    study = load_study(write("a.yaml", text))
    assert study.network.arguments["lr"] == 0.5
    assert study.network.arguments["x"] == 1


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("lenet-mnits", "unknown study 'lenet-mnits'; did you mean 'lenet-mnist'"),
        ("quite other", "unknown study 'quite other' .*list the presets with `tombola presets`"),
        ("results/none", "no study file or results folder has the name 'results/none'"),
        ("mine.yml", r"no study file or results folder has the name 'mine\.yml'"),
    ],
)
def test_an_unknown_study_is_said(name, match):
    refused(match, name)
    with pytest.raises(InputError, match=match):
        tombola.Study.load(name)


def test_an_unknown_preset_is_said():
    with pytest.raises(InputError, match="unknown preset 'dmeo'; did you mean 'demo'"):
        preset_text("dmeo")


@pytest.mark.parametrize(
    ("name", "slug"),
    [("demo", "demo"), ("my study/2", "my-study-2"), ("../..", "study"), ("ü", "study"), ("a.b_c-d", "a.b_c-d")],
)
def test_a_name_as_a_folder(name, slug):
    assert load_study("demo", {"name": name}).slug == slug


def test_an_empty_map_empties():
    """Else what a preset passes to its network could never be taken away."""
    study = load_study("demo", assignments=["network.arguments={}", "network.name=conv-2"])
    assert study.network.arguments == {}


def test_the_studys_name_can_be_changed_from_python():
    assert Study.load("demo", name="mine").name == "mine"


def test_null_stands_for_the_default_of_any_field():
    study = load_study("demo", assignments=["network.arguments=null", "pruning.criterion=null", "training.optimizer="])
    assert (study.network.arguments, study.pruning.criterion, study.training.optimizer) == ({}, "magnitude", "adam")


def test_another_factory_does_not_inherit_arguments():
    assert load_study("demo", {"network.name": "my_nets:make"}).network.arguments == {}
    kept = load_study("demo", {"network": {"name": "my_nets:make", "arguments": {"a": None}}})
    assert kept.network.arguments == {"a": None}
    assert load_study("demo", {"network": {"init": "pytorch"}}).network.arguments == {"hidden": [100, 50]}


def test_a_study_that_was_run_is_found_by_its_name():
    Path("results/mine").mkdir(parents=True)
    write("results/mine/study.yaml", "extends: demo\nname: mine\ntrials: 2\n")
    assert load_study("mine").trials == 2


def test_what_a_script_defines_itself_can_not_be_named():
    from tombola.studies import make_plan

    with pytest.raises(InputError, match=r"can't import it from a script or notebook.*my_code:make"):
        make_plan(load_study("demo", {"network": "__main__:make"}))
