"""What a checkpoint draws from memory."""

import numpy as np

from models.sampling.checkpoint import BUNDLED_TRANSFORMER, load_generator
from models.sampling.sampler import ImageRequest, SamplingConfig, image_seed, sample_codes
from sample.clipart.recall import agreement


def test_the_nearest_training_image_counts():
    generator, sampling = load_generator(BUNDLED_TRANSFORMER), SamplingConfig(temperature=0.5)
    request = ImageRequest(generator.text_tokenizer.encode("fig"), image_seed(1, 0), sampling)
    [drawn] = sample_codes(generator.model, [request]).numpy()
    half = np.where(np.arange(len(drawn)) % 2, drawn, drawn + 1)
    known = {"fig": [drawn + 1, half], "nut": [drawn + 1024]}
    assert agreement(generator, sampling, known, ["fig", "nut"]).tolist() == [0.5, 0.0]
