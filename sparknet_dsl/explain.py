"""The catalogue of diagnostics: what each code means and what to do, for `sparknet-compile --explain CODE`."""

CATALOGUE: dict[str, str] = {
    # The text itself
    "S001": (
        "The text does not follow the grammar. What stands behind `expected` would have been right. "
        "Compilation goes on with the next statement, so that one run shows every such error."
    ),
    "S002": (
        "A character, a string or an escape is wrong: strings take double quotes and end on their line, "
        "comments begin with `#`, statements end without a `;`."
    ),
    "S003": (
        "Brackets, signs, blocks or messages are nested too deeply. Give inner parts a name with `let` or `block`."
    ),
    "S004": "A number, a list, a string or a file is larger than the compiler accepts.",
    "S005": (
        "A file cannot be read, holds something else than what is wanted, or lies outside the folder of "
        "the file that names it: a model that someone else wrote must not read any file of your machine."
    ),
    "S006": (
        "The net is too large. Every program ends, but blocks in blocks in loops multiply, and a few lines could keep "
        "the machine busy for hours: a text of up to 10,000 characters may make about 10,000 layers, or 700,000 items "
        "of lists; a longer text more, in proportion, up to 100,000 layers. The notes show the block uses that led to "
        "the place."
    ),
    # Names and fields
    "S101": (
        "No layer type and no block has this name. Types are spelled as in Caffe (Convolution, "
        'InnerProduct, ReLU); a type that the engine does not have is written Layer(type="Name").'
    ),
    "S103": "A block was used with a parameter that it does not have, or without one that it needs.",
    "S104": (
        "The message has no field of this name. A layer's fields are looked up in its own message "
        "(convolution_param for Convolution), then, for data layers, in transform_param, for losses in "
        "loss_param, then in LayerParameter. In a file of Caffe's it is a warning: forks have fields of their own. "
        "The field is kept and written out again; Caffe refuses the file, and so does training."
    ),
    "S105": ("The field wants another kind of value: a whole number, true or false, a string, a list, a record."),
    "S106": (
        "The field takes one of a few names, written without quotes: pool=MAX, backend=LMDB, weight_filler=xavier. "
        "In a file of Caffe's another name is a warning: it is kept and written out again, and training refuses it."
    ),
    "S107": ('Phases are @train, @test and @deploy. Stages and levels are written out: include=[{stage="val"}].'),
    "S108": (
        "More values are given by position than the type or block takes. Convolution(20, 5) is "
        "num_output and kernel_size; all else is written name=value."
    ),
    "S109": "A field is given twice, by position and by name, or by two names that mean the same list.",
    "S110": "A warning: the layer's type does not read this message. Caffe accepts and ignores it.",
    "S111": "A name is defined twice, or is that of a layer type or a function.",
    "S112": "-D gives a value to something that the file does not declare with `option`.",
    "S113": "A block sees only the blocks above it, so that none can use itself. Move the definition up.",
    "S114": (
        "An expression does not work out: a number where a string is wanted, a division by zero, a "
        "condition that is neither true nor false, names that do not match a list's items."
    ),
    "S115": "Files import each other in a circle, or too deeply.",
    "S116": "`self` is the name of a block's use: the use needs a label, name: block(...).",
    # The graph
    "S201": (
        "No value of this name exists here. Labels are values once their statement has run; a block sees "
        "only its inputs and its own labels."
    ),
    "S202": ("The layer or block takes another number of bottoms. SoftmaxWithLoss takes two: scores and labels."),
    "S203": "The layer or block makes another number of tops than there are labels.",
    "S204": (
        "The value was overwritten: `conv1 -> relu1: ReLU!` writes over conv1, and from there on relu1 is its name."
    ),
    "S205": ("This type cannot write over its bottom: its output has another shape, or it needs its input again."),
    "S206": (
        "The layer would write over something that another layer reads again in its backward pass. Caffe "
        "trains on with wrong gradients (BVLC/caffe#2853)."
    ),
    "S207": ("Two layers or values of one name are active in the same phase. Weights are stored by layer name."),
    "S208": "A layer is active in a phase in which a blob that it reads does not exist.",
    "S209": "A warning: nothing reads this value, so the net gives it as an output.",
    "S210": (
        "A warning: nothing reads this block, `let`, `option`, `default` or import. A `default` reaches from its place "
        "to the end of the brace or file that it stands in: one that stands too low, or names the wrong type, changes "
        "nothing."
    ),
    # Shapes and parameters
    "S301": ("The layer refuses the shapes that it gets. The notes show them and the lines that they come from."),
    "S302": "Concat joins blobs along one axis; they must agree along all others.",
    "S303": (
        "The kernel is larger than the padded input. The note shows how the size shrank on the way from the data."
    ),
    "S304": (
        "Eltwise works element by element, so its bottoms must agree. A 1x1 convolution brings channels together."
    ),
    "S305": (
        "lr_mult, decay_mult, param_name and share_mode have one entry for each parameter of the layer: weights, bias."
    ),
    "S306": ("Layers that share a parameter by name must agree on its shape (unless share_mode is PERMISSIVE)."),
    "S307": "`is` states a shape that the value does not have.",
    "S308": (
        "Nothing says what shape the data has. State it with `is [_, 3, 227, 227]` behind the data "
        "layer, or name the data with --train and --test."
    ),
    "S309": "A field that the layer needs is missing, or has a value that the layer refuses.",
    "S310": "The data source's rows have another shape than the file states.",
    "S311": "A warning: the engine has no such layer type. The compiled files keep it; training refuses it.",
    # The solver
    "S401": "The solver lacks a field, or a field has a value that cannot work.",
    "S402": "The solver tests a net that has nothing to test with, or does not say how long.",
    "S403": "No lr_policy, or no solver type, has this name.",
    "S404": (
        "There is no net to train: the solver names none, or a file that is not there. It is looked for from the "
        "working directory, as Caffe does, from the solver's folder, and there by its base name. For load() in "
        "Python it is a warning."
    ),
}


def explain(code: str) -> str | None:
    """The explanation of a code, wrapped for a terminal; None for a code that does not exist."""
    import textwrap

    meaning = CATALOGUE.get(code.upper())
    return None if meaning is None else textwrap.fill(f"{code.upper()}: {meaning}", width=100)
