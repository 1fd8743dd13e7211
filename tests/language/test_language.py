"""What each construct of the language means."""

import pathlib

import pytest

from sparknet_dsl import Model, budget, compile_file, compile_text, expand
from sparknet_dsl.errors import ModelError
from sparknet_dsl.proto import caffe_pb2, sparknet_pb2

DATA = "data, label: RDDData([[10, 3, 32, 32], [10]])\n"


def net(body: str, before: str = "") -> Model:
    return compile_text(f"{before}\nnet N {{\n{DATA}{body}\n}}")


def layer(model: Model, name: str) -> caffe_pb2.LayerParameter:
    (found,) = [one for one in model.net.layer if one.name == name]
    return found


def wiring(model: Model) -> list[str]:
    """Every layer but the data as `bottom,bottom>name>top`."""
    return [f"{','.join(one.bottom)}>{one.name}>{','.join(one.top)}" for one in model.net.layer if one.name != "data"]


def codes(text: str, **options: object) -> list[str]:
    with pytest.raises(ModelError) as caught:
        compile_text(text, **options)
    return [found.code for found in caught.value.diagnostics if found.severity == "error"]


def test_flows_name_layers_and_tops() -> None:
    model = net("data -> a: ReLU -> b: ReLU! -> c: Softmax\nb, c -> d: Concat")
    assert wiring(model) == ["data>a>a", "a>b>a", "a>c>c", "a,c>d>d"]


def test_unlabelled_layers_are_numbered_by_type() -> None:
    assert wiring(net("data -> ReLU -> Convolution(4, 3) -> ReLU")) == [
        "data>relu1>relu1",
        "relu1>convolution1>convolution1",
        "convolution1>relu2>relu2",
    ]


def test_several_tops() -> None:
    assert wiring(net("data -> a, b: Split")) == ["data>a>a,b"]


def test_a_type_without_tops() -> None:
    assert wiring(net("data, label -> nobody: Silence")) == ["data,label>nobody>"]


def test_fields_go_where_they_belong() -> None:
    model = net("data -> a: Convolution(4, 3, pad=[1, 2], engine=CAFFE, loss_weight=2, propagate_down=[false])")
    a = layer(model, "a")
    assert (a.convolution_param.num_output, a.convolution_param.kernel_size, a.convolution_param.pad) == (
        4,
        [3],
        [1, 2],
    )
    assert a.convolution_param.engine == caffe_pb2.ConvolutionParameter.CAFFE
    assert (list(a.loss_weight), list(a.propagate_down)) == ([2], [False])


def test_escape_to_any_field() -> None:
    a = layer(
        net(
            'data -> x: ReLU(name="a", type="ReLU", top=["t"], bottom=["data"], relu_param={}, '
            'include=[{phase=TRAIN, min_level=0, not_stage=["s"]}], blobs=[{shape={dim=[2]}, data=[1, -2.5]}])'
        ),
        "a",
    )
    assert a.HasField("relu_param")
    assert (list(a.top), list(a.bottom)) == (["t"], ["data"])
    assert a.include[0] == caffe_pb2.NetStateRule(phase=caffe_pb2.TRAIN, min_level=0, not_stage=["s"])
    assert list(a.blobs[0].data) == [1, -2.5]


def test_transform_fields_of_data_layers() -> None:
    text = 'net N { data: Data("x", mirror=true, scale=0.5, data_param={scale=2}, backend=LMDB) }'
    data = compile_text(text, keep_data_layers=True).net.layer[0]
    assert (data.transform_param.mirror, data.transform_param.scale) == (True, 0.5)
    assert (data.data_param.scale, data.data_param.source) == (2, "x")


def test_param_lists_are_zipped() -> None:
    a = layer(net('data -> a: Convolution(4, 3, lr_mult=[1, 2], decay_mult=[_, 0], param_name=["w"])'), "a")
    assert list(a.param) == [
        caffe_pb2.ParamSpec(lr_mult=1, name="w"),
        caffe_pb2.ParamSpec(lr_mult=2, decay_mult=0),
    ]


def test_fillers() -> None:
    texts = ("xavier", "gaussian(0.01)", "uniform(-1, 1)", "xavier(variance_norm=AVERAGE)", '{type="msra"}')
    got = [
        layer(net(f"data -> a: Convolution(4, 3, weight_filler={text}, bias_filler=constant)"), "a") for text in texts
    ]
    assert [one.convolution_param.weight_filler for one in got] == [
        caffe_pb2.FillerParameter(type="xavier"),
        caffe_pb2.FillerParameter(type="gaussian", std=0.01),
        caffe_pb2.FillerParameter(type="uniform", min=-1, max=1),
        caffe_pb2.FillerParameter(type="xavier", variance_norm=caffe_pb2.FillerParameter.AVERAGE),
        caffe_pb2.FillerParameter(type="msra"),
    ]
    assert got[0].convolution_param.bias_filler == caffe_pb2.FillerParameter(type="constant")


