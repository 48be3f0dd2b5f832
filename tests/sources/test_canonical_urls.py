import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.records import Pair
from pipeline.sources.canonical_urls import canonical_url
from pipeline.sources.precedence import preferred_pair
from tests.support.repetition import examples


@pytest.mark.parametrize(
    "spellings",
    [
        (
            "http://example.com/a.jpg",
            "https://EXAMPLE.com/a.jpg#top",
            "http://example.com:80/a.jpg",
            "https://example.com:443/a.jpg",
            " http://example.com./a.jpg ",
        ),
        ("http://example.com", "http://example.com/", "https://example.com/#x"),
        ("http://a.example/%7Ejo/x%2ejpg", "http://a.example/~jo/x.jpg"),
        ("http://a.example/a%2fb%c3%a9 c", "http://a.example/a%2Fb%C3%A9%20c", "http://a.example/a%2Fbé c"),
        (
            "http://farm8.staticflickr.com/7205/69_df.jpg",
            "https://live.staticflickr.com/7205/69_df.jpg",
            "http://farm8.static.flickr.com/7205/69_df.jpg",
            "https://farm66.staticflickr.com/7205/69_df.jpg",
            "https://c2.staticflickr.com/8/7205/69_df.jpg",
        ),
        ("http://[::1", "http://[::1"),
    ],
)
def test_one_image(spellings):
    assert len({canonical_url(url) for url in spellings}) == 1


def test_different_images():
    urls = [
        "http://example.com/a.jpg",
        "http://example.com/A.jpg",
        "http://example.com/a.jpg?size=1",
        "http://example.com/a.jpg?size=2",
        "http://example.com:8080/a.jpg",
        "http://www.example.com/a.jpg",
        "http://a.example/a%2Fb",
        "http://a.example/a/b",
        "http://live.staticflickr.com/1/2_3.jpg",
        "http://live.staticflickr.com/1/2_4.jpg",
        "http://[::1",
        "http://a:99999/",
        "",
    ]
    assert len({canonical_url(url) for url in urls}) == len(urls)


@given(st.text(max_size=30), st.text(max_size=20))
@examples(60)
def test_normalising_is_stable(path, query):
    once = canonical_url(f"http://example.com/{path}?{query}")
    assert canonical_url(f"http://{once}") == once


def pair(source, file, row):
    return Pair("", source, file, row, "", (), "", "", None, None, "", "", "train")


def test_the_first_stays_in_whatever_order_they_come():
    pairs = [pair("cc12m", "a", 0), pair("cc3m", "b", 10), pair("cc3m", "b", 9), pair("cc3m", "c", 0)]
    assert {preferred_pair(order) for order in itertools.permutations(pairs)} == {pairs[2]}
