"""What the server is asked, and what it answers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

MAX_TEXT = 1000  # characters; a model reads 256 tokens
MAX_SEED = (1 << 53) - 1  # what a JavaScript number holds exactly


def _words(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty: describe the picture in a few words")
    return text


Text = Annotated[str, Field(max_length=MAX_TEXT, description="what to draw"), AfterValidator(_words)]


class GenerateBody(BaseModel):
    """DALLE-server's request."""

    model_config = ConfigDict(strict=True)  # "3" is no number
    text: Text
    num_images: int = Field(ge=1, description="how many pictures")


class ImagesBody(GenerateBody):
    """The same with everything that decides a picture."""

    model_config = ConfigDict(strict=True, extra="forbid")
    num_images: int = Field(1, ge=1)
    seed: int | None = Field(None, ge=0, le=MAX_SEED, description="the same seed draws the same pictures; null: any")
    temperature: float = Field(1.0, gt=0, le=100, allow_inf_nan=False)
    top_k: int = Field(0, ge=0, le=1 << 16, description="draw among so many of the likeliest codes; 0: all")
    top_p: float = Field(1.0, gt=0, le=1, description="draw among the likeliest codes with this share")
    guidance: float = Field(1.0, ge=0, le=100, allow_inf_nan=False, description="above 1: closer to the text")


class ImageResponse(BaseModel):
    progress: float = Field(description="0 to 1")
    url: str | None = Field(description="of the PNG, once it is drawn")


class JobResponse(BaseModel):
    """A job as it stands."""

    id: str
    status: Literal["queued", "drawing", "done", "cancelled", "failed"]
    text: str
    seed: int
    seconds: float = Field(description="of drawing, without the wait in the queue")
    images: list[ImageResponse]


class ModelResponse(BaseModel):
    """What draws here, and within which limits."""

    parameters: int = Field(description="of the transformer's blocks")
    fingerprint: str = Field(description="SHA-256 of the weights")
    image_size: int = Field(description="px")
    max_images: int
    max_text: int
    guidance: bool = Field(description="was it trained with blank captions, so that guidance means something?")


class ErrorResponse(BaseModel):
    """DALLE-server's form of an error."""

    Error: str