def test_phases_become_include_rules() -> None:
    model = net("data -> a: ReLU @train\ndata -> b: ReLU @train @test")
    assert [rule.phase for rule in layer(model, "a").include] == [caffe_pb2.TRAIN]
    assert [rule.phase for rule in layer(model, "b").include] == [caffe_pb2.TRAIN, caffe_pb2.TEST]


def test_phases_of_a_block_use_hold_for_its_layers() -> None:
    model = net("data -> a: two() @test", "block x -> two() { x -> p: ReLU\nx -> q: ReLU @train }")
    assert [[rule.phase for rule in one.include] for one in model.net.layer[1:]] == [
        [caffe_pb2.TEST],
        [caffe_pb2.TRAIN],
    ]


def test_defaults_are_lexical() -> None:
    model = compile_text(
        f"""
        default Convolution (kernel_size=3, pad=1)
        block x -> early() {{ x -> self: Convolution(4) }}
        default Convolution (pad=2)
        net N {{
          {DATA}
          data -> a: early()
          data -> b: Convolution(4)
          default Convolution (pad=none)
          data -> c: Convolution(4)
          data -> d: Convolution(4, pad=5)
        }}
        """
    )
    assert [list(layer(model, name).convolution_param.pad) for name in "abcd"] == [[1], [2], [], [5]]


def test_none_removes_a_default() -> None:
    model = net(
        "data -> a: Convolution(4, bias_filler=none)", "default Convolution (kernel_size=3, bias_filler=constant)"
    )
    assert not layer(model, "a").convolution_param.HasField("bias_filler")


def test_blocks_prefix_labels_of_a_labelled_use() -> None:
    before = """
    block x -> inner() { x -> a: ReLU -> self: ReLU }
    block x -> outer(n) { x -> i: inner() -> b: ReLU }
    """
    assert wiring(net("data -> o: outer(1) -> last: ReLU", before)) == [
        "data>o/i/a>o/i/a",
        "o/i/a>o/i>o/i",
        "o/i>o/b>o/b",
        "o/b>last>last",
    ]


def test_an_unlabelled_use_does_not_prefix() -> None:
    before = "block x -> f(n) { x -> `c{n}`: ReLU }"
    assert wiring(net("data -> f(1) -> f(2)", before)) == ["data>c1>c1", "c1>c2>c2"]


def test_inner_labels_can_be_read_by_their_full_name() -> None:
    before = "block x -> f() { x -> a: ReLU -> b: ReLU }"
    assert wiring(net("data -> f1: f()\n`f1/a` -> c: ReLU", before))[-1] == "f1/a>c>c"


def test_blocks_with_several_inputs_and_results() -> None:
    before = "block x, y -> swap() { y, x }"
    model = net("data -> a: ReLU\ndata -> b: ReLU\na, b -> c, d: swap()\nc -> e: ReLU", before)
    assert wiring(model)[-1] == "b>e>e"


def test_parameters_have_defaults_that_see_earlier_ones() -> None:
    before = "block x -> f(n, k=n // 2, deep=k > 1) { x -> self: Convolution(n, k if deep else 1) }"
    assert layer(net("data -> a: f(6)", before), "a").convolution_param.kernel_size == [3]
    assert layer(net("data -> a: f(6, deep=false)", before), "a").convolution_param.kernel_size == [1]


def test_for_folds_the_flow() -> None:
    model = net(
        'data -> for n, k in [[4, 3], [8, 5]] { `c{n}`: Convolution(n, k) -> for u in "ab" { `r{n}{u}`: ReLU } }'
    )
    assert [line.split(">")[1] for line in wiring(model)] == ["c4", "r4a", "r4b", "c8", "r8a", "r8b"]


def test_if_chooses_a_chain() -> None:
    body = "data -> if {} {{ a: ReLU -> b: ReLU }} else {{ c: ReLU }} -> d: ReLU"
    assert wiring(net(body.format("true")))[-1] == "b>d>d"
    assert wiring(net(body.format("1 > 2 or not true")))[-1] == "c>d>d"
    assert wiring(net("data -> if false { a: ReLU } -> d: ReLU")) == ["data>d>d"]


