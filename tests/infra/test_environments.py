import pytest

from infra.environments import environment_names, load_environment
from infra.errors import ConfigurationError
from infra.settings import Settings

SHIPPED = Settings().environments


def write(folder, name, text):
    (folder / f"{name}.yaml").write_text(text)


def test_the_shipped_environments_load_in_the_order_of_a_release():
    assert environment_names(SHIPPED) == ["test", "acceptance", "production"]
    chain = [load_environment(name, SHIPPED).gates.requires for name in environment_names(SHIPPED)]
    assert chain == [None, "test", "acceptance"]
    assert load_environment("production", SHIPPED).gates.approval


def test_an_unknown_environment_names_the_nearest():
    with pytest.raises(ConfigurationError, match="did you mean `acceptance`"):
        load_environment("aceptance", SHIPPED)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: e1\ndescription: d\nport_ofset: 4\n", r"unknown key `port_ofset`: did you mean `port_offset`"),
        (
            "name: e1\ndescription: d\nport_offset: 4\ngates: {aproval: true}\n",
            r"`gates.aproval`: did you mean `approval`",
        ),
        (
            "name: e1\ndescription: d\nport_offset: 4\ngates: {canary: {shares: 0.1}}\n",
            r"`gates.canary.shares`: did you mean `share`",
        ),
        (
            "name: e1\ndescription: d\nport_offset: 4\ngates: {freeze: [{reason: r, day: [friday]}]}\n",
            r"`gates.freeze.0.day`: did you mean `days`",
        ),
        (
            "name: e1\ndescription: d\nport_offset: 4\ngates: {freeze: [{reason: r, days: [fryday]}]}\n",
            r"`gates.freeze.0.days.0`: .*'friday'",
        ),
        ("name: e1\ndescription: d\nport_offset: many\n", r"`port_offset`: .*integer"),
        ("name: other\ndescription: d\nport_offset: 4\n", r"name is `other` but the file is called `e1.yaml`"),
        ("- a\n- b\n", r"expected keys and values, found list"),
        ("name: [\n", r"not valid YAML"),
    ],
)
def test_a_wrong_file_is_refused_with_file_key_and_cause(tmp_path, text, said):
    write(tmp_path, "e1", text)
    with pytest.raises(ConfigurationError, match=said) as caught:
        load_environment("e1", tmp_path)
    assert "e1.yaml" in str(caught.value)


def test_all_faults_of_a_file_are_named_at_once(tmp_path):
    write(tmp_path, "e1", "name: e1\ndescription: d\nport_offset: -1\nnonsense: 1\n")
    with pytest.raises(ConfigurationError, match=r"port_offset.*nonsense"):
        load_environment("e1", tmp_path)
