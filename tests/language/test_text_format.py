"""Our reader of protobuf's text format: what Caffe accepts, and what is said about the rest."""

import pathlib

import pytest
from google.protobuf import text_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shared import ROOT, shared

from sparknet_dsl import load
from sparknet_dsl.proto import caffe_pb2, text


def layer(written: str) -> caffe_pb2.LayerParameter:
    message = caffe_pb2.LayerParameter()
    text.read(written, message)
    return message


def net_files() -> list[pathlib.Path]:
    return sorted([*ROOT.glob("corpus/prototxt/*/*.prototxt"), *ROOT.glob("golden/layers/*/net.prototxt")])


@pytest.mark.parametrize(
    ("written", "field", "value"),
    [
        ("name: 'a'", "name", "a"),
        ("name: 'say \"a\"'", "name", 'say "a"'),
        ("""name: "a" 'b'\n  "c" """, "name", "abc"),
        (r'name: "\x41\101\n\t\\\"\?"', "name", 'AA\n\t\\"?'),
        (r'name: "\u00e9 \U0001F600 \303\251"', "name", "é 😀 é"),
        ('name: "# no comment" # a comment', "name", "# no comment"),
        ('# first\nname # between\n:\n"a"', "name", "a"),
        ('name: "a";', "name", "a"),
        ('name: "a",', "name", "a"),
        ("phase: TEST", "phase", 1),
        ("phase: 1", "phase", 1),
        ("phase: 0x1", "phase", 1),
        ('bottom: ["a", "b"] bottom: "c"', "bottom", ["a", "b", "c"]),
        ("bottom: []", "bottom", []),
        (
            "loss_weight: [1, 2.5, -3e-1f, .5, 7., 0x10, 010]",
            "loss_weight",
            [1, 2.5, pytest.approx(-0.3), 0.5, 7, 16, 8],
        ),
        ("loss_weight: inf loss_weight: -Infinity", "loss_weight", [float("inf"), -float("inf")]),
        ("propagate_down: [true, True, t, 1, 01, 0x1]", "propagate_down", [True] * 6),
        ("propagate_down: [false, False, f, 0]", "propagate_down", [False] * 4),
    ],
)
def test_values(written: str, field: str, value: object) -> None:
    got = getattr(layer(written), field)
    assert (list(got) if isinstance(value, list) else got) == value


@pytest.mark.parametrize(
    "written",
    [
        "convolution_param { num_output: 3 }",
        "convolution_param: { num_output: 0x3 }",
        "convolution_param < num_output: 03 >",
        "convolution_param: < num_output: 3; >,",
    ],
)
def test_brackets_and_bases(written: str) -> None:
    assert layer(written).convolution_param.num_output == 3


def test_lists_of_messages() -> None:
    found = layer("include: [{ phase: TEST }, < stage: 'a' >] include { }")
    assert [(rule.HasField("phase"), list(rule.stage)) for rule in found.include] == [
        (True, []),
        (False, ["a"]),
        (False, []),
    ]


@pytest.mark.parametrize(
    ("written", "said", "line", "column"),
    [
        ("name: 3", "`name` wants a string in quotes, not `3`", 1, 7),
        ('name: "a', "does not end on its line", 1, 7),
        ('name: "a" name: "b"', "`name` is given twice", 1, 11),
        ("relu_param { } relu_param { }", "`relu_param` is given twice", 1, 16),
        ("\n  name 'a'", "expected `:` and the value of `name`, got `'a'`", 2, 8),
        ("relu_param 3", "expected `{` and the fields of `relu_param`, got `3`", 1, 12),
        ("relu_param {", "expected `}`, got the end of the file", 1, 13),
        ("relu_param { >", "expected a field of ReLUParameter or `}`, got `>`", 1, 14),
        ("}", "expected a field of LayerParameter, got `}`", 1, 1),
        ("bottom: ['a' 'b' 3]", "expected `,` or `]`, got `3`", 1, 18),
        ("bias_param { axis: 1.5 }", "`axis` wants a whole number, not `1.5`", 1, 20),
        ("bias_param { axis: 08 }", "`axis` wants a whole number, not `08`", 1, 20),
        ("bias_param { axis: 3x }", "`3x` is no number", 1, 20),
        ("bias_param { axis: 99999999999 }", "lies between -2147483648 and 2147483647, not 99999999999", 1, 20),
        ("tile_param { tiles: - }", "`tiles` wants a whole number, not `}`", 1, 23),
        ("accuracy_param { top_k: -1 }", "lies between 0 and 4294967295, not -1", 1, 25),
        ("loss_weight: much", "`loss_weight` wants a number, not `much`", 1, 14),
        ("propagate_down: 2", "`propagate_down` is true or false, not `2`", 1, 17),
        ("propagate_down: yes", "`propagate_down` is true or false, not `yes`", 1, 17),
        ("phase: 'TEST'", "`phase` is one of TRAIN, TEST, not `'TEST'`", 1, 8),
        (r'name: "\377"', "no text in UTF-8", 1, 7),
        ("name = 'a'", "`=` has no meaning here", 1, 6),
        ("foo: ", "expected a value, got the end of the file", 1, 6),
        ("foo", "expected `:` and a value, or `{`, got the end of the file", 1, 4),
        ("a { " * 70, "nested deeper than 64", 1, 255),
    ],
)
def test_refusals(written: str, said: str, line: int, column: int) -> None:
    with pytest.raises(text.TextError) as caught:
        layer(written)
    assert said in str(caught.value)
    assert text.position(written, caught.value.start) == (line, column)