def test_as_names_a_value_without_a_layer() -> None:
    assert wiring(net("data -> ReLU -> ReLU as x\nx -> b: ReLU"))[-1] == "relu2>b>b"


def test_expressions() -> None:
    before = """
    let three = 1 + 2 * 3 - 4
    let list = [1, 2] + [three]
    let name = "x" + str(three) + "y"
    let yes = three == 3 and not (1 >= 2) and "a" < "b" and [1] == [1] and true != false
    """
    number = 'len(list) + min(4, 2) + max(list) + int("7") % 4 + 7 // 2'
    body = f"data -> `{{name}}`: Convolution({number}, 1 if yes else 9, pad=-1 + 1)"
    conv = layer(net(body, before), "x3y").convolution_param
    assert (conv.num_output, list(conv.kernel_size), list(conv.pad)) == (3 + 2 + 3 + 3 + 3, [1], [0])


def test_interpolation_nests_and_escapes() -> None:
    assert wiring(net('data -> `a{"{"}b{1 + 1}c{"}"}`: ReLU')) == ["data>a{b2c}>a{b2c}"]


def test_strings_have_escapes() -> None:
    assert compile_text(r'net "a\n\"\\\x41\u00e9" { data: Input([1]) }').net.name == 'a\n"\\Aé'


def test_options_take_values_from_outside() -> None:
    text = """
    option n = 4
    option on = true
    option s = "x"
    net N { data: Input([n, 2]) -> `{s}`: ReLU -> if on { r: ReLU } }
    """
    assert compile_text(text).net.layer[0].input_param.shape[0].dim == [4, 2]
    model = compile_text(text, defines={"n": "7", "on": "false", "s": "y"})
    assert model.net.layer[0].input_param.shape[0].dim == [7, 2]
    assert [one.name for one in model.net.layer] == ["data", "y"]
    assert codes(text, defines={"m": "7"}) == ["S112"]


def test_net_fields() -> None:
    model = compile_text('net N (force_backward=true, state={phase=TRAIN, stage="s"}) { data: Input([1, 2]) }')
    assert model.net.force_backward
    assert model.net.state == caffe_pb2.NetState(phase=caffe_pb2.TRAIN, stage=["s"])


def test_solver_and_spark() -> None:
    model = compile_text(
        f"""net N {{ {DATA} data -> ip: InnerProduct(10) ip, label -> loss: SoftmaxWithLoss }}
        solver (base_lr=0.1, lr_policy="multistep", gamma=0.5, stepvalue=[10, 20], type="Adam", solver_mode=CPU)
        spark (tau=7, momentum=RESET, seed=3)"""
    )
    assert model.solver == caffe_pb2.SolverParameter(
        base_lr=0.1,
        lr_policy="multistep",
        gamma=0.5,
        stepvalue=[10, 20],
        type="Adam",
        solver_mode=caffe_pb2.SolverParameter.CPU,
    )
    assert model.spark == sparknet_pb2.SparkParameter(tau=7, momentum=sparknet_pb2.SparkParameter.RESET, seed=3)


def test_import_brings_blocks(tmp_path: pathlib.Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "a.snet").write_text('import "b.snet" as b\nlet n = 4\nblock x -> f() { x -> b.g(n) }')
    (tmp_path / "parts" / "b.snet").write_text("block x -> g(n) { x -> c: Convolution(n, 1) }")
    main = tmp_path / "main.snet"
    main.write_text(f'import "parts/a.snet" as parts\nnet N {{ {DATA} data -> u: parts.f() }}')
    assert wiring(compile_file(main)) == ["data>u/c>u/c"]


@pytest.mark.parametrize("path", ["../x.snet", "/etc/hostname", "a/../../x.snet", ""])
def test_imports_stay_in_the_folder(tmp_path: pathlib.Path, path: str) -> None:
    (tmp_path / "x.snet").write_text("block x -> f() { x -> ReLU }")
    folder = tmp_path / "inside"
    folder.mkdir()
    main = folder / "main.snet"
    main.write_text(f'import "{path}" as x\nnet N {{ data: Input([1]) }}')
    with pytest.raises(ModelError, match="outside the folder"):
        compile_file(main)


