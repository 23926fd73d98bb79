"""One object a place: each environment is where its file says, and one machine loads nothing of Azure."""

import subprocess
import sys

from infra.azure.backend import AzureBackend
from infra.backend import backend, release_target
from infra.local.backend import LocalBackend
from infra.settings import PROJECT, Settings


def test_the_setting_chooses_the_place_of_the_platform(tmp_path):
    assert type(backend(Settings(home=tmp_path, backend="local"))) is LocalBackend
    assert type(backend(Settings(home=tmp_path, backend="azure"))) is AzureBackend


def test_an_environments_file_chooses_its_own_place(tmp_path):
    for offset, (name, line) in enumerate([("here", "backend: local"), ("there", "backend: azure"), ("like", "")]):
        (tmp_path / f"{name}.yaml").write_text(f"name: {name}\ndescription: x\nport_offset: {offset}\n{line}\n")
    on_azure = Settings(home=tmp_path / "home", environments=tmp_path, backend="azure")
    assert [release_target(name, on_azure).place for name in ("here", "there", "like")] == ["local", "azure", "azure"]


def test_one_machine_loads_nothing_of_azure(tmp_path):
    program = (
        "import sys; from infra.backend import backend, release_target; from infra.settings import get_settings; "
        "backend(get_settings()).ledger(); release_target('test', get_settings()).endpoint(); "
        "print([name for name in sys.modules if name.startswith(('azure', 'infra.azure'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=PROJECT,
        env={"PATH": "", "AHC_HOME": str(tmp_path), "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
