"""`python -m infra.azure.container_health`: whether the scoring container it runs in is healthy, by its exit code."""

import http.client
import ssl
import sys

from infra.azure.container_config import ContainerConfig

SECONDS = 4.0


def main() -> int:
    config = ContainerConfig.from_variables()
    connection: http.client.HTTPConnection
    if config.certificate:
        # It is asked whether it answers, not who it is: the certificate names the endpoint, not the loopback.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection("127.0.0.1", config.port, timeout=SECONDS, context=context)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", config.port, timeout=SECONDS)
    try:
        connection.request("GET", "/health/live")
        return 0 if connection.getresponse().status == http.HTTPStatus.OK else 1
    except OSError as error:
        print(f"It doesn't answer: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