def test_circular_imports_end(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.snet").write_text('import "b.snet" as b\nnet N { data: Input([1]) }')
    (tmp_path / "b.snet").write_text('import "a.snet" as a')
    with pytest.raises(ModelError, match="imports itself"):
        compile_file(tmp_path / "a.snet")


def test_replace_set_drop(tmp_path: pathlib.Path) -> None:
    (tmp_path / "base.prototxt").write_text(
        """
        name: "base" input: "data" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }
        layer { name: "c" type: "Convolution" bottom: "data" top: "c"
                convolution_param { num_output: 4 kernel_size: 3 } }
        layer { name: "r" type: "ReLU" bottom: "c" top: "c" }
        layer { name: "s" type: "Softmax" bottom: "c" top: "s" }
        """
    )
    main = tmp_path / "main.snet"
    main.write_text(
        """net N from "base.prototxt" {
          drop s
          set c (num_output=5, lr_mult=[1, 2])
          replace input { data: Input([2, 3, 8, 8]) }
          r -> ip: InnerProduct(7)
        }"""
    )
    model = compile_file(main)
    assert wiring(model) == ["data>c>c", "c>r>c", "c>ip>ip"]
    assert model.net.layer[0].input_param.shape[0].dim == [2, 3, 8, 8]
    assert layer(model, "c").convolution_param == caffe_pb2.ConvolutionParameter(num_output=5, kernel_size=[3])
    main.write_text('net N from "base.prototxt" { drop sofmax }')
    with pytest.raises(ModelError, match="no layer `sofmax`"):
        compile_file(main)


def test_in_place_in_one_phase_only() -> None:
    model = net(
        "data -> ip: InnerProduct(10) -> d: Dropout! @train\nip -> a: Softmax @test\nd -> b: InnerProduct(2) @train"
    )
    assert wiring(model)[-2:] == ["ip>a>a", "ip>b>b"]
    assert codes(f"net N {{ {DATA} data -> ip: InnerProduct(10) -> d: Dropout! @train\nip -> a: ReLU }}") == ["S204"]


def test_reading_a_blob_before_it_is_overwritten() -> None:
    body = "data -> c: Convolution(4, 3)\nc -> d: Convolution(4, 3)\nc -> r: ReLU!"
    assert codes(f"net N {{ {DATA} {body} }}") == ["S206"]


def doubling(first: str, step: str) -> str:
    """A `let` and twenty more, each made of the one before it."""
    return f"let v0 = {first}\n" + "\n".join(f"let v{i} = {step.replace('x', f'v{i - 1}')}" for i in range(1, 21))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("let x = " + "(" * 100 + "1" + ")" * 100, "S003"),
        ("let x = " + "- " * 100 + "1", "S003"),
        ("let x = " + "9" * 50, "S004"),
        ("let x = 1e999", "S004"),
        ("let x = range(1000000000)", "S004"),
        ("let x = range(-9000000000000000000, 9000000000000000000)", "S004"),
        ("let x = 9000000000000000000 * 2", "S004"),
        (doubling("[1, 2]", "x + x"), "S004"),
        (doubling('"aa"', "x + x"), "S004"),
        (doubling("[0]", "[x, x]"), "S004"),
    ],
)
def test_programs_are_bounded(text: str, code: str) -> None:
    assert codes(text + "\nnet N { data: Input([1]) }")[0] == code


def test_the_number_of_layers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expand, "MAX_LAYERS", 1000)
    text = "net N { data: Input([1])\ndata -> for i in range(400) { for j in range(400) { `r{i}_{j}`: ReLU } } }"
    assert codes(text) == ["S006"]


def test_empty_work_is_bounded() -> None:
    blocks = ["block x -> b0() { x }"] + [
        f"block x -> b{i}() {{ x -> b{i - 1}() -> b{i - 1}() }}" for i in range(1, 40)
    ]
    assert codes("\n".join(blocks) + "\nnet N { data: Input([1])\ndata -> b39() }") == ["S006"]


def test_a_longer_text_may_make_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "BASE", 20_000)
    monkeypatch.setattr(budget, "FREE_CHARACTERS", 200)
    text = "net N { data: Input([1])\ndata -> for i in range(300) { `r{i}`: ReLU } }"
    assert codes(text) == ["S006"]
    assert len(compile_text(text + "# a comment" * 100).net.layer) == 301


def test_deep_blocks_are_bounded() -> None:
    blocks = ["block x -> b0() { x }"] + [f"block x -> b{i}() {{ x -> b{i - 1}() }}" for i in range(1, 200)]
    assert codes("\n".join(blocks) + "\nnet N { data: Input([1])\ndata -> b199() }") == ["S003"]


def test_a_long_chain_of_conditions_is_no_nesting() -> None:
    chain = "".join(f"{i} if n == {i} else " for i in range(3000))
    assert compile_text(f"let n = 2999\nlet x = {chain}0\nnet N {{ data: Input([x]) }}").net.layer[0].input_param.shape[
        0
    ].dim == [2999]
