"""The answers of the scoring API."""

from pydantic import BaseModel, ConfigDict, Field

from model.serving.http.problems import Problem


class Answer(BaseModel):
    """A part of an answer. Clients accept fields that they don't know, so its schema doesn't forbid them."""

    model_config = ConfigDict(frozen=True)


class Prediction(Answer):
    """One label and how probable it is."""

    label: str
    probability: float = Field(ge=0, le=1)


class ServedModel(Answer):
    """The model that gave an answer."""

    name: str
    version: int = Field(description="Version in the registry; 0 outside one.")
    digest: str = Field(description="sha256 over the bundle, as 64 hex digits.")


class ScoreAnswer(Answer):
    """The answer to one image."""

    predictions: list[Prediction] = Field(description="All labels, the most probable first.")
    model: ServedModel
    request_id: str


class BatchItem(Answer):
    """The answer to one file of a batch: either its predictions or its problem."""

    file: str = Field(description="Name of the file as it was sent.")
    predictions: list[Prediction] | None = None
    problem: Problem | None = None


class BatchAnswer(Answer):
    """The answers to a batch, in the order in which its files were sent."""

    items: list[BatchItem]
    model: ServedModel
    request_id: str


class ModelAnswer(ServedModel):
    """The live model and its labels."""

    labels: list[str]
    correlation_id: str = Field(description="Of the run that released this version here; empty if there was none.")
    input_size: int = Field(description="Edge of the network's input in pixels; images of any size may be sent.")


class Health(Answer):
    """Whether the process lives, or takes traffic."""

    status: str
