"""`python -m infra.azure.inside_container.health`: exits with 0 if its scoring container is healthy."""

import http.client
import ssl
import sys

from infra.azure.endpoint.container_settings import ContainerConfig

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
