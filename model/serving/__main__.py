"""`python -m model.serving < config.json` serves a bundle.

With `--supervised` the config is the first line on stdin, further lines are commands, the end of stdin is the end of
the process, and stdout tells the supervisor what happens.
"""

import argparse
import logging
import os
import sys

from pydantic import ValidationError

from model.errors import InvalidConfig
from model.faults import Fault
from model.serving.config import ServingConfig
from model.serving.observe.logs import log_as_json


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m model.serving", description="Serve the bundle named on stdin.")
    parser.add_argument("--supervised", action="store_true", help="take commands from stdin after the first line")
    supervised: bool = parser.parse_args().supervised
    text = read_line() if supervised else sys.stdin.read()
    try:
        config = ServingConfig.model_validate_json(text)
    except ValidationError as error:
        return _refuse_config(error)
    from model.serving.server import serve

    return serve(config, supervised=supervised)


def read_line() -> str:
    """The first line of stdin and not a byte more: the event loop reads the rest from the descriptor itself."""
    line = bytearray()
    while (byte := os.read(sys.stdin.fileno(), 1)) and byte != b"\n":
        line += byte
    return line.decode()


def _refuse_config(error: ValidationError) -> int:
    log_as_json("INFO")
    # Not the values: a key may be among them.
    wrong = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
    fault = Fault.of(InvalidConfig(f"The config on stdin is wrong: {wrong}"))
    logging.getLogger("serving").error(fault.message, extra={"fields": fault.log_fields})
    return fault.exit_code


if __name__ == "__main__":
    sys.exit(main())
