"""Bodies of the server's requests and responses."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from models.server.job_queue import Status

MAX_TEXT = 1000  # characters; a model reads 256 tokens
MAX_SEED = (1 << 53) - 1  # the largest integer that a JavaScript number holds exactly


def _require_words(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty: describe the image in a few words")
    return text


Text = Annotated[str, Field(max_length=MAX_TEXT, description="describes the images"), AfterValidator(_require_words)]


class GenerateBody(BaseModel):
    """The body of POST /generate, as DALLE-server takes it, and of POST /dalle, as dalle-playground sends it."""

    model_config = ConfigDict(strict=True)  # refuses "3" as a number
    text: Text
    num_images: int = Field(ge=1, description="number of images")


class ImagesBody(GenerateBody):
    """The body of POST /v1/images: GenerateBody and all that decides an image. Null takes the model's own default."""

    model_config = ConfigDict(strict=True, extra="forbid")
    num_images: int = Field(1, ge=1)
    seed: int | None = Field(
        None, ge=0, le=MAX_SEED, description="the same seed gives the same images; null: the server chooses one"
    )
    temperature: float | None = Field(None, gt=0, le=100, allow_inf_nan=False)
    top_k: int | None = Field(
        None, ge=0, le=1 << 16, description="sample among so many of the most likely codes; 0: all"
    )
    top_p: float | None = Field(
        None, gt=0, le=1, description="sample among the most likely codes that hold this share of the probability"
    )
    guidance: float | None = Field(
        None, ge=0, le=100, allow_inf_nan=False, description="above 1: images follow the text more closely"
    )


class SamplingResponse(BaseModel):
    """How codes are sampled; the fields are those of ImagesBody."""

    temperature: float
    top_k: int
    top_p: float
    guidance: float


class ImageResponse(BaseModel):
    """One image of a job."""

    progress: float = Field(description="share of its codes drawn so far, 0 to 1")
    url: str | None = Field(description="URL of the PNG once it is drawn")


class JobResponse(BaseModel):
    """The current state of a job."""

    id: str
    status: Status
    text: str
    seed: int
    sampling: SamplingResponse
    seconds: float = Field(description="time spent drawing, without the wait in the queue")
    images: list[ImageResponse]


class ModelResponse(BaseModel):
    """The model of this server and the limits of requests."""

    parameters: int = Field(description="number of parameters of the transformer's blocks")
    fingerprint: str = Field(description="SHA-256 of the weights")
    image_size: int = Field(description="px a side")
    max_images: int
    max_text: int
    guidance: bool = Field(description="whether the model was trained with blank captions, which guidance needs")
    sampling: SamplingResponse = Field(description="used where a request names no other values")
    prompts: list[str] = Field(description="examples that the model draws well")


class DalleResponse(BaseModel):
    """The images of POST /dalle, in dalle-playground's form."""

    generatedImgs: list[str] = Field(description="base64 of a JPEG each")
    generatedImgsFormat: Literal["jpeg"]


class ErrorResponse(BaseModel):
    """An error of POST /generate and POST /dalle, in DALLE-server's form."""

    Error: str