def test_unknown_needs_a_place_to_be_kept() -> None:
    with pytest.raises(text.TextError, match="FillerParameter has no field `typ`"):
        text.read("typ: 'xavier'", caffe_pb2.FillerParameter())


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("foo: 1", [("", "foo: 1")]),
        ("foo { a: 'x' 'y' b < c: [1, -2.5f]; d: { } > }", [("", "foo { a: 'x' 'y' b { c: [1, -2.5f] d: { } } }")]),
        ("convolution_param { foo: BAR num_output: 1 }", [("convolution_param", "foo: BAR")]),
        ("include { } include { state { x: 1 } }", [("include[1]", "state { x: 1 }")]),
        (
            "convolution_param { weight_filler { foo: [{ a: 1 }] } }",
            [("convolution_param.weight_filler", "foo: [{ a: 1 }]")],
        ),
        ("pooling_param { pool: MEDIAN }", [("pooling_param", "pool: MEDIAN")]),
        ("pooling_param { pool: 7 }", [("pooling_param", "pool: 7")]),
        ("[caffe.ext.field]: 1", [("", "[caffe.ext.field]: 1")]),
        ("unknown_field { path: 'x' }", [("", "unknown_field { path: 'x' }")]),
    ],
)
def test_what_is_unknown_is_kept(written: str, kept: list[tuple[str, str]]) -> None:
    net = caffe_pb2.NetParameter()
    reading = text.read(f"layer {{ name: 'a' {written} }}", net)
    assert [(field.path, field.text) for field in net.layer[0].unknown_field] == kept
    assert len(reading.unknown) == len(kept)
    again = caffe_pb2.NetParameter()
    text.read(text.write(net), again)
    assert again == net


def test_unknown_fields_stand_where_they_stood() -> None:
    net = caffe_pb2.NetParameter()
    text.read("a: 1 layer { include { b: 2 stage: 's' } c: 3 name: 'n' } state { d: 4 }", net)
    assert text.write(net) == (
        'state {\n  d: 4\n}\nlayer {\n  name: "n"\n  include {\n    stage: "s"\n    b: 2\n  }\n  c: 3\n}\na: 1\n'
    )


def test_an_unknown_field_without_its_message_is_not_lost() -> None:
    net = caffe_pb2.NetParameter()
    net.layer.add().unknown_field.add(path="relu_param.x[1]", text="foo: 1")
    assert text.write(net) == "layer {\n  relu_param { x { foo: 1 } }\n}\n"


@pytest.mark.parametrize("path", net_files(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_as_googles_reader_where_that_reads(path: pathlib.Path) -> None:
    written = path.read_text()
    kind = caffe_pb2.SolverParameter if "solver" in path.name else caffe_pb2.NetParameter
    message = kind()
    text.read(written, message)
    try:
        assert message == text_format.Parse(written, kind())
    except text_format.ParseError:
        assert path.parent.name == "textformat_style1"
    assert text.write(message) == text_format.MessageToString(message)


def test_every_corner_at_once() -> None:
    """The golden net of corners means the same as what follows."""
    net = load(shared("golden/layers/textformat_style1") / "net.prototxt").net
    assert net == text_format.Parse(
        """
        name: "odd" force_backward: true
        layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 4 } } }
        layer { name: "conv" type: "Convolution" bottom: "x" top: "y" convolution_param {
          num_output: 3 kernel_size: 3 kernel_size: 2 pad: 1 bias_term: false
          weight_filler { type: "gaussian" std: 0.01 } } }
        layer { name: "p" type: "Pooling" bottom: "y" top: "z" pooling_param { pool: AVE kernel_size: 2 stride: 2 } }
        layer { name: "s" type: "Power" bottom: "z" top: "out" power_param { scale: -1.5 shift: 0.25 power: 1 } }
        """,
        caffe_pb2.NetParameter(),
    )


WORDS = (
    "layer layers { } < > : , ; [ ] name type relu_param negative_slope 1 -1 0x1f 07 1.5f 1e9 - # foo true TEST include"
)
ODD = ["\n", "\\", '"', "'", '"a"', "'b'", '"ReLU"', ".", "/", "=", "\0", "é", "99999999999999999999"]
PIECES = st.sampled_from([*WORDS.split(), *ODD])


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(PIECES, max_size=60))
def test_any_text_is_read_or_refused(pieces: list[str]) -> None:
    written = " ".join(pieces)
    net = caffe_pb2.NetParameter()
    try:
        text.read(written, net)
    except text.TextError as error:
        assert 0 <= error.start <= len(written)
        return
    again = caffe_pb2.NetParameter()
    text.read(text.write(net), again)
    assert again == net
