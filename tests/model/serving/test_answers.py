import io
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from PIL import Image

from model.bundle.read import open_bundle
from tests.model.serving.conftest import AUTHORIZED, log_lines
from tests.support.bundles import colour_image


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def plain(mode: str = "RGB") -> Image.Image:
    return Image.new("RGB", (60, 40), (220, 30, 40)).convert(mode)


def score(client: httpx.Client, data: bytes, content_type: str = "image/png") -> httpx.Response:
    return client.post("/score", content=data, headers={"Content-Type": content_type})


@pytest.mark.parametrize(
    ("form", "content_type"),
    [
        ("JPEG", "image/jpeg"),
        ("JPEG", "image/jpg"),
        ("PNG", "image/png"),
        ("WEBP", "image/webp"),
        ("PNG", "application/octet-stream"),
        ("PNG", "image/jpeg; charset=binary"),
    ],
)
def test_an_image_is_answered_with_all_labels_the_most_probable_first(client, service, form, content_type):
    answer = score(client, encoded(plain(), form), content_type)
    assert answer.status_code == 200, answer.text
    content = answer.json()
    probabilities = [item["probability"] for item in content["predictions"]]
    assert content["predictions"][0]["label"] == "red"
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)
    assert {item["label"] for item in content["predictions"]} == {"red", "green", "blue"}
    assert content["model"] == {"name": "colours", "version": 7, "digest": service.bundle.digest}
    assert content["request_id"] == answer.headers["X-Request-ID"]


def test_golden_images_are_answered_as_the_bundle_expects(client, service):
    from pathlib import Path

    bundle = open_bundle(Path(service.bundle.path))
    for golden in bundle.golden:
        predictions = score(client, golden.read()).json()["predictions"]
        by_label = {item["label"]: item["probability"] for item in predictions}
        assert golden.matches(np.array([by_label[label] for label in bundle.labels]))


def test_a_form_with_one_file_is_scored(client):
    answer = client.post("/score", files={"photo": ("red.png", colour_image("red"), "image/png")}, data={"note": "x"})
    assert answer.status_code == 200
    assert answer.json()["predictions"][0]["label"] == "red"


def exif_rotated() -> bytes:
    exif = Image.Exif()
    exif[274] = 6
    return encoded(plain(), "JPEG", exif=exif)


ODD_IMAGES = {
    "CMYK": lambda: encoded(plain("CMYK"), "JPEG"),
    "greyscale": lambda: encoded(plain("L"), "JPEG"),
    "16-bit": lambda: encoded(Image.fromarray(np.full((40, 40), 9000, dtype=np.uint16)), "PNG"),
    "one-bit": lambda: encoded(plain("1"), "PNG"),
    "palette": lambda: encoded(plain("P"), "PNG", transparency=0),
    "alpha": lambda: encoded(plain("RGBA"), "PNG"),
    "grey-alpha": lambda: encoded(plain("LA"), "PNG"),
    "progressive": lambda: encoded(plain(), "JPEG", progressive=True),
    "EXIF-rotated": exif_rotated,
    "one pixel": lambda: encoded(Image.new("RGB", (1, 1)), "PNG"),
    "very wide": lambda: encoded(Image.new("RGB", (3000, 2)), "PNG"),
}


@pytest.mark.parametrize("kind", ODD_IMAGES)
def test_odd_images_are_scored(client, kind):
    answer = score(client, ODD_IMAGES[kind]())
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("form", ["WEBP", "PNG", "MPO"])
def test_of_several_pictures_in_one_file_the_first_counts(client, form):
    others = [Image.new("RGB", (60, 40), (30, 40, 220)) for _ in range(3)]
    data = encoded(plain(), form, save_all=True, append_images=others)
    assert score(client, data).json()["predictions"][0]["label"] == "red"


def test_transparent_pixels_count_as_white_not_as_black(client):
    clear = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    white = Image.new("RGB", (40, 40), (255, 255, 255))
    as_clear, as_white = (score(client, encoded(image, "PNG")).json()["predictions"] for image in (clear, white))
    assert as_clear == as_white


def test_a_batch_answers_each_file_in_its_place(client):
    files = [
        ("files", ("red.png", colour_image("red"), "image/png")),
        ("files", ("broken.png", colour_image("red")[:60], "image/png")),
        ("files", ("empty.png", b"", "image/png")),
        ("files", ("blue.png", colour_image("blue"), "image/png")),
    ]
    answer = client.post("/score/batch", files=files)
    assert answer.status_code == 200
    content = answer.json()
    assert [item["file"] for item in content["items"]] == ["red.png", "broken.png", "empty.png", "blue.png"]
    labels = [item["predictions"][0]["label"] if "predictions" in item else None for item in content["items"]]
    assert labels == ["red", None, None, "blue"]
    assert [item["problem"]["status"] for item in content["items"] if "problem" in item] == [422, 400]
    assert content["model"]["version"] == 7


