import pytest

from infra.config.environments import environment_names, load_environment
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


def test_a_shadow_gate_loads_where_its_images_are_kept_and_by_default_none_are(tmp_path):
    write(tmp_path, "e1", "name: e1\ndescription: d\nport_offset: 4\nsample_images: 50\ngates: {shadow: {}}\n")
    assert load_environment("e1", tmp_path).gates.shadow.images == 50
    assert [load_environment(name, SHIPPED).sample_images for name in environment_names(SHIPPED)] == [0, 0, 0]


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
        (
            "name: e1\ndescription: d\nport_offset: 4\ngates: {shadow: {}}\n",
            r"`gates`: .*`gates.shadow` replays 50 images, .*`sample_images: 50` \(it is 0\)",
        ),
        (
            "name: e1\ndescription: d\nport_offset: 4\nsample_images: 19\ngates: {shadow: {images: 20}}\n",
            r"`gates.shadow` replays 20 images, .*`sample_images: 20` \(it is 19\)",
        ),
        (
            "name: e1\ndescription: d\nport_offset: 4\nsample_images: 50\nsample_rate: 0\ngates: {shadow: {}}\n",
            r"`sample_rate` above 0 \(it is 0\)",
        ),
        (
            "name: e1\ndescription: d\nport_offset: 4\nsample_images: many\ngates: {shadow: {}}\n",
            r"`sample_images`: .*integer",
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
