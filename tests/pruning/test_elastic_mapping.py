"""Mappings of blocks: the paper's examples, the text form, and errors."""

from __future__ import annotations

import pytest

from sparsemeta.pruning.elastic_mapping import format_mapping, parse_mapping, squeeze_mapping, stretch_mapping


def test_resnet_32_to_56_by_interpolation_as_in_the_paper():
    assert format_mapping([stretch_mapping(5, 9, "interpolate")]) == "0:0;1:1,2;2:3,4;3:5,6;4:7,8"


def test_three_blocks_to_five_as_in_the_paper():
    assert list(stretch_mapping(3, 5, "append").values()) == [0, 1, 2, 1, 2]
    assert list(stretch_mapping(3, 5, "interpolate").values()) == [0, 1, 1, 2, 2]


@pytest.mark.parametrize("order", ["append", "interpolate"])
@pytest.mark.parametrize("source", [2, 3, 4, 5, 9])
@pytest.mark.parametrize("more", range(9))
def test_stretching_uses_all_blocks_evenly_early_ones_first(order, source, more):
    sources = list(stretch_mapping(source, source + more, order).values())
    used = [sources.count(block) for block in range(source)]
    assert used[0] == 1 and sources[0] == 0 and len(sources) == source + more
    assert max(used[1:]) - min(used[1:]) <= 1 and used[1:] == sorted(used[1:], reverse=True)
    assert order == "append" or sources == sorted(sources)


@pytest.mark.parametrize(
    ("order", "target", "kept"),
    [("consecutive", 5, [0, 1, 2, 3, 4]), ("interleaved", 5, [0, 1, 3, 5, 7]), ("interleaved", 9, [*range(9)]),
     ("consecutive", 1, [0]), ("interleaved", 1, [0]), ("interleaved", 4, [0, 1, 3, 6])],
)  # fmt: skip  a table
def test_squeezing_keeps_early_blocks(order, target, kept):
    assert list(squeeze_mapping(9, target, order).values()) == kept


@pytest.mark.parametrize("text", ["0:0;1:1,2;2:3,4", "0:0;1:1|0:0;1:1,2", "0:0"])
def test_text_and_back(text):
    assert format_mapping(parse_mapping(text)) == text


def test_text_may_have_spaces_and_any_order():
    assert parse_mapping(" 2:3, 4; 0:0 ;1:1,2") == [{0: 0, 1: 1, 2: 1, 3: 2, 4: 2}]


@pytest.mark.parametrize("text", ["", "0", "0:", "0:0;", "a:0", "0:0|", "0-0", "0:1,", "-1:0"])
def test_other_text(text):
    with pytest.raises(ValueError, match=r"expected a mapping such as '0:0;1:1,2;2:3,4', got '.*src:dst,dst"):
        parse_mapping(text)


def test_a_target_written_twice():
    with pytest.raises(ValueError, match="got block 2 from 1 and 2"):
        parse_mapping("0:0;1:1,2;2:2")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: stretch_mapping(3, 2), "squeeze does the opposite"),
        (lambda: squeeze_mapping(3, 4), "stretch does the opposite"),
        (lambda: stretch_mapping(3, 5, "appended"), "'append', 'interpolate'"),
        (lambda: squeeze_mapping(5, 3, "append"), "'consecutive', 'interleaved'"),
        (lambda: stretch_mapping(1, 2), "expected a block to repeat"), (lambda: stretch_mapping(3, 5.0), "got 5.0"),
    ],
)  # fmt: skip  a table
def test_errors(make, words):
    with pytest.raises(ValueError, match=words):
        make()