def test_many_clients_at_once_each_get_their_own_answer(service):
    images = {label: colour_image(label) for label in ("red", "green", "blue")}

    def ask(label: str) -> list[str]:
        with service.client() as session:
            answers = [score(session, images[label]) for _ in range(25)]
        return [answer.json()["predictions"][0]["label"] for answer in answers]

    wanted = ["red", "green", "blue"] * 4
    with ThreadPoolExecutor(12) as pool:
        for label, answers in zip(wanted, pool.map(ask, wanted), strict=True):
            assert answers == [label] * 25


@pytest.mark.parametrize("given", ["order-4711", "a.b_c:d-e", "0" * 128])
def test_a_sane_request_id_is_kept(client, service, given):
    answer = client.post("/score", content=colour_image("red"), headers={"X-Request-ID": given})
    answer = client.get("/model", headers={"X-Request-ID": given})
    assert answer.headers["X-Request-ID"] == given
    assert log_lines(service, given)[0]["path"] in {"/model", "/score"}


@pytest.mark.parametrize("given", ["", "x" * 129, 'a"b', "a b", "../../etc"])
def test_an_odd_request_id_is_replaced(client, given):
    answered = client.get("/model", headers={"X-Request-ID": given}).headers["X-Request-ID"]
    assert answered != given
    assert len(answered) == 32


def test_the_model_describes_itself(client, service):
    assert client.get("/model").json() == {
        "name": "colours",
        "version": 7,
        "digest": service.bundle.digest,
        "labels": ["blue", "green", "red"],
        "correlation_id": "",
        "input_size": 32,
    }


def test_metrics_count_requests_images_and_labels(client):
    def value(line_start: str) -> float:
        lines = client.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(line_start))

    watched = (
        'ahc_requests_total{method="POST",path="/score",status="200"}',
        'ahc_requests_total{method="GET",path="other",status="404"}',
        'ahc_predictions_total{label="green"}',
        "ahc_images_scored_total",
        'ahc_images_rejected_total{kind="broken-image"}',
        'ahc_request_seconds_count{path="/score"}',
    )
    before = {name: value(name) for name in watched}
    score(client, colour_image("green"))
    score(client, b"no image")
    client.get("/nowhere/1")
    client.get("/nowhere/2")
    assert [value(name) - before[name] for name in watched] == [1, 2, 1, 1, 1, 2]
    assert "nowhere" not in client.get("/metrics").text
    assert f'version="{7}"' in client.get("/metrics").text


def test_the_log_is_json_with_request_ids_and_without_keys(client, service):
    answer = score(client, colour_image("blue"))
    [line] = log_lines(service, answer.headers["X-Request-ID"])
    assert (line["status"], line["path"], line["label"]) == (200, "/score", "blue")
    assert line["ms"] > 0
    assert AUTHORIZED["Authorization"].split()[1] not in service.log.read_text()


def resolve(document: dict, node: dict) -> dict:
    while "$ref" in node:
        target = document
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = target
    return node


def test_the_openapi_document_describes_bodies_problems_and_keys(service):
    with service.client(headers={}) as anonymous:
        document = anonymous.get("/openapi.json").json()
    assert document["info"]["x-platform"] == "1.2.3 (abc)"
    paths = document["paths"]
    assert set(paths) == {"/score", "/score/batch", "/model", "/health/live", "/health/ready", "/metrics"}
    body = paths["/score"]["post"]["requestBody"]["content"]
    assert set(body) == {"image/jpeg", "image/png", "image/webp", "multipart/form-data"}
    assert body["image/png"]["schema"] == {"type": "string", "format": "binary"}
    answers = paths["/score"]["post"]["responses"]
    assert {"200", "400", "401", "408", "413", "415", "422", "503"} == set(answers)
    assert set(answers["422"]["content"]) == {"application/problem+json"}
    schema = resolve(document, answers["200"]["content"]["application/json"]["schema"])
    assert set(schema["properties"]) == {"predictions", "model", "request_id"}
    problem = resolve(document, answers["401"]["content"]["application/problem+json"]["schema"])
    assert {"type", "title", "status", "detail", "next_step", "request_id"} == set(problem["properties"])
    for path, operations in paths.items():
        secured = path in {"/score", "/score/batch", "/model"}
        assert all(("security" in operation) == secured for operation in operations.values()), path
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"


def test_an_answer_has_exactly_the_fields_of_its_schema(client):
    from model.serving.http.schemas import BatchAnswer, ScoreAnswer

    ScoreAnswer.model_validate(score(client, colour_image("red")).json(), extra="forbid", strict=True)
    batch = client.post("/score/batch", files=[("f", ("a", colour_image("red"))), ("f", ("b", b"?"))])
    BatchAnswer.model_validate(batch.json(), extra="forbid", strict=True)
