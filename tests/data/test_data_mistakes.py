"""Return values of a user's function that look right and would train on something else."""

import pickle

import numpy as np
import own_data
import pytest
from small_studies import small_study

from tombola.data import DataSettings, fingerprint, forget_copies, functions, load, look_again
from tombola.data.reading import Fetcher, Wanted
from tombola.data.streams import Stream
from tombola.errors import DataError, InputError
from tombola.studies import make_plan

X, Y = np.arange(24, dtype=np.float32).reshape(6, 4), np.array([0, 1, 2, 0, 1, 2])
PAIR = (X, Y)


@pytest.fixture
def made(monkeypatch):
    """Return a function that loads what a user's function returns, in memory or streamed."""

    def load(returned, stream=False):
        monkeypatch.setattr(own_data, "made", lambda: returned, raising=False)
        return Stream("own_data:made", {}) if stream else functions.load("own_data:made", {})

    return load


def both(part, **said):
    return {"train": part, "test": part, **said}


@pytest.mark.parametrize("name", ["label", "labels", "target", "targets", "y"])
def test_the_targets_beside_inputs_may_have_each_name_that_a_column_may_have(made, name):
    part = {"inputs": X, name: Y}
    np.testing.assert_array_equal(made(both(part)).train_targets, Y)
    _, targets = made(both(part, classes=3), stream=True).take("train", [0, 4])
    assert targets.tolist() == [0, 1]
    assert made(both({"inputs": X, "kind": Y}, target="kind")).classes == 3
    assert made(both({"inputs": X, 3: Y}, target=3)).classes == 3
    with pytest.raises(DataError, match=f"has inputs, {name}, and no target 'kind'"):
        made(both(part, target="kind"))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("more", [{"weights": Y}, {"targets": Y, "weights": Y}, {"labels": Y, "targets": Y}])
def test_what_else_lies_beside_inputs_is_refused_by_name(made, more, stream):
    with pytest.raises(DataError, match=f"train has inputs, {', '.join(more)}: beside inputs"):
        made(both({"inputs": X} | more, classes=3), stream)


def picture(mode):
    image = pytest.importorskip("PIL.Image")
    return image.new("RGB", (4, 4)).convert(mode)


@pytest.mark.parametrize(("mode", "other"), [("P", "RGB"), ("1", "L")])
def test_pictures_whose_numbers_are_no_brightness_are_refused(made, mode, other):
    pictures = [picture(mode)] * 3
    for part in ([(each, 0) for each in pictures], [{"image": each, "label": 0} for each in pictures]):
        with pytest.raises(DataError, match=rf"item 0 is a picture of mode '{mode}'.*convert\('{other}'\)"):
            made(both(part))
    with pytest.raises(DataError, match=rf"picture of mode '{mode}'"):
        made(both((pictures, [0, 1, 2])))
    masks = [(np.asarray(picture("RGB")).transpose(2, 0, 1), each) for each in pictures]
    assert made(both(masks)).train_targets.shape == (3, 4, 4)  # of a palette, indices are the classes of pixels


@pytest.mark.parametrize("shape", [(6, 48, 64, 3), (6, 8, 8, 1), (6, 16, 9, 4)])
def test_channels_last_needs_a_word_to_be_channels_second(made, shape):
    inputs = np.zeros(shape, np.float32)
    with pytest.raises(DataError, match="looks like channels last"):
        made(both((inputs, Y)))
    assert made(both((inputs, Y), channels="first")).description.input_shape == shape[1:]
    with pytest.raises(DataError, match="channels='last'; it must be 'first'"):
        made(both((inputs, Y), channels="last"))


@pytest.mark.parametrize("shape", [(6, 16, 4, 4), (6, 3, 4, 4), (6, 64, 1, 1)])
def test_small_maps_of_features_are_no_pictures(made, shape):
    assert made(both((np.zeros(shape, np.float32), Y))).description.input_shape == shape[1:]


def test_a_table_keeps_the_digits_of_its_columns(made):
    pandas = pytest.importorskip("pandas")
    seconds = 1.7e9 + np.arange(6)
    found = made(both(pandas.DataFrame({"time": seconds, "size": seconds / 7, "label": Y}))).train_inputs
    np.testing.assert_array_equal(found, np.stack([seconds, seconds / 7], 1))
    small = made(both(pandas.DataFrame({"time": X[:, 0], "size": Y + 0.5, "label": Y}))).train_inputs
    assert small.dtype == np.float32  # which holds them all
    np.testing.assert_array_equal(small, np.stack([X[:, 0], Y + 0.5], 1))


