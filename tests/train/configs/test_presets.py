import pytest

from snn_compile.runtime.data.registry import FASHION_FOLDER, data_names, load_data
from snn_compile.targets.errors import SnnCompileError
from snn_compile.train.configs.bptt import TrainConfig
from snn_compile.train.configs.presets import PRESETS, config_from, read_config


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_names_itself_and_data_that_loads(name):
    config = read_config(name)
    assert config.preset == name
    assert config_from(config.plain(), "plain") == config
    assert config.data.partition(":")[0] in data_names()
    if config.data == "fashion-mnist" and not FASHION_FOLDER.is_dir():
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")
    if config.data not in ("digits", "fashion-mnist"):
        return  # files of others, which need not be here; tests/runtime/test_sequences.py makes such
    data = load_data(config.data, "test", **config.data_options())
    assert data.options["layout"] == config.layout


def test_overrides_are_typed():
    config = read_config(
        "digits", ["epochs=3", "seed=2", "beta=0.75", "recurrent=True", "hidden=30,20", "data=mine.npz"]
    )
    assert (config.epochs, config.seed, config.beta) == (3, 2, 0.75)
    assert config.recurrent is True and config.hidden == (30, 20)
    assert config.data_options() == {"partition": True}
    assert read_config("digits-recurrent", ["recurrent=false"]).recurrent is False


def test_a_toml_file_starts_from_its_preset(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('preset = "digits-recurrent"\nepochs = 4\nbeta = 0.5\nhidden = [12, 8]\n')
    config = read_config(str(path), ["epochs=5"])
    assert config == read_config("digits-recurrent", ["epochs=5", "beta=0.5", "hidden=12,8"])
    path.write_text("learning_rate = 1\n")
    assert read_config(str(path)) == TrainConfig(learning_rate=1.0)
    path.write_text('algorithm = "bptt"\nepochs = 3\n')
    assert read_config(str(path)) == TrainConfig(epochs=3)
    path.write_text('algorithm = "annealing"\n')
    with pytest.raises(SnnCompileError, match="no algorithm 'annealing'; known are bptt"):
        read_config(str(path))


@pytest.mark.parametrize(
    "override, says",
    [
        ("epoch=3", "no key 'epoch'; known are preset, data"),
        ("epochs", "write it as key=value"),
        ("epochs=three", "a whole number"),
        ("epochs=0", "at least 1"),
        ("recurrent=1", "true or false"),
        ("hidden=12,x", "whole numbers with commas"),
        ("hidden=12,0", "sizes of at least 1"),
        ("beta=1", "between 0 and 1"),
        ("learning_rate=nan", "a positive number"),
        ("learning_rate=-1", "a positive number"),
        ("weight_decay=nan", "at least 0"),
        ("neuron=izhikevich", "one of lif, cuba_lif"),
        ("reset=soft", "one of value, subtract"),
        ("weight_bits=1", "0, or from 2 to 8"),
        ("tables=two", "one of one, sign"),
    ],
)
def test_a_wrong_override_is_told(override, says):
    with pytest.raises(SnnCompileError, match=says) as caught:
        read_config("digits", [override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text, says",
    [
        ("epochs = 'three'", "a whole number"),
        ("epochs = true", "a whole number"),
        ("epoch = 3", "no key 'epoch'"),
        ("preset = 'mnist'", "no preset 'mnist'"),
        ("epochs = ", "cannot be read as TOML"),
        ("[training]\nepochs = 3", "no key 'training'"),
    ],
)
def test_a_wrong_file_is_told(tmp_path, text, says):
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(SnnCompileError, match=says) as caught:
        read_config(str(path))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_no_configuration_is_told(tmp_path):
    with pytest.raises(SnnCompileError, match="no preset 'mnist'"):
        read_config("mnist")
    with pytest.raises(SnnCompileError, match="no such file"):
        read_config(str(tmp_path / "missing.toml"))
