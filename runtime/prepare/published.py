"""The data sets that `sparknet-data get` fetches: their files, where they lie, and their published checksums."""

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class File:
    """A file of a data set.

    name      as it is published
    md5       of the file, as the data set's page has it
    unpacked  MD5 of what is in a .gz, "" where it is not known: copies that somebody packed again count, too
    members   of a .tar.gz, the files in it that are kept
    """

    name: str
    md5: str
    unpacked: str = ""
    members: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A data set: where it is described, folders (URLs) with its files, tried one after the other, and its source.

    `account`: the page gives its files only to those who sign in, so they are checked, not fetched.
    """

    title: str
    page: str
    mirrors: Sequence[str]
    files: Sequence[File]
    scheme: str
    account: bool = False


def _idx(*md5: str, unpacked: Sequence[str] = ("", "", "", "")) -> tuple[File, ...]:
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return tuple(
        File(f"{name}-ubyte.gz", packed, plain) for name, packed, plain in zip(names, md5, unpacked, strict=True)
    )


DATA_SETS = {
    "mnist": DataSet(
        "MNIST: 70,000 handwritten digits, 28×28, 10 classes",
        "http://yann.lecun.com/exdb/mnist/",
        ("https://ossci-datasets.s3.amazonaws.com/mnist", "https://storage.googleapis.com/cvdf-datasets/mnist"),
        _idx(
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "d53e105ee54ea40749a09fcbcd1e9432",
            "9fb629c4189551a2d022fa330f9573f3",
            "ec29112dd5afa0611ce80d1b7f02629c",
            unpacked=(
                "6bbc9ace898e44ae57da46a324031adb",
                "a25bea736e30d166cdddb491f175f624",
                "2646ac647ad5339dbf082846283269ea",
                "27ae3e4e09519cfbb04c329615203637",
            ),
        ),
        "mnist",
    ),
    "fashion-mnist": DataSet(
        "Fashion-MNIST: 70,000 pieces of clothing, 28×28, 10 classes",
        "https://github.com/zalandoresearch/fashion-mnist",
        ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",),
        _idx(
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "25c81989df183df01b3e8a0aad5dffbe",
            "bef4ecab320f06d8554ea6380940ec79",
            "bb300cfdad3c16e7a12a480ee83cd310",
        ),
        "mnist",
    ),
    "kmnist": DataSet(
        "Kuzushiji-MNIST: 70,000 cursive Japanese characters, 28×28, 10 classes",
        "http://codh.rois.ac.jp/kmnist/",
        ("http://codh.rois.ac.jp/kmnist/dataset/kmnist",),
        _idx(
            "bdb82020997e1d708af4cf47b453dcf7",
            "e144d726b3acfaa3e44228e80efcd344",
            "5c965bf0a639b31b8f53240b1b52f4d7",
            "7320c461ea6c1c855c0b718fb2a4b134",
        ),
        "mnist",
    ),
    "cifar10": DataSet(
        "CIFAR-10: 60,000 colour images, 32×32, 10 classes",
        "https://www.cs.toronto.edu/~kriz/cifar.html",
        ("https://www.cs.toronto.edu/~kriz",),
        (
            File(
                "cifar-10-binary.tar.gz",
                "c32a1d4ab5d03f1284b67883e8d87530",
                members=[
                    f"cifar-10-batches-bin/{name}"
                    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin", "batches.meta.txt")
                ],
            ),
        ),
        "cifar10",
    ),
    "cifar100": DataSet(
        "CIFAR-100: 60,000 colour images, 32×32, 100 classes",
        "https://www.cs.toronto.edu/~kriz/cifar.html",
        ("https://www.cs.toronto.edu/~kriz",),
        (
            File(
                "cifar-100-binary.tar.gz",
                "03b5dce01913d631647c71ecec9e9cb8",
                members=[
                    f"cifar-100-binary/{name}"
                    for name in ("train.bin", "test.bin", "fine_label_names.txt", "coarse_label_names.txt")
                ],
            ),
        ),
        "cifar100",
    ),
    "imagenet": DataSet(
        "ImageNet (ILSVRC 2012): 1.28 million images, 1,000 classes",
        "https://image-net.org/download-images",
        (),
        (
            File("ILSVRC2012_img_train.tar", "1d675b47d978889d74fa0da5fadfb00e"),
            File("ILSVRC2012_img_val.tar", "29b22e2961454d5413ddabcf34fc5622"),
        ),
        "imagenet",
        account=True,
    ),
}