def test_numbers_of_numpy_and_pytorch_say_how_many_classes_there_are(made):
    torch = pytest.importorskip("torch")
    plain = made(both(PAIR, classes=3))
    for said in (Y.max() + 1, torch.tensor(3)):
        assert made(both(PAIR, classes=said)).classes == 3
        assert made(both(PAIR, classes=said)).fingerprint == plain.fingerprint
        assert made(both(PAIR, classes=said), stream=True).said == {"classes": 3}
    assert made(both((Y[:, None], Y), tokens=Y.max() + 1)).description.tokens == 3
    by_name = {"inputs": ({"a": Y[:, None], "b": Y[:, None]}, Y), "tokens": {"a": np.int64(3), "b": 4}}
    assert made(both(by_name["inputs"], tokens=by_name["tokens"])).description.tokens == {"a": 3, "b": 4}
    for wrong in (True, 3.0, 0):
        with pytest.raises(DataError, match="must be a whole number above 0"):
            made(both(PAIR, classes=wrong))


def test_an_empty_part_is_named(made):
    with pytest.raises(DataError, match="test has arrays of 0 examples"):
        made((PAIR, (X[:0], Y[:0])))


def test_texts_among_several_targets_are_refused(made):
    targets = {"kind": np.array(["a", "b"] * 3), "number": Y}
    with pytest.raises(DataError, match="one of several targets contains texts"):
        made(both((X, targets)))


def test_large_whole_numbers_can_be_learned_but_are_no_classes(made):
    found = made(both((X, Y + 2**40)))
    assert found.classes is None
    np.testing.assert_array_equal(found.train_targets, Y + 2**40)
    with pytest.raises(DataError, match="which int64 can't; convert them to float64"):
        made(both((X, Y.astype(np.uint64) + np.uint64(2**63))))


# Data that change


def test_each_plan_asks_a_function_again(monkeypatch):
    """In a notebook, the files that the function reads may have changed since the last study."""
    settings = {"source": "own_data:made", "validation": 10}
    jobs = []
    for seed in (1, 1, 5):
        data = own_data.clusters(90, seed), own_data.clusters(30, 2)
        monkeypatch.setattr(own_data, "made", lambda data=data: data, raising=False)
        jobs.append(set(make_plan(small_study(data=settings)).work))
        np.testing.assert_array_equal(load(DataSettings(**settings)).train_inputs, data[0][0])
    assert jobs[0] == jobs[1]
    assert not jobs[0] & jobs[2]


def test_data_that_change_after_the_plan_are_noticed_in_the_same_process(monkeypatch):
    settings = DataSettings(source="own_data:made", validation=10)
    first, second = (own_data.clusters(90, seed) for seed in (1, 5))
    monkeypatch.setattr(own_data, "made", lambda: (first, first), raising=False)
    look_again()
    assert fingerprint(settings)
    forget_copies(load(settings))
    monkeypatch.setattr(own_data, "made", lambda: (second, second))
    with pytest.raises(DataError, match="own_data:made has changed since the study was planned; run the command again"):
        load(settings)
    look_again()
    np.testing.assert_array_equal(load(settings).train_inputs, second[0])


def test_a_process_that_reads_ahead_compares_its_data(monkeypatch):
    first, second = (own_data.clusters(90, seed) for seed in (1, 5))
    monkeypatch.setattr(own_data, "made", lambda: both(first, classes=3), raising=False)
    fetcher = Fetcher("own_data:made", {}, Stream("own_data:made", {}))
    wanted = Wanted("train", np.arange(5))
    elsewhere = pickle.loads(pickle.dumps(fetcher))
    np.testing.assert_array_equal(elsewhere.take(wanted)[0], first[0][:5])
    elsewhere = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(fetcher))))
    monkeypatch.setattr(own_data, "made", lambda: both(second, classes=3))
    for _ in range(2):
        with pytest.raises(DataError, match=r"other data in a process that reads ahead.*sort what it makes"):
            elsewhere.take(wanted)


def test_a_validation_split_that_ignores_its_generator_is_refused(monkeypatch):
    drawn = np.random.default_rng(0)
    monkeypatch.setattr(own_data, "rows", lambda inputs, *_: drawn.permutation(len(inputs))[:10], raising=False)
    with pytest.raises(InputError, match="own_data:rows' set other examples aside when it was called again"):
        make_plan(small_study(data={"source": "own_data:arrays", "validation": "own_data:rows"}))
