import json
import socket

from deployments.cli.main import run as ahc


def doctor(capsys, *arguments, code=0):
    assert ahc(["doctor", *arguments, "--json"]) == code
    told = json.loads(capsys.readouterr().out)
    assert told["healthy"] is (code == 0)
    return {item["name"]: item for item in told["findings"]}


def test_a_machine_on_which_nothing_runs_yet_is_healthy_and_says_how_to_start(home, capsys):
    findings = doctor(capsys)
    assert not findings["prefect-server"]["ok"]
    assert "ahc up" in findings["prefect-server"]["fix"]
    assert findings["packages"]["ok"]


def test_a_used_port_blocks_with_exit_code_33_and_its_fix_is_shown_first(home, capsys):
    with socket.create_server((home.host, home.endpoint_base_port + 1)):
        finding = doctor(capsys, code=33)["port-test"]
        assert "AHC_ENDPOINT_BASE_PORT" in finding["fix"]
        assert ahc(["doctor"]) == 33
    shown = capsys.readouterr().out
    assert shown.index("port-test: Stop that program") > shown.index("What to do")


def test_a_running_platform_is_healthy_on_its_own_ports(platform, capsys):
    ahc(["doctor", "--json"])
    findings = {item["name"]: item for item in json.loads(capsys.readouterr().out)["findings"]}
    assert findings["prefect-server"]["ok"]
    assert findings["worker"]["ok"]
    assert findings["port-prefect"]["ok"]
    assert findings["port-mlflow"]["ok"]


def test_an_environment_that_serves_nothing_blocks_with_how_to_release(home, capsys):
    findings = doctor(capsys, "--env", "production", code=33)
    assert "ahc trigger release/production" in findings["endpoint"]["fix"]


def test_an_unknown_environment_is_named_with_the_nearest(home, capsys):
    assert ahc(["doctor", "--env", "tset"]) == 20
    assert "did you mean `test`?" in capsys.readouterr().err
